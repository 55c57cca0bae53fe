"""Share: who shares a draw, so what is dropped together.

`Axes` says it before anything is drawn: the noise tensor has size 1 there. A `Refining` share draws for every element
and then makes of these draws what is kept; whoever computes masks fast and does not know it leaves it to `kept`.
"""

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DropkitTypeError, DropkitValueError
from ..place import Part, axis_numbers, noise_shape
from ..threshold import ONE

Uniform = Callable[[tuple[int, ...], Part, Sequence[int]], Any]  # of a shape, its part and shared axes: keyed numbers


@dataclass(frozen=True, slots=True)
class Axes:
    """Axes along which one draw is shared; the noise tensor has size 1 there.

    () drops single elements; (2, 3) of N x C x H x W whole channels (Tompson et al. 2015); (1,) of batch x time x
    features the same features at every time step (Gal and Ghahramani 2016).

    Args:
        axes: axis numbers; negative ones count from the end. Whether they exist is known when a tensor comes.

    Raises:
        DropkitTypeError: not integers.
        DropkitValueError: the same axis twice.

    >>> Axes((2, 3))
    Axes(axes=(2, 3))
    """

    axes: Sequence[int] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", distinct_axes("share", self.axes))


class Refining:
    """Abstract: a share that makes the mask itself, of one keyed uniform number an element."""

    axes: Sequence[int] = ()  # that share a draw before it refines, as `Axes` says it

    def fraction(self, t: Any, shape: tuple[int, ...], part: Part, xp: Any) -> Any:
        """The fraction of elements that is kept where t is asked, for the law; None if it is t / 65536."""
        return None

    def kept(self, t: Any, shape: tuple[int, ...], part: Part, uniform: Uniform, xp: Any) -> Any:
        """The mask of a tensor of `shape` that is `part` of a whole: bool, of its noise shape.

        Args:
            t: kept of 65536: an int, or an array of one entry that is known when the program runs.
            shape, part: of the tensor, and where it lies.
            uniform: the keyed uniform numbers of any shape, part and shared axes: a share may look past its edges.
            xp: the library of arrays: `where`, `take(NumPy table, t)`, `pad(bits, widths)` by False, `sort` and
                `cumsum` along an axis, `moveaxis`, `reshape`.
        """
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Exactly(Refining):
    """Exactly k of the n elements along some axes are kept, k = (1 - p) n rounded; every set of k is as likely.

    The k elements with the smallest keyed uniform numbers are kept, the first ones where numbers are equal. The law
    scales by n / k, so inverted dropout keeps the expectation.

    Args:
        over: axes whose elements form a group together; negative ones count from the end.

    Raises:
        DropkitTypeError, DropkitValueError: no axes, not integers, the same axis twice; when a tensor comes, an axis
            that it does not have, or one that rows place.

    >>> Exactly((-1,)).fraction(32768, (2, 6), Part(), None)
    0.5
    """

    over: Sequence[int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "over", distinct_axes("over", self.over, least=1))

    def fraction(self, t: Any, shape: tuple[int, ...], part: Part, xp: Any) -> Any:
        """k / n."""
        n = math.prod([part.in_whole(shape)[1][axis] for axis in placed_axes("Exactly", self.over, shape, part)])
        return nearest(t, n) / n

    def kept(self, t: Any, shape: tuple[int, ...], part: Part, uniform: Uniform, xp: Any) -> Any:
        """The k smallest of each group."""
        axes = placed_axes("Exactly", self.over, shape, part)
        start, whole = part.in_whole(shape)
        wide = tuple(whole[axis] if axis in axes else size for axis, size in enumerate(shape))
        first = tuple(0 if axis in axes else begin for axis, begin in enumerate(start))
        last = tuple(range(-len(axes), 0))
        u = xp.moveaxis(uniform(wide, part._replace(offset=first, global_shape=whole, split=()), ()), axes, last)
        n = math.prod([whole[axis] for axis in axes])
        groups = xp.reshape(u, (*u.shape[: u.ndim - len(axes)], n))
        kept = _k_smallest(groups, nearest(t, n), xp)
        kept = xp.moveaxis(xp.reshape(kept, tuple(u.shape)), last, axes)
        here = [slice(start[a], start[a] + size) if a in axes else slice(None) for a, size in enumerate(shape)]
        return kept[tuple(here)]


def _k_smallest(u: Any, k: Any, xp: Any) -> Any:
    """Which of the entries along the last axis are among the k smallest; of equal ones the first."""
    position = xp.cumsum(xp.where(u > 0, 1, 0), -1)  # 1, 2, ..., n
    bound = xp.cumsum(xp.where(position == k, xp.sort(u), 0.0), -1)[..., -1:]  # the k-th smallest; 0 for k = 0
    below, equal = u < bound, u == bound
    left = k - xp.cumsum(xp.where(below, 1, 0), -1)[..., -1:]
    return below | (equal & (xp.cumsum(xp.where(equal, 1, 0), -1) <= left))


def nearest(t: Any, n: int) -> Any:
    """t n / 65536 rounded, t in halves of 8 bits: integers of 32 bits are enough for n below 2**22."""
    return (t // 256 * n + (t % 256 * n + ONE // 2) // 256) // 256


@dataclass(frozen=True, slots=True)
class Block(Refining):
    """Whole blocks are dropped together (DropBlock), so that the mean rate over the map is p.

    A block of `size` may begin wherever it fits into the map; it is dropped if the keyed uniform number of its first
    element lies below gamma, and an element if a block is that holds it. gamma, in steps of 2^-23, is the least for
    which the mean over all positions of `1 - (1 - gamma)^(blocks that hold it)` reaches p: published implementations
    take p / size^2 times a constant instead, and drop another fraction than was asked. Positions near a border lie in
    fewer blocks and are dropped less often. A part of a larger map looks past its edges.

    Args:
        size: of a block along each of the axes: an int, or one for each; no larger than the map.
        over: the axes of the map; negative ones count from the end.

    Raises:
        DropkitTypeError, DropkitValueError: no axes, the same axis twice, sizes below 1 or of another count; when a
            tensor comes, an axis that it does not have, or one that rows place.

    Source: Ghiasi, Lin and Le 2018 (arXiv:1810.12890), which gives gamma in another form.

    >>> Block(7)
    Block(size=7, over=(-2, -1))
    """

    size: int | Sequence[int]
    over: Sequence[int] = (-2, -1)

    def __post_init__(self) -> None:
        object.__setattr__(self, "over", distinct_axes("over", self.over, least=1))
        sizes = self.size if isinstance(self.size, tuple | list) else [self.size] * len(self.over)
        if len(sizes) != len(self.over) or not all(isinstance(size, int) and size >= 1 for size in sizes):
            raise DropkitValueError(
                f"size must be an int of at least 1, or one for each of the axes {self.over}, got {self.size!r}"
            )
        object.__setattr__(self, "size", tuple(sizes) if isinstance(self.size, list) else self.size)

    def kept(self, t: Any, shape: tuple[int, ...], part: Part, uniform: Uniform, xp: Any) -> Any:
        """What no dropped block holds."""
        placed_axes("Block", self.over, shape, part)
        start, whole = part.in_whole(shape)
        sizes = self.size if isinstance(self.size, tuple) else (self.size,) * len(self.over)
        blocks = {axis % len(shape): min(size, whole[axis]) for axis, size in zip(self.over, sizes, strict=True)}
        first, window, widths = list(start), list(shape), [(0, 0)] * len(shape)
        for axis, size in blocks.items():  # which blocks reach into this part
            before, behind = start[axis] - size + 1, start[axis] + shape[axis]
            first[axis], last = max(before, 0), min(behind, whole[axis] - size + 1)
            window[axis], widths[axis] = last - first[axis], (first[axis] - before, behind - last)
        part = part._replace(offset=tuple(first), global_shape=whole, split=())
        maps = tuple((whole[axis], size) for axis, size in blocks.items())
        gamma = block_rates(maps, t) if isinstance(t, int) else xp.take(block_rates(maps), t)
        gone = xp.pad(uniform(tuple(window), part, ()) < gamma, widths)
        for axis, size in blocks.items():
            cuts = [(slice(None),) * axis + (slice(k, k + shape[axis]),) for k in range(size)]
            gone = reduce(operator.or_, [gone[cut] for cut in cuts])
        return ~gone


def block_rates(maps: tuple[tuple[int, int], ...], t: int | None = None) -> Any:
    """gamma at t, or for every t from 0 to 65536; for blocks in a map, as (extent, size) along each axis."""
    return _block_rates(maps) if t is None else float(_block_rates(maps, t)[0])


block_rates._dynamo_marked_constant = True  # type: ignore[attr-defined]  # torch's compiler does not look inside


@lru_cache(maxsize=256)
def _block_rates(maps: tuple[tuple[int, int], ...], t: int | None = None) -> NDArray[np.float32]:
    holding = np.ones(1)  # of each position, how many blocks hold it
    for extent, size in maps:
        i = np.arange(extent)
        along = np.minimum(i, extent - size) - np.maximum(i - size + 1, 0) + 1
        holding = np.multiply.outer(holding, along).ravel()
    counts, positions = np.unique(holding, return_counts=True)
    q = (np.arange(ONE + 1) if t is None else np.array([t])) / ONE
    low, high = np.zeros(q.shape, np.int64), np.full(q.shape, 1 << 23)
    while (low < high).any():
        middle = (low + high) // 2
        keeps = 1 - middle * 2.0**-23
        kept = sum(n * keeps**count for n, count in zip(positions, counts, strict=True)) / positions.sum()
        low, high = np.where(kept <= q, low, middle + 1), np.where(kept <= q, middle, high)
    return (high * 2.0**-23).astype(np.float32)


def distinct_axes(name: str, axes: Any, least: int = 0) -> tuple[int, ...]:
    """`dropkit.place.axis_numbers`, none of them twice.

    Raises:
        DropkitTypeError: not integers.
        DropkitValueError: the same axis twice, or fewer than `least`.
    """
    numbers = axis_numbers(name, axes)
    if len(set(numbers)) != len(numbers):
        raise DropkitValueError(f"{name} names an axis twice: {numbers}")
    if len(numbers) < least:
        raise DropkitValueError(f"{name} must name at least one axis, got ()")
    return numbers


def placed_axes(what: str, over: Sequence[int], shape: tuple[int, ...], part: Part) -> tuple[int, ...]:
    """Axes that a refining share looks along, counted from the front, in a tensor that has them at known places.

    Raises:
        DropkitValueError: an axis that does not exist, or one whose entries lie where rows say.
        DropkitTypeError: an offset along such an axis that only a compiled program will know.
    """
    noise_shape(shape, over)  # refuses axes that do not exist
    axes = tuple(sorted(axis % len(shape) for axis in over))
    if part.rows is not None and 0 in axes:
        raise DropkitValueError(f"{what} over axis 0 needs neighbours, and rows scatter them; leave out rows")
    for axis in axes:
        if part.offset is not None and not hasattr(part.offset[axis], "__index__"):
            raise DropkitTypeError(
                f"{what} over axis {axis} needs an offset that is an int there, got {part.offset[axis]!r}; cut other "
                "axes, or pass offsets that are known"
            )
    return axes


Share = Axes  # its former name
Sharing = Axes | Refining


def share_of(value: Any) -> Sharing:
    """A share from a tuple of axis numbers, or the share itself."""
    return value if isinstance(value, Sharing) else Axes(value)
