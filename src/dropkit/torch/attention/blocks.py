"""Attention on the CPU: torch's matrix products over blocks of queries, and one pass of a kernel of ours between them.

    forward    s = q k',  s <- keep ? exp(scale s - most) : 0,  o = (s v) * 2^16 / t / sum
    backward   s = q k',  d = do v',  (s, d) <- (kept p, ds),  dv += s' do,  dq = d k,  dk += d' q

A block holds whole rows of scores, so that no row is ever rescaled; memory is linear in the number of keys.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from ...place import Place
from ...threshold import ONE
from ..arithmetic import cpu
from ..arithmetic.formula import plain
from .request import KernelDraw, Request

QUERIES = 256  # of a block
SCORES = 1 << 20  # of a block, about: a few heads at once, so that they stay in a cache between the products
_ALL = 1 << 62  # a diagonal that hides nothing


def usable(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> bool:
    """Whether the kernel may take these tensors by their pointers."""
    if q.dtype == torch.float64 or not cpu.usable(q) or not k.is_cpu or not v.is_cpu:
        return False
    return plain(k) and plain(v) and (mask is None or (mask.is_cpu and plain(mask) and not mask.requires_grad))


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, request: Request, drawn: KernelDraw
) -> tuple[torch.Tensor, torch.Tensor]:
    """What comes out, and the logarithm of each row's sum of exponentials."""
    return _Attention.apply(q, k, v, request, drawn)


class _Rows:
    """The kernel's view of one call: the blocks of scores, and what it remembers of each row."""

    def __init__(self, q: torch.Tensor, k: torch.Tensor, request: Request, drawn: KernelDraw) -> None:
        self.batch, self.heads, self.queries, _ = q.shape
        self.keys = k.shape[2]
        self.groups = self.heads // k.shape[1]
        self.request, self.drawn = request, drawn
        # as of a row that sees nothing: a block without keys is not run
        self.most = torch.full((self.batch, self.heads, self.queries), -torch.inf)
        self.inverse = torch.zeros(self.most.shape)
        self.mask = _mask(request.masked.mask)
        self.mask_starts = _starts(self.mask.stride(), self.batch, self.heads) if self.mask is not None else None
        place = drawn.place
        strides = (0, 0, 0, 0) if place is None else place.strides
        self.noise_starts = _noise_starts(place, self.batch, self.heads)
        self.noise = int(strides[2]), int(strides[3])

    def pieces(self) -> Iterator["_Piece"]:
        """The blocks, a few heads of k at a time."""
        diagonal, all_heads = self.request.masked.diagonal, self.batch * self.heads // self.groups
        size = self.groups * min(QUERIES, self.queries) * self.keys
        together = min(max(SCORES // max(size, 1), torch.get_num_threads(), 1), all_heads)
        for head in range(0, all_heads, together):
            for first in range(0, self.queries, QUERIES):
                last = min(first + QUERIES, self.queries)
                seen = self.keys if diagonal is None else min(max(last + diagonal, 0), self.keys)
                yield _Piece(slice(head, min(head + together, all_heads)), slice(first, last), seen)

    def run(
        self, piece: "_Piece", scores: torch.Tensor, grads: torch.Tensor | None, delta: torch.Tensor | None
    ) -> None:
        """The kernel over a block, in place; scores of (heads of k, groups * queries, keys)."""
        r, first, head = self.request, piece.queries.start, piece.heads.start * self.groups
        noise_stride, noise_step = self.noise
        mask, mask_stride, mask_starts = 0, 0, 0
        if self.mask is not None and self.mask_starts is not None:
            mask_stride = self.mask.stride(2)
            mask = self.mask.data_ptr() + first * mask_stride * self.mask.element_size()
            mask_starts = self.mask_starts[head:].ctypes.data
        diagonal = _ALL if r.masked.diagonal is None else r.masked.diagonal + first
        offset = 4 * (head * self.queries + first)  # bytes of the rows before
        starts = self.noise_starts[head:] + np.uint64(first * noise_stride)
        (k0, k1), t, _ = self.drawn
        cpu.extension().attention(
            scores.data_ptr(), 0 if grads is None else grads.data_ptr(),
            scores.shape[0] * self.groups, scores.shape[1] // self.groups, piece.seen, piece.seen,
            self.most.data_ptr() + offset, self.inverse.data_ptr() + offset,
            0 if delta is None else delta.data_ptr() + offset, self.queries,
            r.scale, diagonal, mask, self.mask is not None and self.mask.dtype != torch.bool,
            mask_starts, mask_stride,
            starts.ctypes.data, noise_stride, noise_step, r.before, k0, k1, t, torch.get_num_threads(),
        )  # fmt: skip

    @property
    def factor(self) -> float:
        """Of what is kept after the softmax."""
        return 1.0 if self.request.before else ONE / self.drawn.t


def _mask(mask: torch.Tensor | None) -> torch.Tensor | None:
    """As bytes or floats whose last axis is consecutive; other axes may be shared."""
    if mask is None:
        return None
    mask = mask.detach() if mask.dtype == torch.bool else mask.detach().float()
    if mask.stride(3) == 1 or mask.shape[3] == 1:
        return mask
    # one entry of each shared axis, so that a copy is no larger than what was given
    part = mask[tuple(slice(0, 1) if axis < 3 and mask.stride(axis) == 0 else slice(None) for axis in range(4))]
    return part.contiguous().expand(mask.shape)


def _starts(strides: Any, batch: int, heads: int) -> np.ndarray:
    rows = np.arange(batch, dtype=np.int64)[:, None] * strides[0]
    return np.ascontiguousarray(rows + np.arange(heads, dtype=np.int64) * strides[1]).reshape(-1)


def _noise_starts(place: Place | None, batch: int, heads: int) -> np.ndarray:
    if place is None:
        return np.zeros(batch * heads, np.uint64)
    rows = np.arange(batch, dtype=np.uint64) if place.rows is None else place.rows.numpy().astype(np.uint64)
    starts = rows[:, None] * np.uint64(place.strides[0]) + np.arange(heads, dtype=np.uint64) * np.uint64(
        place.strides[1]
    )
    return np.ascontiguousarray(starts + np.uint64(place.base)).reshape(-1)


class _Piece(NamedTuple):
    """A block: some heads of k, some queries, and how many keys the last of these sees."""

    heads: slice
    queries: slice
    seen: int


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


def _wide(x: torch.Tensor, heads: int) -> torch.Tensor:
    """(batch * heads of k, groups, length, features), float32."""
    batch, all_heads, length, features = x.shape
    return x.detach().float().reshape(batch * heads, all_heads // heads, length, features)


def _rows_of(x: torch.Tensor, piece: _Piece) -> torch.Tensor:
    """(heads of k, groups * queries, features) of a block."""
    part = x[piece.heads, :, piece.queries]
    return part.reshape(part.shape[0], -1, part.shape[3])


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, request: Request, drawn: KernelDraw
    ) -> Any:
        rows, heads, memory = _Rows(q, k, request, drawn), k.shape[1], _Memory()
        wide_q, wide_k, wide_v = _wide(q, heads), _wide(k, heads)[:, 0], _wide(v, heads)[:, 0]
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
        # of a row without a visible key 1 / 0, whose logarithm is -inf
        lse = (rows.most - rows.inverse.log()).masked_fill_(rows.inverse == 0, -torch.inf)
        ctx.save_for_backward(q, k, v, out)
        ctx.rows = rows
        return out, lse

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor, grad_lse: torch.Tensor) -> Any:
        q, k, v, out = ctx.saved_tensors
        rows, heads, memory = ctx.rows, k.shape[1], _Memory()
        delta = ((grad.float() * out.float()).sum(-1) - grad_lse).contiguous()
        wide_q, wide_k, wide_v = _wide(q, heads), _wide(k, heads)[:, 0], _wide(v, heads)[:, 0]
        wide_grad = _wide(grad, heads)
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
