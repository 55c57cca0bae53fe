"""Attention of short sequences on the CPU: one block, whose scores are kept, which spares backward a product.

    forward    s = q k',  e <- keep ? exp(scale s - most) : 0,  o = (e v) * 2^16 / t / sum
    backward   d = do v',  (s, d) <- (kept p, ds),  dv = s' do,  dq = d k,  dk = d' q

The plain form, softmax and dropout by themselves, keeps more: the weights, and those that dropout has kept.
"""

from typing import Any

import torch

from .request import KernelDraw, Request
from .rows import Rows, wide

KEPT = 1 << 20  # scores at most: 4 MiB, from where on memory counts and a product is soon as cheap as to read them


def suits(shape: tuple[int, ...]) -> bool:
    """Whether so many weights are kept."""
    batch, heads, queries, keys = shape
    return 0 < batch * heads * queries * keys <= KEPT


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, request: Request, drawn: KernelDraw, with_lse: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What comes out, and the logarithm of each row's sum of exponentials if that is asked for."""
    return _Attention.apply(q, k, v, request.masked.mask, request, drawn, with_lse)


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
        rows, heads = Rows(q, k, request, drawn), k.shape[1]
        few = _flat(q, heads), _flat(k, heads), _flat(v, heads)
        scores = torch.bmm(few[0], few[1].transpose(1, 2))
        kept = scores.clone() if any(ctx.needs_input_grad[:4]) else scores
        rows.run(rows.all, kept, None, None)
        # in memory batch x length x heads x features: what comes next joins the heads
        out = q.new_empty(q.shape[0], q.shape[2], q.shape[1], v.shape[3]).transpose(1, 2)
        factors = rows.inverse * rows.factor
        torch.mul(torch.bmm(kept, few[2]).view(out.shape), factors.unsqueeze(-1), out=out)
        ctx.save_for_backward(q, k, v, out, scores)
        ctx.rows = rows
        return out, rows.lse if with_lse else None

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor, grad_lse: torch.Tensor | None) -> Any:
        q, k, v, out, scores = ctx.saved_tensors
        rows, heads = ctx.rows, k.shape[1]
        delta = (grad * out).sum(-1) if grad.dtype == torch.float32 else (grad.float() * out.float()).sum(-1)
        delta = delta.contiguous() if grad_lse is None else (delta - grad_lse).contiguous()
        flow, few_q, few_k = _flat(grad, heads), _flat(q, heads), _flat(k, heads)
        grads = torch.bmm(flow, _flat(v, heads).transpose(1, 2))
        kept = scores.clone()  # another backward may follow
        rows.run(rows.all, kept, grads, delta)
        found = (
            torch.bmm(grads, few_k).view(q.shape).to(q.dtype),
            torch.bmm(grads.transpose(1, 2), few_q).view(k.shape).to(k.dtype),
            torch.bmm(kept.transpose(1, 2), flow).view(v.shape).to(v.dtype),
        )
        # what the kernel gives is the gradient of q k', which is scaled before the mask is added to it
        of_mask = (grads / rows.request.scale).view(*q.shape[:3], k.shape[2]) if ctx.needs_input_grad[3] else None
        return *found, of_mask, None, None, None


def _flat(x: torch.Tensor, heads: int) -> torch.Tensor:
    """(batch * heads of k, groups * length, features), float32."""
    return wide(x, heads).flatten(1, 2)
