"""Share: which axes share one draw, so what is dropped together."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import DropkitTypeError, DropkitValueError


@dataclass(frozen=True, slots=True)
class Share:
    """Axes along which one draw is shared; the noise tensor has size 1 there.

    () drops single elements; (2, 3) of N x C x H x W whole channels (Tompson et al. 2015); (1,) of batch x time x
    features the same features at every time step (Gal and Ghahramani 2016).

    Args:
        axes: axis numbers; negative ones count from the end. Whether they exist is known when a tensor comes.

    Raises:
        DropkitTypeError: not integers.
        DropkitValueError: the same axis twice.

    >>> Share((2, 3))
    Share(axes=(2, 3))
    """

    axes: Sequence[int] = ()

    def __post_init__(self) -> None:
        try:
            axes = tuple(operator.index(axis) for axis in self.axes)
        except TypeError:
            raise DropkitTypeError(
                f"share must be a sequence of axis numbers such as (2, 3), got {self.axes!r}"
            ) from None
        if len(set(axes)) != len(axes):
            raise DropkitValueError(f"share names an axis twice: {axes}")
        object.__setattr__(self, "axes", axes)
