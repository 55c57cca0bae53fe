"""How a batch's gradients come about: ordinary, from two coupled passes, or with a look at held-out data."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ...torch.learned import antithetic_backward, hypergradient_backward, regularizer
from ..order import epoch_order
from ..recipes.objective import Objective
from .losses import losses, outputs_of
from .moves import Sites
from .placing import Placing

Outcome = tuple[Tensor, Tensor]
"""A batch's mean loss, without penalties, and the outputs."""


@dataclass(frozen=True, slots=True)
class Part:
    """Samples and targets of one part of the data, on the device."""

    x: Tensor
    y: Tensor

    def rows(self, index: Tensor) -> "Part":
        """Some of its samples."""
        return Part(self.x[index], self.y[index])


class Gradients:
    """Fills the `.grad` of weights and learned rates for a batch; learned rates get their regulariser.

    Args:
        place: that has set the model up.
        model: as it gave it back.
        module: the module inside.
        sites: the model's dropouts and what moves them.
        samples: size of the training set, by which the regulariser is scaled.
        objective: what is trained for.
    """

    def __init__(
        self,
        place: Placing,
        model: nn.Module,
        module: nn.Module,
        sites: Sites,
        samples: int,
        objective: Objective = Objective(),  # noqa: B008  # a frozen value
    ) -> None:
        self.place, self.model, self.module, self.sites, self.samples = place, model, module, sites, samples
        self.kind, self.losses = objective.kind, losses(objective)

    def backward(self, batch: Part, step: int) -> Outcome:
        """The gradients of the mean loss of a batch."""
        outputs = outputs_of(self.model(batch.x), self.kind)
        loss = self.losses.mean(outputs, batch.y)
        self.place.backward(loss + self.penalty() if self.sites.learned else loss)
        return loss, outputs

    def penalty(self) -> Tensor:
        """The regulariser of the learned rates."""
        return regularizer(self.module, n=self.samples)

    def outputs(self, x: Tensor) -> Tensor:
        """A forward whose backward may be any: Fabric's own allows only its `backward`."""
        with self.place.autocast():
            taken = x.to(next(self.module.parameters()).dtype) if x.is_floating_point() else x
            outputs = outputs_of(self.module(taken), self.kind)
        return outputs.to(torch.promote_types(outputs.dtype, torch.float32))


class Antithetic(Gradients):
    """Hard masks: each batch under two coupled masks (DisARM), whose two losses make the rates' gradient."""

    def backward(self, batch: Part, step: int) -> Outcome:
        """The gradients of the mean loss of a batch; its figures are those of the first pass."""
        passes: list[Outcome] = []

        def losses() -> Tensor:
            outputs = self.outputs(batch.x)
            each = self.losses.of_each(outputs, batch.y)
            passes.append((each.mean(), outputs))
            return each

        antithetic_backward(self.module, losses)
        self.penalty().backward()
        return passes[0]


class Hypergradient(Gradients):
    """Weights learn from the training loss, rates from the validation loss after one more step of training.

    The inner step is plain gradient descent at the weights' learning rate, also where the weights themselves are moved
    by Adam.
    """

    def __init__(
        self,
        place: Placing,
        model: nn.Module,
        module: nn.Module,
        sites: Sites,
        samples: int,
        objective: Objective,
        held: Part,
        batches: Callable[[int], Tensor],
        learning_rate: float,
    ) -> None:
        super().__init__(place, model, module, sites, samples, objective)
        self.held, self.batches, self.learning_rate = held, batches, learning_rate
        self.every = min(rate.every for rate in sites.learned.values())

    def backward(self, batch: Part, step: int) -> Outcome:
        """The gradients of a batch; the rates' stay None, so that they rest, but for every so many steps."""
        outcome = super().backward(batch, step)
        for parameter in self.sites.parameters:
            parameter.grad = None
        if step % self.every == 0:
            judge = self.held.rows(self.batches(step // self.every))
            hypergradient_backward(
                self.module,
                train=lambda: self.losses.mean(self.outputs(batch.x), batch.y) + self.penalty(),
                validation=lambda: self.losses.mean(self.outputs(judge.x), judge.y),
                lr=self.learning_rate,
            )
        return outcome


def held_out_batches(samples: int, size: int, seed: int) -> Callable[[int], Tensor]:
    """Batch n of the held-out samples, a pure function of n: they are gone through in a new order each time round.

    >>> batch = held_out_batches(samples=5, size=2, seed=0)
    >>> sorted(torch.cat([batch(0), batch(1), batch(2)]).tolist())
    [0, 1, 2, 3, 4]
    """
    count = -(-samples // size)

    def batch(number: int) -> Tensor:
        order = epoch_order(samples, seed, 1 + number // count)
        start = number % count * size
        return torch.from_numpy(np.ascontiguousarray(order[start : start + size]))

    return batch
