"""The strategies of the recipes, by name: what moves the rate of each site, starting from the fixed rates.

`none`, `fixed`, `step` and `decay` follow the step alone. The others adapt: `concrete`, `disarm` and `hypergradient`
learn the rate by gradient, `gap` holds the distance of validation and training loss. They start where `fixed` stands,
so that what they add is what moved, and they stay within BOUNDS; so do `pathwise` and `literal`, which show rules that
do not work. `weight-decay` has no dropout but the other remedy that textbooks name.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ...axes.rate import Constant, Exponential, Gap, Rate, Step
from ...errors import DropkitValueError, UnknownNameError
from .recipe import LearnedRate, Rates, Settings, Strategy, StrategyRates

BOUNDS = (0.0, 0.5)
ADAPTIVE = ("concrete", "disarm", "hypergradient", "gap")
SCHEDULED = ("none", "fixed", "step")
DECAY = "weight-decay"
PATHWISE, LITERAL = "pathwise", "literal"
"""What a tutorial's rule for the rate comes to, charitably and to the letter: to see what it does, not to use."""

Rule = Callable[[Settings, int, float], Rate | LearnedRate]
"""(settings, optimizer steps an epoch, a site's fixed rate) -> what moves that rate; pickled by its name."""


def standard(fixed: Mapping[str, float]) -> dict[str, StrategyRates]:
    """The strategies of a torch module, for sites with these fixed rates, each in [0, 0.5].

    >>> list(standard({"drop1": 0.5}))
    ['none', 'fixed', 'step', 'concrete', 'disarm', 'hypergradient', 'gap', 'weight-decay', 'pathwise']
    """
    return chosen(fixed, *SCHEDULED, *ADAPTIVE, DECAY, PATHWISE)


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
    known |= {name: Spaced(name, tuple(fixed), rate) for name, rate in SPACED.items()}
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
            takes = f"one rate or {len(fixed)}" if len(fixed) > 1 else "one rate, for the one site"
            raise DropkitValueError(f"strategy 'fixed' takes {takes}, got {len(values)}: {values}")
        for p in values:
            if not 0 <= p <= 1:
                raise _refused("fixed", values, f"p must lie in [0, 1], got {p}", "fixed:0.2:0.5")
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
        for factor in values:
            if not 0 <= factor <= 1:
                problem = f"the factor of weight decay must lie in [0, 1], got {factor}"
                raise _refused(DECAY, values, problem, f"{DECAY}:1e-4")
        return dict.fromkeys(self.sites, Constant(0.0))

    def changed(self, settings: Settings, values: tuple[float, ...]) -> Settings:
        """The settings with that much more L2: a gradient of decay x weight is that of decay / 2 x weight^2."""
        decay = values[0] if values else 1e-4
        return replace(settings, l2=settings.l2 + decay / 2)


@dataclass(frozen=True, slots=True)
class Spaced:
    """A rate that falls in intervals: of the recipe's epochs, or of the iterations after the name, as in step:100."""

    name: str
    sites: tuple[str, ...]
    rate: Callable[[int], Rate]

    def __call__(self, settings: Settings, steps: int, values: tuple[float, ...]) -> Rates:
        """Site -> a rate of its own, at that interval."""
        if len(values) > 1:
            raise DropkitValueError(
                f"strategy {self.name!r} takes one number, its interval in iterations, as in {self.name}:100, got "
                f"{len(values)}: {values}"
            )
        for every in values:
            if not (every >= 1 and every.is_integer()):
                problem = f"the interval must be a whole number of iterations, at least 1, got {every}"
                raise _refused(self.name, values, problem, f"{self.name}:100")
        every = int(values[0]) if values else settings.step_epochs * steps
        return {site: self.rate(every) for site in self.sites}


def _refused(name: str, values: tuple[float, ...], problem: str, example: str) -> DropkitValueError:
    return DropkitValueError(f"strategy {str(Strategy(name, values))!r}: {problem}; write for example {example}")


@dataclass(frozen=True, slots=True)
class Ruled:
    """A strategy that moves each site's rate by one rule, from its fixed rate, and whose name takes no numbers."""

    name: str
    fixed: Mapping[str, float]
    rule: Rule

    def __call__(self, settings: Settings, steps: int, values: tuple[float, ...]) -> Rates:
        """Site -> what the rule makes of its fixed rate."""
        if values:
            raise DropkitValueError(
                f"strategy {self.name!r} takes no numbers, got {values}; rates are for fixed, as in fixed:0.2:0.5"
            )
        return {site: self.rule(settings, steps, p) for site, p in self.fixed.items()}


@dataclass(frozen=True, slots=True)
class Learning:
    """The rule of a rate that is learned by a method of `LearnedRate`, at the recipe's learning rate or its own."""

    method: str
    learning_rate: float | None = None

    def __call__(self, settings: Settings, steps: int, p: float) -> LearnedRate:
        """A rate that starts at p."""
        every = settings.hypergradient_every if self.method == "hypergradient" else 1
        speed = settings.rate_learning_rate if self.learning_rate is None else self.learning_rate
        return LearnedRate(method=self.method, start=p, bounds=BOUNDS, learning_rate=speed, every=every)


def _none(settings: Settings, steps: int, p: float) -> Constant:
    return Constant(0.0)


def _step(every: int) -> Step:
    """Starts at 0.5 and falls by 0.1 every so many iterations, never below 0.1."""
    return Step(start=0.5, drop=0.1, every=every, floor=0.1)


def _decay(every: int) -> Exponential:
    """From 0.5 towards 0.1, as `step` goes, but smoothly: half of what is left in each interval."""
    return Exponential(start=0.5, end=0.1, gamma=math.log(2) / every)


def _gap(settings: Settings, steps: int, p: float) -> Gap:
    low, high = BOUNDS
    return Gap(settings.gap_target, start=p, low=low, high=high, gain=settings.gap_gain)


RULES: dict[str, Rule] = {
    "none": _none,
    "concrete": Learning("concrete"),
    "disarm": Learning("disarm"),
    "hypergradient": Learning("hypergradient"),
    "gap": _gap,
    PATHWISE: Learning(PATHWISE, learning_rate=0.001),
    LITERAL: Learning(LITERAL, learning_rate=0.001),
}
SPACED: dict[str, Callable[[int], Rate]] = {"step": _step, "decay": _decay}
