"""A rate under feedback: it moves with what is measured, so unlike a schedule it has a state."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ...errors import DropkitTypeError, DropkitValueError, UnknownNameError
from .schedule import Clip, Rate, Scale, Then, number, positive, probability

METRICS = {"loss": 1.0, "accuracy": -1.0}  # the sign that makes overfitting a positive gap
STATE = ("p", "gap", "error", "updates")


@dataclass(slots=True, eq=False)
class Gap:
    """Holds the gap between training and validation at a target: more dropout where it is wider, less where narrower.

    At each update, with g the smoothed gap and e = g - target (PI control in velocity form, on p itself):

        gap = validation - train for a loss, train - validation for an accuracy
        g   = gap at the first update, then smoothing * g + (1 - smoothing) * gap
        p   = clip(p + clip(gain * e + proportional * (e - e_before), -max_change, max_change), low, high)

    p is the integral itself, so a p that waits at a bound winds nothing up. Its unit is a probability, the unit of gain
    a probability per unit of gap and update. With the target out of reach p ends at a bound, which is an answer.

    Measure both metrics in the same mode, dropout off: with dropout on, the training loss is inflated and the gap too
    small. The validation data that steer the rate are no test data any more.

    Args:
        target: the gap to hold, finite; for an accuracy in the unit that it is given in.
        metric: "loss" or "accuracy", what `update` is given.
        low, high: bounds of p, 0 <= low <= high <= 1.
        start: p before the first update, in [low, high]; low by default.
        gain: how far p moves per unit of gap and update, finite and above 0.
        proportional: what a change of the gap adds, finite and at least 0; it damps what gain alone lets swing.
        smoothing: weight of the past in the gap's running mean, in [0, 1); 0 takes each gap as it comes.
        max_change: the most that p moves in one update, above 0.

    Raises:
        DropkitTypeError, DropkitValueError: an argument of the wrong type or outside its range.
        UnknownNameError: another metric.

    Source: none canonical; the nearest published controller is that of adaptive discriminator augmentation (Karras et
    al. 2020, arXiv:2006.06676), which moves a probability by fixed amounts with the sign of an error.

    >>> rate = Gap(0.1, start=0.2, gain=0.5)
    >>> rate.at(0)
    0.2
    >>> round(rate.update(train=0.30, validation=0.50), 4)
    0.25
    >>> round(rate.update(train=0.35, validation=0.45), 4)
    0.25
    """

    target: float
    metric: str = "loss"
    low: float = 0.0
    high: float = 0.5
    start: float | None = None
    gain: float = 0.5
    proportional: float = 0.0
    smoothing: float = 0.0
    max_change: float = 0.1
    # The state: what moves.
    _p: float = field(init=False, repr=False)
    _gap: float = field(init=False, repr=False, default=0.0)
    _error: float = field(init=False, repr=False, default=0.0)
    _updates: int = field(init=False, repr=False, default=0)

    def __post_init__(self) -> None:
        self.target = _finite("target", self.target)
        if self.metric not in METRICS:
            raise UnknownNameError("metric", str(self.metric), METRICS)
        self.low, self.high = probability("low", self.low), probability("high", self.high)
        if self.low > self.high:
            raise DropkitValueError(f"a controller needs low <= high, got low {self.low} and high {self.high}")
        self.start = self.low if self.start is None else probability("start", self.start)
        if not self.low <= self.start <= self.high:
            raise DropkitValueError(f"start must lie in [low, high] = [{self.low}, {self.high}], got {self.start}")
        self.gain, self.max_change = positive("gain", self.gain), positive("max_change", self.max_change)
        self.proportional = _finite("proportional", self.proportional)
        if self.proportional < 0.0:
            raise DropkitValueError(f"proportional must be at least 0, got {self.proportional}")
        self.smoothing = probability("smoothing", self.smoothing)
        if self.smoothing == 1.0:
            raise DropkitValueError("smoothing must be below 1, got 1.0: the gap would never be seen")
        self._p = self.start

    def at(self, step: int) -> float:
        """The drop probability that the last update set, whatever the step."""
        return self._p

    def update(self, *, train: float | None = None, validation: float | None = None) -> float:
        """Take a pair of measurements, once an epoch or at any other even pace, and return the new p.

        A call that raises changes nothing.

        Args:
            train, validation: the metric on training and on validation data, finite.

        Raises:
            DropkitValueError: a metric is missing, NaN or infinite.
            DropkitTypeError: a metric is not a number.
        """
        gap = METRICS[self.metric] * (self._measured("validation", validation) - self._measured("train", train))
        if self._updates:
            gap = self.smoothing * self._gap + (1.0 - self.smoothing) * gap
        error = gap - self.target
        before = self._error if self._updates else error
        change = self.gain * error + self.proportional * (error - before)
        change = min(max(change, -self.max_change), self.max_change)
        self._p = min(max(self._p + change, self.low), self.high)
        self._gap, self._error, self._updates = gap, error, self._updates + 1
        return self._p

    def state(self) -> dict[str, float]:
        """What a checkpoint must hold: finite numbers that JSON keeps to the last bit.

        >>> Gap(0.1).state()
        {'p': 0.0, 'gap': 0.0, 'error': 0.0, 'updates': 0}
        """
        return {"p": self._p, "gap": self._gap, "error": self._error, "updates": self._updates}

    def load(self, state: Mapping[str, float]) -> None:
        """Go on from a `state()`: every later update gives the p that it would have given.

        Raises:
            DropkitTypeError: no mapping, or a value in it is not a number.
            DropkitValueError: keys missing or unknown, a value not finite, p outside [low, high].

        >>> rate, resumed = Gap(0.1), Gap(0.1)
        >>> _ = rate.update(train=0.3, validation=0.6)
        >>> resumed.load(rate.state())
        >>> resumed.state() == rate.state()
        True
        """
        if not isinstance(state, Mapping):
            raise DropkitTypeError(f"state must be a mapping as Gap.state() gives it, got {type(state).__name__}")
        if set(state) != set(STATE):
            raise DropkitValueError(f"the state of a Gap has the keys {', '.join(STATE)}; got {sorted(state)}")
        found = {name: _finite(f"state {name!r}", state[name]) for name in STATE}
        if not self.low <= found["p"] <= self.high:
            raise DropkitValueError(
                f"state 'p' is {found['p']}, outside [low, high] = [{self.low}, {self.high}]; "
                "it was saved by a controller with other bounds"
            )
        if found["updates"] < 0 or found["updates"] != int(found["updates"]):
            raise DropkitValueError(f"state 'updates' must be a whole number of at least 0, got {found['updates']}")
        self._p, self._gap, self._error = found["p"], found["gap"], found["error"]
        self._updates = int(found["updates"])

    def _measured(self, name: str, value: float | None) -> float:
        if value is None:
            raise DropkitValueError(
                f"a Gap controller without a {name} metric has no gap to hold at {self.target}; "
                f"pass {name}=<{self.metric}> to update, measured with dropout off"
                + (" on data held out from training" if name == "validation" else "")
            )
        found = number(f"the {name} {self.metric}", value)
        if not math.isfinite(found):
            raise DropkitValueError(
                f"the {name} {self.metric} is {found} at update {self._updates}; "
                "a Gap controller needs finite metrics: stop the run, or leave the update out"
            )
        return found


def controllers(rate: Rate) -> list[Gap]:
    """The controllers inside a rate, each once: those whose state a checkpoint must hold.

    >>> gap = Gap(0.1)
    >>> controllers(Scale(gap, 0.5)) == [gap], controllers(Clip(Scale(Then(gap, gap, 10), 0.5)))  == [gap]
    (True, True)
    """
    if isinstance(rate, Gap):
        return [rate]
    if isinstance(rate, Clip | Scale):
        return controllers(rate.rate)
    if isinstance(rate, Then):
        return list(dict.fromkeys([*controllers(rate.first), *controllers(rate.second)]))
    return []


def _finite(name: str, value: object) -> float:
    found = number(name, value)
    if not math.isfinite(found):
        raise DropkitValueError(f"{name} must be finite, got {value}")
    return found
