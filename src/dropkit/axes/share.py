"""Share: who shares a draw, so what is dropped together.

`Axes` says it before anything is drawn: the noise tensor has size 1 there. A `Refining` share draws for every element
and then makes of these draws what is kept; whoever computes masks fast and does not know it leaves it to `kept`.
"""

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DropkitTypeError, DropkitValueError
from ..place import Part, noise_shape
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
        object.__setattr__(self, "axes", axis_numbers("share", self.axes))


def axis_numbers(name: str, axes: Any) -> tuple[int, ...]:
    """Axis numbers as a tuple.

    Raises:
        DropkitTypeError: not integers.
        DropkitValueError: the same axis twice.
    """
    try:
        numbers = tuple(operator.index(axis) for axis in axes)
    except TypeError:
        raise DropkitTypeError(f"{name} must be a sequence of axis numbers such as (2, 3), got {axes!r}") from None
    if len(set(numbers)) != len(numbers):
        raise DropkitValueError(f"{name} names an axis twice: {numbers}")
    return numbers


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
        object.__setattr__(self, "over", some_axes("over", self.over))

    def fraction(self, t: Any, shape: tuple[int, ...], part: Part, xp: Any) -> Any:
        """k / n."""
        n = self._size(shape, part)
        return _nearest(t * n, ONE) / n if isinstance(t, int) else xp.take(_counts(n) / n, t)

    def kept(self, t: Any, shape: tuple[int, ...], part: Part, uniform: Uniform, xp: Any) -> Any:
        """The k smallest of each group."""
        axes = placed_axes("Exactly", self.over, shape, part)
        start, whole = part.in_whole(shape)
        wide = tuple(whole[axis] if axis in axes else size for axis, size in enumerate(shape))
        first = tuple(0 if axis in axes else begin for axis, begin in enumerate(start))
        last = tuple(range(-len(axes), 0))
        u = xp.moveaxis(uniform(wide, part._replace(offset=first, global_shape=whole, split=()), ()), axes, last)
        n = self._size(shape, part)
        groups = xp.reshape(u, (*u.shape[: u.ndim - len(axes)], n))
        k = _nearest(t * n, ONE) if isinstance(t, int) else xp.take(_counts(n), t)
        kept = _k_smallest(groups, k, xp)
        kept = xp.moveaxis(xp.reshape(kept, tuple(u.shape)), last, axes)
        here = [slice(start[a], start[a] + size) if a in axes else slice(None) for a, size in enumerate(shape)]
        return kept[tuple(here)]

    def _size(self, shape: tuple[int, ...], part: Part) -> int:
        whole = part.in_whole(shape)[1]
        return math.prod(whole[axis] for axis in placed_axes("Exactly", self.over, shape, part))


def _k_smallest(u: Any, k: Any, xp: Any) -> Any:
    """Which of the entries along the last axis are among the k smallest; of equal ones the first."""
    position = xp.cumsum(xp.where(u > 0, 1, 0), -1)  # 1, 2, ..., n
    bound = xp.cumsum(xp.where(position == k, xp.sort(u), 0.0), -1)[..., -1:]  # the k-th smallest; 0 for k = 0
    below, equal = u < bound, u == bound
    left = k - xp.cumsum(xp.where(below, 1, 0), -1)[..., -1:]
    return below | (equal & (xp.cumsum(xp.where(equal, 1, 0), -1) <= left))


def _nearest(a: int, b: int) -> int:
    return (2 * a + b) // (2 * b)


@lru_cache(maxsize=64)
def _counts(n: int) -> NDArray[np.int64]:
    """k for every t."""
    return (2 * np.arange(ONE + 1, dtype=np.int64) * n + ONE) // (2 * ONE)


def some_axes(name: str, axes: Any) -> tuple[int, ...]:
    """`axis_numbers` of at least one axis."""
    numbers = axis_numbers(name, axes)
    if not numbers:
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
