"""The kernel's view of one call of attention: where its rows lie, what it remembers of them, its run over a block."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch

from ...place import Place
from ...threshold import ONE
from ..arithmetic import cpu
from .request import KernelDraw, Request

QUERIES = 256  # of a block
SCORES = 1 << 20  # of a block, about: a few heads at once, so that they stay in a cache between the products
_ALL = 1 << 62  # a diagonal that hides nothing


class Rows:
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

    def pieces(self) -> Iterator["Piece"]:
        """The blocks, a few heads of k at a time."""
        diagonal, all_heads = self.request.masked.diagonal, self.batch * self.heads // self.groups
        size = self.groups * min(QUERIES, self.queries) * self.keys
        together = min(max(SCORES // max(size, 1), torch.get_num_threads(), 1), all_heads)
        for head in range(0, all_heads, together):
            for first in range(0, self.queries, QUERIES):
                last = min(first + QUERIES, self.queries)
                seen = self.keys if diagonal is None else min(max(last + diagonal, 0), self.keys)
                yield Piece(slice(head, min(head + together, all_heads)), slice(first, last), seen)

    @property
    def lse(self) -> torch.Tensor:
        """The logarithm of each row's sum of exponentials, once the kernel has run forward."""
        # of a row without a visible key 1 / 0, whose logarithm is -inf
        return (self.most - self.inverse.log()).masked_fill_(self.inverse == 0, -torch.inf)

    def run(self, piece: "Piece", scores: torch.Tensor, grads: torch.Tensor | None, delta: torch.Tensor | None) -> None:
        """The kernel over a block, in place; scores of (heads of k, groups * queries, keys)."""
        first, head = piece.queries.start, piece.heads.start * self.groups
        cpu.extension().attend(
            scores.data_ptr(), 0 if grads is None else grads.data_ptr(), scores.shape[0] * self.groups,
            scores.shape[1] // self.groups, piece.seen, piece.seen,
            0 if delta is None else delta.data_ptr() + 4 * (head * self.queries + first), self.queries,
            *self.arguments(head, first),
        )  # fmt: skip

    def arguments(self, head: int, first: int) -> tuple[Any, ...]:
        """What a kernel is told of the rows from a head and a query on, as numbers and pointers."""
        r = self.request
        noise_stride, noise_step = self.noise
        mask, mask_stride, mask_starts = 0, 0, 0
        if self.mask is not None and self.mask_starts is not None:
            mask_stride = self.mask.stride(2)
            mask = self.mask.data_ptr() + first * mask_stride * self.mask.element_size()
            mask_starts = self.mask_starts.ctypes.data + 8 * head
        diagonal = _ALL if r.masked.diagonal is None else r.masked.diagonal + first
        offset = 4 * (head * self.queries + first)  # bytes of the rows before
        self.starts = self.noise_starts[head:] + np.uint64(first * noise_stride)  # alive until the kernel has run
        (k0, k1), t, _ = self.drawn
        return (
            self.most.data_ptr() + offset, self.inverse.data_ptr() + offset, r.scale, diagonal,
            mask, self.mask is not None and self.mask.dtype != torch.bool, mask_starts, mask_stride,
            self.starts.ctypes.data, noise_stride, noise_step, r.before, k0, k1, t, torch.get_num_threads(),
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
        return _consecutive(batch, heads, 0, 0, 0)
    if place.rows is None:
        return _consecutive(batch, heads, int(place.strides[0]), int(place.strides[1]), int(place.base))
    return _starts_of(place.rows.numpy().astype(np.uint64), heads, place.strides[0], place.strides[1], place.base)


@lru_cache(maxsize=64)
def _consecutive(batch: int, heads: int, row: int, head: int, base: int) -> np.ndarray:
    """Of the whole, remembered: a training step asks for the same few again and again."""
    return _starts_of(np.arange(batch, dtype=np.uint64), heads, row, head, base)


def _starts_of(rows: np.ndarray, heads: int, row: int, head: int, base: int) -> np.ndarray:
    starts = rows[:, None] * np.uint64(row) + np.arange(heads, dtype=np.uint64) * np.uint64(head)
    return np.ascontiguousarray(starts + np.uint64(base)).reshape(-1)


class Piece(NamedTuple):
    """A block: some heads of k, some queries, and how many keys the last of these sees."""

    heads: slice
    queries: slice
    seen: int


def wide(x: torch.Tensor, heads: int) -> torch.Tensor:
    """(batch * heads of k, groups, length, features), float32."""
    batch, all_heads, length, features = x.shape
    return x.detach().float().reshape(batch * heads, all_heads // heads, length, features)
