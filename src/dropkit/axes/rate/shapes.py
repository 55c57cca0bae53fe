"""Plain shapes of a rate over steps."""

import bisect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from ...errors import DropkitTypeError, DropkitValueError, UnknownNameError
from .schedule import Schedule, between, positive, probability, set_probabilities, set_steps, whole

# exp(-40) is below half a unit in the last place of 1: from there on an exponential equals its end.
SETTLED = 40.0


@dataclass(frozen=True, slots=True)
class Step(Schedule):
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
        set_probabilities(self, "start", "drop", "floor")
        set_steps(self, "every")
        if self.floor > self.start:
            raise DropkitValueError(f"floor {self.floor} lies above start {self.start}; a rate that falls needs room")

    def _p(self, step: int) -> float:
        # In the decimals that were written, so that 0.5 - 2 * 0.1 is 0.3, and no rounding: 1 / 3 stays what it is.
        start, drop = Fraction(repr(self.start)), Fraction(repr(self.drop))
        return max(self.floor, float(start - drop * (step // self.every)))

    def _peak(self) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class Linear(Schedule):
    """Straight from start to end, then stays: `start + (end - start) * min(1, step / steps)`.

    Args:
        start, end: drop probabilities at step 0 and from step `steps` on.
        steps: steps from one to the other, at least 1.

    Raises:
        DropkitTypeError, DropkitValueError: an argument of the wrong type or outside its range.

    >>> rate = Linear(0.5, 0.0, steps=100)
    >>> rate.at(0), rate.at(50), rate.at(100), rate.at(1000)
    (0.5, 0.25, 0.0, 0.0)
    """

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        set_probabilities(self, "start", "end")
        set_steps(self, "steps")

    def _p(self, step: int) -> float:
        return between(self.start, self.end, step / self.steps)

    def _peak(self) -> int:
        return 0 if self.start >= self.end else self.steps


@dataclass(frozen=True, slots=True)
class Warmup(Schedule):
    """Straight up from 0, then stays: `p * min(1, step / steps)`.

    With `linear_in_depth` over the cells it is ScheduledDropPath.

    Args:
        p: drop probability from step `steps` on.
        steps: steps to get there, at least 1.

    Raises:
        DropkitTypeError, DropkitValueError: an argument of the wrong type or outside its range.

    Source: the ramp of DropBlock (Ghiasi et al. 2018) and of ScheduledDropPath (Zoph et al. 2018).

    >>> Warmup(0.2, steps=100).at(50)
    0.1
    """

    p: float
    steps: int

    def __post_init__(self) -> None:
        set_probabilities(self, "p")
        set_steps(self, "steps")

    def _p(self, step: int) -> float:
        return between(0.0, self.p, step / self.steps)

    def _peak(self) -> int:
        return self.steps


@dataclass(frozen=True, slots=True)
class Cosine(Schedule):
    """Half a cosine from start to end, then stays: `end + (start - end) (1 + cos(pi min(1, step / steps))) / 2`.

    Args:
        start, end: drop probabilities at step 0 and from step `steps` on.
        steps: steps from one to the other, at least 1.

    Raises:
        DropkitTypeError, DropkitValueError: an argument of the wrong type or outside its range.

    >>> rate = Cosine(0.4, 0.0, steps=100)
    >>> rate.at(0), round(rate.at(50), 12), rate.at(100)
    (0.4, 0.2, 0.0)
    """

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        set_probabilities(self, "start", "end")
        set_steps(self, "steps")

    def _p(self, step: int) -> float:
        if step >= self.steps:
            return self.end
        # sin^2(a / 2) = (1 - cos(a)) / 2, without the cancellation at small a
        return between(self.start, self.end, math.sin(0.5 * math.pi * step / self.steps) ** 2)

    def _peak(self) -> int:
        return 0 if self.start >= self.end else self.steps


@dataclass(frozen=True, slots=True)
class Exponential(Schedule):
    """From start towards end, a fixed share of the way each step: `end + (start - end) exp(-gamma step)`.

    Args:
        start, end: drop probability at step 0 and in the limit.
        gamma: decay per step, finite and above 0; after ln(2) / gamma steps half the way is gone.

    Raises:
        DropkitTypeError, DropkitValueError: an argument of the wrong type or outside its range.

    >>> rate = Exponential(0.5, 0.1, gamma=0.01)
    >>> [round(rate.at(step), 4) for step in (0, 100, 1000)]
    [0.5, 0.2472, 0.1]
    """

    start: float
    end: float
    gamma: float

    def __post_init__(self) -> None:
        set_probabilities(self, "start", "end")
        object.__setattr__(self, "gamma", positive("gamma", self.gamma))

    def _p(self, step: int) -> float:
        return between(self.start, self.end, -math.expm1(-self.gamma * step))

    def _peak(self) -> int:
        return 0 if self.start >= self.end else math.ceil(min(SETTLED / self.gamma, 2.0**63))


@dataclass(frozen=True, slots=True)
class Piecewise(Schedule):
    """Through given points (step, p): constant from each to the next, or straight lines between them; then stays.

    Args:
        points: pairs (step, p), the first at step 0, steps rising.
        mode: "constant" or "linear".

    Raises:
        DropkitTypeError, DropkitValueError: points that are no such pairs, a p outside [0, 1], steps out of order.
        UnknownNameError: another mode.

    >>> rate = Piecewise([(0, 0.5), (100, 0.3), (200, 0.0)])
    >>> [rate.at(step) for step in (0, 99, 100, 150, 200)]
    [0.5, 0.5, 0.3, 0.3, 0.0]
    >>> Piecewise([(0, 0.5), (100, 0.25)], mode="linear").at(50)
    0.375
    """

    points: Sequence[tuple[int, float]]
    mode: str = "constant"

    def __post_init__(self) -> None:
        try:
            pairs = [(step, p) for step, p in self.points]
        except (TypeError, ValueError):
            raise DropkitTypeError(
                f"points must be pairs (step, p) such as [(0, 0.5), (1000, 0.1)], got {self.points!r}"
            ) from None
        checked = tuple((whole("a point's step", s, least=0), probability(f"p at step {s}", p)) for s, p in pairs)
        steps = [step for step, _ in checked]
        if not steps or steps[0] != 0:
            raise DropkitValueError(f"the first point must be at step 0, got {steps[0] if steps else 'no points'}")
        if any(later <= earlier for earlier, later in itertools.pairwise(steps)):
            raise DropkitValueError(f"the steps of the points must rise, got {steps}")
        if self.mode not in ("constant", "linear"):
            raise UnknownNameError("mode", str(self.mode), ("constant", "linear"))
        object.__setattr__(self, "points", checked)

    def _p(self, step: int) -> float:
        after = bisect.bisect_right(self.points, step, key=lambda point: point[0])
        start, p = self.points[after - 1]
        if self.mode == "constant" or after == len(self.points):
            return p
        end, next_p = self.points[after]
        return between(p, next_p, (step - start) / (end - start))

    def _peak(self) -> int:
        return max(self.points, key=lambda point: point[1])[0]


@dataclass(frozen=True, slots=True)
class VShape(Schedule):
    """Straight down from start to bottom at step `turn`, straight up to end at step `steps`, then stays.

    Args:
        start, end: drop probabilities at step 0 and from step `steps` on.
        turn, steps: where it turns and where it ends, 1 <= turn < steps.
        bottom: drop probability at the turn, not above start or end.

    Raises:
        DropkitTypeError, DropkitValueError: an argument of the wrong type or outside its range.

    Source: Scheduled DropHead (Zhou et al. 2020, arXiv:2004.13342), with bottom 0.

    >>> rate = VShape(0.2, 0.2, turn=100, steps=500)
    >>> [rate.at(step) for step in (0, 50, 100, 300, 500, 1000)]
    [0.2, 0.1, 0.0, 0.1, 0.2, 0.2]
    """

    start: float
    end: float
    turn: int
    steps: int
    bottom: float = 0.0

    def __post_init__(self) -> None:
        set_probabilities(self, "start", "end", "bottom")
        set_steps(self, "turn", "steps")
        if self.turn >= self.steps:
            raise DropkitValueError(f"the turn must come before the end, got turn {self.turn} and steps {self.steps}")
        if self.bottom > min(self.start, self.end):
            raise DropkitValueError(f"bottom {self.bottom} lies above start {self.start} or end {self.end}")

    def _p(self, step: int) -> float:
        if step < self.turn:
            return between(self.start, self.bottom, step / self.turn)
        return between(self.bottom, self.end, (step - self.turn) / (self.steps - self.turn))

    def _peak(self) -> int:
        return 0 if self.start >= self.end else self.steps


@dataclass(frozen=True, slots=True)
class Cyclic(Schedule):
    """Triangles without end: `low + (high - low) (1 - |2 x - 1|)`, x = (step mod period) / period.

    Args:
        low, high: drop probabilities at the start and in the middle of each period, low <= high.
        period: steps of one triangle, at least 2.

    Raises:
        DropkitTypeError, DropkitValueError: an argument of the wrong type or outside its range.

    >>> rate = Cyclic(0.0, 0.5, period=100)
    >>> [rate.at(step) for step in (0, 25, 50, 75, 100)]
    [0.0, 0.25, 0.5, 0.25, 0.0]
    """

    low: float
    high: float
    period: int

    def __post_init__(self) -> None:
        set_probabilities(self, "low", "high")
        set_steps(self, "period", least=2)
        if self.low > self.high:
            raise DropkitValueError(f"a cycle needs low <= high, got low {self.low} and high {self.high}")

    def _p(self, step: int) -> float:
        phase = step % self.period
        return between(self.low, self.high, 2 * min(phase, self.period - phase) / self.period)

    def _peak(self) -> int:
        return self.period // 2
