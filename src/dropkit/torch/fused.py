"""Dropout together with its neighbours in one pass: residual sum, normalisation, bias and activation.

The masks are those of `dropout` with the same key. On the CPU one kernel does all but the norm, on CUDA one does all;
elsewhere, and under a compiler (which fuses by itself), the same is composed of `dropout` and torch's operations.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import has_torch_function_variadic

from ..axes.share import Refining, Sharing
from ..counter import Key
from ..drop import Lowered
from ..errors import DropkitValueError, UnknownNameError
from ..place import Part, Place
from . import ops
from .arithmetic import cuda

_Rows = torch.Tensor | Sequence[int] | None

NORMS = ("layer", "rms")
ACTIVATIONS: dict[str, Any] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
}


def dropout_add(
    x: torch.Tensor,
    residual: torch.Tensor,
    p: float | torch.Tensor,
    *,
    training: bool,
    key: Key | None = None,
    share: Sequence[int] | Sharing = (),
    offset: Sequence[int] | None = None,
    global_shape: Sequence[int] | None = None,
    rows: _Rows = None,
) -> torch.Tensor:
    """The end of a residual branch: `y = residual + dropout(x)`, in one pass over memory.

    Args:
        x, residual: tensors of one shape and dtype.
        p, training, key, share, offset, global_shape, rows: as `dropout`.

    Returns:
        A tensor like x; half types are summed in float32 and rounded once where the kernel runs.

    Raises:
        DropkitValueError, DropkitTypeError: shapes or dtypes that differ; and as `dropout`.

    Source: Vaswani et al. 2017 (arXiv:1706.03762), residual dropout.

    >>> x = torch.ones(2, 8)
    >>> dropout_add(x, 10 * x, 0.5, training=True, key=Key(seed=1, site="drop"))
    tensor([[10., 10., 10., 10., 12., 12., 12., 10.],
            [10., 12., 12., 12., 10., 10., 12., 10.]])
    """
    if x.shape != residual.shape or x.dtype != residual.dtype:
        raise DropkitValueError(
            f"x and residual must have one shape and dtype, got {tuple(x.shape)} {x.dtype} and "
            f"{tuple(residual.shape)} {residual.dtype}"
        )
    if has_torch_function_variadic(x, residual):  # who watches or changes calls is shown the dropout in this one
        place: Any = {"share": share, "offset": offset, "global_shape": global_shape, "rows": rows}
        return residual + ops.dropout(x, p, training=training, key=key, **place)
    if ops.mode(training):
        ops.check_dtype(x)
    lowered, share = ops.lower(x, p, training), ops.axes_of(share)
    if lowered is None:
        return x + residual
    fresh = ops.fresh_with(key, Part.of(offset, global_shape, rows))
    kernels = _kernels(lowered, share, x, residual)
    if kernels is None:
        return residual + ops.apply(x, lowered, fresh, share, inplace=False)
    draw, where = ops.prepare(x, lowered, fresh, share)
    return _DropoutAdd.apply(x, residual, kernels, draw.key, draw.lowered, where)


def bias_act_dropout(
    x: torch.Tensor,
    bias: torch.Tensor | None,
    p: float | torch.Tensor,
    *,
    activation: str,
    training: bool,
    key: Key | None = None,
    share: Sequence[int] | Sharing = (),
    offset: Sequence[int] | None = None,
    global_shape: Sequence[int] | None = None,
    rows: _Rows = None,
) -> torch.Tensor:
    """The middle of a feed-forward block: `y = dropout(f(x + bias))`, in one pass over memory.

    Args:
        x: tensor of shape (..., features).
        bias: tensor of shape (features,), or None.
        activation: f, one of "relu", "gelu" (exact) and "gelu_tanh".
        p, training, key, share, offset, global_shape, rows: as `dropout`.

    Returns:
        A tensor like x. Saved for backward are x and bias, not the activations and no mask.

    Raises:
        UnknownNameError, DropkitValueError, DropkitTypeError: an unknown activation; a bias of another shape or dtype;
            and as `dropout`.

    >>> x = torch.tensor([[-1.0, 2.0, 3.0, 4.0] * 2])
    >>> bias_act_dropout(x, torch.ones(8), 0.5, activation="relu", training=True, key=Key(seed=1, site="drop"))
    tensor([[0., 0., 0., 0., 0., 6., 8., 0.]])
    """
    if activation not in ACTIVATIONS:
        raise UnknownNameError("activation", str(activation), ACTIVATIONS)
    if bias is not None and (bias.shape != x.shape[-1:] or bias.dtype != x.dtype):
        raise DropkitValueError(
            f"bias must have shape {tuple(x.shape[-1:])} and dtype {x.dtype}, got {tuple(bias.shape)} {bias.dtype}"
        )
    if has_torch_function_variadic(x):  # as in `dropout_add`
        place: Any = {"share": share, "offset": offset, "global_shape": global_shape, "rows": rows}
        y = ACTIVATIONS[activation](x if bias is None else x + bias)
        return ops.dropout(y, p, training=training, key=key, **place)
    if ops.mode(training):
        ops.check_dtype(x)
    lowered, share = ops.lower(x, p, training), ops.axes_of(share)
    fresh = ops.fresh_with(key, Part.of(offset, global_shape, rows))
    kernels = None if lowered is None else _kernels(lowered, share, x, bias)
    if lowered is None or kernels is None:
        y = ACTIVATIONS[activation](x if bias is None else x + bias)
        return y if lowered is None else ops.apply(y, lowered, fresh, share, inplace=False)
    draw, where = ops.prepare(x, lowered, fresh, share)
    return _BiasActDropout.apply(x, bias, kernels, activation, draw.key, draw.lowered, where)


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
    share: Sequence[int] | Sharing = (),
    offset: Sequence[int] | None = None,
    global_shape: Sequence[int] | None = None,
    rows: _Rows = None,
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
    _check_norm(norm, x, weight, bias)
    lowered, share = ops.lower(x, p, ops.mode(training)), ops.axes_of(share)
    watched = ops.traced() or has_torch_function_variadic(x, residual)
    known = lowered is not None and type(lowered.t) is int and not isinstance(share, Refining)
    fused = known and not watched and cuda.usable(x) and cuda.usable(residual)
    if (
        not fused or x.shape != residual.shape or x.dtype != residual.dtype
    ):  # `dropout_add` says what is wrong with these
        place: Any = {"share": share, "offset": offset, "global_shape": global_shape, "rows": rows}
        z = dropout_add(x, residual, p, training=training, key=key, **place)
        shape = x.shape[-1:]
        if norm == "rms":
            return functional.rms_norm(z, shape, weight, eps), z
        return functional.layer_norm(z, shape, weight, bias, eps), z
    draw, where = ops.prepare(x, lowered, ops.fresh_with(key, Part.of(offset, global_shape, rows)), share)  # type: ignore[arg-type]
    return _DropoutAddNorm.apply(x, residual, weight, bias, draw.key, draw.lowered.t, where, eps, norm == "rms")


def _check_norm(norm: str, x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None) -> None:
    if norm not in NORMS:
        raise UnknownNameError("norm", str(norm), NORMS)
    if norm == "rms" and bias is not None:
        raise DropkitValueError("an rms norm has no bias; pass bias=None, or norm='layer'")
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None and tensor.shape != x.shape[-1:]:
            raise DropkitValueError(f"{name} must have shape {tuple(x.shape[-1:])}, got {tuple(tensor.shape)}")


def _kernels(lowered: Lowered, share: Any, x: torch.Tensor, other: torch.Tensor | None) -> Any:
    """The module whose kernels do it in one pass, or None."""
    if type(lowered.t) is not int or isinstance(share, Refining) or ops.traced():
        return None
    kernels = ops.kernels_for(x)
    return kernels if kernels is None or other is None or kernels.usable(other) else None


class _DropoutAdd(torch.autograd.Function):
    """`y = residual + (x * scale where kept)`: the gradient of the residual is the incoming one."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, residual: torch.Tensor, kernels: Any, *rest: Any) -> torch.Tensor:
        ctx.rest = rest
        key, lowered, place = rest
        return kernels.residual(x, residual, key, lowered.t, place)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
        return ops.scale_kept(grads[0], *ctx.rest), grads[0], None, None, None, None


class _BiasActDropout(torch.autograd.Function):
    """`y = f(x + bias) * scale` where kept; the gradient computes the mask and f' again."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, bias: torch.Tensor | None, kernels: Any, activation: str, *rest: Any
    ) -> torch.Tensor:
        ctx.kernels, ctx.activation, ctx.rest = kernels, activation, rest
        ctx.save_for_backward(x, bias)
        key, lowered, place = rest
        return kernels.activate(activation, x, bias, key, lowered.t, place)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
        x, bias = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted: compose it of operations that have one
            dx = _composed_grad(grads[0], x, bias, ctx.activation, *ctx.rest)
        else:
            key, lowered, place = ctx.rest
            dx = ctx.kernels.activate_grad(ctx.activation, grads[0], x, bias, key, lowered.t, place)
        db = None if bias is None else dx.sum(dim=tuple(range(dx.dim() - 1)))
        return dx, db, None, None, None, None, None


def _composed_grad(
    grad: torch.Tensor, x: torch.Tensor, bias: torch.Tensor | None, activation: str, *rest: Any
) -> torch.Tensor:
    masked = ops.scale_kept(grad, *rest)
    z = x if bias is None else x + bias
    (dx,) = torch.autograd.grad(ACTIVATIONS[activation](z), z, masked, create_graph=True)
    return dx


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
        place: Place,
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
