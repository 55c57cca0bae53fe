"""Where a model trains: on one device in 32 bits by torch alone, in any other precision by Lightning Fabric."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

PLAIN = "32-true"


class Placing(Protocol):
    """What the loop asks of a device and a precision; Fabric has it too."""

    @property
    def device(self) -> torch.device:
        """Where model and data are."""

    def setup(self, module: nn.Module, *optimizers: torch.optim.Optimizer) -> Any:
        """Module and optimizers, ready to train there."""

    def to_device(self, obj: Any) -> Any:
        """A tensor, there."""

    def backward(self, tensor: Tensor) -> None:
        """The gradients of a loss."""

    def autocast(self) -> AbstractContextManager[None]:
        """In which a forward is of the precision."""


class Alone:
    """One device in 32 bits. There Fabric's wrappers change no bit, and cost a small model a twentieth of its step."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device, 0) if device == "cuda" else torch.device(device)

    def setup(self, module: nn.Module, *optimizers: torch.optim.Optimizer) -> tuple[Any, ...]:
        """Module and optimizers; the module, and so what the optimizers hold, has moved."""
        return (module.to(self.device), *optimizers)

    def to_device(self, obj: Tensor) -> Tensor:
        """The tensor, there."""
        return obj.to(self.device)

    def backward(self, tensor: Tensor) -> None:
        """The gradients of a loss."""
        tensor.backward()

    def autocast(self) -> AbstractContextManager[None]:
        """Nothing to do."""
        return nullcontext()


def placing(device: str, precision: str) -> Placing:
    """The device and the precision of a run.

    >>> placing("cpu", "32-true").device
    device(type='cpu')
    """
    if precision == PLAIN:
        return Alone(device)
    # Its import takes as long as torch's, and longer where torchmetrics finds transformers.
    from lightning_fabric import Fabric

    fabric = Fabric(accelerator=device, devices=1, precision=precision)
    fabric.launch()
    return fabric
