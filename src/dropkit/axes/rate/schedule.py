"""What a rate is, and what every schedule can do: be cut in time, clipped and scaled."""

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from ...errors import DropkitTypeError, DropkitValueError


class Rate(Protocol):
    """Anything that tells the drop probability at a step.

    >>> class Halved:
    ...     def at(self, step: int) -> float:
    ...         return 0.5 / (1 + step)
    >>> as_rate(Halved()).at(1)
    0.25
    """

    def at(self, step: int) -> float:
        """The drop probability at a step, in [0, 1]."""


class Schedule(ABC):
    """A rate that is a pure function of the step; each one is a frozen value with its formula in `_p`.

    >>> isinstance(Constant(0.1), Schedule), Constant(0.1) == Constant(0.1)
    (True, True)
    """

    __slots__ = ()

    @abstractmethod
    def _p(self, step: int) -> float:
        """The formula, for a whole step of at least 0; `at` checks step and result."""

    @abstractmethod
    def _peak(self) -> int | None:
        """A step at which the value is highest; None where it can only be known by asking."""

    def at(self, step: int) -> float:
        """The drop probability at a step.

        Args:
            step: whole steps since the start, at least 0: whatever the caller counts, usually optimizer steps.

        Raises:
            DropkitTypeError: step is no whole number.
            DropkitValueError: a negative step, or the schedule leaves [0, 1] there.

        >>> Constant(0.1).at(7)
        0.1
        """
        step = whole("step", step, least=0)
        p = self._p(step)
        if not 0.0 <= p <= 1.0:
            raise DropkitValueError(
                f"{self!r} gives {p} at step {step}; a rate must lie in [0, 1], and .clip(0, 1) holds a number there"
            )
        return p

    def then(self, second: "Rate | float", at: int) -> "Then":
        """This schedule before step `at`, from there on a second one that counts its own steps from 0.

        >>> rate = Constant(0.5).then(0.1, at=100)
        >>> rate.at(99), rate.at(100)
        (0.5, 0.1)
        """
        return Then(self, as_rate(second), at)

    def clip(self, low: float = 0.0, high: float = 1.0) -> "Clip":
        """This schedule, held in [low, high].

        >>> From(lambda step: step / 100).clip(0.1, 0.5).at(90)
        0.5
        """
        return Clip(self, low, high)

    def scale(self, factor: float) -> "Scale":
        """This schedule times a factor.

        >>> Constant(0.5).scale(0.5).at(0)
        0.25
        """
        return Scale(self, factor)


@dataclass(frozen=True, slots=True)
class Constant(Schedule):
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

    def _p(self, step: int) -> float:
        return self.p

    def _peak(self) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class From(Schedule):
    """Any function of the step: `p(step) = function(step)`, checked each time it is asked.

    Args:
        function: step -> a number. It must be pure: a resumed run asks it again.
        name: what `repr`, and so a run's record, says; by default the function's own name.

    Raises:
        DropkitTypeError: function cannot be called; or, when asked, it gives no number (the error names the step).
        DropkitValueError: when asked, it gives NaN or leaves [0, 1] (the error names the step).

    >>> From(lambda step: 0.5 / (1 + step), name="0.5 / (1 + step)").at(4)
    0.1
    >>> From(lambda step: step / 100, name="step / 100").at(101)
    Traceback (most recent call last):
        ...
    dropkit.errors.DropkitValueError: From(name='step / 100') gives 1.01 at step 101; a rate must lie in [0, 1], and \
.clip(0, 1) holds a number there
    """

    function: Callable[[int], float] = field(repr=False)
    name: str = ""

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise DropkitTypeError(f"function must be callable with a step, got {self.function!r}")
        if not self.name:
            object.__setattr__(self, "name", getattr(self.function, "__qualname__", type(self.function).__name__))

    def _p(self, step: int) -> float:
        value = self.function(step)
        try:
            return number("a rate", value)
        except DropkitTypeError as error:
            raise DropkitTypeError(f"{self!r} gives no number at step {step}: {error}") from None

    def _peak(self) -> None:
        return None


@dataclass(frozen=True, slots=True)
class Then(Schedule):
    """One rate after another: `p(step) = first(step)` before step `switch`, `second(step - switch)` from it on.

    Args:
        first, second: rates; the second counts its own steps from 0.
        switch: the first step of the second, at least 1.

    >>> Then(Constant(0.5), Constant(0.1), switch=100).at(100)
    0.1
    """

    first: Rate
    second: Rate
    switch: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "switch", whole("at", self.switch, least=1))

    def _p(self, step: int) -> float:
        return _ask(self.first, step) if step < self.switch else _ask(self.second, step - self.switch)

    def _peak(self) -> int | None:
        first, second = _peak_of(self.first), _peak_of(self.second)
        if first is None or second is None:
            return None
        return max((min(first, self.switch - 1), self.switch + second), key=self._p)


@dataclass(frozen=True, slots=True)
class Clip(Schedule):
    """A rate held between two bounds: `p(step) = min(max(rate(step), low), high)`.

    Args:
        rate: what to hold; a function wrapped in `From` may leave [0, 1] here, a NaN stays an error.
        low, high: bounds, 0 <= low <= high <= 1.

    >>> Clip(Constant(0.9), 0.0, 0.5).at(0)
    0.5
    """

    rate: Rate
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        set_probabilities(self, "low", "high")
        if self.low > self.high:
            raise DropkitValueError(f"clip needs low <= high, got low {self.low} and high {self.high}")

    def _p(self, step: int) -> float:
        # In this order of arguments NaN passes through both, and `at` refuses it.
        return min(max(_ask(self.rate, step), self.low), self.high)

    def _peak(self) -> int | None:
        return _peak_of(self.rate)


@dataclass(frozen=True, slots=True)
class Scale(Schedule):
    """A rate times a factor: `p(step) = factor * rate(step)`.

    Args:
        rate: what to scale.
        factor: finite, at least 0.

    Raises:
        DropkitValueError: the product leaves [0, 1]. It is raised here where the schedule's highest value is known,
            and else when the step comes.

    >>> Scale(Constant(0.5), 0.5).at(0)
    0.25
    """

    rate: Rate
    factor: float

    def __post_init__(self) -> None:
        factor = number("factor", self.factor)
        if not 0.0 <= factor < math.inf:
            raise DropkitValueError(f"factor must be finite and at least 0, got {factor}")
        object.__setattr__(self, "factor", factor)
        peak = self._peak()
        if peak is not None and self._p(peak) > 1.0:
            raise DropkitValueError(
                f"scaled by {factor}, {self.rate!r} gives {self._p(peak)} at step {peak}; a rate must lie in [0, 1], "
                f"so scale by at most 1/{_ask(self.rate, peak)}"
            )

    def _p(self, step: int) -> float:
        return self.factor * _ask(self.rate, step)

    def _peak(self) -> int | None:
        return _peak_of(self.rate)


def _ask(rate: Rate, step: int) -> float:
    # Unchecked inside a composition: what counts is where the whole of it ends up.
    return rate._p(step) if isinstance(rate, Schedule) else rate.at(step)


def _peak_of(rate: Rate) -> int | None:
    return rate._peak() if isinstance(rate, Schedule) else None


def as_rate(value: "Rate | float") -> Rate:
    """The value itself where it has `.at(step)`, else a `Constant` of it.

    Raises:
        DropkitTypeError, DropkitValueError: neither a rate nor a number in [0, 1].

    >>> as_rate(0.5)
    Constant(p=0.5)
    """
    if isinstance(value, float | int):
        return Constant(value)
    if hasattr(value, "at"):
        return value
    if callable(value):
        raise DropkitTypeError(f"a rate has .at(step), got the function {value!r}; wrap it: From(function)")
    return Constant(value)  # type: ignore[arg-type]  # a number of another kind, or the error that says it is none


def number(name: str, value: object) -> float:
    """The value as a float, or an error that names it."""
    if not isinstance(value, str | bytes) and hasattr(value, "__float__"):
        try:
            return float(value)
        except (TypeError, ValueError, RuntimeError):  # an array of many numbers
            pass
    raise DropkitTypeError(f"{name} must be a number, got {value!r} of type {type(value).__name__}")


def probability(name: str, value: object) -> float:
    """The value as a float in [0, 1], or an error that names it.

    Raises:
        DropkitTypeError: no number.
        DropkitValueError: outside [0, 1].

    >>> probability("p", 1)
    1.0
    """
    if isinstance(value, str | bytes) or not hasattr(value, "__float__"):
        raise DropkitTypeError(f"{name} must be a number in [0, 1], got {value!r} of type {type(value).__name__}")
    p = number(name, value)
    if not 0.0 <= p <= 1.0:
        raise DropkitValueError(f"{name} must lie in [0, 1], got {value}")
    return p


def positive(name: str, value: object) -> float:
    """The value as a finite float above 0, or an error that names it."""
    found = number(name, value)
    if not 0.0 < found < math.inf:
        raise DropkitValueError(f"{name} must be finite and above 0, got {value}")
    return found


def whole(name: str, value: object, *, least: int, unit: str = "step") -> int:
    """The value as a whole number of steps, or of another unit, or an error that names it."""
    try:
        if isinstance(value, bool):
            raise TypeError
        count = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise DropkitTypeError(f"{name} must be a whole number of {unit}s, got {value!r}") from None
    if count < least:
        raise DropkitValueError(f"{name} must be at least {least} {unit}{'s' * (least != 1)}, got {count}")
    return count


def set_probabilities(schedule: object, *names: str) -> None:
    """Check fields of a frozen schedule and keep them as floats."""
    for name in names:
        object.__setattr__(schedule, name, probability(name, getattr(schedule, name)))


def set_steps(schedule: object, *names: str, least: int = 1) -> None:
    """Check fields that count steps and keep them as ints."""
    for name in names:
        object.__setattr__(schedule, name, whole(name, getattr(schedule, name), least=least))


def between(start: float, end: float, fraction: float) -> float:
    """`start + (end - start) * fraction`, exact at both ends and never past them."""
    if fraction >= 1.0:
        return end
    return min(max(start + (end - start) * fraction, min(start, end)), max(start, end))
