"""Attention on CUDA: a Triton kernel over tiles of queries and keys, with the mask computed in registers."""

import math
from typing import Any

import torch

from ...place import Place
from ..arithmetic import cuda
from ..arithmetic.formula import plain
from .casting import uncast
from .request import KernelDraw, Request

WIDEST = 256  # features of a head that the kernel holds at once


def usable(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> bool:
    """Whether the kernel may take these tensors by their pointers, and holds heads as wide as these."""
    if q.dtype == torch.float64 or not cuda.usable(q) or not (plain(k) and plain(v)):
        return False
    if not 1 <= q.shape[3] <= WIDEST or not 1 <= v.shape[3] <= WIDEST:
        return False
    return mask is None or (plain(mask) and not mask.requires_grad)


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, request: Request, drawn: KernelDraw
) -> tuple[torch.Tensor, torch.Tensor]:
    """What comes out, and the logarithm of each row's sum of exponentials."""
    return _Attention.apply(q, k, v, request, drawn)


def _weights(q: torch.Tensor, request: Request, drawn: KernelDraw) -> Any:
    from ...kernels.triton.attention import Weights

    place = Place((1, 1, 1, 1), (0, 0, 0, 0)) if drawn.place is None else drawn.place
    return Weights(
        mask=request.masked.mask,
        diagonal=request.masked.diagonal,
        scale=request.scale,
        before=request.before,
        key=drawn.key,
        t=drawn.t,
        noise=place.strides,
        base=place.base,
        rows=None if place.rows is None else place.rows.to(q.device).contiguous(),
    )


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, request: Request, drawn: KernelDraw
    ) -> Any:
        from ...kernels.triton.attention import attention

        ctx.weights = _weights(q, request, drawn)
        out, most, inverse = attention(q, k, v, ctx.weights)
        # of a row without a visible key the sum is 0
        lse = (most * math.log(2) - inverse.log()).masked_fill_(inverse == 0, -torch.inf)
        ctx.save_for_backward(q, k, v, out, most, inverse)
        return out, lse

    @staticmethod
    @torch.autograd.function.once_differentiable
    @uncast
    def backward(ctx: Any, grad: torch.Tensor, grad_lse: torch.Tensor) -> Any:
        from ...kernels.triton.attention import attention_backward

        q, k, v, out, most, inverse = ctx.saved_tensors
        found = attention_backward(grad, grad_lse.float(), q, k, v, out, most, inverse, ctx.weights)
        return *found, None, None
