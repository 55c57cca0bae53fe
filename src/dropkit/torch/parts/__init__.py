"""Tensors that are part of a larger one, or that hold several: nested ones and sharded ones."""

import torch

from . import nested
from .value import Parts as Parts


def parts_of(x: torch.Tensor, linear: bool = False) -> Parts | None:
    """The parts of a wrapper tensor that dropout must look into; None for any other tensor.

    Args:
        x: the tensor.
        linear: whether what becomes of a sum is the sum of what becomes of its terms.
    """
    if hasattr(x, "device_mesh"):  # a DTensor, and torch's part about it is loaded
        from . import dtensor

        return dtensor.parts_of(x, linear)  # type: ignore[arg-type]
    return nested.parts_of(x) if x.is_nested else None
