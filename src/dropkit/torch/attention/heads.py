"""Attention on the CPU a head at a time, in one kernel: products, softmax and dropout of a few queries after the other.

    forward    s = q k',  w = keep ? e : -e for e = exp(scale s - most),  o = (max(w, 0) v) * 2^16 / t / sum of e
    backward   d = do v',  (p, ds) from w and d,  dv = p' do,  dq = ds k,  dk = ds' q

Nothing is copied for it: heads lie where models put them. Of short sequences the weights are kept, with the mask as
their sign; then backward computes neither an exponential nor a random number, and one product less. Of longer ones it
computes them again.
"""

import math
from typing import Any

import torch

from ..arithmetic import cpu
from .request import KernelDraw, Request
from .rows import Rows

KEPT = 1 << 20  # weights at most that are kept: 4 MiB
_PAD = 16  # a row of weights is filled up to a multiple of this


def suits(shape: tuple[int, ...], heads_of_k: int) -> bool:
    """Whether each thread has heads to do, and products of ours are fast: of plain C++ torch's are faster."""
    if 0 in shape or not cpu.on_vectors():
        return False
    return shape[0] * heads_of_k >= torch.get_num_threads() or kept(shape)


def kept(shape: tuple[int, ...]) -> bool:
    """Whether so many weights are kept."""
    return 0 < math.prod(shape) <= KEPT


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, request: Request, drawn: KernelDraw, with_lse: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What comes out, and the logarithm of each row's sum of exponentials if that is asked for."""
    return _attended(q, k, v, request.masked.mask, request, drawn, with_lse)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        mask: torch.Tensor | None,  # that of the request, which may want a gradient
        request: Request,
        drawn: KernelDraw,
        with_lse: bool,
    ) -> Any:
        rows = Rows(q, k, request, drawn)
        weights = None
        if any(ctx.needs_input_grad[:4]) and kept((rows.batch, rows.heads, rows.queries, rows.keys)):
            weights = torch.empty(rows.batch, rows.heads, rows.queries, -(-rows.keys // _PAD) * _PAD)
        # in memory batch x length x heads x features: what comes next joins the heads
        out = torch.empty(q.shape[0], q.shape[2], q.shape[1], v.shape[3]).transpose(1, 2)
        _run(rows, [*map(_wide, (q, k, v)), out], weights, None, None)
        result = out if q.dtype == torch.float32 else out.to(q.dtype)
        ctx.save_for_backward(q, k, v, result, weights)
        ctx.rows = rows
        return result, rows.lse if with_lse else None

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor, grad_lse: torch.Tensor | None) -> Any:
        q, k, v, out, weights = ctx.saved_tensors
        rows, request = ctx.rows, ctx.rows.request
        of_lse = None if grad_lse is None else grad_lse.contiguous()
        of_mask = torch.empty(*q.shape[:3], rows.keys) if ctx.needs_input_grad[3] else None
        found = [torch.empty_like(x, dtype=torch.float32) for x in (q, k, v)]
        found = [x if x.stride(3) == 1 else torch.empty(x.shape) for x in found]
        _run(rows, [*map(_wide, (q, k, v, out, grad)), *found], weights, of_lse, of_mask)
        if of_mask is not None and request.scale != 1.0:
            of_mask /= request.scale  # the gradient of q k', which is scaled before the mask is added to it
        if q.dtype != torch.float32:
            found = [x.to(q.dtype) for x in found]
        return *found, of_mask, None, None, None


# Without Function.apply's look for function transforms, which `blocks.usable` has ruled out.
_attended = torch._C._FunctionBase.__dict__["apply"].__get__(None, _Attention)


def _wide(x: torch.Tensor) -> torch.Tensor:
    """float32, features one after the other."""
    x = x.detach() if x.dtype == torch.float32 else x.detach().float()
    return x if x.stride(3) == 1 else x.contiguous()


def _run(
    rows: Rows,
    tensors: list[torch.Tensor],
    weights: torch.Tensor | None,
    of_lse: torch.Tensor | None,
    of_mask: torch.Tensor | None,
) -> None:
    cpu.extension().attend_heads(
        [number for x in tensors for number in (x.data_ptr(), *x.stride()[:3])],
        rows.batch, tensors[1].shape[1], rows.groups, rows.queries, rows.keys, tensors[0].shape[3], tensors[2].shape[3],
        *(0 if x is None else x.data_ptr() for x in (weights, of_lse, of_mask)),
        *rows.arguments(0, 0),
    )  # fmt: skip
