"""The rows of the conformance suite: what a frontend must offer to be checked. A new one joins by adding a row.

With DROPKIT_DEVICE=cuda the rows are torch's alone, on that device: JAX may be missing there, or take all its memory.
"""

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

import dropkit
import dropkit.numpy
import dropkit.torch

DEVICE = os.environ.get("DROPKIT_DEVICE", "cpu")

if DEVICE == "cpu":
    import jax
    import jax.numpy as jnp

    import dropkit.jax


def round_bfloat16(x: np.ndarray) -> np.ndarray:
    """float32 rounded once, half to even, to the values that bfloat16 has; NaN stays NaN."""
    bits = x.astype(np.float32).view(np.uint32).astype(np.uint64)
    rounded = (((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) << 16).astype(np.uint32).view(np.float32)
    return np.where(np.isnan(x), np.float32(np.nan), rounded)


def rounded(x: np.ndarray, dtype: str) -> np.ndarray:
    """Values as the dtype holds them, in float64 so that all dtypes compare alike."""
    if dtype == "bfloat16":
        return round_bfloat16(x).astype(np.float64)
    return x.astype(dtype).astype(np.float64)


@dataclass
class Numpy:
    """`dropkit.numpy`."""

    name: str = "numpy"
    dtypes: tuple[str, ...] = ("float16", "float32", "float64")
    layouts: tuple[str, ...] = ("contiguous", "transposed", "sliced", "expanded")
    integer: Any = field(default_factory=lambda: np.ones((2, 3), np.int64))

    def array(self, values: np.ndarray, dtype: str, layout: str = "contiguous") -> Any:
        x = values.astype(dtype)
        if layout == "transposed":
            return np.ascontiguousarray(x.T).T
        if layout == "sliced":
            wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1] + 1), x.dtype)
            wide[..., 1::2] = x
            return wide[..., 1::2]
        if layout == "expanded":
            return np.broadcast_to(x[:1], x.shape)
        return x

    def values(self, y: Any) -> np.ndarray:
        return np.asarray(y, np.float64)

    def dropout(self, x: Any, p: Any, **coordinates: Any) -> Any:
        return dropkit.numpy.dropout(x, p, **coordinates)

    def gradient(self, x: Any, p: Any, grad: Any, **coordinates: Any) -> Any:
        return dropkit.numpy.dropout(grad, p, **coordinates)

    def rates(self, p: np.ndarray) -> Any:
        return p


@dataclass
class Torch:
    """`dropkit.torch`, out of place or in place."""

    name: str = "torch"
    inplace: bool = False
    dtypes: tuple[str, ...] = ("float16", "bfloat16", "float32", "float64")
    layouts: tuple[str, ...] = ("contiguous", "transposed", "sliced", "expanded", "channels_last")
    integer: Any = field(default_factory=lambda: torch.ones((2, 3), dtype=torch.int64, device=DEVICE))

    def array(self, values: np.ndarray, dtype: str, layout: str = "contiguous") -> Any:
        x = torch.tensor(np.array(values, order="C"), dtype=getattr(torch, dtype), device=DEVICE)
        if layout == "transposed":
            return x.permute(*reversed(range(x.dim()))).contiguous().permute(*reversed(range(x.dim())))
        if layout == "sliced":
            wide = torch.zeros((*x.shape[:-1], 2 * x.shape[-1] + 1), dtype=x.dtype, device=DEVICE)
            wide[..., 1::2] = x
            return wide[..., 1::2]
        if layout == "expanded":
            return x[:1].expand(x.shape)
        if layout == "channels_last" and x.dim() == 4:
            return x.to(memory_format=torch.channels_last)
        return x

    def values(self, y: Any) -> np.ndarray:
        return y.detach().to(torch.float64).cpu().numpy()

    def dropout(self, x: Any, p: Any, **coordinates: Any) -> Any:
        if self.inplace and x._is_view() and 0 in x.stride():
            x = x.contiguous()  # several elements in one place cannot be written, as torch says of its own
        return dropkit.torch.dropout(x, p, inplace=self.inplace, **coordinates)

    def gradient(self, x: Any, p: Any, grad: Any, **coordinates: Any) -> Any:
        leaf = x.clone().requires_grad_()
        y = dropkit.torch.dropout(leaf * 1, p, inplace=self.inplace, **coordinates)
        return torch.autograd.grad(y, leaf, grad)[0]

    def rates(self, p: np.ndarray) -> Any:
        return torch.from_numpy(p).to(DEVICE)


@dataclass
class Jax:
    """`dropkit.jax`, with JAX's 64-bit types or without."""

    name: str = "jax"
    x64: bool = False
    dtypes: tuple[str, ...] = ("float16", "bfloat16", "float32")
    layouts: tuple[str, ...] = ("contiguous",)
    integer: Any = field(default_factory=lambda: jnp.ones((2, 3), jnp.int32))

    def array(self, values: np.ndarray, dtype: str, layout: str = "contiguous") -> Any:
        with jax.enable_x64(self.x64):
            return jnp.asarray(np.array(values), dtype)

    def values(self, y: Any) -> np.ndarray:
        return np.asarray(y).astype(np.float64)

    def dropout(self, x: Any, p: Any, **coordinates: Any) -> Any:
        with jax.enable_x64(self.x64):
            return dropkit.jax.dropout(x, p, **coordinates)

    def gradient(self, x: Any, p: Any, grad: Any, **coordinates: Any) -> Any:
        with jax.enable_x64(self.x64):
            return jax.vjp(lambda x: dropkit.jax.dropout(x, p, **coordinates), x)[1](grad)[0]

    def rates(self, p: np.ndarray) -> Any:
        return p


FRONTENDS = [Torch(), Torch(name="torch-inplace", inplace=True)]
if DEVICE == "cpu":
    FRONTENDS = [Numpy(), *FRONTENDS, Jax(), Jax(name="jax-x64", x64=True, dtypes=("float64",))]


# Frontends with one fault each, and the check that must catch it.


class ShiftedByOne(Numpy):
    def dropout(self, x: Any, p: Any, **coordinates: Any) -> Any:
        return np.roll(super().dropout(x, p, **coordinates), 1)


class RoundsTheScale(Torch):
    def dropout(self, x: Any, p: Any, **coordinates: Any) -> Any:
        y = super().dropout(x, p, **coordinates)
        return (
            torch.where(y != 0, x * torch.tensor(1 / (1 - p), dtype=x.dtype), y)
            if isinstance(p, float) and p < 1
            else y
        )


class MultipliesByTheMask(Numpy):
    def dropout(self, x: Any, p: Any, **coordinates: Any) -> Any:
        y = super().dropout(x, p, **coordinates)
        with np.errstate(invalid="ignore"):
            return y if y is x else y + x * 0


class AnotherMaskInBackward(Numpy):
    def gradient(self, x: Any, p: Any, grad: Any, **coordinates: Any) -> Any:
        key = coordinates.pop("key")
        return super().gradient(x, p, grad, key=dropkit.Key(key.seed, key.site, key.step + 1), **coordinates)


class FollowsTheStrides(Numpy):
    def dropout(self, x: Any, p: Any, **coordinates: Any) -> Any:
        return (
            super().dropout(x.T, p, **coordinates).T
            if not x.flags.c_contiguous
            else super().dropout(x, p, **coordinates)
        )


class IgnoresRows(Numpy):
    def dropout(self, x: Any, p: Any, **coordinates: Any) -> Any:
        coordinates.pop("rows", None)
        return super().dropout(x, p, **coordinates)


class IgnoresTheOffset(Numpy):
    def dropout(self, x: Any, p: Any, **coordinates: Any) -> Any:
        coordinates.pop("offset", None)
        coordinates.pop("global_shape", None)
        return super().dropout(x, p, **coordinates)


class DropsInEvaluation(Numpy):
    def dropout(self, x: Any, p: Any, **coordinates: Any) -> Any:
        return super().dropout(x, p, **(coordinates | {"training": True}))


class TakesAnyRate(Numpy):
    def dropout(self, x: Any, p: Any, **coordinates: Any) -> Any:
        return x if isinstance(p, float) and not 0 <= p <= 1 else super().dropout(x, p, **coordinates)


BROKEN = [
    (ShiftedByOne(), "golden_vectors"),
    (RoundsTheScale(), "values"),
    (MultipliesByTheMask(), "not_finite"),
    (AnotherMaskInBackward(), "gradient"),
    (FollowsTheStrides(), "layouts"),
    (IgnoresRows(), "rows"),
    (IgnoresTheOffset(), "shards"),
    (DropsInEvaluation(), "identity"),
    (TakesAnyRate(), "errors"),
]
