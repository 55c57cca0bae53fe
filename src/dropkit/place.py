"""Where the elements of a tensor lie in the global noise tensor.

A mask bit belongs to a *global* index: the C-order index of the element in the whole noise tensor, whose shared axes
have size 1. A shard, a micro-batch or a reordered batch computes its own slice of the one mask by saying where it lies.
"""

import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from .errors import DropkitTypeError, DropkitValueError

MAX_INDEX = 1 << 63


@dataclass(frozen=True, slots=True)
class Unknown:
    """An offset that only a compiled program will know: `value`, in whatever form the frontend has it."""

    value: Any


class Part(NamedTuple):
    """Where a tensor lies in a larger one, as a caller says it; with nothing said, it is the whole.

    Args:
        offset, global_shape: where it starts in a whole, ints or `Unknown`, and the whole's shape.
        rows: global row number of each entry of axis 0; what else is said of axis 0 is then of no account.
        split: triples (axis, index, count): that whole is itself piece `index` of `count` equal ones along the axis.

    >>> Part(offset=(4, 0), global_shape=(8, 3)).in_whole((2, 3))
    ((4, 0), (8, 3))
    """

    offset: tuple[Any, ...] | None = None
    global_shape: tuple[int, ...] | None = None
    rows: Any = None
    split: tuple[tuple[int, int, int], ...] = ()

    @property
    def whole(self) -> bool:
        """Whether nothing is said: the tensor is all there is."""
        return self.offset is None and self.global_shape is None and self.rows is None and not self.split

    @staticmethod
    def of(offset: Sequence[Any] | None, global_shape: Sequence[int] | None, rows: Any) -> "Part":
        """What the arguments of these names say: `WHOLE` itself if that is nothing."""
        if offset is None and global_shape is None and rows is None:
            return WHOLE
        return Part(
            None if offset is None else tuple(offset), None if global_shape is None else tuple(global_shape), rows
        )

    def in_whole(self, shape: Sequence[int]) -> tuple[tuple[Any, ...], tuple[int, ...]]:
        """Where a tensor of `shape` starts, and the whole's shape; along axis 0 of no account where there are rows.

        What is `Unknown` stays so.

        Raises:
            DropkitValueError: an offset without a global shape or outside it; rows that are not one number for each
                entry of axis 0.
        """
        shape = tuple(shape)
        whole = _whole_shape(shape, self)
        start: tuple[Any, ...] = (0,) * len(shape)
        if self.offset is not None:
            start = tuple(o if isinstance(o, Unknown) else operator.index(o) for o in self.offset)
        start, whole = _of_pieces(start, whole, self.split)
        for axis, (first, size, total) in enumerate(zip(start, shape, whole, strict=True)):
            if isinstance(first, Unknown) or (self.rows is not None and axis == 0):
                continue
            if first < 0 or first + size > total:
                raise DropkitValueError(
                    f"offset {start} puts a tensor of shape {shape} outside global_shape {whole}: axis {axis} would "
                    f"reach from {first} to {first + size} of {total}"
                )
        return start, whole


WHOLE = Part()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a local tensor lies in the global noise tensor: index = base + sum over axes of coordinate * stride.

    Args:
        shape: the local noise shape: the activation's, with 1 on every shared axis.
        strides: C-order strides of the global noise tensor, 0 on shared axes.
        base: index of the local element (0, ..., 0).
        rows: where given, the global row number of each entry of axis 0, in place of its local coordinate.
        shift: where given, an integer array added to every index: what tells the slices of a vectorised map apart.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    base: int = 0
    rows: Any = None
    shift: Any = None
    flat: bool = field(init=False)  # whether the indices are consecutive

    def __post_init__(self) -> None:
        object.__setattr__(self, "flat", self.rows is None and self.shift is None and self.runs()[0] == 0)

    def runs(self) -> tuple[int, int]:
        """How many leading axes are walked one by one, and how many consecutive indices lie under each position."""
        run = 1
        for axis in reversed(range(len(self.shape))):
            by_rows = axis == 0 and self.rows is not None
            if by_rows or (self.shape[axis] != 1 and self.strides[axis] != run):
                return axis + 1, run
            run *= self.shape[axis]
        return 0, run


def noise_shape(shape: Sequence[int], share: Sequence[int]) -> tuple[int, ...]:
    """The shape with 1 on every shared axis; negative axes count from the end.

    >>> noise_shape((8, 3, 32, 32), share=(-1, -2))
    (8, 3, 1, 1)
    """
    noise = list(shape)
    for axis in _shared(share):
        if not -len(noise) <= axis < len(noise):
            raise DropkitValueError(
                f"share axis {axis} does not exist in a tensor of shape {tuple(shape)}; "
                f"axes run from {-len(noise)} to {len(noise) - 1}"
            )
        noise[axis] = 1
    return tuple(noise)


def axis_numbers(name: str, axes: Any) -> tuple[int, ...]:
    """Axis numbers as a tuple.

    Raises:
        DropkitTypeError: not integers.
    """
    try:
        return tuple([operator.index(axis) for axis in axes])
    except TypeError:
        wrong = (
            "hold integers" if isinstance(axes, Iterable) and type(axes) is not str else "be a sequence of axis numbers"
        )
        raise DropkitTypeError(f"{name} must {wrong} such as (2, 3), got {axes!r}") from None


def place_of(shape: Sequence[int], share: Sequence[int] = (), part: Part = WHOLE) -> Place:
    """The place of a tensor of `shape` whose `share` axes share a draw, and which is `part` of a whole.

    Raises:
        DropkitValueError: a share axis that does not exist; a part that does not fit the shape or the whole; more than
            2**63 elements.
    """
    shape = tuple(shape)
    if part.whole:
        _check_size(noise_shape(shape, share))
        return symbolic_place(shape, share)
    start, whole = part.in_whole(shape)
    noise = noise_shape(shape, share)
    _check_size(noise_shape(whole, share))
    shared = shared_axes(len(shape), share)
    strides = _strides(noise_shape(whole, share), shared)
    base = sum(first * stride for first, stride in zip(start, strides, strict=True))
    by_rows = part.rows is not None and 0 not in shared  # sharing axis 0 means no row has a mask of its own
    return Place(noise, strides, base, part.rows if by_rows else None)


@lru_cache(maxsize=4096)
def whole_place(shape: tuple[int, ...], share: tuple[int, ...]) -> Place:
    """`place_of` a whole tensor, remembered: a training step asks for the same few again and again."""
    return place_of(shape, share)


def symbolic_place(shape: tuple[int, ...], share: Sequence[int]) -> Place:
    """`place_of` a whole tensor whose sizes may be symbols: a question how large they are would bound an export."""
    noise = noise_shape(shape, share)
    return Place(noise, _strides(noise, shared_axes(len(shape), share)))


def check_last_row(place: Place, last: int) -> None:
    """Refuse rows of which the last one's elements lie past index 2**63."""
    if (last + 1) * place.strides[0] > MAX_INDEX:
        raise DropkitValueError(f"row {last} of {place.strides[0]} elements lies past index 2**63")


def _whole_shape(shape: tuple[int, ...], part: Part) -> tuple[int, ...]:
    offset, global_shape, rows, _ = part
    if rows is not None and (not shape or tuple(rows.shape) != shape[:1]):
        raise DropkitValueError(
            f"rows must hold one row number for each entry of axis 0, got shape {tuple(rows.shape)} for a tensor of "
            f"shape {shape}"
        )
    if offset is not None and global_shape is None:
        raise DropkitValueError(f"offset {tuple(offset)} needs global_shape, the shape of the whole tensor")
    if offset is not None and len(offset) != len(shape):
        raise DropkitValueError(f"offset {tuple(offset)} must have one entry for each axis of shape {shape}")
    if global_shape is None:
        return shape
    if len(global_shape) != len(shape):
        raise DropkitValueError(f"global_shape {tuple(global_shape)} must have as many axes as shape {shape}")
    if rows is not None and offset is not None and offset[0] != 0:
        raise DropkitValueError(f"rows and offset[0]={offset[0]} both place axis 0; give offset[0]=0 beside rows")
    return tuple(operator.index(size) for size in global_shape)


def _of_pieces(
    start: tuple[Any, ...], whole: tuple[int, ...], split: Sequence[tuple[int, int, int]]
) -> tuple[tuple[Any, ...], tuple[int, ...]]:
    """Offset and shape in the tensor of which `whole` is one piece."""
    first, total = list(start), list(whole)
    for axis, index, count in split:
        if not -len(total) <= axis < len(total):
            raise DropkitValueError(f"split names axis {axis}, which a tensor of shape {whole} does not have")
        first[axis] += index * total[axis]
        total[axis] *= count
    return tuple(first), tuple(total)


def shared_axes(rank: int, share: Sequence[int]) -> set[int]:
    """The numbers of the shared axes of a tensor of `rank` axes, counted from the front."""
    return {axis % rank for axis in _shared(share)} if rank else set()


def _shared(share: Any) -> tuple[int, ...]:
    """The shared axes, which may be a single number here."""
    return axis_numbers("share", (share,) if hasattr(share, "__index__") else share)


def _check_size(whole: tuple[int, ...]) -> None:
    if math.prod(whole) > MAX_INDEX:
        raise DropkitValueError(f"a noise tensor of shape {whole} has more than 2**63 elements")


def _strides(whole: tuple[int, ...], shared: set[int]) -> tuple[int, ...]:
    strides = [math.prod(whole[axis + 1 :]) for axis in range(len(whole))]
    return tuple(0 if axis in shared else stride for axis, stride in enumerate(strides))
