"""Dropout, residual and LayerNorm or RMSNorm over the last axis, in one pass forward and one backward.

    z = (keep ? x * 2^16 / t : 0) + r                       rounded to x's dtype, returned
    LayerNorm:  n = (z - mean) / sqrt(var + eps)            RMSNorm:  n = z / sqrt(mean of z^2 + eps)
    y = n * w + b

    g = dy * w;  dz = (g - n * mean of (g n) - [LayerNorm] mean of g) / sqrt(...) + d(z itself);  dr = dz
    dx = keep ? dz * 2^16 / t : 0,    dw = sum of dy * n,    db = sum of dy

Nothing is saved but z, the statistics of each row and the key. Statistics are float32 (float64 for float64).

Source: Ba, Kiros, Hinton 2016 (arXiv:1607.06450); Zhang, Sennrich 2019 (arXiv:1910.07467).
"""
# ruff: noqa: RET505 - a kernel's constant branches need their else
# mypy: disable-error-code="import-not-found, import-untyped, no-untyped-def, untyped-decorator, valid-type"

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from dropkit.errors import DropkitValueError

from .bits import keep_tile, load_threshold, scale_of
from .philox import load_key
from .walk import UNSPECIALIZED, Key, Walk, key_arguments, narrow, on_device, rate_arguments, starts, walk, wide

LONGEST = 65536  # elements of a row, which one program holds
PROGRAMS = 4  # of the backward pass, for each multiprocessor: each keeps its own sums for dw and db


@triton.jit
def rows_of(block, rows, columns, ROWS: tl.constexpr, CELLS: tl.constexpr, CELL: tl.constexpr):
    """The rows of a block, its cells, the columns of a tile, memory offsets and which elements exist."""
    row = tl.arange(0, ROWS).to(tl.int64) + block * ROWS
    cell = tl.arange(0, CELLS)
    column = cell[:, None] * CELL + tl.arange(0, CELL)[None, :]
    offset = (row * columns)[:, None, None] + column[None, :, :]
    inside = (row < rows)[:, None, None] & (column < columns)[None, :, :]
    return row, cell.to(tl.int64), column, offset, inside


@triton.jit
def row_mean(z, columns):
    """Mean of each row of a [ROWS, CELLS, CELL] tile, [ROWS]; what is outside must be 0."""
    total = tl.sum(tl.sum(z, axis=2), axis=1)
    return total / columns.to(z.dtype)


@triton.jit
def inverse_root(v):
    if v.dtype == tl.float64:
        return 1.0 / tl.sqrt(v)
    else:
        return tl.div_rn(1.0, tl.sqrt_rn(v))


@triton.jit(do_not_specialize=UNSPECIALIZED)
def norm_kernel(
    x,
    r,
    w,
    b,
    y,
    z,
    mean,
    rstd,
    eps: tl.float64,
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
    """LayerNorm, or RMSNorm where mean is None."""
    row, cell, column, offset, inside = rows_of(tl.program_id(0).to(tl.int64), rows, columns, ROWS, CELLS, CELL)
    value = tl.load(x + offset, mask=inside, other=0)
    stream = tl.load(r + offset, mask=inside, other=0)
    word0, word1 = load_key(key, step, k0, k1)
    kept_of = load_threshold(t, rate)
    start = starts(row, rows, base, extents, strides, gather)
    kept = keep_tile(start, cell, stride, kept_of, word0, word1, INNER, ALIGNED, CELL)
    scaled = wide(value) * scale_of(kept_of, value.dtype)
    rounded = narrow(tl.where(kept, scaled, 0.0) + wide(stream), value.dtype)
    tl.store(z + offset, rounded, mask=inside)

    total = wide(rounded)  # rounded first, so that backward, which reads it back, sees the same rows
    if mean is not None:
        center = row_mean(total, columns)
        tl.store(mean + row, center, mask=row < rows)
        total = tl.where(inside, total - center[:, None, None], 0.0)
    inverse = inverse_root(row_mean(total * total, columns) + tl.full([ROWS], eps, total.dtype))
    tl.store(rstd + row, inverse, mask=row < rows)
    normal = total * inverse[:, None, None]
    if w is not None:
        normal *= wide(tl.load(w + column, mask=column < columns, other=0))[None, :, :]
    if b is not None:
        normal += wide(tl.load(b + column, mask=column < columns, other=0))[None, :, :]
    tl.store(y + offset, narrow(normal, value.dtype), mask=inside)


@triton.jit(do_not_specialize=UNSPECIALIZED)
def norm_backward_kernel(
    dy,
    dz,
    z,
    w,
    mean,
    rstd,
    dx,
    dr,
    dw,
    db,
    blocks: tl.int64,
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
    """Programs take blocks of rows in turn; dw and db hold a row of sums for each program."""
    word0, word1 = load_key(key, step, k0, k1)
    kept_of = load_threshold(t, rate)
    scale = scale_of(kept_of, dx.dtype.element_ty)
    wide_type: tl.constexpr = scale.dtype
    sum_w = tl.zeros([CELLS, CELL], wide_type)
    sum_b = tl.zeros([CELLS, CELL], wide_type)
    for block in range(tl.program_id(0), blocks, tl.num_programs(0)):
        row, cell, column, offset, inside = rows_of(block, rows, columns, ROWS, CELLS, CELL)
        grad = wide(tl.load(dy + offset, mask=inside, other=0))
        normal = wide(tl.load(z + offset, mask=inside, other=0))
        inverse = tl.load(rstd + row, mask=row < rows, other=0)[:, None, None]
        if mean is not None:
            normal = tl.where(inside, normal - tl.load(mean + row, mask=row < rows, other=0)[:, None, None], 0.0)
        normal *= inverse
        sum_w += tl.sum(grad * normal, axis=0)
        sum_b += tl.sum(grad, axis=0)
        if w is not None:
            grad *= wide(tl.load(w + column, mask=column < columns, other=0))[None, :, :]
        flow = grad - normal * row_mean(grad * normal, columns)[:, None, None]
        if mean is not None:
            flow -= row_mean(grad, columns)[:, None, None]
        flow *= inverse
        if dz is not None:
            flow += wide(tl.load(dz + offset, mask=inside, other=0))
        rounded = narrow(flow, dx.dtype.element_ty)
        tl.store(dr + offset, rounded, mask=inside)
        start = starts(row, rows, base, extents, strides, gather)
        kept = keep_tile(start, cell, stride, kept_of, word0, word1, INNER, ALIGNED, CELL)
        scaled = tl.where(kept, wide(rounded) * scale, 0.0)
        tl.store(dx + offset, narrow(scaled, dx.dtype.element_ty), mask=inside)
    column = tl.arange(0, CELLS)[:, None] * CELL + tl.arange(0, CELL)[None, :]
    place = tl.program_id(0).to(tl.int64) * columns + column
    if dw is not None:
        tl.store(dw + place, sum_w, mask=column < columns)
    if db is not None:
        tl.store(db + place, sum_b, mask=column < columns)


class Normed(NamedTuple):
    """What the forward pass gives: y, and for backward and the residual stream z; mean is None for RMSNorm."""

    y: torch.Tensor
    z: torch.Tensor
    mean: torch.Tensor | None
    rstd: torch.Tensor


class NormGradients(NamedTuple):
    """Gradients of x, r, w and b; None where there is no w or b."""

    x: torch.Tensor
    r: torch.Tensor
    weight: torch.Tensor | None
    bias: torch.Tensor | None


def norm(
    x: torch.Tensor,
    r: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    key: Key,
    rate: int | torch.Tensor,
    eps: float,
    rms: bool = False,
    noise: Sequence[int] | None = None,
    base: int = 0,
    rows: torch.Tensor | None = None,
) -> Normed:
    """`norm(dropout(x) + r)` over the last axis, and the sum itself.

    Args:
        x: float16, bfloat16, float32 or float64; the last axis has 1 to 65536 elements.
        r: the residual stream, of x's shape and dtype.
        weight, bias: contiguous, one number for each entry of the last axis, or None.
        key, rate, noise, base, rows: as for `dropout`; the rate is one for all elements.
        eps: added to the variance.
        rms: RMSNorm in place of LayerNorm.

    Raises:
        DropkitValueError: a last axis that is empty or too long.
    """
    plan = _plan(x, noise, base, rows)
    y, z = torch.empty_like(plan.x), torch.empty_like(plan.x)
    statistic = torch.float64 if x.dtype == torch.float64 else torch.float32
    rstd = torch.empty(x.shape[:-1], dtype=statistic, device=x.device)
    mean = None if rms else torch.empty_like(rstd)
    if x.numel():
        with on_device(x):
            norm_kernel[(plan.blocks,)](
                plan.x, plan.laid(r), weight, bias, y, z, mean, rstd, eps,
                **plan.arguments, **key_arguments(key), **rate_arguments(rate, x.device),
            )  # fmt: skip
    return Normed(y, z, mean, rstd)


def norm_backward(
    dy: torch.Tensor,
    dz: torch.Tensor | None,
    z: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    mean: torch.Tensor | None,
    rstd: torch.Tensor,
    key: Key,
    rate: int | torch.Tensor,
    noise: Sequence[int] | None = None,
    base: int = 0,
    rows: torch.Tensor | None = None,
) -> NormGradients:
    """Gradients of `norm`, given that of y and, where the sum was used, of z; the rest as saved from forward."""
    plan = _plan(z, noise, base, rows)
    plan.arguments["num_warps"] = min(2 * plan.arguments["num_warps"], 32)  # the sums take registers too
    dx, dr = torch.empty_like(plan.x), torch.empty_like(plan.x)
    programs = min(plan.blocks, PROGRAMS * _multiprocessors(z))
    sums = [
        None if held is None else torch.zeros(programs, z.shape[-1], dtype=rstd.dtype, device=z.device)
        for held in (weight, bias)
    ]
    if z.numel():
        with on_device(z):
            norm_backward_kernel[(programs,)](
                plan.laid(dy), None if dz is None else plan.laid(dz), plan.x, weight, mean, rstd, dx, dr, *sums,
                plan.blocks, **plan.arguments, **key_arguments(key), **rate_arguments(rate, z.device),
            )  # fmt: skip
    dw, db = (
        None if sum_ is None or held is None else sum_.sum(0).to(held.dtype)
        for sum_, held in zip(sums, (weight, bias), strict=True)
    )
    return NormGradients(dx, dr, dw, db)


def _plan(x: torch.Tensor, noise: Sequence[int] | None, base: int, rows: torch.Tensor | None) -> Walk:
    if x.dim() == 0 or not 1 <= x.shape[-1] <= LONGEST:
        raise DropkitValueError(
            f"the fused norm takes a last axis of 1 to {LONGEST} elements, got shape {tuple(x.shape)}; "
            "call dropout and the norm apart"
        )
    return walk(x, noise, base, rows, whole_rows=True)


def _multiprocessors(x: torch.Tensor) -> int:
    return torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 1
