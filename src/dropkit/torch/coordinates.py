"""Which draw a dropout call gets: from its arguments, from `at`, from its bound model, or from torch's generator.

The rules, first match wins, for each coordinate by itself:

1. what is passed to the call (`key`, `rows`, `offset`, `global_shape`);
2. what the innermost `with at(...)` says;
3. what a bound model says: its seed, the site's module path, the step of its clock;
4. unbound calls are *ambient*: a fresh key from torch's default generator, as `torch.nn.Dropout` would draw.

An ambient call has no seed, site or step of its own, so an `at` that sets any of them must set seed and site.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import torch

from .. import choice
from ..counter import FOLD_ROUNDS, MASK32, Key, philox4x32, site_id, split_product
from ..errors import DropkitRuntimeError, DropkitTypeError, DropkitValueError
from . import cuda
from .replay import Draw, Words

_fold = choice.fold()


class Site(Protocol):
    """A dropout of a bound model, as far as drawing needs to know it."""

    def words(self, at: "Coordinates") -> Words:
        """The key words of this call."""


@dataclass(frozen=True, slots=True)
class Coordinates:
    """What `at` sets; None is left as it is."""

    seed: int | None = None
    site: int | str | None = None
    step: int | None = None
    rows: torch.Tensor | None = None
    offset: tuple[int, ...] | None = None
    global_shape: tuple[int, ...] | None = None


_NOTHING = Coordinates()
_current: ContextVar[Coordinates] = ContextVar("dropkit_coordinates", default=_NOTHING)


@contextmanager
def at(
    *,
    seed: int | None = None,
    site: int | str | None = None,
    step: int | None = None,
    rows: torch.Tensor | Sequence[int] | None = None,
    offset: Sequence[int] | None = None,
    global_shape: Sequence[int] | None = None,
) -> Iterator[None]:
    """Set coordinates by hand for every dropout inside the block; what is left out stays as it is.

    Args:
        seed, site, step: coordinates of the key. Under a given step a bound model's clock stands still.
        rows: row number in the data set of each sample of the batch (axis 0), int64 tensor or sequence of ints.
        offset, global_shape: where the tensors in the block lie in the whole.

    Raises:
        DropkitValueError, DropkitTypeError: numbers outside [0, 2**64), rows that are no whole numbers.

    Nested blocks add up; the inner one wins. Works for bound models, for calls with a key (rows, offset and
    global_shape only) and, with seed and site, for unbound calls.

    >>> from dropkit.torch import Dropout
    >>> drop, x = Dropout(0.5), torch.ones(2, 8)
    >>> with at(seed=1, site="drop", step=3):
    ...     first, second = drop(x), drop(x)
    >>> torch.equal(first, second)
    True
    """
    Key(0 if seed is None else seed, 0 if site is None else site, 0 if step is None else step)  # validates
    given = Coordinates(
        seed,
        site,
        step,
        None if rows is None else row_numbers(rows),
        None if offset is None else tuple(offset),
        None if global_shape is None else tuple(global_shape),
    )
    set_here = {f.name: value for f in fields(given) if (value := getattr(given, f.name)) is not None}
    before = current()
    _set_current(replace(before, **set_here))
    try:
        yield
    finally:
        _set_current(before)


class _Visible:
    """The same for compilers, which cannot look into a context variable; they look here, and guard on it."""

    coordinates = _NOTHING


def current() -> Coordinates:
    """What the enclosing `at` blocks say."""
    return _Visible.coordinates if torch.compiler.is_compiling() else _current.get()


def _set_current(coordinates: Coordinates) -> None:
    _Visible.coordinates = coordinates
    if not torch.compiler.is_compiling():
        _current.set(coordinates)


def draw_for(
    rate: Any,
    *,
    key: Key | None = None,
    site: Site | None = None,
    offset: Sequence[int] | None = None,
    global_shape: Sequence[int] | None = None,
    rows: torch.Tensor | Sequence[int] | None = None,
) -> Draw:
    """The draw of one call, by the rules above."""
    here = current()
    if here is _NOTHING and offset is None and global_shape is None and rows is None:
        return Draw(_key_words(key, site, here), rate)
    return Draw(
        _key_words(key, site, here),
        rate,
        here.offset if offset is None else tuple(offset),
        here.global_shape if global_shape is None else tuple(global_shape),
        here.rows if rows is None else row_numbers(rows),
    )


def _key_words(key: Key | None, site: Site | None, here: Coordinates) -> Words:
    if key is not None:
        return words_of(key.seed, key.site, key.step)
    if site is not None:
        return site.words(here)
    if here.seed is None and here.site is None and here.step is None:
        return _ambient()
    if here.seed is None or here.site is None:
        raise DropkitRuntimeError(
            f"at(seed={here.seed!r}, site={here.site!r}, step={here.step!r}) around a dropout that is not bound: "
            "give both seed and site, or name the model's sites once with dropkit.torch.bind(model)"
        )
    return words_of(here.seed, here.site, here.step or 0)


def words_of(seed: int | torch.Tensor, site: int | str, step: int | torch.Tensor) -> Words:
    """The folded key; under a compiler by tensor arithmetic, so that a new step is new data and not new code."""
    if not torch.compiler.is_compiling():
        if isinstance(step, torch.Tensor):  # a CUDA graph is being captured: the kernel folds what it finds at replay
            return cuda.stored_key(_like(seed, step), site_id(site), step)
        return _fold(seed, site_id(site), step)  # type: ignore[arg-type]
    number = _constant_site_id(site)
    seed_words, step_words = _halves(seed), _halves(step)
    k0, k1, _, _ = philox4x32((number & MASK32, number >> 32, *step_words), seed_words, FOLD_ROUNDS, split_product)
    return torch.stack([k0, k1])


_constant_site_id = torch.compiler.assume_constant_result(site_id)  # hashing a name is nothing to trace


def _like(value: int | torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value
    return torch.full((), value - (1 << 64) if value >> 63 else value, dtype=torch.int64, device=other.device)


def _halves(value: int | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    value = _like(value, torch.empty(0))
    return value & MASK32, (value >> 32) & MASK32


_local = threading.local()


def _ambient() -> Words:
    """A key from torch's default CPU generator, whatever the device: reading it never waits for an accelerator."""
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0:
        return torch.randint(0, 1 << 32, (2,), dtype=torch.int64, device="cpu")  # values are not to be had here
    if cuda.capturing():
        raise DropkitRuntimeError(
            "an ambient dropout in a CUDA graph would replay one mask for ever: bind the model with "
            "dropkit.torch.bind, whose step lives on the device and advances at each replay"
        )
    try:
        buffer = _local.buffer
    except AttributeError:
        with torch.inference_mode(False):
            buffer = _local.buffer = torch.empty(2, dtype=torch.int64, device="cpu")
    k0, k1 = buffer.random_(0, 1 << 32).tolist()  # into a tensor that is there: a third of the time of a new one
    return k0, k1


def row_numbers(rows: torch.Tensor | Sequence[int]) -> torch.Tensor:
    """Rows as an int64 tensor, checked where that needs no wait for a device."""
    numbers = torch.as_tensor(rows)
    if numbers.dtype.is_floating_point or numbers.dtype.is_complex or numbers.dtype == torch.bool:
        raise DropkitTypeError(f"rows must hold whole numbers, got dtype {numbers.dtype}")
    if numbers.dim() != 1:
        raise DropkitValueError(
            f"rows must be one-dimensional, a number for each sample; got shape {tuple(numbers.shape)}"
        )
    visible = numbers.device.type == "cpu" and not torch.compiler.is_compiling()
    if visible and numbers.numel() and int(numbers.min()) < 0:
        raise DropkitValueError(f"rows must not be negative, got {int(numbers.min())}")
    return numbers.to(torch.int64)
