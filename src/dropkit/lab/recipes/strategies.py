"""The strategies of the recipes, by name: what moves the rate of each site, starting from the fixed rates.

`none`, `fixed`, `step` and `decay` follow the step alone. The others adapt: `concrete`, `disarm` and `hypergradient`
learn the rate by gradient, `gap` holds the distance of validation and training loss. They start where `fixed` stands,
so that what they add is what moved, and they stay within BOUNDS.
"""

import math
from collections.abc import Callable, Mapping

from ...axes.rate import Constant, Exponential, Gap, Step
from ...errors import DropkitValueError, UnknownNameError
from .recipe import LearnedRate, Rates, Settings, StrategyRates

BOUNDS = (0.0, 0.5)
ADAPTIVE = ("concrete", "disarm", "hypergradient", "gap")
SCHEDULED = ("none", "fixed", "step")


def standard(fixed: Mapping[str, float]) -> dict[str, StrategyRates]:
    """The strategies of a torch module, for sites with these fixed rates, each in [0, 0.5].

    >>> list(standard({"drop1": 0.5}))
    ['none', 'fixed', 'step', 'concrete', 'disarm', 'hypergradient', 'gap']
    """
    return chosen(fixed, *SCHEDULED, *ADAPTIVE)


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
    known = {
        "none": _plain("none", lambda settings, steps: {site: Constant(0.0) for site in fixed}),
        "fixed": _fixed(fixed),
        "step": _plain("step", lambda settings, steps: dict.fromkeys(fixed, _step(settings, steps))),
        "decay": _plain("decay", lambda settings, steps: dict.fromkeys(fixed, _decay(settings, steps))),
        "concrete": _plain("concrete", _learned("concrete", fixed)),
        "disarm": _plain("disarm", _learned("disarm", fixed)),
        "hypergradient": _plain("hypergradient", _learned("hypergradient", fixed)),
        "gap": _plain("gap", lambda settings, steps: {site: _gap(settings, p) for site, p in fixed.items()}),
    }
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UnknownNameError("strategy", unknown[0], known)
    return {name: known[name] for name in names}


def _plain(name: str, rates: Callable[[Settings, int], Rates]) -> StrategyRates:
    """A strategy whose name takes no rates."""

    def strategy(settings: Settings, steps: int, values: tuple[float, ...]) -> Rates:
        if values:
            raise DropkitValueError(
                f"strategy {name!r} takes no rates, got {values}; only fixed does, as in fixed:0.2:0.5"
            )
        return rates(settings, steps)

    return strategy


def _fixed(fixed: Mapping[str, float]) -> StrategyRates:
    """Constant rates: the recipe's, or those given, one for all sites or one for each."""

    def strategy(settings: Settings, steps: int, values: tuple[float, ...]) -> Rates:
        found = {0: tuple(fixed.values()), 1: values * len(fixed), len(fixed): values}.get(len(values))
        if found is None:
            raise DropkitValueError(f"strategy 'fixed' takes one rate or {len(fixed)}, got {len(values)}: {values}")
        return {site: Constant(p) for site, p in zip(fixed, found, strict=True)}

    return strategy


def _step(settings: Settings, steps: int) -> Step:
    """Starts at 0.5 and falls by 0.1 every few epochs, never below 0.1."""
    return Step(start=0.5, drop=0.1, every=settings.step_epochs * steps, floor=0.1)


def _decay(settings: Settings, steps: int) -> Exponential:
    """From 0.5 towards 0.1, as `step` goes, but smoothly: half of what is left in as many epochs as `step` stays."""
    return Exponential(start=0.5, end=0.1, gamma=math.log(2) / (settings.step_epochs * steps))


def _learned(method: str, fixed: Mapping[str, float]) -> Callable[[Settings, int], Rates]:
    def rates(settings: Settings, steps: int) -> Rates:
        every = settings.hypergradient_every if method == "hypergradient" else 1
        return {
            site: LearnedRate(
                method=method, start=p, bounds=BOUNDS, learning_rate=settings.rate_learning_rate, every=every
            )
            for site, p in fixed.items()
        }

    return rates


def _gap(settings: Settings, p: float) -> Gap:
    low, high = BOUNDS
    return Gap(settings.gap_target, start=p, low=low, high=high, gain=settings.gap_gain)
