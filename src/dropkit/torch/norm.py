"""The end of a post-norm block: dropout, residual sum and normalisation, in one pass on CUDA."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import has_torch_function_variadic

from ..counter import Key
from ..errors import DropkitValueError, UnknownNameError
from ..layout import Layout
from . import ops
from .arithmetic import cuda
from .fused import dropout_add

NORMS = ("layer", "rms")


def dropout_add_norm(
    x: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    p: float | torch.Tensor,
    *,
    training: bool,
    norm: str = "layer",
    eps: float = 1e-5,
    key: Key | None = None,
    share: Sequence[int] = (),
    offset: Sequence[int] | None = None,
    global_shape: Sequence[int] | None = None,
    rows: torch.Tensor | Sequence[int] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`z = residual + dropout(x)` and `y = norm(z)` over the last axis; both are returned.

    layer: `y = (z - mean(z)) / sqrt(var(z) + eps) * weight + bias`; rms: `y = z / sqrt(mean(z^2) + eps) * weight`.

    Args:
        x, residual: tensors of one shape (..., features) and dtype.
        weight, bias: shape (features,), or None; rms takes no bias.
        norm: "layer" or "rms".
        eps: added to the variance, or to the mean square.
        p, training, key, share, offset, global_shape, rows: as `dropout`.

    Returns:
        (y, z), of x's shape and dtype. On CUDA one Triton kernel makes both, and what is kept for backward is z, a
        mean and a scale for each row, and the key; elsewhere it is composed of `dropout_add` and torch's norm.

    Raises:
        UnknownNameError, DropkitValueError, DropkitTypeError: an unknown norm; a bias for rms; weights of another
            shape; and as `dropout_add`.

    Sources: Ba et al. 2016 (arXiv:1607.06450); Zhang and Sennrich 2019 (arXiv:1910.07467).

    >>> x = torch.ones(1, 8)
    >>> y, z = dropout_add_norm(x, x, None, None, 0.5, training=True, key=Key(seed=1, site="drop"))
    >>> z
    tensor([[1., 1., 1., 1., 3., 3., 3., 1.]])
    >>> abs(float(y.mean())) < 1e-6
    True
    """
    _check(norm, x, weight, bias)
    rate = ops.lower(x, p, ops.mode(training))
    watched = ops.traced() or has_torch_function_variadic(x, residual)
    fused = isinstance(rate, int) and not watched and cuda.usable(x) and cuda.usable(residual)
    if (
        not fused or x.shape != residual.shape or x.dtype != residual.dtype
    ):  # `dropout_add` says what is wrong with these
        place: Any = {"share": share, "offset": offset, "global_shape": global_shape, "rows": rows}
        z = dropout_add(x, residual, p, training=training, key=key, **place)
        shape = x.shape[-1:]
        if norm == "rms":
            return functional.rms_norm(z, shape, weight, eps), z
        return functional.layer_norm(z, shape, weight, bias, eps), z
    draw, where = ops.prepare(x, rate, ops.fresh_with(key, offset, global_shape, rows), share)  # type: ignore[arg-type]
    return _DropoutAddNorm.apply(x, residual, weight, bias, draw.key, draw.rate, where, eps, norm == "rms")


def _check(norm: str, x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None) -> None:
    if norm not in NORMS:
        raise UnknownNameError("norm", str(norm), NORMS)
    if norm == "rms" and bias is not None:
        raise DropkitValueError("an rms norm has no bias; pass bias=None, or norm='layer'")
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None and tensor.shape != x.shape[-1:]:
            raise DropkitValueError(f"{name} must have shape {tuple(x.shape[-1:])}, got {tuple(tensor.shape)}")


class _DropoutAddNorm(torch.autograd.Function):
    """One kernel forward, one backward; kept are the sum, two numbers a row, and the key."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        residual: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        key: Any,
        t: int,
        place: Layout,
        eps: float,
        rms: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        y, z, mean, rstd = cuda.norm(x, residual, weight, bias, key, t, eps, rms, place)
        ctx.save_for_backward(z, weight, bias, mean, rstd)
        ctx.rest = (key, t, place)
        return y, z

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: torch.Tensor, dz: torch.Tensor) -> tuple[Any, ...]:
        z, weight, bias, mean, rstd = ctx.saved_tensors
        dx, dr, dw, db = cuda.norm_grad(dy, dz, z, weight, bias, mean, rstd, *ctx.rest)
        return dx, dr, dw, db, None, None, None, None, None
