"""Pairs along an axis draw opposite numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....place import Part
from ....threshold import ONE
from ..base import Refining, Uniform, placed_axes
from .along import apart, set_one_axis


def fractions() -> NDArray[np.float32]:
    """t / 65536 for every t."""
    return np.arange(ONE + 1, dtype=np.float32) / np.float32(ONE)


def rates() -> NDArray[np.float32]:
    """1 - t / 65536 for every t."""
    return fractions()[::-1].copy()


for _table in (fractions, rates):
    _table._dynamo_marked_constant = True  # type: ignore[attr-defined]  # torch's compiler does not look inside


@dataclass(frozen=True, slots=True)
class Antithetic(Refining):
    """Entries 2i and 2i + 1 along an axis draw u and 1 - u: at p = 1/2 one keeps exactly what the other drops.

    Each element is kept with probability 1 - p. The covariance of the masks of a pair is at its least: -p^2 up to
    p = 1/2, -(1 - p)^2 above. An entry without a partner, the last of an odd number, draws alone.

    Args:
        over: the axis along which entries are paired, as a tuple of one; a negative one counts from the end.
        axes: axes that share a draw, as those of `Axes`.

    Raises:
        DropkitTypeError, DropkitValueError: not integers, not one axis, one that is shared too; when a tensor comes, an
            axis that it does not have, or one that rows place.

    Source: Hammersley and Morton 1956; Yang, Zhao and Zhao 2024 (arXiv:2410.10777) at p = 1/2, "complementary dropout".

    >>> import numpy as np, dropkit, dropkit.numpy as dn
    >>> y = dn.dropout(np.ones((2, 6)), 0.5, training=True, key=dropkit.Key(seed=1), share=Antithetic())
    >>> y.sum(axis=0)
    array([2., 2., 2., 2., 2., 2.])
    """

    over: Sequence[int] = (0,)
    axes: Sequence[int] = ()

    def __post_init__(self) -> None:
        set_one_axis(self)

    def kept(self, t: Any, shape: tuple[int, ...], part: Part, uniform: Uniform, xp: Any) -> Any:
        """u < q for the first of a pair, 1 - u < q for the second."""
        (axis,) = placed_axes("Antithetic", self.over, shape, part)
        apart("Antithetic", axis, self.axes, shape)

        def along(sizes: tuple[int, ...], size: int) -> tuple[int, ...]:
            return (*sizes[:axis], size, *sizes[axis + 1 :])

        start, whole = part.in_whole(shape)
        pairs = (whole[axis] + 1) // 2
        wide = part._replace(offset=along(start, 0), global_shape=along(whole, pairs), split=())
        u = xp.moveaxis(uniform(along(shape, pairs), wide, self.axes), axis, -1)
        u = xp.reshape(u, (*u.shape, 1))
        q = t / ONE if isinstance(t, int) else xp.take(fractions(), t)
        around = ((0, 0),) * (u.ndim - 1)
        both = xp.pad(u < q, (*around, (0, 1))) | xp.pad(1.0 - u < q, (*around, (1, 0)))
        kept = xp.moveaxis(xp.reshape(both, (*u.shape[:-2], 2 * pairs)), -1, axis)
        return kept[(slice(None),) * axis + (slice(start[axis], start[axis] + shape[axis]),)]
