"""Share: who shares a draw, so what is dropped together.

`Axes` says it before anything is drawn: the noise tensor has size 1 there. A `Refining` share draws for every element
and then makes of these draws what is kept; whoever computes masks fast and does not know it leaves it to `kept`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import DropkitTypeError, DropkitValueError
from ...place import Part, axis_numbers, noise_shape
from .names import axes_named

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

    @classmethod
    def named(cls, layout: str, names: str) -> "Axes":
        """The axes of these names in a layout, `axes_named`.

        >>> Axes.named("N C H W", "H W")
        Axes(axes=(2, 3))
        """
        return cls(axes_named(layout, names))


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
