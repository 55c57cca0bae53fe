"""Rates that move in a model: one `Schedule` sets the p of its dropouts, step after step."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.nn.modules.dropout import _DropoutNd
from torch.optim import Optimizer

from ..axes.rate import Gap, Rate, as_rate, controllers, probability
from ..axes.rate.schedule import whole
from ..errors import DropkitRuntimeError, DropkitTypeError, DropkitValueError
from .binding import WRAPPED
from .learned.base import Learned

Rates = Rate | float | Sequence[Rate | float]
Metric = float | Mapping[str, float]

_LAYER = re.compile(r"drop|stochastic_?depth", re.IGNORECASE)  # DropPath, DropBlock2d, StochasticDepth
_RATES = ("p", "drop_prob")
_SHOWN = 20  # sites that an error lists


class Schedule:
    """Sets the rate of every matched dropout, `p = rate.at(step)`: at once for step 0, then at each `step()`.

    Where two patterns match a dropout the later one wins, so the general one comes first. Dropouts that no pattern
    matches keep their p. dropkit's modules take p as data: under `torch.compile` a rate that moves compiles nothing
    again. Those of torch take it as code, so `dropkit.torch.swap` them first there. Masks of a bound model follow its
    own clock; this counter sets rates and nothing else.

    Args:
        model: holds the dropouts: those of the torch.nn.Dropout family, and layers like DropPath that hold a `p` or
            `drop_prob`. Wrapped by torch.compile or data parallelism, too.
        rates: {pattern: rate}, or one rate for all. Patterns are of module paths as in `fnmatch`. A rate is anything of
            `dropkit.axes.rate`, or a number, or a list with one for each matched dropout in module order, as
            `linear_in_depth` gives it.
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
        places = list(_places(model))
        self._rates = _assigned(places, rates if isinstance(rates, Mapping) else {"*": rates}, type(model).__name__)
        self._places = [place for place in places if place.name in self._rates]
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
        if not isinstance(state["controllers"], Mapping) or set(state["controllers"]) != set(self._controllers):
            raise DropkitValueError(
                f"the state is of controllers at {_listed(state['controllers'])}, but this schedule has them at "
                f"{_listed(self._controllers)}; make it with the rates that it was saved with"
            )
        before = {name: gap.state() for name, gap in self._controllers.items()}
        try:
            self._load(state["controllers"])
            self._set(state["now"])
        except Exception:
            self._load(before)
            raise

    def _load(self, states: Mapping[str, Any]) -> None:
        for name, gap in self._controllers.items():
            gap.load(states[name])

    def _set(self, step: int) -> None:
        current = self.at(step)
        for place in self._places:
            place.assign(current[place.name])
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
    """The present rate of every dropout of a model, constant, scheduled or learned, by its path: what a log wants.

    The rate of a learned site is the mean over its units.

    Raises:
        DropkitTypeError: not a module.

    >>> site_rates(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.3)))
    {'1': 0.3}
    """
    if not isinstance(model, nn.Module):
        raise DropkitTypeError(f"site_rates needs a torch.nn.Module, got {type(model).__name__}")
    fixed = {id(place.module): place for place in _places(model)}
    found = {}
    for path, module in _paths(model):
        if id(module) in fixed:
            place = fixed[id(module)]
            found[place.name] = float(getattr(place.module, place.attribute))
        elif isinstance(module, Learned):
            found[path] = module.p
    return found


@dataclass(slots=True)
class _Place:
    """A number in a module that is the rate of a dropout."""

    name: str
    names: set[str]  # what a pattern may match: path, path and attribute; the same of each place of a shared module
    module: nn.Module
    attribute: str

    def assign(self, p: float) -> None:
        if getattr(self.module, self.attribute) != p:
            setattr(self.module, self.attribute, p)


def _places(model: nn.Module) -> Iterator[_Place]:
    """Every rate that can be assigned, in module order, a shared module's once."""
    found: dict[int, _Place] = {}
    for path, module in _paths(model):
        attribute = _rate_of(module)
        if attribute is None:
            continue
        name = path if isinstance(module, _DropoutNd) else f"{path}.{attribute}".removeprefix(".")
        place = found.setdefault(id(module), _Place(name, set(), module, attribute))
        place.names |= {path, name}
    yield from found.values()


def _paths(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Module paths as they were before anything wrapped the model."""
    while isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel) or hasattr(model, "_orig_mod"):
        model = model._orig_mod if hasattr(model, "_orig_mod") else model.module  # type: ignore[assignment]
    for path, module in model.named_modules(remove_duplicate=False):
        yield ".".join(part for part in path.split(".") if part not in WRAPPED), module


def _rate_of(module: nn.Module) -> str | None:
    """The attribute that holds the rate of a layer whose work is dropping."""
    if isinstance(module, _DropoutNd):
        return "p"
    if isinstance(module, Learned) or module._modules or not _LAYER.search(type(module).__name__):
        return None
    held = vars(module)
    return next((name for name in _RATES if isinstance(held.get(name), float | int)), None)


def _assigned(places: list[_Place], rates: Mapping[str, Rates], model: str) -> dict[str, Rate]:
    """The rate of each matched site, in module order."""
    if not rates:
        raise DropkitValueError('a Schedule needs at least one {pattern: rate}, such as {"*": 0.5}')
    chosen: dict[str, tuple[str, Rate]] = {}
    for pattern, given in rates.items():
        if not isinstance(pattern, str):
            raise DropkitTypeError(f"pattern must be a str such as 'encoder.*', got {pattern!r}")
        matched = [place.name for place in places if any(fnmatchcase(name, pattern) for name in place.names)]
        if not matched:
            known = _listed(place.name for place in places)
            raise DropkitValueError(f"pattern {pattern!r} matches no dropout in {model}; it has {known}")
        for site, rate in zip(matched, _spread(pattern, given, matched), strict=True):
            chosen[site] = pattern, rate
    winners = {pattern for pattern, _ in chosen.values()}
    for pattern in rates:
        if pattern not in winners:
            raise DropkitValueError(
                f"pattern {pattern!r} has no dropout left: later patterns match all of its own, and the last match "
                "wins; put general patterns first"
            )
    return {place.name: chosen[place.name][1] for place in places if place.name in chosen}


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


def _listed(names: Any) -> str:
    found = [repr(name) for name in names]
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more if found else "none"
