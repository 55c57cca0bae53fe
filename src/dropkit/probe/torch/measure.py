"""What a run of a torch model gave, in numbers that two runs can be compared by."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ...torch.drawing.recomputation import in_backward
from .watch import Given, Listener, only_tensor, tensors


@dataclass
class Run:
    """Of one forward, and of the backward after it where there was one; by the path of the module or parameter."""

    order: dict[str, None] = field(default_factory=dict)  # modules, as they began
    calls: Counter[str] = field(default_factory=Counter)
    outputs: dict[str, list[str]] = field(default_factory=dict)  # digests, call by call
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)  # of the first tensor
    variances: dict[str, float] = field(default_factory=dict)  # of the output, over all elements, summed over calls
    channels: dict[str, torch.Tensor] = field(default_factory=dict)  # variance of a BatchNorm's input in each channel
    gradients: dict[str, str] = field(default_factory=dict)
    still: set[str] = field(default_factory=set)  # parameters whose gradient is all zero
    inside: set[str] = field(default_factory=set)  # modules that ran other modules


class Measuring(Listener):
    """Fills a `Run`."""

    def __init__(self) -> None:
        self.run = Run()
        self._running: list[str] = []

    def entered(self, path: str, module: nn.Module, given: Given) -> None:
        """A module begins."""
        if in_backward():
            return
        run = self.run
        run.order.setdefault(path)
        run.calls[path] += 1
        # A parametrisation computes its layer's weight, and is no layer itself.
        if "parametrizations" not in path.rpartition(".")[0].split("."):
            run.inside.update(self._running)
        self._running.append(path)
        x = only_tensor(given)
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and x is not None and path not in run.channels:
            axes = [axis for axis in range(x.dim()) if axis != 1]
            run.channels[path] = _wide(x).var(dim=axes, correction=0).cpu()

    def left(self, path: str, module: nn.Module, given: Given, output: Any) -> Any:
        """A module has ended."""
        if in_backward():
            return output
        while self._running and self._running.pop() != path:
            pass
        found = tensors(output)
        self.run.outputs.setdefault(path, []).append(digest(*found))
        if found:
            self.run.shapes.setdefault(path, tuple(found[0].shape))
            if found[0].is_floating_point() and found[0].numel():
                spread = _wide(found[0]).var(correction=0).item()
                self.run.variances[path] = self.run.variances.get(path, 0.0) + spread
        return output

    def differentiated(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Note the gradients that a backward left."""
        gradients = {name: p.grad for name, p in parameters.items() if p.grad is not None}
        self.run.gradients = {name: digest(gradient) for name, gradient in gradients.items()}
        self.run.still = {name for name, gradient in gradients.items() if not _nonzero(gradient)}


def _nonzero(x: torch.Tensor) -> bool:
    x = x.coalesce().values() if x.layout is torch.sparse_coo else x
    return bool(getattr(x, "_local_tensor", x).any())


def _wide(x: torch.Tensor) -> torch.Tensor:
    """In at least single precision."""
    return x.detach().to(torch.promote_types(x.dtype, torch.float32))


def digest(*many: torch.Tensor) -> str:
    """Equal for tensors that are equal bit for bit.

    >>> digest(torch.zeros(2)) == digest(torch.zeros(2)), digest(torch.zeros(2)) == digest(torch.ones(2))
    (True, False)
    """
    whole = hashlib.blake2b(digest_size=16)
    for x in many:
        x = x.detach()
        if x.layout is torch.sparse_coo:
            x = x.coalesce()
            parts = [x.indices(), x.values()]
        else:
            parts = [x.values()] if x.is_nested else [x]
        for part in parts:
            local = getattr(part, "_local_tensor", part)
            whole.update(repr((tuple(local.shape), local.dtype)).encode())
            whole.update(local.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return whole.hexdigest()
