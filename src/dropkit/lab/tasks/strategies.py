"""The strategies of a model of the user's, by name: its own rates, none, others, schedules, learned ones, other kinds.

`as-is` are the model's own rates and those that were inserted; all others start from these.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from ...axes import rate as rates
from ...axes.rate import Constant, Rate
from ...errors import DropkitValueError
from ..recipes.recipe import Rates, Settings, Strategy, StrategyRates
from ..recipes.strategies import BOUNDS, DECAY, RULES, SPACED, Fixed, Ruled, Spaced, WeightDecay
from .settings import TaskSettings
from .variants import VARIANTS

NONE, OWN, FIXED, SCALE = "none", "as-is", "fixed", "scale"
LEAST = 0.05  # where a learned or a controlled rate starts at least: at 0 there is no gradient


class Moving(Protocol):
    """(numbers behind the name or a site's own rate, steps of the whole run) -> the rate."""

    def __call__(self, values: tuple[float, ...], p: float, steps: int) -> Rate: ...


@dataclass(frozen=True, slots=True)
class Scheduled:
    """Rates that follow a schedule over the whole run.

    Args:
        name: of the strategy.
        own: site -> its own rate.
        most: how many numbers may stand behind the name.
        rate: of a site.
    """

    name: str
    own: Mapping[str, float]
    most: int
    rate: Moving

    def __call__(self, settings: Settings, steps: int, values: tuple[float, ...]) -> Rates:
        """Site -> its schedule."""
        if len(values) > self.most:
            example = ":".join([self.name, *("0.5", "0.1")[: self.most]])
            raise DropkitValueError(
                f"strategy {self.name!r} takes at most {self.most} numbers, as in {example}, got {values}"
            )
        check_rates(self.name, values)
        return {site: self.rate(values, p, max(1, steps * settings.epochs)) for site, p in self.own.items()}


def check_rates(name: str, values: tuple[float, ...]) -> None:
    """Refuse numbers that are no rates."""
    for p in values:
        if not 0 <= p <= 1:
            raise DropkitValueError(
                f"strategy {str(Strategy(name, values))!r}: a rate must lie in [0, 1], got {p}; write for example "
                f"{name}:0.2"
            )


def _two(values: tuple[float, ...], p: float) -> tuple[float, float]:
    """Start and end: as written, else the own rate and 0."""
    start, end = (*values, *(p, 0.0)[len(values) :])
    return start, end


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    return min(pair), max(pair)


# fmt: off
SCHEDULES: Mapping[str, tuple[int, Moving]] = {
    "linear": (2, lambda values, p, steps: rates.Linear(*_two(values, p), steps=steps)),
    "cosine": (2, lambda values, p, steps: rates.Cosine(*_two(values, p), steps=steps)),
    "vshape": (2, lambda values, p, steps: rates.VShape(*_two(values, p), turn=max(1, steps // 2), steps=steps + 1)),
    "cyclic": (2, lambda values, p, steps: rates.Cyclic(*_ordered(_two(values, p)), max(2, steps // 4))),
    "annealed": (1, lambda values, p, steps: rates.Annealed((*values, p)[0], steps)),
    "warmup": (1, lambda values, p, steps: rates.Warmup((*values, p)[0], max(1, steps // 4))),
    "early": (1, lambda values, p, steps: rates.Early((*values, p)[0], max(2, steps // 4))),
    "late": (1, lambda values, p, steps: rates.Late((*values, p)[0], max(1, steps // 2))),
    "curriculum": (1, lambda values, p, steps: rates.Curriculum((*values, p)[0], 10 / steps)),
    "anti-curriculum": (1, lambda values, p, steps: rates.AntiCurriculum((*values, p)[0], 10 / steps)),
    "flat-cos": (1, lambda values, p, steps: rates.FlatCos((*values, p)[0], steps)),
    "expm4t": (1, lambda values, p, steps: rates.ExpM4t((*values, p)[0], steps)),
}
# fmt: on
"""Schedules of a run by name: how many numbers they take, and the schedule."""


@dataclass(frozen=True, slots=True)
class Off:
    """No dropout at all, that which no rate reaches included."""

    sites: tuple[str, ...]

    def __call__(self, settings: Settings, steps: int, values: tuple[float, ...]) -> Rates:
        """No site drops."""
        if values:
            raise DropkitValueError(f"strategy 'none' takes no numbers, got {values}; rates are for fixed:0.2")
        return dict.fromkeys(self.sites, Constant(0.0))

    def changed(self, settings: TaskSettings, values: tuple[float, ...]) -> TaskSettings:
        """The settings that it trains at."""
        return replace(settings, literal="off")


@dataclass(frozen=True, slots=True)
class Scaled:
    """The own rates times a factor."""

    own: Mapping[str, float]

    def __call__(self, settings: Settings, steps: int, values: tuple[float, ...]) -> Rates:
        """Site -> its constant, at most 1."""
        if len(values) > 1 or any(value < 0 for value in values):
            raise DropkitValueError(
                f"strategy 'scale' takes one factor, 0 or more, as in scale:0.5, got {len(values)}: {values}"
            )
        factor = values[0] if values else 1.0
        return {site: Constant(min(1.0, factor * p)) for site, p in self.own.items()}


@dataclass(frozen=True, slots=True)
class Kind:
    """Another kind of dropout at the sites, at their own rates or one for all.

    Args:
        name: of the kind.
        own: site -> its own rate.
    """

    name: str
    own: Mapping[str, float]

    def __call__(self, settings: Settings, steps: int, values: tuple[float, ...]) -> Rates:
        """Site -> its constant."""
        if len(values) > 1:
            raise DropkitValueError(f"strategy {self.name!r} takes one rate, as in {self.name}:0.1, got {values}")
        check_rates(self.name, values)
        return {site: Constant((*values, p)[0]) for site, p in self.own.items()}

    def changed(self, settings: TaskSettings, values: tuple[float, ...]) -> TaskSettings:
        """The settings that it trains at."""
        return replace(settings, variant=self.name)


@dataclass(frozen=True, slots=True)
class Starting:
    """A strategy that moves rates from their own, which must lie where it can move."""

    name: str
    own: Mapping[str, float]

    def __call__(self, settings: Settings, steps: int, values: tuple[float, ...]) -> Rates:
        """Site -> what the rule makes of its own rate."""
        start = {site: min(max(p, LEAST), BOUNDS[1]) for site, p in self.own.items()}
        return Ruled(self.name, start, RULES[self.name])(settings, steps, values)


def strategies(own: Mapping[str, float], learned: tuple[str, ...]) -> dict[str, StrategyRates]:
    """All strategies of a model by name.

    Args:
        own: site -> its rate in the model as it is.
        learned: those by gradient that its framework's engine trains.

    >>> list(strategies({"drop": 0.5}, ()))[:6]
    ['none', 'as-is', 'fixed', 'scale', 'weight-decay', 'step']
    """
    sites = tuple(own)
    found: dict[str, StrategyRates] = {NONE: Off(sites), OWN: _As(own), FIXED: Fixed(own), SCALE: Scaled(own)}
    found[DECAY] = WeightDecay(sites)
    found |= {name: Spaced(name, sites, rate) for name, rate in SPACED.items()}
    found |= {name: Scheduled(name, own, most, rate) for name, (most, rate) in SCHEDULES.items()}
    found |= {name: Starting(name, own) for name in (*learned, "gap")}
    return found | {name: Kind(name, own) for name in VARIANTS}


@dataclass(frozen=True, slots=True)
class _As:
    """The model as it is."""

    own: Mapping[str, float]

    def __call__(self, settings: Settings, steps: int, values: tuple[float, ...]) -> Rates:
        """Site -> its own rate."""
        if values:
            raise DropkitValueError(f"strategy 'as-is' takes no numbers, got {values}; rates are for fixed:0.2")
        return {site: Constant(p) for site, p in self.own.items()}


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The rates of the sites that a strategy's @PATTERN leaves out: own ones, and 0 of what was inserted."""

    own: Mapping[str, float]
    inserted: frozenset[str]

    def __call__(self, settings: Settings, steps: int, values: tuple[float, ...]) -> Rates:
        """Site -> its constant."""
        return {site: Constant(0.0 if site in self.inserted else p) for site, p in self.own.items()}
