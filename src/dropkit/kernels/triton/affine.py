"""Dropout whose dropped elements become a value, alpha dropout among others, forward and backward.

    y = keep ? x * scale + shift : dropped

Half types are computed in float32 and rounded once; product and sum are not fused.
"""
# ruff: noqa: RET505, SIM300 - a kernel's constant branches need their else
# mypy: disable-error-code="import-not-found, import-untyped, no-untyped-def, untyped-decorator, valid-type"

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl

from .bits import keep_tile, load_threshold
from .philox import load_key
from .walk import UNSPECIALIZED, Key, key_arguments, narrow, on_device, rate_arguments, starts, tile_of, walk, wide


@triton.jit
def number(value, factors, place: tl.constexpr, LIKE: tl.constexpr):
    """One of the three numbers, given or in memory, in the type that LIKE is computed in."""
    KIND: tl.constexpr = tl.float64 if LIKE == tl.float64 else tl.float32
    if factors is None:
        return tl.full((), value, KIND)
    else:
        return tl.load(factors + place).to(KIND)


@triton.jit(do_not_specialize=UNSPECIALIZED)
def affine_kernel(
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
    scale: tl.float64,
    shift: tl.float64,
    dropped: tl.float64,
    factors,
    ROWS: tl.constexpr,
    CELLS: tl.constexpr,
    CELL: tl.constexpr,
    INNER: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    row, cell, offset, inside = tile_of(rows, columns, ROWS, CELLS, CELL)
    value = tl.load(x + offset, mask=inside)
    word0, word1 = load_key(key, step, k0, k1)
    start = starts(row, rows, base, extents, strides, gather)
    kept = keep_tile(start, cell, stride, load_threshold(t, rate), word0, word1, INNER, ALIGNED, CELL)
    moved = wide(value) * number(scale, factors, 0, value.dtype) + number(shift, factors, 1, value.dtype)
    result = tl.where(kept, moved, number(dropped, factors, 2, value.dtype))
    tl.store(y + offset, narrow(result, value.dtype), mask=inside)


def affine(
    x: torch.Tensor,
    key: Key,
    rate: int | torch.Tensor,
    factors: tuple[float, float, float] | torch.Tensor,
    noise: Sequence[int] | None = None,
    base: int = 0,
    rows: torch.Tensor | None = None,
    inplace: bool = False,
) -> torch.Tensor:
    """`x * scale + shift` where kept, `dropped` elsewhere.

    Args:
        x: float16, bfloat16, float32 or float64, any shape and strides.
        key, noise, base, rows, inplace: as for `dropout`.
        rate: t of 65536, or a tensor of one element (integer t or floating p).
        factors: scale, shift and dropped: numbers, or a floating tensor of the three.

    Returns:
        A tensor in the dtype and the memory format of x, or x.
    """
    if x.numel() == 0:
        return x if inplace else torch.empty_like(x)
    plan = walk(x, noise, base, rows)
    y = plan.x if inplace else torch.empty_like(plan.x)
    with on_device(x):
        affine_kernel[(plan.blocks,)](
            plan.x,
            y,
            **plan.arguments,
            **key_arguments(key),
            **rate_arguments(rate, x.device),
            **factor_arguments(factors, x.device),
        )
    if inplace:
        return x if plan.x is x else x.copy_(y)
    return plan.restored(y)


def factor_arguments(factors: tuple[float, float, float] | torch.Tensor, device: torch.device) -> dict[str, Any]:
    """The arguments of `number`, for three numbers or a tensor of them."""
    if isinstance(factors, torch.Tensor):
        return {"scale": 0.0, "shift": 0.0, "dropped": 0.0, "factors": factors.to(device).contiguous()}
    return dict(zip(("scale", "shift", "dropped"), factors, strict=True), factors=None)
