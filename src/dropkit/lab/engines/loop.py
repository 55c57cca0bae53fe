"""The one loop over the batches of an epoch, on one device in any precision."""

import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..order import epoch_order
from ..plan import Choices, Plan
from .checkpoint import Progress, load_state, save_state, save_weights
from .gradients import Part
from .moves import Sites
from .placing import Placing, placing

Row = dict[str, Any]
"""One epoch: epoch, step, losses and accuracies, the rate of each site at the epoch's end, seconds."""


class Loop(ABC):
    """The loop over the batches of an epoch; what a batch trains and what is scored afterwards is the child's."""

    module: nn.Module
    """What is saved."""
    sites: Sites
    optimizers: dict[str, torch.optim.Optimizer]

    def __init__(self, plan: Plan) -> None:
        choices = plan.choices
        self.plan = plan
        self.place = placing(choices.device, choices.precision)
        self.parts = _parts(choices, self.place)

    def _set_up(self, module: nn.Module, *optimizers: torch.optim.Optimizer) -> tuple[Any, ...]:
        """Module and optimizers on the device."""
        return tuple(self.place.setup(module, *optimizers))

    def epoch(self, number: int, step: int) -> Row:
        """Train one epoch, counted from 1, that begins at an optimizer step counted from 0; then score all parts."""
        start = time.perf_counter()
        train = self.parts["train"]
        order = torch.from_numpy(epoch_order(len(train.x), self.plan.seed, number)).to(self.place.device)
        self._begin()
        for index in self._batches(order):
            self._set_rates(step)
            self._train(train.rows(index), step)
            step += 1
        row: Row = {"epoch": number, "step": step, **self._scores()}
        row |= self.sites.row(step)
        self.sites.feed_back(row)
        return row | {"seconds": round(time.perf_counter() - start, 4)}

    def _batches(self, order: Tensor) -> list[Tensor]:
        """Which samples each step gets."""
        return list(order.split(self.plan.choices.settings.batch_size))

    def _set_rates(self, step: int) -> None:
        self.sites.set(step)

    @abstractmethod
    def _begin(self) -> None:
        """Start an epoch: training mode, and running averages of nothing."""

    @abstractmethod
    def _train(self, batch: Part, step: int) -> None:
        """Train a batch."""

    @abstractmethod
    def _scores(self) -> Row:
        """The epoch's running averages, and the figures of the parts."""

    def load(self, state: Path) -> Progress:
        """Go on from a saved state."""
        return load_state(state, self.module, self.optimizers, self.sites)

    def save(self, state: Path, progress: Progress) -> None:
        """Write everything that the next epoch depends on."""
        save_state(state, self.module, self.optimizers, self.sites, progress)

    def save_weights(self, path: Path, about: dict[str, Any]) -> None:
        """Write the weights; `about` goes into the header."""
        save_weights(path, self.module, about)


def _parts(choices: Choices, place: Placing) -> dict[str, Part]:
    return {
        name: Part(*(place.to_device(torch.from_numpy(np.ascontiguousarray(array[index]))) for array in (x, y)))
        for name, (x, y, index) in choices.parts().items()
    }
