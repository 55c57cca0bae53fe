"""What moves the rate of each site of a model in training: a schedule, a controller, or the optimizer."""

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from ...axes.rate import Rate, controllers
from ...errors import DropkitValueError
from ...torch.finding.rates import FoundRate, rates
from ...torch.layers import Drawn
from ...torch.learned import ConcreteDropout, LearnableBernoulli, rate_parameters
from ...torch.reading.structure import layer_rate
from ..recipes.recipe import LearnedRate, Rates, learned_method
from .pathwise import ClippedAdam, Literal, Pathwise

FAMILIES: dict[str, Callable[..., nn.Module]] = {
    "concrete": ConcreteDropout,
    "disarm": LearnableBernoulli,
    "hypergradient": ConcreteDropout,
    "pathwise": Pathwise,
    "literal": Pathwise,
}
CONTROLLERS = "controllers"
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {"pathwise": ClippedAdam, "literal": Literal}


class Moves:
    """Rates that follow schedules and controllers, of any framework's dropouts.

    Args:
        places: site -> what has its rate as `p`, which may be assigned.
        rates: site -> schedule or controller, of all or some of the places; copied, so that a plan can run twice.
    """

    def __init__(self, places: Mapping[str, Any], rates: Mapping[str, Rate]) -> None:
        self.places = dict(places)
        self.moved = copy.deepcopy(dict(rates))
        # A controller that two sites share is one controller.
        found = [controller for rate in self.moved.values() for controller in controllers(rate)]
        self.controllers = list(dict.fromkeys(found))

    def set(self, step: int) -> None:
        """Move schedules and controllers to a step."""
        for site, rate in self.moved.items():
            place, p = self.places[site], rate.at(step)
            if place.p != p:  # to assign costs more than to look
                place.p = p

    def row(self, step: int) -> dict[str, float]:
        """The rate of each site after the step before this one: `rate_<site>`, of a learned one the mean."""
        return {
            f"rate_{site}": float(self.moved[site].at(step - 1) if site in self.moved else place.p)
            for site, place in self.places.items()
        }

    def feed_back(self, row: Mapping[str, float]) -> None:
        """Show an epoch's row to the controllers; figures that are not finite are no measurement."""
        for controller in self.controllers:
            train, validation = row[f"train_eval_{controller.metric}"], row[f"validation_{controller.metric}"]
            if math.isfinite(train) and math.isfinite(validation):
                controller.update(train=train, validation=validation)

    def state(self) -> list[dict[str, float]]:
        """The controllers' states; schedules have none, and learned rates are parameters of the model."""
        return [controller.state() for controller in self.controllers]

    def header(self) -> dict[str, Any]:
        """The same, as a state's header has it; nothing where there are none."""
        return {CONTROLLERS: self.state()} if self.controllers else {}

    def load(self, states: list[dict[str, float]]) -> None:
        """Put the controllers back.

        Raises:
            DropkitValueError: another number of them.
        """
        if len(states) != len(self.controllers):
            raise DropkitValueError(f"{len(states)} saved controllers for {len(self.controllers)}")
        for controller, state in zip(self.controllers, states, strict=True):
            controller.load(state)


def not_learned(rates: Rates) -> dict[str, Rate]:
    """The rates of a strategy, which follow schedules and controllers.

    Raises:
        DropkitValueError: one is learned.
    """
    for site, rate in rates.items():
        if isinstance(rate, LearnedRate):
            raise DropkitValueError(
                f"the rate of {site} is learned, {rate!r}, which the lab does for models of torch alone: take a "
                "schedule or a controller, as in fixed, step, gap"
            )
    return {site: rate for site, rate in rates.items() if not isinstance(rate, LearnedRate)}


class Number:
    """The rate of a functional call, as `p`: a number that a module holds under the site's name and hands over.

    >>> model = nn.Module()
    >>> model.dropout1 = 0.0
    >>> Number(model, "dropout1").p = 0.2
    >>> model.dropout1
    0.2
    """

    def __init__(self, module: nn.Module, name: str) -> None:
        self.module, self.name = module, name

    @property
    def p(self) -> float:
        """What the module hands over at its next forward."""
        return float(getattr(self.module, self.name))

    @p.setter
    def p(self, value: float) -> None:
        setattr(self.module, self.name, value)


class Sites(Moves):
    """The dropouts of a torch model and what moves each of them; learned ones take their site's place in the model.

    Args:
        model: at each site it has a Dropout, or a number that its forward hands to a function.
        rates: site -> schedule, controller or LearnedRate.
        feeds: site -> path of the layer that it feeds.

    Raises:
        DropkitValueError: a learned rate for a functional call.
    """

    def __init__(self, model: nn.Module, rates: Rates, feeds: Mapping[str, str]) -> None:
        self.method = learned_method(rates)
        self.learned = {site: rate for site, rate in rates.items() if isinstance(rate, LearnedRate)}
        for site, rate in self.learned.items():
            if isinstance(_place(model, site), Number | Held):
                raise DropkitValueError(
                    f"the rate of {site} is a number that a function gets, so that no gradient reaches it, and "
                    f"{rate.method!r} would learn it; move it by none, fixed, step or gap, or make the site a Dropout"
                )
            layer: Any = model.get_submodule(feeds[site])
            put(model, site, FAMILIES[rate.method](rate.start, clamp=rate.bounds, layer=layer))
        moved = {site: rate for site, rate in rates.items() if not isinstance(rate, LearnedRate)}
        super().__init__({site: _place(model, site) for site in rates}, moved)
        self.modules = {site: place for site, place in self.places.items() if isinstance(place, nn.Module)}
        self.parameters = list(rate_parameters(model).values()) if self.learned else []

    def optimizer(self) -> torch.optim.Optimizer | None:
        """Adam over the learned rates, each at its own learning rate; no weight decay, which would pull p to 1/2."""
        groups: list[dict[str, Any]] = [
            {"params": list(self.places[site].parameters()), "lr": rate.learning_rate}
            for site, rate in self.learned.items()
        ]
        if self.method not in OPTIMIZERS:
            return torch.optim.Adam(groups) if groups else None
        for group, rate in zip(groups, self.learned.values(), strict=True):
            group |= {"start": rate.start, "bounds": rate.bounds}
        return OPTIMIZERS[self.method](groups)


class Held:
    """The rate of what hands a number over, an attention or a recurrent network or a config, as `p`."""

    def __init__(self, rate: FoundRate) -> None:
        self.rate = rate

    @property
    def p(self) -> float:
        """The present drop probability."""
        return self.rate.p

    @p.setter
    def p(self, value: float) -> None:
        setattr(self.rate.module, self.rate.attribute, self.rate.stored(value))


def put(model: nn.Module, site: str, new: nn.Module) -> None:
    """Put a module in the place of another, in all places that have it."""
    old = model.get_submodule(site)
    new.train(old.training)
    for path in [path for path, module in model.named_modules(remove_duplicate=False) if module is old]:
        model.set_submodule(path, new)


def _place(model: nn.Module, site: str) -> Any:
    """What has the rate of a site as its `p`."""
    path, _, name = site.rpartition(".")
    try:
        owner = model.get_submodule(path)
        place = getattr(owner, name)
    except AttributeError:  # of a config
        owner, place = None, None
    if isinstance(place, Drawn) or (isinstance(place, nn.Module) and layer_rate(place) == "p"):
        return place
    if isinstance(place, float) and owner is not None:
        return Number(owner, name)
    return next(Held(rate) for rate in rates(model) if rate.name == site)
