"""Exactly k of a group are kept."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ....place import Part
from ....threshold import ONE
from ..base import Refining, Uniform, distinct_axes, placed_axes


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


def rounded_down(n: int, p: float) -> int:
    """How many of n are kept where a paper's program says `int(n * (1 - p))`, floats and all.

    >>> rounded_down(196, 0.75), rounded_down(20, 0.9)
    (49, 1)
    """
    return int(n * (1.0 - p))
