"""What is said, once, where an optimizer does not suit rates: weight decay, penalties that are added too often."""

import weakref
from typing import Any

import torch
from torch import nn
from torch.optim import optimizer as torchs

from .base import Learned, live, looks, warn_once


class _Steps:
    """What the optimizers of this process do, from the first training forward of a learned site on."""

    def __init__(self) -> None:
        self.watching = False
        self.running = False  # inside a step, whose closure may run the model many times
        self.count = 0  # of steps that have begun
        self.known: weakref.WeakSet[torch.optim.Optimizer] = weakref.WeakSet()

    def watch(self) -> None:
        if not self.watching:
            self.watching = True
            torchs.register_optimizer_step_pre_hook(self.begin)
            torchs.register_optimizer_step_post_hook(self.end)

    def begin(self, optimizer: torch.optim.Optimizer, *rest: Any) -> None:
        if torch.compiler.is_compiling():
            return
        self.running = True
        self.count += 1
        if optimizer not in self.known:
            self.known.add(optimizer)
            _look_for_decay(optimizer)

    def end(self, optimizer: torch.optim.Optimizer, *rest: Any) -> None:
        if not torch.compiler.is_compiling():
            self.running = False


steps = _Steps()
looks.append(steps.watch)


def _look_for_decay(optimizer: torch.optim.Optimizer) -> None:
    rates = {
        id(site._parameters[name]): type(site).__name__
        for site in list(live)
        for name in site.rate_names
        if name in site._parameters
    }
    for group in optimizer.param_groups:
        found = next((rates[id(parameter)] for parameter in group["params"] if id(parameter) in rates), None)
        if found is not None and group.get("weight_decay"):
            warn_once(
                "decay",
                f"{type(optimizer).__name__} has the rate of a {found} in a group with weight_decay="
                f"{group['weight_decay']:g}, which pulls its parameter to 0, for a logit a rate of 1/2: make the "
                "optimizer's groups by dropkit.torch.learned.groups(model), which gives rates none",
            )


_ENOUGH = 8  # penalties of a model after which its loop is taken to be right


class Penalties:
    """How often a model's penalty went in full into the gradients of one step of the optimizer."""

    def __init__(self) -> None:
        self.seen = 0
        self.full = 0  # since the gradients were empty
        self.step = -1

    def watch(self, total: torch.Tensor, sites: list[Learned]) -> None:
        """Look at the gradient that will reach a penalty.

        Warns:
            UserWarning: once, in backward, if it is the second in a step that does so undivided.
        """
        if self.seen < _ENOUGH and total.requires_grad and not steps.running:
            self.seen += 1
            total.register_hook(lambda grad: self._arrived(grad, sites))

    def _arrived(self, grad: torch.Tensor, sites: list[Learned]) -> None:
        if self.step != steps.count or not _hold_gradients(sites):
            self.step, self.full = steps.count, 0
        if grad.numel() == 1 and grad.item() == 1:
            self.full += 1
            if self.full == 2:
                warn_once(
                    "penalties",
                    "regularizer(model, n) went in full into the losses of two micro-batches of one optimizer step, so "
                    "the rates feel it twice or more: divide it as the data term, (loss + regularizer(model, n)) / "
                    "micro_batches, or add it to one of them",
                )


def _hold_gradients(sites: list[Learned]) -> bool:
    gradients = [getattr(site, name).grad for site in sites for name in site.rate_names]
    return any(gradient is not None and bool((gradient != 0).any()) for gradient in gradients)


penalties: "weakref.WeakKeyDictionary[nn.Module, Penalties]" = weakref.WeakKeyDictionary()
