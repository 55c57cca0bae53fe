"""What shares that look along an axis ask of it."""

from collections.abc import Sequence
from typing import Any

from ....errors import DropkitValueError
from ..base import distinct_axes


def set_one_axis(share: Any) -> None:
    """Make the axes of a value that looks along a single one tuples of integers.

    Raises:
        DropkitTypeError, DropkitValueError: no axes, or `over` is not one.
    """
    object.__setattr__(share, "over", distinct_axes("over", share.over, least=1))
    object.__setattr__(share, "axes", distinct_axes("axes", share.axes))
    if len(share.over) != 1:
        raise DropkitValueError(f"over must name one axis, got {share.over}")


def apart(what: str, axis: int, shared: Sequence[int], shape: tuple[int, ...]) -> None:
    """Refuse an axis along which entries differ and which shares a draw.

    Raises:
        DropkitValueError: it is among the shared ones.
    """
    if axis in {each % len(shape) for each in shared}:
        raise DropkitValueError(f"{what} over axis {axis} tells apart entries that axes {tuple(shared)} share")
