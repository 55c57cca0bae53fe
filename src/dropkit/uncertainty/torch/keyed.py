"""A torch model made ready for many passes, and given back as it was: in evaluation, every dropout drawn by its key."""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from ...errors import DropkitTypeError, DropkitValueError
from ...torch.binding import bind
from ...torch.bound.bond import bond_of, clock_of
from ...torch.changing.surgery import SWAPS, swap
from ...torch.named import Named
from ...torch.reading.unkeyed import unkeyed
from ...torch.release import unbind
from .inputs import Inputs


def unwrapped(model: Any) -> nn.Module:
    """What `torch.compile` and DistributedDataParallel are around.

    Raises:
        DropkitTypeError: no module, or one that nobody can look into.
    """
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            inner = model.module
        if inner is None:
            break
        model = inner
    if isinstance(model, torch.jit.ScriptModule):
        raise DropkitTypeError("TorchScript shows no dropout that could be turned on: give the module it was made of")
    if type(model) in SWAPS:
        raise DropkitValueError(f"the model is nothing but a {type(model).__name__}: put it into a torch.nn.Sequential")
    found: nn.Module = model
    return found


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation, uncompiled, without gradients; modes, generators and compiled calls come back."""
    modes = [(part, part.training) for part in model.modules()]
    compiled = [(part, part._compiled_call_impl) for part in model.modules() if part._compiled_call_impl is not None]
    devices = {p.device.index for p in model.parameters() if p.device.type == "cuda"}
    try:
        with torch.random.fork_rng(sorted(devices)), torch.no_grad():
            for part, _ in compiled:
                part._compiled_call_impl = None
            model.eval()
            yield
    finally:
        for part, call in compiled:
            part._compiled_call_impl = call
        for part, training in modes:
            part.training = training


@contextmanager
def keyed(model: nn.Module, seed: int, example: Inputs, run: bool) -> Iterator[None]:
    """Every dropout of the model drawn by dropkit and named.

    Args:
        model: bound or not, with dropouts of torch's or of ours.
        seed: for a model that is not bound.
        example: with which calls of functions are taken over.
        run: whether there may be such calls where neither structure nor source shows them.
    """
    with ExitStack() as stack:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # what cannot be keyed is told after the first pass
            _key(stack, model, seed, example, run)
        yield


def _key(stack: ExitStack, model: nn.Module, seed: int, example: Inputs, run: bool) -> None:
    shown = unkeyed(model, Named)
    layers = [part for part in model.modules() if type(part) in SWAPS]
    if run or any(type(found.module) not in SWAPS for found in shown):
        try:
            stack.callback(swap(model, *example.args, **example.kwargs).restore)
        except DropkitValueError:
            if layers:
                raise
    elif layers:
        stack.callback(swap(model).restore)
    named = [part for part in model.modules() if isinstance(part, Named)]
    if any(part.site is None for part in named):
        if bond_of(model) is None:
            bind(model, seed)
            stack.callback(unbind, model)
        else:
            bind(model, clock_of(model).seed)
