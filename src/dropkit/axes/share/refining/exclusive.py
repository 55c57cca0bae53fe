"""One of several parts is dropped at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ....errors import DropkitValueError
from ....place import Part
from ....threshold import ONE
from ..base import Refining, Uniform, placed_axes
from .along import apart, set_one_axis
from .antithetic import rates

MOST = 256  # parts: up to here k p, in steps of 2^-16, is exact in float32


@dataclass(frozen=True, slots=True)
class Exclusive(Refining):
    """The parts along an axis share one draw, each drops with probability p, and at most one at a time where n p <= 1.

    Part k of n is dropped if the shared number u lies in [k p, k p + p), of a circle of length 1: so n p parts are
    dropped, rounded down or up, at any p, and p = 1 - 1/n keeps exactly one. p = 1/n drops exactly one.

    Args:
        over: the axis of the parts, as a tuple of one; a negative one counts from the end.
        axes: axes that share a draw, as those of `Axes`: with (2,) of samples x parts x features a part is dropped
            whole, in each sample by itself.

    Raises:
        DropkitTypeError, DropkitValueError: not integers, not one axis, one that is shared too; when a tensor comes, an
            axis that it does not have, more than 256 parts, or parts that rows place.

    Source: Brooks, Holynski and Efros 2023 (arXiv:2211.09800), who drop one of two conditions, or both, by one number.

    >>> import numpy as np, dropkit, dropkit.numpy as dn
    >>> y = dn.dropout(np.ones((4, 3)), 1 / 3, training=True, key=dropkit.Key(seed=1), share=Exclusive((1,)))
    >>> (y == 0).sum(axis=1)
    array([1, 1, 1, 1])
    """

    over: Sequence[int] = (1,)
    axes: Sequence[int] = ()

    def __post_init__(self) -> None:
        set_one_axis(self)

    def kept(self, t: Any, shape: tuple[int, ...], part: Part, uniform: Uniform, xp: Any) -> Any:
        """What lies outside the arc of its part."""
        (axis,) = placed_axes("Exclusive", self.over, shape, part)
        apart("Exclusive", axis, self.axes, shape)
        start, whole = part.in_whole(shape)
        if whole[axis] > MOST:
            raise DropkitValueError(f"Exclusive over axis {axis} takes up to {MOST} parts, got {whole[axis]}")
        wide = tuple(whole[a] if a == axis else size for a, size in enumerate(shape))
        first = tuple(0 if a == axis else begin for a, begin in enumerate(start))
        u = uniform(wide, part._replace(offset=first, global_shape=whole, split=()), self.axes)
        p = 1 - t / ONE if isinstance(t, int) else xp.take(rates(), t)
        begins = (xp.cumsum(xp.where(u > 0, p, 0.0), axis) - p) % 1.0  # k p: all of this is exact in float32
        lead = (slice(None),) * axis
        behind = u[(*lead, slice(0, 1))] - begins
        behind = xp.where(behind < 0, behind + 1.0, behind)
        return (behind >= p)[(*lead, slice(start[axis], start[axis] + shape[axis]))]
