"""Rate: the drop probability, and how it moves. `rate.at(step)` is a pure function, so a resumed run needs no state."""

import math
from dataclasses import dataclass
from typing import Protocol

from ..errors import DropkitTypeError, DropkitValueError


class Rate(Protocol):
    """Anything that tells the drop probability at a step."""

    def at(self, step: int) -> float:
        """The drop probability at a step, in [0, 1]."""


@dataclass(frozen=True, slots=True)
class Constant:
    """The same drop probability at every step: `p(step) = p`.

    Raises:
        DropkitTypeError: p is not a number.
        DropkitValueError: p is NaN or outside [0, 1].

    >>> Constant(0.5).at(10_000)
    0.5
    """

    p: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", probability("p", self.p))

    def at(self, step: int) -> float:
        """The drop probability, whatever the step."""
        return self.p


@dataclass(frozen=True, slots=True)
class Step:
    """Falls by a fixed amount every so many steps, never below a floor: `max(floor, start - drop * (step // every))`.

    Args:
        start: drop probability at step 0, in [0, 1].
        drop: what is taken off each time, in [0, 1].
        every: steps between two falls, at least 1.
        floor: where it stops, in [0, start].

    Raises:
        DropkitTypeError, DropkitValueError: an argument of the wrong type or outside its range.

    >>> rate = Step(start=0.5, drop=0.1, every=100, floor=0.1)
    >>> [rate.at(step) for step in (0, 99, 100, 250, 399, 10_000)]
    [0.5, 0.5, 0.4, 0.3, 0.2, 0.1]
    """

    start: float = 0.5
    drop: float = 0.1
    every: int = 1000
    floor: float = 0.1

    def __post_init__(self) -> None:
        for name in ("start", "drop", "floor"):
            object.__setattr__(self, name, probability(name, getattr(self, name)))
        if isinstance(self.every, bool) or not isinstance(self.every, int):
            raise DropkitTypeError(f"every must be a whole number of steps, got {self.every!r}")
        if self.every < 1:
            raise DropkitValueError(f"every must be at least 1 step, got {self.every}")
        if self.floor > self.start:
            raise DropkitValueError(f"floor {self.floor} lies above start {self.start}; a rate that falls needs room")

    def at(self, step: int) -> float:
        """The drop probability at a step."""
        # Rounded to 12 digits so that 0.5 - 2 * 0.1 prints, and is logged, as 0.3.
        return max(self.floor, round(self.start - self.drop * (step // self.every), 12))


def probability(name: str, value: object) -> float:
    """The value as a float in [0, 1], or an error that names it."""
    if isinstance(value, str | bytes) or not hasattr(value, "__float__"):
        raise DropkitTypeError(f"{name} must be a number in [0, 1], got {value!r} of type {type(value).__name__}")
    number = float(value)
    if math.isnan(number) or not 0.0 <= number <= 1.0:
        raise DropkitValueError(f"{name} must lie in [0, 1], got {value}")
    return number
