"""Which draw a dropout call gets: from its arguments, from `at`, from its bound model, or from torch's generator.

The rules, first match wins, for each coordinate by itself:

1. what is passed to the call (`key`, `rows`, `offset`, `global_shape`);
2. what the innermost `with at(...)` says;
3. what a bound model says: its seed, the site's module path, the step of its clock;
4. unbound calls are *ambient*: a fresh key from torch's default generator, as `torch.nn.Dropout` would draw.

An ambient call has no seed, site or step of its own, so an `at` that sets any of them must set seed and site.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import torch

from ..counter import Key
from ..errors import DropkitRuntimeError, DropkitTypeError, DropkitValueError
from .replay import Draw


class Site(Protocol):
    """A dropout of a bound model, as far as drawing needs to know it."""

    def words(self, at: "Coordinates") -> torch.Tensor:
        """The key words of this call, int64 pair."""


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
    token = _current.set(replace(_current.get(), **set_here))
    try:
        yield
    finally:
        _current.reset(token)


def current() -> Coordinates:
    """What the enclosing `at` blocks say."""
    return _current.get()


def draw_for(
    p: Any,
    *,
    key: Key | None = None,
    site: Site | None = None,
    offset: Sequence[int] | None = None,
    global_shape: Sequence[int] | None = None,
    rows: torch.Tensor | Sequence[int] | None = None,
) -> Draw:
    """The draw of one call, by the rules above."""
    here = _current.get()
    return Draw(
        _key_words(key, site, here),
        p,
        here.offset if offset is None else tuple(offset),
        here.global_shape if global_shape is None else tuple(global_shape),
        here.rows if rows is None else row_numbers(rows),
    )


def _key_words(key: Key | None, site: Site | None, here: Coordinates) -> torch.Tensor:
    if key is not None:
        return key_tensor(*key.words)
    if site is not None:
        return site.words(here)
    if here.seed is None and here.site is None and here.step is None:
        # The CPU generator, whatever the device: reading it never waits for an accelerator.
        return torch.randint(0, 1 << 32, (2,), dtype=torch.int64, device="cpu")
    if here.seed is None or here.site is None:
        raise DropkitRuntimeError(
            f"at(seed={here.seed!r}, site={here.site!r}, step={here.step!r}) around a dropout that is not bound: "
            "give both seed and site, or name the model's sites once with dropkit.torch.bind(model)"
        )
    return key_tensor(*Key(here.seed, here.site, here.step or 0).words)


def key_tensor(k0: int, k1: int) -> torch.Tensor:
    """The two key words as the 16 bytes that are saved for backward."""
    return torch.tensor((k0, k1), dtype=torch.int64)


def row_numbers(rows: torch.Tensor | Sequence[int]) -> torch.Tensor:
    """Rows as an int64 tensor, checked where that needs no wait for a device."""
    numbers = torch.as_tensor(rows)
    if numbers.dtype.is_floating_point or numbers.dtype.is_complex or numbers.dtype == torch.bool:
        raise DropkitTypeError(f"rows must hold whole numbers, got dtype {numbers.dtype}")
    if numbers.dim() != 1:
        raise DropkitValueError(
            f"rows must be one-dimensional, a number for each sample; got shape {tuple(numbers.shape)}"
        )
    if numbers.device.type == "cpu" and numbers.numel() and int(numbers.min()) < 0:
        raise DropkitValueError(f"rows must not be negative, got {int(numbers.min())}")
    return numbers.to(torch.int64)
