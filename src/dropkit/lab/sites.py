"""What moves the rate of each site of a model in training: a schedule, a controller, or the optimizer."""

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..axes.rate import controllers
from ..errors import DropkitValueError
from ..torch.learned import ConcreteDropout, LearnableBernoulli, rate_parameters
from .recipe import LearnedRate, Rates, learned_method

FAMILIES = {"concrete": ConcreteDropout, "disarm": LearnableBernoulli, "hypergradient": ConcreteDropout}


class Sites:
    """The dropouts of a model and what moves each of them; learned ones take their site's place in the model.

    Args:
        model: with a Dropout at each site.
        rates: site -> schedule, controller or LearnedRate; controllers are copied, so that a plan can run twice.
        feeds: site -> path of the layer that it feeds.
    """

    def __init__(self, model: nn.Module, rates: Rates, feeds: Mapping[str, str]) -> None:
        self.method = learned_method(rates)
        self.learned = {site: rate for site, rate in rates.items() if isinstance(rate, LearnedRate)}
        moved = {site: rate for site, rate in rates.items() if not isinstance(rate, LearnedRate)}
        self.moved = copy.deepcopy(moved)
        for site, rate in self.learned.items():
            family = FAMILIES[rate.method]
            layer: Any = model.get_submodule(feeds[site])
            model.set_submodule(site, family(rate.start, clamp=rate.bounds, layer=layer))
        self.modules: dict[str, Any] = {site: model.get_submodule(site) for site in rates}
        self.parameters = list(rate_parameters(model).values()) if self.learned else []
        # A controller that two sites share is one controller.
        found = [controller for rate in self.moved.values() for controller in controllers(rate)]
        self.controllers = list(dict.fromkeys(found))

    def optimizer(self) -> torch.optim.Optimizer | None:
        """Adam over the learned rates, each at its own learning rate; no weight decay, which would pull p to 1/2."""
        groups = [
            {"params": list(self.modules[site].parameters()), "lr": rate.learning_rate}
            for site, rate in self.learned.items()
        ]
        return torch.optim.Adam(groups) if groups else None

    def set(self, step: int) -> None:
        """Move schedules and controllers to a step."""
        for site, rate in self.moved.items():
            self.modules[site].p = rate.at(step)

    def row(self, step: int) -> dict[str, float]:
        """The rate of each site after the step before this one: `rate_<site>`, of a learned one the mean."""
        return {
            f"rate_{site}": float(self.moved[site].at(step - 1) if site in self.moved else module.p)
            for site, module in self.modules.items()
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

    def load(self, states: list[dict[str, float]]) -> None:
        """Put the controllers back.

        Raises:
            DropkitValueError: another number of them.
        """
        if len(states) != len(self.controllers):
            raise DropkitValueError(f"{len(states)} saved controllers for {len(self.controllers)}")
        for controller, state in zip(self.controllers, states, strict=True):
            controller.load(state)
