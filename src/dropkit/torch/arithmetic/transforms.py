"""The clock of a bound model under torch.func: grad, vmap over stacked buffers, and what is built of them."""

import torch
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack as outside

__all__ = ["add_one", "batched", "below", "outside"]
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
