"""torch's columns: eager, compiled, and the layer."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import dropkit.torch
from dropkit import Key

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}


def values(y: torch.Tensor) -> np.ndarray:
    return y.detach().to(torch.float64).cpu().numpy()


@dataclass
class Torch:
    """`dropkit.torch`, eager; under `DROPKIT_CPU=off` by torch's operations, or by Triton's interpreter."""

    name: str = "torch"
    dtypes: tuple[str, ...] = ("float32", "float64", "bfloat16", "float16")
    inplace: bool = False

    def rate(self, p: float) -> Any:
        return torch.tensor(p)

    def tensor(self, x: Any, dtype: str = "float32") -> Any:
        return None if x is None else torch.tensor(np.array(x)).to(DTYPES[dtype])

    def function(self, x: Any, p: Any, other: Any, how: dict[str, Any]) -> Any:
        x = x.clone() if self.inplace else x
        return dropkit.torch.dropout(x, p, other=other, inplace=self.inplace, **how)

    def dropout(self, x: Any, p: Any, dtype: str, **how: Any) -> Any:
        other = self.tensor(how.pop("other"), dtype)
        return values(self.function(self.tensor(x, dtype), p, other, how))

    def gradients(self, x: Any, p: Any, grad: Any, dtype: str, **how: Any) -> Any:
        other = self.tensor(how.pop("other"), dtype)
        leaves = [t.requires_grad_() for t in (self.tensor(x, dtype), other) if t is not None]
        y = self.function(leaves[0] * 1 if self.inplace else leaves[0], p, other, how)
        found = torch.autograd.grad(y, leaves, self.tensor(grad, dtype))
        return (*map(values, found), None)[:2]

    def layer(self, x: Any, p: float, key: Key, *, training: bool, other: Any, **axes: Any) -> Any:
        layer = dropkit.torch.Dropout(p, inplace=self.inplace, **axes).train(training)
        tensors = [self.tensor(t) for t in (x, other) if t is not None]
        with dropkit.torch.at(seed=key.seed, site=key.site, step=key.step):
            return values(self.call(layer, tensors))

    def call(self, layer: Any, tensors: list[Any]) -> Any:
        return layer(*tensors)


@dataclass
class Compiled(Torch):
    """`torch.compile`, without code generation, so that every law and share is affordable."""

    name: str = "torch compiled"
    dtypes: tuple[str, ...] = ("float32",)
    backend: str = "aot_eager"

    def function(self, x: Any, p: Any, other: Any, how: dict[str, Any]) -> Any:
        torch.compiler.reset()

        @torch.compile(backend=self.backend, fullgraph=True)
        def dropped(x: Any, p: Any, other: Any) -> Any:
            return dropkit.torch.dropout(x, p, other=other, **how)

        return dropped(x, p, other)

    def call(self, layer: Any, tensors: list[Any]) -> Any:
        torch.compiler.reset()
        return torch.compile(layer, backend=self.backend, fullgraph=True)(*tensors)


TORCH = [Torch(), Torch("torch in place", inplace=True), Compiled()]
