"""Rates that move in a model: one `Schedule` sets the p of its dropouts, step after step."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from ... import patterns
from ...axes.rate import Gap, Rate, as_rate, controllers, probability
from ...axes.rate.schedule import whole
from ...errors import DropkitRuntimeError, DropkitTypeError, DropkitValueError
from ...patterns import listed
from ..changing.overlay import assign
from ..finding.rates import FoundRate
from ..finding.rates import rates as rates_of

Rates = Rate | float | Sequence[Rate | float]
Metric = float | Mapping[str, float]


class Schedule:
    """Sets the rate of every matched dropout, `p = rate.at(step)`: at once for step 0, then at each `step()`.

    Where two patterns match a dropout the later one wins, so the general one comes first. Dropouts that no pattern
    matches keep their p. dropkit's modules take p as data: under `torch.compile` a rate that moves compiles nothing
    again. Those of torch take it as code, so `dropkit.torch.swap` them first there. Masks of a bound model follow its
    own clock; this counter sets rates and nothing else.

    Args:
        model: holds the dropouts: every rate that `dropkit.torch.sites(model)` lists and `set_rate` sets, under the
            same name. Wrapped by torch.compile or data parallelism, too.
        rates: {pattern: rate}, or one rate for all. Patterns are as for `set_rate`. A rate is anything of
            `dropkit.axes.rate`, or a number, or a list with one for each matched dropout in module order, as
            `linear_in_depth` gives it. Learned rates are left to their optimizer.
        optimizer: its steps are the schedule's, which then needs no call of `step()`: under gradient accumulation a
            micro-batch moves nothing, nor does a step that a GradScaler or accelerate leaves out.

    Raises:
        DropkitTypeError: not a module; a rate without `.at(step)`; an optimizer that is none.
        DropkitValueError: a pattern matches nothing, or later ones took all that it matched; a list of another length;
            a rate outside [0, 1], with its step and site.

    >>> import torch
    >>> from dropkit.axes.rate import Linear
    >>> from dropkit.torch import Dropout
    >>> model = nn.Sequential(Dropout(), nn.Linear(4, 4), Dropout())
    >>> schedule = Schedule(model, {"*": Linear(0.5, 0.0, steps=4), "2": 0.2})
    >>> for _ in range(2):
    ...     _ = model(torch.ones(1, 4))  # and the optimizer's step
    ...     schedule.step()
    >>> model[0].p, model[2].p
    (0.25, 0.2)
    """

    now: int  # the step whose rates are set

    def __init__(self, model: nn.Module, rates: Rates | Mapping[str, Rates], *, optimizer: Any = None) -> None:
        if not isinstance(model, nn.Module):
            raise DropkitTypeError(f"a Schedule needs a torch.nn.Module, got {type(model).__name__}")
        sites = rates_of(model)
        self._rates = _assigned(sites, rates if isinstance(rates, Mapping) else {"*": rates}, type(model).__name__)
        self._sites = [site for site in sites if site.name in self._rates]
        # One controller may steer several sites; it goes by the first.
        self._controllers: dict[str, Gap] = {}
        for site, rate in self._rates.items():
            for number, gap in enumerate(controllers(rate)):
                if gap not in self._controllers.values():
                    self._controllers[f"{site}#{number}" if number else site] = gap
        self._set(0)
        self._tied = optimizer is not None
        if self._tied:
            _tied_to(optimizer).register_step_post_hook(lambda *rest: self._set(self.now + 1))

    def __repr__(self) -> str:
        return f"Schedule({', '.join(f'{site}: {rate!r}' for site, rate in self._rates.items())})"

    @property
    def controllers(self) -> list[Gap]:
        """The controllers among the rates, each once: `update` is for them."""
        return list(self._controllers.values())

    def at(self, step: int) -> dict[str, float]:
        """The rate of each site at a step; sets nothing.

        Raises:
            DropkitValueError, DropkitTypeError: a rate leaves [0, 1] or is no number there; step and site are named.
        """
        step = whole("step", step, least=0)
        return {site: _asked(site, rate, step) for site, rate in self._rates.items()}

    def rates(self) -> dict[str, float]:
        """The rates that are set now, by site: what a log wants, before `step()` moves them."""
        return dict(self._current)

    def step(self, to: int | None = None) -> None:
        """Set the rates of the next step: once after each step of the optimizer.

        Args:
            to: this step instead, at least 0, for a trainer that counts by itself.

        Raises:
            DropkitValueError, DropkitTypeError: as `at`; nothing is set then.
            DropkitRuntimeError: the schedule has an optimizer, whose steps it counts.
        """
        if self._tied and to is None:
            raise DropkitRuntimeError(
                "this Schedule follows its optimizer, so step() would count twice: leave the call out, or make the "
                "Schedule without optimizer="
            )
        self._set(self.now + 1 if to is None else to)

    def update(self, *, train: Metric | None = None, validation: Metric | None = None) -> None:
        """Give every controller its metrics, and set the rates that follow: once an epoch, or at another even pace.

        Args:
            train, validation: the metric, measured with dropout off; {"loss": ..., "accuracy": ...} where controllers
                of both kinds are at work.

        Raises:
            DropkitValueError: no controller among the rates; a metric is missing, NaN or infinite. Nothing is changed.
            DropkitTypeError: a metric is not a number.
        """
        if not self._controllers:
            raise DropkitValueError(
                "none of the rates is a controller, so metrics move nothing; leave update out, or use a "
                "dropkit.axes.rate.Gap"
            )
        before = {name: gap.state() for name, gap in self._controllers.items()}
        try:
            for gap in self._controllers.values():
                gap.update(train=_of_kind(train, gap), validation=_of_kind(validation, gap))
            self._set(self.now)
        except Exception:
            self._load(before)
            raise

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold: the step and each controller's state, numbers fit for JSON.

        >>> from dropkit.axes.rate import Gap
        >>> Schedule(nn.Sequential(nn.Dropout()), Gap(0.1)).state_dict()
        {'now': 0, 'controllers': {'0': {'p': 0.0, 'gap': 0.0, 'error': 0.0, 'updates': 0}}}
        """
        return {"now": self.now, "controllers": {name: gap.state() for name, gap in self._controllers.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict()`: sets its rates, and every later one is what it would have been.

        Raises:
            DropkitTypeError, DropkitValueError: no such state, or one of other controllers. Nothing is changed then.
        """
        if not isinstance(state, Mapping) or set(state) != {"now", "controllers"}:
            raise DropkitValueError(
                f"state must hold 'now' and 'controllers' as state_dict() gives them, got {state!r}"
            )
        saved = state["controllers"]
        if isinstance(saved, Mapping):
            saved = {self._present(name): one for name, one in saved.items()}
        if not isinstance(saved, Mapping) or set(saved) != set(self._controllers):
            raise DropkitValueError(
                f"the state is of controllers at {_listed(saved)}, but this schedule has them at "
                f"{_listed(self._controllers)}; make it with the rates that it was saved with"
            )
        before = {name: gap.state() for name, gap in self._controllers.items()}
        try:
            self._load(saved)
            self._set(state["now"])
        except Exception:
            self._load(before)
            raise

    def _present(self, name: Any) -> Any:
        """A controller's name, where a state has its site under another of its names: path and attribute, as once."""
        site, mark, number = str(name).partition("#")
        known = next((one.name for one in self._sites if site in one.names and one.name != site), site)
        return name if name in self._controllers else f"{known}{mark}{number}"

    def _load(self, states: Mapping[str, Any]) -> None:
        for name, gap in self._controllers.items():
            gap.load(states[name])

    def _set(self, step: int) -> None:
        current = self.at(step)
        for site in self._sites:
            assign(site.module, site.attribute, site.stored(current[site.name]))
        self.now, self._current = int(step), current


def _tied_to(optimizer: Any) -> Any:
    """The optimizer that steps, without what accelerate and others wrap around it."""
    inner = optimizer
    while isinstance(getattr(inner, "optimizer", None), Optimizer):
        inner = inner.optimizer
    if not isinstance(inner, Optimizer):
        raise DropkitTypeError(f"optimizer must be a torch.optim.Optimizer, got {optimizer!r}")
    return inner


def site_rates(model: nn.Module) -> dict[str, float]:
    """The present rate of every dropout of a model, constant, scheduled or learned, by its name: what a log wants.

    The rate of a learned site is the mean over its units.

    Raises:
        DropkitTypeError: not a module.

    >>> site_rates(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.3)))
    {'1': 0.3}
    """
    if not isinstance(model, nn.Module):
        raise DropkitTypeError(f"site_rates needs a torch.nn.Module, got {type(model).__name__}")
    return {site.name: site.p for site in rates_of(model)}


def _assigned(sites: list[FoundRate], rates: Mapping[str, Rates], model: str) -> dict[str, Rate]:
    """The rate of each matched site, in module order."""
    if not rates:
        raise DropkitValueError('a Schedule needs at least one {pattern: rate}, such as {"*": 0.5}')
    free = [site for site in sites if not site.learned]
    chosen: dict[str, tuple[str, Rate]] = {}
    for pattern, given in rates.items():
        patterns.one(pattern, "encoder.*")
        matched = [site.name for site in free if site.matches(pattern)]
        if not matched:
            learned = [site.name for site in sites if site.learned and site.matches(pattern)]
            why = f"; the rates of {_listed(learned)} are learned, and their optimizer moves them" if learned else ""
            known = _listed(site.name for site in free)
            raise patterns.unmatched(f"pattern {pattern!r}", "no dropout", model, known, why)
        for name, rate in zip(matched, _spread(pattern, given, matched), strict=True):
            chosen[name] = pattern, rate
    winners = {pattern for pattern, _ in chosen.values()}
    for pattern in rates:
        if pattern not in winners:
            raise DropkitValueError(
                f"pattern {pattern!r} has no dropout left: later patterns match all of its own, and the last match "
                "wins; put general patterns first"
            )
    return {site.name: chosen[site.name][1] for site in free if site.name in chosen}


def _spread(pattern: str, given: Rates, matched: list[str]) -> list[Rate]:
    try:
        if not isinstance(given, Sequence) or isinstance(given, str):
            return [as_rate(given)] * len(matched)
        if len(given) != len(matched):
            raise DropkitValueError(f"{len(given)} rates for {len(matched)} dropouts ({_listed(matched)})")
        return [as_rate(rate) for rate in given]
    except (DropkitTypeError, DropkitValueError) as error:
        raise _kind(error)(f"pattern {pattern!r}: {error}") from None


def _asked(site: str, rate: Rate, step: int) -> float:
    try:
        return probability(f"the rate at step {step}", rate.at(step))
    except (DropkitTypeError, DropkitValueError) as error:
        raise _kind(error)(f"dropout {site!r}: {error}") from None


def _kind(error: Exception) -> type[Exception]:
    return DropkitTypeError if isinstance(error, TypeError) else DropkitValueError


def _of_kind(value: Metric | None, gap: Gap) -> float | None:
    return value.get(gap.metric) if isinstance(value, Mapping) else value


def _listed(names: Iterable[str]) -> str:
    return listed(map(repr, names))
