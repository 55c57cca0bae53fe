"""Whole blocks are dropped together."""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import DropkitValueError
from ....place import Part
from ....threshold import ONE
from ..base import Refining, Uniform, distinct_axes, placed_axes
from .along import apart


@dataclass(frozen=True, slots=True, repr=False)
class Block(Refining):
    """Whole blocks are dropped together (DropBlock), so that the mean rate over the map is p.

    A block of `size` may begin wherever it fits into the map; it is dropped if the keyed uniform number of its first
    element lies below gamma, and an element if a block is that holds it. gamma, in steps of 2^-23, is the least for
    which the mean over all positions of `1 - (1 - gamma)^(blocks that hold it)` reaches p: published implementations
    take p / size^2 times a constant instead, and drop another fraction than was asked. Positions near a border lie in
    fewer blocks and are dropped less often. A part of a larger map looks past its edges.

    With `clipped` blocks may also begin outside, and are cut at the border: every position lies in as many blocks and
    is dropped with the same probability, `1 - (1 - gamma)^volume`, p up to a step of gamma.

    Args:
        size: of a block along each of the axes: an int, or one for each; no larger than the map.
        over: the axes of the map; negative ones count from the end.
        clipped: whether blocks are cut at the border; such a block may be larger than the map.
        axes: axes that share a draw, as those of `Axes`: (1,) of N x C x H x W drops the same blocks of all channels.

    Raises:
        DropkitTypeError, DropkitValueError: no axes, the same axis twice, sizes below 1 or of another count; an
            axis of the map that is shared too; when a tensor comes, an axis that it does not have, or one that rows
            place.

    Source: Ghiasi, Lin and Le 2018 (arXiv:1810.12890), which gives gamma in another form.

    >>> Block(7)
    Block(size=7, over=(-2, -1))
    """

    size: int | Sequence[int]
    over: Sequence[int] = (-2, -1)
    clipped: bool = False
    axes: Sequence[int] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "over", distinct_axes("over", self.over, least=1))
        object.__setattr__(self, "axes", distinct_axes("axes", self.axes))
        if not isinstance(self.clipped, bool):
            raise DropkitValueError(f"clipped must be True or False, got {self.clipped!r}")
        sizes = self.size if isinstance(self.size, tuple | list) else [self.size] * len(self.over)
        if len(sizes) != len(self.over) or not all(isinstance(size, int) and size >= 1 for size in sizes):
            raise DropkitValueError(
                f"size must be an int of at least 1, or one for each of the axes {self.over}, got {self.size!r}"
            )
        object.__setattr__(self, "size", tuple(sizes) if isinstance(self.size, list) else self.size)

    def __repr__(self) -> str:
        more = (", clipped=True" if self.clipped else "") + (f", axes={self.axes}" if self.axes else "")
        return f"Block(size={self.size}, over={self.over}{more})"

    def kept(self, t: Any, shape: tuple[int, ...], part: Part, uniform: Uniform, xp: Any) -> Any:
        """What no dropped block holds."""
        for axis in placed_axes("Block", self.over, shape, part):
            apart("Block", axis, self.axes, shape)
        start, whole = part.in_whole(shape)
        sizes = self.size if isinstance(self.size, tuple) else (self.size,) * len(self.over)
        most = math.inf if self.clipped else 0
        blocks = {a % len(shape): min(size, max(whole[a], most)) for a, size in zip(self.over, sizes, strict=True)}
        first, window, widths, wide = list(start), list(shape), [(0, 0)] * len(shape), list(whole)
        for axis, size in blocks.items():  # which blocks reach into this part
            if self.clipped:  # they are counted from the first that does, size - 1 before the map
                window[axis], wide[axis] = shape[axis] + size - 1, whole[axis] + size - 1
                continue
            before, behind = start[axis] - size + 1, start[axis] + shape[axis]
            first[axis], last = max(before, 0), min(behind, whole[axis] - size + 1)
            window[axis], widths[axis] = last - first[axis], (first[axis] - before, behind - last)
        part = part._replace(offset=tuple(first), global_shape=tuple(wide), split=())
        # Of a map of one position every block of a size holds it, as every clipped one a position of any map.
        maps = tuple((1 if self.clipped else whole[axis], size) for axis, size in blocks.items())
        gamma = block_rates(maps, t) if isinstance(t, int) else xp.take(block_rates(maps), t)
        gone = xp.pad(uniform(tuple(window), part, self.axes) < gamma, widths)
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
        along = np.minimum(i, extent - size) - np.maximum(i - size + 1, 0) + 1 if size <= extent else i * 0 + size
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
