"""Under torch.func: the slices of a vmap told apart, and the buffers of a bound model there."""

import math
from dataclasses import replace
from typing import Any

import torch
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack as outside

from ...place import Place

__all__ = ["add_one", "batched", "below", "outside", "told_apart"]
_functorch = torch._C._functorch


def below(buffer: torch.Tensor) -> torch.Tensor:
    """What the wrappers of a derivative wrap: an integer has none, and they would hide its value."""
    while _functorch.is_gradtrackingtensor(buffer):
        buffer = _functorch.get_unwrapped(buffer)
    return buffer


def batched(*buffers: torch.Tensor) -> bool:
    """Whether one of the buffers is stacked from those of several models, so that it has no one value."""
    return any(_functorch.is_batchedtensor(buffer) for buffer in buffers)


def add_one(buffer: torch.Tensor) -> None:
    """Write into a buffer inside a transform: into the model's own, or into the stack that the caller gave.

    Past the transforms, which refuse to write into what is not an argument of theirs.
    """
    while _functorch.is_functorch_wrapped_tensor(buffer):
        buffer = _functorch.get_unwrapped(buffer)
    with outside():
        buffer.add_(1)


def told_apart(place: Place, key: Any) -> Place:
    """The place of a slice of `torch.vmap`: with randomness="different" each slice takes another stretch of indices.

    "same", and the default "error", leave the slices one mask: it is a function of coordinates, so nothing random is
    called that torch would have to refuse. Slices that have a key each, as the models of an ensemble whose states are
    stacked, differ by that, and draw what each of them draws alone.
    """
    shift: Any = None
    stretch = math.prod(place.shape)
    for interpreter in _functorch.get_interpreter_stack() or ():
        if interpreter.key() != _functorch.TransformType.Vmap:
            continue
        level = _functorch.CVmapInterpreterPtr(interpreter)
        if level.randomness() != _functorch.RandomnessType.Different or _keys_differ(key, level.level()):
            continue
        count = level.batchSize()
        with outside():  # or the numbers would belong to the innermost transform
            numbers = torch.arange(count) * stretch
            numbers = _functorch._add_batch_dim(numbers, 0, level.level())
        shift = numbers if shift is None else shift + numbers
        stretch *= count
    return place if shift is None else replace(place, shift=shift)


def _keys_differ(key: Any, level: int) -> bool:
    """Whether each slice of this level of `torch.vmap` has a key that no other slice has."""
    while isinstance(key, torch.Tensor) and _functorch.is_functorch_wrapped_tensor(key):
        inner = _functorch.get_unwrapped(key)
        if _functorch.is_batchedtensor(key) and _functorch.maybe_get_level(key) == level:
            keys = inner.movedim(_functorch.maybe_get_bdim(key), 0)
            if _functorch.is_functorch_wrapped_tensor(keys):
                return True  # stacked once more; the outer level is asked by itself
            with outside():
                return len(torch.unique(keys.reshape(len(keys), -1), dim=0)) == len(keys)
        key = inner
    return False
