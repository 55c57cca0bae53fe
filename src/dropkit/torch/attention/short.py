"""Attention of short sequences on the CPU: one block, whose scores are kept, which spares backward a product.

    forward    s = q k',  p = keep ? exp(scale s - most) * 2^16 / t / sum : 0,  o = p v
    backward   d = do v',  (p, d) <- (s, d),  dv = p' do,  dq = d k,  dk = d' q

Products read tensors where they lie and write where what comes next reads: as models hold heads, batch x length x heads
x features, a copy of each would cost as much as the dropout. The plain form, softmax and dropout by themselves, keeps
more: the weights, and those that dropout has kept.
"""

from typing import Any

import torch

from .casting import uncast
from .request import KernelDraw, Request
from .rows import Rows

COPIED = 1 << 14  # elements of a sample at most that are copied, rather than multiplied sample by sample
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
        few_q, few_k, few_v = (_of_k(x, heads) for x in (q, k, v))
        scores = few_q.new_empty(*few_q.shape[:3], few_k.shape[2])
        _multiply(few_q, few_k.transpose(2, 3), scores)
        kept = torch.empty_like(scores) if any(ctx.needs_input_grad[:4]) else scores
        rows.run(rows.all, scores.flatten(0, 1), None, None, kept)
        # in memory batch x length x heads x features: what comes next joins the heads
        out = q.new_empty(q.shape[0], q.shape[2], q.shape[1], v.shape[3]).transpose(1, 2)
        _multiply(kept, few_v, out)
        ctx.save_for_backward(q, k, v, out, scores)
        ctx.rows = rows
        return out, rows.lse if with_lse else None

    @staticmethod
    @torch.autograd.function.once_differentiable
    @uncast
    def backward(ctx: Any, grad: torch.Tensor, grad_lse: torch.Tensor | None) -> Any:
        q, k, v, out, scores = ctx.saved_tensors
        rows, heads = ctx.rows, k.shape[1]
        delta = (grad * out).sum(-1) if grad.dtype == torch.float32 else (grad.float() * out.float()).sum(-1)
        delta = delta.contiguous() if grad_lse is None else (delta - grad_lse).contiguous()
        flow, few_q, few_k, few_v = (_of_k(x, heads) for x in (grad, q, k, v))
        kept, grads = torch.empty_like(scores), torch.empty_like(scores)  # another backward may follow
        _multiply(flow, few_v.transpose(2, 3), grads)
        rows.run(rows.all, scores.flatten(0, 1), grads, delta, kept)
        dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
        _multiply(grads, few_k, dq)
        _multiply(grads.transpose(2, 3), few_q, dk)
        _multiply(kept.transpose(2, 3), flow, dv)
        # what the kernel gives is the gradient of q k', which is scaled before the mask is added to it
        of_mask = (grads / rows.request.scale).view(*q.shape[:3], k.shape[2]) if ctx.needs_input_grad[3] else None
        return dq, dk, dv, of_mask, None, None, None


def _of_k(x: torch.Tensor, heads: int) -> torch.Tensor:
    """(batch, heads of k, groups * length, features), float32; without a copy where a head of k serves one."""
    x = x.detach().float()
    return x if x.shape[1] == heads else x.reshape(x.shape[0], heads, -1, x.shape[3])


def _multiply(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
    """`a b` of each sample and head, into out, which may have more heads and another dtype."""
    to = out
    if out.dtype != torch.float32 or out.shape[1] != a.shape[1]:
        to = a.new_empty(*a.shape[:3], b.shape[3])
    if all(map(_together, (a, b, to))):
        torch.bmm(a.flatten(0, 1), b.flatten(0, 1), out=to.flatten(0, 1))
    elif min(x[0].numel() for x in (a, b, to)) > COPIED:
        for one_a, one_b, one in zip(a, b, to, strict=True):
            torch.bmm(one_a, one_b, out=one)
    else:
        if not _together(to):
            to = a.new_empty(to.shape)
        torch.bmm(a.flatten(0, 1), b.flatten(0, 1), out=to.flatten(0, 1))
    if to is not out:
        out.copy_(to.view(out.shape))


def _together(x: torch.Tensor) -> bool:
    """Whether samples and heads follow one another as heads alone do, so that they are one axis without a copy."""
    return x.shape[0] == 1 or x.shape[1] == 1 or x.stride(0) == x.shape[1] * x.stride(1)
