"""Attention of few heads on the CPU, and without vectors: torch's matrix products, and one pass of ours between them.

    forward    s = q k',  s <- keep ? exp(scale s - most) : 0,  o = (s v) * 2^16 / t / sum
    backward   s = q k',  d = do v',  (s, d) <- (kept p, ds),  dv += s' do,  dq = d k,  dk += d' q

A block holds whole rows of scores, so that no row is ever rescaled; memory is linear in the number of keys.
"""

import math
from typing import Any

import torch

from ..arithmetic import cpu
from ..arithmetic.formula import plain
from .casting import uncast
from .request import KernelDraw, Request
from .rows import Piece, Rows, wide


def usable(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> bool:
    """Whether the kernel may take these tensors by their pointers; `heads` gives a mask its gradient too."""
    if q.dtype == torch.float64 or not cpu.usable(q) or not k.is_cpu or not v.is_cpu:
        return False
    return plain(k) and plain(v) and (mask is None or (mask.is_cpu and plain(mask)))


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, request: Request, drawn: KernelDraw
) -> tuple[torch.Tensor, torch.Tensor]:
    """What comes out, and the logarithm of each row's sum of exponentials."""
    return _Attention.apply(q, k, v, request, drawn)


class _Memory:
    """Memory for the scores of one block after the other."""

    def __init__(self) -> None:
        self.held: dict[str, torch.Tensor] = {}

    def take(self, name: str, *shape: int) -> torch.Tensor:
        """A piece of what the first, which is the largest, took."""
        size = math.prod(shape)
        if name not in self.held or self.held[name].numel() < size:
            self.held[name] = torch.empty(size)
        return self.held[name][:size].view(shape)


def _rows_of(x: torch.Tensor, piece: Piece) -> torch.Tensor:
    """(heads of k, groups * queries, features) of a block."""
    part = x[piece.heads, :, piece.queries]
    return part.reshape(part.shape[0], -1, part.shape[3])


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, request: Request, drawn: KernelDraw
    ) -> Any:
        rows, heads, memory = Rows(q, k, request, drawn), k.shape[1], _Memory()
        wide_q, wide_k, wide_v = wide(q, heads), wide(k, heads)[:, 0], wide(v, heads)[:, 0]
        out = torch.empty(*wide_q.shape[:3], v.shape[3], dtype=q.dtype)
        inverse = rows.inverse.view(wide_q.shape[:3])
        for piece in rows.pieces():
            part = _rows_of(wide_q, piece)
            scores = memory.take("scores", *part.shape[:2], piece.seen)
            torch.bmm(part, wide_k[piece.heads, : piece.seen].transpose(1, 2), out=scores)
            rows.run(piece, scores, None, None)
            to = out[piece.heads, :, piece.queries]
            product = torch.bmm(scores, wide_v[piece.heads, : piece.seen]).view(to.shape)
            to.copy_(product.mul_(inverse[piece.heads, :, piece.queries, None] * rows.factor))
        out = out.view(*q.shape[:3], -1)
        ctx.save_for_backward(q, k, v, out)
        ctx.rows = rows
        return out, rows.lse

    @staticmethod
    @torch.autograd.function.once_differentiable
    @uncast
    def backward(ctx: Any, grad: torch.Tensor, grad_lse: torch.Tensor) -> Any:
        q, k, v, out = ctx.saved_tensors
        rows, heads, memory = ctx.rows, k.shape[1], _Memory()
        delta = ((grad.float() * out.float()).sum(-1) - grad_lse).contiguous()
        wide_q, wide_k, wide_v = wide(q, heads), wide(k, heads)[:, 0], wide(v, heads)[:, 0]
        wide_grad = wide(grad, heads)
        dq, dk, dv = torch.empty(wide_q.shape), torch.zeros(wide_k.shape), torch.zeros(wide_v.shape)
        for piece in rows.pieces():
            part, flow = _rows_of(wide_q, piece), _rows_of(wide_grad, piece)
            few_k, few_v = wide_k[piece.heads, : piece.seen], wide_v[piece.heads, : piece.seen]
            scores, grads = (memory.take(name, *part.shape[:2], piece.seen) for name in ("scores", "grads"))
            torch.bmm(part, few_k.transpose(1, 2), out=scores)
            torch.bmm(flow, few_v.transpose(1, 2), out=grads)
            rows.run(piece, scores, grads, delta)
            dv[piece.heads, : piece.seen].baddbmm_(scores.transpose(1, 2), flow)
            dk[piece.heads, : piece.seen].baddbmm_(grads.transpose(1, 2), part)
            to = dq[piece.heads, :, piece.queries]
            to.copy_(torch.bmm(grads, few_k).view(to.shape))
        found = (d.view(x.shape).to(x.dtype) for d, x in ((dq, q), (dk, k), (dv, v)))
        return *found, None, None
