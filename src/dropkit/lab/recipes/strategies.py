"""The strategies of the recipes, by name: what moves the rate of each site, starting from the fixed rates.

`none`, `fixed`, `step` and `decay` follow the step alone. The others adapt: `concrete`, `disarm` and `hypergradient`
learn the rate by gradient, `gap` holds the distance of validation and training loss; `weight-decay` has no dropout but
the other remedy that textbooks name. They start where `fixed` stands,
so that what they add is what moved, and they stay within BOUNDS.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ...axes.rate import Constant, Exponential, Gap, Rate, Step
from ...errors import DropkitValueError, UnknownNameError
from .recipe import LearnedRate, Rates, Settings, StrategyRates

BOUNDS = (0.0, 0.5)
ADAPTIVE = ("concrete", "disarm", "hypergradient", "gap")
SCHEDULED = ("none", "fixed", "step")
DECAY = "weight-decay"

Rule = Callable[[Settings, int, float], Rate | LearnedRate]
"""(settings, optimizer steps an epoch, a site's fixed rate) -> what moves that rate; pickled by its name."""


def standard(fixed: Mapping[str, float]) -> dict[str, StrategyRates]:
    """The strategies of a torch module, for sites with these fixed rates, each in [0, 0.5].

    >>> list(standard({"drop1": 0.5}))
    ['none', 'fixed', 'step', 'concrete', 'disarm', 'hypergradient', 'gap', 'weight-decay']
    """
    return chosen(fixed, *SCHEDULED, *ADAPTIVE, DECAY)


def scheduled(fixed: Mapping[str, float]) -> dict[str, StrategyRates]:
    """Those that follow the step alone, which any engine can train.

    >>> list(scheduled({"drop1": 0.5}))
    ['none', 'fixed', 'step']
    """
    return chosen(fixed, *SCHEDULED)


def chosen(fixed: Mapping[str, float], *names: str) -> dict[str, StrategyRates]:
    """Some strategies, by name.

    Raises:
        UnknownNameError: there is no such strategy.

    >>> list(chosen({"drop1": 0.5}, "none", "decay"))
    ['none', 'decay']
    """
    known: dict[str, StrategyRates] = {name: Ruled(name, fixed, rule) for name, rule in RULES.items()}
    known |= {"fixed": Fixed(fixed), DECAY: WeightDecay(tuple(fixed))}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UnknownNameError("strategy", unknown[0], known)
    return {name: known[name] for name in names}


@dataclass(frozen=True, slots=True)
class Fixed:
    """Constant rates: the recipe's, or those written after the name, one for all sites or one for each."""

    fixed: Mapping[str, float]

    def __call__(self, settings: Settings, steps: int, values: tuple[float, ...]) -> Rates:
        """Site -> its constant."""
        fixed = self.fixed
        found = {0: tuple(fixed.values()), 1: values * len(fixed), len(fixed): values}.get(len(values))
        if found is None:
            raise DropkitValueError(f"strategy 'fixed' takes one rate or {len(fixed)}, got {len(values)}: {values}")
        return {site: Constant(p) for site, p in zip(fixed, found, strict=True)}


@dataclass(frozen=True, slots=True)
class WeightDecay:
    """No dropout, and decay x weight in the gradient of each weight, not of biases: 1e-4, or what is written."""

    sites: tuple[str, ...]

    def __call__(self, settings: Settings, steps: int, values: tuple[float, ...]) -> Rates:
        """No site drops."""
        if len(values) > 1:
            raise DropkitValueError(
                f"strategy {DECAY!r} takes one number, as in {DECAY}:1e-4, got {len(values)}: {values}"
            )
        return dict.fromkeys(self.sites, Constant(0.0))

    def changed(self, settings: Settings, values: tuple[float, ...]) -> Settings:
        """The settings with that much more L2: a gradient of decay x weight is that of decay / 2 x weight^2."""
        decay = values[0] if values else 1e-4
        return replace(settings, l2=settings.l2 + decay / 2)


@dataclass(frozen=True, slots=True)
class Ruled:
    """A strategy that moves each site's rate by one rule, from its fixed rate, and whose name takes no rates."""

    name: str
    fixed: Mapping[str, float]
    rule: Rule

    def __call__(self, settings: Settings, steps: int, values: tuple[float, ...]) -> Rates:
        """Site -> what the rule makes of its fixed rate."""
        if values:
            raise DropkitValueError(
                f"strategy {self.name!r} takes no rates, got {values}; only fixed does, as in fixed:0.2:0.5"
            )
        return {site: self.rule(settings, steps, p) for site, p in self.fixed.items()}


@dataclass(frozen=True, slots=True)
class Learning:
    """The rule of a rate that is learned by a method of `LearnedRate`."""

    method: str

    def __call__(self, settings: Settings, steps: int, p: float) -> LearnedRate:
        """A rate that starts at p."""
        every = settings.hypergradient_every if self.method == "hypergradient" else 1
        return LearnedRate(
            method=self.method, start=p, bounds=BOUNDS, learning_rate=settings.rate_learning_rate, every=every
        )


def _none(settings: Settings, steps: int, p: float) -> Constant:
    return Constant(0.0)


def _step(settings: Settings, steps: int, p: float) -> Step:
    """Starts at 0.5 and falls by 0.1 every few epochs, never below 0.1."""
    return Step(start=0.5, drop=0.1, every=settings.step_epochs * steps, floor=0.1)


def _decay(settings: Settings, steps: int, p: float) -> Exponential:
    """From 0.5 towards 0.1, as `step` goes, but smoothly: half of what is left in as many epochs as `step` stays."""
    return Exponential(start=0.5, end=0.1, gamma=math.log(2) / (settings.step_epochs * steps))


def _gap(settings: Settings, steps: int, p: float) -> Gap:
    low, high = BOUNDS
    return Gap(settings.gap_target, start=p, low=low, high=high, gain=settings.gap_gain)


RULES: dict[str, Rule] = {
    "none": _none,
    "step": _step,
    "decay": _decay,
    "concrete": Learning("concrete"),
    "disarm": Learning("disarm"),
    "hypergradient": Learning("hypergradient"),
    "gap": _gap,
}
