"""Dropout, forward and backward (it is its own derivative).

    y = keep ? x * 2^16 / t : 0

A select, not a product: a dropped NaN is 0. Half types are multiplied in float32 and rounded once.
"""
# mypy: disable-error-code="import-not-found, import-untyped, no-untyped-def, untyped-decorator, valid-type"

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from .bits import keep_tile, keep_tile_by_rate, load_threshold, scale_of, threshold_of
from .philox import load_key
from .walk import UNSPECIALIZED, Key, key_arguments, narrow, on_device, rate_arguments, starts, tile_of, walk, wide


@triton.jit(do_not_specialize=UNSPECIALIZED)
def dropout_kernel(
    x,
    y,
    rows: tl.int64,
    columns: tl.int64,
    base: tl.int64,
    extents,
    strides,
    stride: tl.int64,
    gather,
    key,
    step,
    k0: tl.uint32,
    k1: tl.uint32,
    t: tl.int32,
    rate,
    ROWS: tl.constexpr,
    CELLS: tl.constexpr,
    CELL: tl.constexpr,
    INNER: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    row, cell, offset, inside = tile_of(rows, columns, ROWS, CELLS, CELL)
    value = tl.load(x + offset, mask=inside)  # under way while the bits are computed
    word0, word1 = load_key(key, step, k0, k1)
    kept_of = load_threshold(t, rate)
    start = starts(row, rows, base, extents, strides, gather)
    kept = keep_tile(start, cell, stride, kept_of, word0, word1, INNER, ALIGNED, CELL)
    scaled = wide(value) * scale_of(kept_of, value.dtype)
    tl.store(y + offset, narrow(tl.where(kept, scaled, 0.0), value.dtype), mask=inside)


@triton.jit(do_not_specialize=UNSPECIALIZED)
def dropout_by_rate_kernel(
    x,
    p,
    y,
    rows: tl.int64,
    columns: tl.int64,
    base: tl.int64,
    extents,
    strides,
    stride: tl.int64,
    others,
    gather,
    key,
    step,
    k0: tl.uint32,
    k1: tl.uint32,
    ROWS: tl.constexpr,
    CELLS: tl.constexpr,
    CELL: tl.constexpr,
    INNER: tl.constexpr,
    ALIGNED: tl.constexpr,
    OTHER: tl.constexpr,
):
    row, cell, offset, inside = tile_of(rows, columns, ROWS, CELLS, CELL)
    value = tl.load(x + offset, mask=inside)
    column = cell[:, None] * CELL + tl.arange(0, CELL)[None, :]
    place = starts(row, rows, 0, extents, others, None)[:, None, None] + (column * OTHER)[None, :, :]
    t = threshold_of(tl.load(p + place, mask=inside, other=0))
    word0, word1 = load_key(key, step, k0, k1)
    start = starts(row, rows, base, extents, strides, gather)
    kept = keep_tile_by_rate(start, cell, stride, t, word0, word1, CELL)
    scaled = wide(value) * scale_of(t, value.dtype)
    tl.store(y + offset, narrow(tl.where(kept, scaled, 0.0), value.dtype), mask=inside)


def dropout(
    x: torch.Tensor,
    key: Key,
    rate: int | torch.Tensor,
    noise: Sequence[int] | None = None,
    base: int = 0,
    rows: torch.Tensor | None = None,
    inplace: bool = False,
) -> torch.Tensor:
    """`x * 2^16 / t` where kept, 0 elsewhere; as backward, give it the gradient.

    Args:
        x: float16, bfloat16, float32 or float64, any shape and strides.
        key: two words, an int64 tensor of the two, or a `StoredKey`.
        rate: t of 65536; a tensor of one element (integer t or floating p); or p of each element, a floating tensor
            that broadcasts to x.
        noise: by how many indices the noise moves along each axis, 0 where a draw is shared; None: C order.
        base: noise index of the first element.
        rows: int64, row number in the whole of each entry of axis 0.
        inplace: write into x.

    Returns:
        A tensor in the dtype and the memory format of x, or x.
    """
    if isinstance(rate, torch.Tensor) and rate.numel() != 1:
        y = _by_rate(x, key, rate, noise, base, rows)
        return x.copy_(y) if inplace else y
    if x.numel() == 0:
        return x if inplace else torch.empty_like(x)
    plan = walk(x, noise, base, rows)
    y = plan.x if inplace else torch.empty_like(plan.x)
    with on_device(x):
        dropout_kernel[(plan.blocks,)](
            plan.x, y, **plan.arguments, **key_arguments(key), **rate_arguments(rate, x.device)
        )
    if inplace:
        return x if plan.x is x else x.copy_(y)
    return plan.restored(y)


def _by_rate(
    x: torch.Tensor, key: Key, p: torch.Tensor, noise: Sequence[int] | None, base: int, rows: torch.Tensor | None
) -> torch.Tensor:
    if x.numel() == 0:
        return torch.empty_like(x)
    p = p.to(x.device).expand(x.shape)
    plan = walk(x, noise, base, rows, p.stride(), own_words=True)
    y = torch.empty_like(plan.x)
    with on_device(x):
        dropout_by_rate_kernel[(plan.blocks,)](plan.x, p, y, **plan.arguments, **plan.others, **key_arguments(key))
    return plan.restored(y)
