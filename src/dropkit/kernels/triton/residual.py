"""Residual addition of a dropped branch.

    y = (keep ? x * 2^16 / t : 0) + r

Half types are widened, and rounded once at the end. The gradient of r is that of y; that of x is `dropout` of it.
"""
# mypy: disable-error-code="import-not-found, import-untyped, no-untyped-def, untyped-decorator, valid-type"

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from .bits import keep_tile, load_threshold, scale_of
from .philox import load_key
from .walk import UNSPECIALIZED, Key, key_arguments, narrow, on_device, rate_arguments, starts, tile_of, walk, wide


@triton.jit(do_not_specialize=UNSPECIALIZED)
def residual_kernel(
    x,
    r,
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
    value = tl.load(x + offset, mask=inside)
    stream = tl.load(r + offset, mask=inside)
    word0, word1 = load_key(key, step, k0, k1)
    kept_of = load_threshold(t, rate)
    start = starts(row, rows, base, extents, strides, gather)
    kept = keep_tile(start, cell, stride, kept_of, word0, word1, INNER, ALIGNED, CELL)
    scaled = wide(value) * scale_of(kept_of, value.dtype)
    total = tl.where(kept, scaled, 0.0) + wide(stream)
    tl.store(y + offset, narrow(total, value.dtype), mask=inside)


def residual(
    x: torch.Tensor,
    r: torch.Tensor,
    key: Key,
    rate: int | torch.Tensor,
    noise: Sequence[int] | None = None,
    base: int = 0,
    rows: torch.Tensor | None = None,
) -> torch.Tensor:
    """`dropout(x) + r` in one pass.

    Args:
        x: float16, bfloat16, float32 or float64, any shape and strides.
        r: what it is added to, of x's shape and dtype.
        key, rate, noise, base, rows: as for `dropout`; the rate is one for all elements.

    Returns:
        A tensor in the dtype and the memory format of x.
    """
    if x.numel() == 0:
        return torch.empty_like(x)
    plan = walk(x, noise, base, rows)
    y = torch.empty_like(plan.x)
    with on_device(x):
        residual_kernel[(plan.blocks,)](
            plan.x, plan.laid(r), y, **plan.arguments, **key_arguments(key), **rate_arguments(rate, x.device)
        )
    return plan.restored(y)
