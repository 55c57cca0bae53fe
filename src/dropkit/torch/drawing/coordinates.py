"""Which draw a dropout call gets: from its arguments, from `at`, from its bound model, or from torch's generator.

The rules, first match wins, for each coordinate by itself:

1. what is passed to the call (`key`, `rows`, `offset`, `global_shape`);
2. what the innermost `with at(...)` says;
3. what a bound model says: its seed, the site's module path, the step of its clock;
4. unbound calls are *ambient*: a fresh key from torch's default generator, as `torch.nn.Dropout` would draw.

An ambient call has no seed, site or step of its own, so an `at` that sets any of them must set seed and site.
"""

import operator
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import torch

from ... import choice
from ...counter import Key, site_id
from ...errors import DropkitRuntimeError, DropkitTypeError, DropkitValueError
from ...place import WHOLE, Part
from ...turns import in_pass
from ..arithmetic import cuda, registered, transforms
from ..draw import Draw, Unfolded, Words
from . import ranks, recomputation
from .lanes import InLanes, Lanes

_fold = choice.fold()


Split = tuple[tuple[int, int, int], ...]  # (axis, index, count): piece `index` of `count` equal ones along the axis


_current: ContextVar["Coordinates"] = ContextVar("dropkit_coordinates")


class Site(Protocol):
    """A dropout that has a name or a place, as far as drawing needs to know it."""

    def split(self, at: "Coordinates") -> Split:
        """How the tensors of this call are split over processes."""

    def words(self, at: "Coordinates") -> Words:
        """The key words of this call."""

    def seen(self, x: torch.Tensor) -> None:
        """x is about to be dropped, on one of several processes."""


@dataclass(frozen=True, slots=True)
class Coordinates:
    """What `at` sets; None is left as it is."""

    seed: int | None = None
    site: int | str | None = None
    step: int | None = None
    rows: torch.Tensor | None = None
    offset: tuple[int, ...] | None = None
    global_shape: tuple[int, ...] | None = None
    split: Split | None = None
    together: frozenset[int] | None = None  # the ranks of a tensor that knows which part it is
    turn: int | None = None  # which of several passes at one step
    lanes: Lanes | None = None  # several passes in one batch
    lane: int | None = None  # which of them draws


class _Nothing(Coordinates):
    """No coordinates, and the door through which compiled code sees those of its thread and task.

    A compiler can read an attribute that a property written in C computes, and guards on what it reads: here the method
    of the context variable, to which the object is the default. It is asked again at each call.
    """

    __slots__ = ()
    here = property(_current.get)


_NOTHING = _Nothing()


@contextmanager
def at(
    *,
    seed: int | None = None,
    site: int | str | None = None,
    step: int | None = None,
    rows: torch.Tensor | Sequence[int] | None = None,
    offset: Sequence[int] | None = None,
    global_shape: Sequence[int] | None = None,
    split: Mapping[int, tuple[int, int]] | None = None,
) -> Iterator[None]:
    """Set coordinates by hand for every dropout inside the block; what is left out stays as it is.

    Args:
        seed, site, step: coordinates of the key. Under a given step a bound model's clock stands still.
        rows: row number in the data set of each sample of the batch (axis 0), int64 tensor or sequence of ints.
        offset, global_shape: where the tensors in the block lie in the whole.
        split: axis -> (index, count): the tensors in the block are piece `index` of `count` equal ones along that
            axis, whatever their other axes are. {0: (rank, ranks)} is a batch split over ranks, {1: (rank, ranks)} a
            sequence of batch x time x features. It overrules what is known of those axes from elsewhere, as from a
            data-parallel wrapper; a given global_shape overrules it, and rows do for axis 0.

    Raises:
        DropkitValueError, DropkitTypeError: numbers outside [0, 2**64), rows that are no whole numbers, a split whose
            index does not lie in [0, count).

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
        None if split is None else pieces(split),
    )
    set_here = {f.name: value for f in fields(given) if (value := getattr(given, f.name)) is not None}
    before = current()
    if given.split is not None:
        set_here["split"] = _over(given.split, before.split or ())
    outside = enter(replace(before, **set_here))
    try:
        yield
    finally:
        leave(outside)


def in_this_turn(site: int | str, at: Coordinates) -> int | str:
    """The site's name in the pass that runs."""
    return in_pass(site, at.turn)


class _Traced(threading.local):
    """What an `at` inside compiled code says while that runs: a compiler cannot set a context variable."""

    def __init__(self) -> None:  # for each thread: an attribute of the class would be another thing to a compiler
        self.coordinates: Coordinates | None = None


_traced = _Traced()
_is_compiling = torch.compiler.is_compiling  # asked at every draw


def current() -> Coordinates:
    """What the enclosing `at` blocks say, in this thread and task."""
    if _is_compiling():
        return _NOTHING.here if _traced.coordinates is None else _traced.coordinates
    return _current.get(_NOTHING)


def enter(coordinates: Coordinates) -> Coordinates | None:
    """Make these the current ones; gives what `leave` takes to undo it."""
    if torch.compiler.is_compiling():
        outside = _traced.coordinates
        _traced.coordinates = coordinates
        return outside
    before = current()
    _current.set(coordinates)
    return before


def leave(outside: Coordinates | None) -> None:
    if torch.compiler.is_compiling():
        _traced.coordinates = outside
    else:
        _current.set(outside or _NOTHING)


def draw_for(lowered: Any, *, key: Key | None = None, site: Site | None = None, part: Part = WHOLE) -> Draw:
    """The draw of one call, by the rules above; in a recomputed forward, the one that it had."""
    if recomputation.never_repeated():
        return _draw_here(lowered, key, site, part)
    here = current()
    if key is not None:
        took_place = (
            (part.offset is None and here.offset is not None)
            or (part.global_shape is None and (here.global_shape is not None or here.split is not None))
            or (part.rows is None and here.rows is not None)
        )
        return recomputation.keyed(_draw_here(lowered, key, site, part), took_place)
    stated = here.seed is not None and here.site is not None and (site is None or here.step is not None)
    return recomputation.draw(lambda: _draw_here(lowered, key, site, part), stated)


def _draw_here(lowered: Any, key: Key | None, site: Site | None, part: Part) -> Draw:
    """The draw of a call by what is said now."""
    here = current()
    if here.lanes is not None:
        here.lanes.heard(site)
        if here.lanes.apart:
            raise InLanes(here.lanes)
    split = () if site is None else site.split(here)
    words = _key_words(key, site, here)
    if here is _NOTHING and not split and part.rows is None and part == WHOLE:
        return Draw(words, lowered)
    offset = here.offset if part.offset is None else part.offset
    global_shape = here.global_shape if part.global_shape is None else part.global_shape
    rows = here.rows if part.rows is None else row_numbers(part.rows)
    if global_shape is not None:
        split = ()
    elif here.split is not None:
        split = _over(here.split, split)
    if rows is not None:
        split = tuple(piece for piece in split if piece[0] != 0)
    return Draw(words, lowered, Part(offset, global_shape, rows, split))


def _over(upper: Split, lower: Split) -> Split:
    """Both, where the upper one says all of the axes that it names."""
    named = {axis for axis, _, _ in upper}
    return (*upper, *(piece for piece in lower if piece[0] not in named))


def draw_together(fresh: Callable[[Any], Draw], lowered: Any, ranks_of_parts: frozenset[int]) -> Draw:
    """`fresh(lowered)` for a tensor whose parts lie on these ranks, all of which have to draw alike."""
    outside = enter(replace(current(), together=ranks_of_parts))
    try:
        return fresh(lowered)
    finally:
        leave(outside)


def not_covered(pieces: Iterable[ranks.Piece], at: Coordinates) -> Split:
    """The split that these pieces make of a tensor, but for what the tensor at hand knows by itself."""
    known = at.together or ()
    return tuple(piece[:3] for piece in pieces if piece.parts > 1 and not piece.ranks.issubset(known))


@dataclass(frozen=True, slots=True)
class Sharded:
    """The site of a dropout that is not bound and whose tensors are split over processes."""

    pieces: tuple[ranks.Piece, ...] = ()

    def split(self, at: Coordinates) -> Split:
        """How the tensors of this call are split over processes."""
        return not_covered(self.pieces, at)

    def words(self, at: Coordinates) -> Words:
        """Key words as for any dropout that is not bound; all who hold a piece have to draw alike."""
        if at.together is None:
            at = replace(at, together=frozenset().union(*(piece.ranks for piece in self.pieces)))
        return _key_words(None, None, at)

    def seen(self, x: torch.Tensor) -> None:
        """Nothing more is known of such a dropout."""


def pieces(split: Mapping[int, tuple[int, int]]) -> Split:
    """A split as triples, checked."""
    triples = []
    for axis, piece in split.items():
        try:
            index, count = map(operator.index, piece)
            triples.append((operator.index(axis), index, count))
        except (TypeError, ValueError):
            raise DropkitTypeError(
                f"split must map an axis to (index, count) such as {{0: (rank, ranks)}}, got {split!r}"
            ) from None
        if not 0 <= index < count:
            raise DropkitValueError(f"split[{axis}] = {piece}: the index must lie in [0, count)")
    return tuple(triples)


def _key_words(key: Key | None, site: Site | None, here: Coordinates) -> Words:
    if key is not None:
        return words_of(key.seed, key.site, key.step)
    if site is not None:
        return site.words(here)
    if here.seed is None and here.site is None and here.step is None:
        return _ambient(here.together)
    if here.seed is None or here.site is None:
        raise DropkitRuntimeError(
            f"at(seed={here.seed!r}, site={here.site!r}, step={here.step!r}) around a dropout that is not bound: "
            "give both seed and site, or name the model's sites once with dropkit.torch.bind(model)"
        )
    return words_of(here.seed, in_this_turn(here.site, here), here.step or 0)


def words_of(seed: int | torch.Tensor, site: int | str, step: int | torch.Tensor) -> Words:
    """The folded key; under a compiler what the operator folds, since a new step is then new data and not new code."""
    if torch.compiler.is_compiling():
        return at_site(state_of(seed, step), site)
    if not isinstance(seed, torch.Tensor) and not isinstance(step, torch.Tensor):
        return _fold(seed, site_id(site), step)
    if torch._C._are_functorch_transforms_active():  # stacked seeds and steps of several models
        return registered.fold_key(Unfolded(state_of(seed, step), registered.signed(site_id(site))))
    # a CUDA graph is being captured: the kernel folds what it finds at replay
    return cuda.stored_key(_like(seed, step), site_id(site), _like(step, seed))


def state_of(seed: int | torch.Tensor, step: int | torch.Tensor) -> torch.Tensor:
    """Seed and step as one int64 pair, a copy, which nobody writes to until backward asks for it."""
    return torch.stack([_like(seed, step), _like(step, seed)])


def at_site(state: torch.Tensor, site: int | str) -> Unfolded:
    """The key of a site, for a compiler."""
    return Unfolded(state, _constant_site_id(site))


def _constant_site_id(site: int | str) -> int:
    return registered.signed(site_id(site))


# hashing a name is nothing to trace; what torch.compiler.assume_constant_result does, which would load the compiler
_constant_site_id._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _like(value: int | torch.Tensor, other: int | torch.Tensor) -> torch.Tensor:
    """A coordinate as a 0-dim int64 tensor, on the device where the other one is."""
    if isinstance(value, torch.Tensor):
        return value
    device = other.device if isinstance(other, torch.Tensor) else "cpu"
    return torch.full((), registered.signed(value), dtype=torch.int64, device=device)


_local = threading.local()
_watch, _world = ranks.watch, ranks.world


def _ambient(together: frozenset[int] | None) -> Words:
    """A key from torch's default CPU generator, whatever the device: reading it never waits for an accelerator."""
    traced = torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0
    if traced or torch._C._get_tracing_state() is not None:
        # values are not to be had here
        return registered.AMBIENT if torch.compiler.is_exporting() else registered.ambient_key()
    if torch._C._are_functorch_transforms_active():
        with transforms.outside():  # or torch.vmap refuses what it takes for a random mask
            return _ambient(together)
    if cuda.capturing():
        raise DropkitRuntimeError(
            "an ambient dropout in a CUDA graph would replay one mask for ever: bind the model with "
            "dropkit.torch.bind, whose step lives on the device and advances at each replay"
        )
    if together is not None:
        _watch.together(together)
    elif _watch.waiting and _world._default_pg is not None:
        _watch.alone()
    try:
        buffer = _local.buffer
    except AttributeError:
        with torch.inference_mode(False):
            buffer = _local.buffer = torch.empty(2, dtype=torch.int64, device="cpu")
    k0, k1 = buffer.random_(0, 1 << 32).tolist()  # into a tensor that is there: a third of the time of a new one
    return k0, k1


def row_numbers(rows: torch.Tensor | Sequence[int]) -> torch.Tensor:
    """Rows as an int64 tensor of our own, checked where that needs no wait for a device."""
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
    return numbers.to(torch.int64, copy=True)  # backward must see these, whatever the caller writes until then
