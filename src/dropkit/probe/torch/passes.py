"""Runs a torch model again and again from the same start: masks on, off and changed."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ...torch.bound.bond import STEP
from ...torch.changing.contexts import disabled
from ...torch.finding.inventory import Site
from ...torch.finding.trace import copied, failures_named, undisturbed
from .measure import Measuring, Run
from .watch import Listener, Watch, tensors

Loss = Callable[[Any], torch.Tensor]


class Passes:
    """A model with what its forward takes.

    Args:
        model, inputs, kwargs: the module and what it is called with.
        loss: a function of its output, or None for `mean_square`.
    """

    def __init__(self, model: nn.Module, inputs: Sequence[Any], kwargs: Mapping[str, Any], loss: Loss | None):
        self.model, self.inputs, self.kwargs, self.loss = model, inputs, kwargs, loss or mean_square
        self.sites: Sequence[Site] = ()
        self.forwards = self.backwards = 0

    def run(
        self,
        seed: int,
        *,
        off: bool = False,
        backward: bool = False,
        training: bool = True,
        evaluating: bool = False,
        listener: Listener | None = None,
        mode: TorchDispatchMode | None = None,
    ) -> Run:
        """One forward, with a backward if told so, of which nothing remains but what it gave.

        Args:
            seed: of all generators; passes with one seed differ in dropout alone.
            off: all dropout off.
            training: `model.train()` before; else the modes stay as they are.
            evaluating: `model.eval()` before.
            listener: hears everything besides what is measured.
            mode: sees all operators.
        """
        measuring = Measuring()
        listeners: list[Listener] = [measuring] if listener is None else [listener, measuring]
        with ExitStack() as stack:
            stack.enter_context(undisturbed(self.model, self.inputs, self.kwargs))
            stack.enter_context(without_parameter_hooks(self.model))
            mode_name = "evaluation" if evaluating else "training" if training else "present"
            stack.enter_context(failures_named(mode_name))
            if training or evaluating:
                self.model.train(not evaluating)
            seed_all(seed, self.model)
            if off:
                stack.enter_context(disabled(self.model))
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(Watch(self.model, self.sites, listeners))
            args, kwargs = copied(tuple(self.inputs)), copied(dict(self.kwargs))
            if mode is not None:
                stack.enter_context(mode)
            self._once(args, kwargs, backward, measuring, listener)
        return measuring.run

    def _once(self, args: Any, kwargs: Any, backward: bool, measuring: Measuring, listener: Listener | None) -> None:
        if listener is not None:
            listener.started([args, kwargs])
        self.forwards += 1
        output = self.model(*args, **kwargs)
        if listener is not None:
            listener.finished(output)
        loss = self.loss(output) if backward else None
        if loss is None or not loss.requires_grad:
            return
        self.backwards += 1
        loss.backward()
        parameters = dict(self.model.named_parameters())
        measuring.differentiated(parameters)
        if listener is not None:
            listener.differentiated(parameters)


def mean_square(output: Any) -> torch.Tensor:
    """The loss where none was given: the model's own, or `sum of mean((y - t)^2) / 2` over its outputs, t random.

    It is not linear, on purpose: the gradient of a linear loss does not know what dropout further on did to the output,
    that of a loss as in training does.
    """
    own = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if isinstance(own, torch.Tensor) and own.numel() == 1:
        return own.reshape(())
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(())
    for y in tensors(output):
        if y.is_floating_point() and y.requires_grad:
            values = y.values() if y.is_nested else y
            target = torch.randn(values.shape, generator=generator).to(values.device)
            wide = values.to(torch.promote_types(values.dtype, torch.float32))
            total = total.to(values.device) + 0.5 * (wide - target).square().mean()
    return total


def seed_all(seed: int, model: nn.Module) -> None:
    """Another state of the generators that `undisturbed` puts back, and of the clock of a bound model."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    for device in {x.device for x in [*model.parameters(), *model.buffers()]}:
        if device.type not in ("cpu", "meta"):
            generators = torch.get_device_module(device)
            with generators.device(device) if hasattr(generators, "device") else ExitStack():
                generators.manual_seed(seed)
    for name, buffer in model.named_buffers():
        if name.rpartition(".")[2] == STEP:
            with torch.no_grad():
                buffer.add_(seed)


@contextmanager
def without_parameter_hooks(model: nn.Module) -> Iterator[None]:
    """Hooks that step an optimiser once a gradient is there are off: the gradients are not meant for it."""
    known = [parameter._post_accumulate_grad_hooks for parameter in model.parameters()]
    kept = [(hooks, dict(hooks)) for hooks in known if hooks]
    try:
        for hooks, _ in kept:
            hooks.clear()  # what autograd calls is in this very dict
        yield
    finally:
        for hooks, before in kept:
            hooks.update(before)
