"""Bias, activation and dropout in one pass.

    y  = keep ? act(x + b) * 2^16 / t : 0
    dx = keep ? dy * 2^16 / t * act'(x + b) : 0,    db = sum of dx where b was broadcast

Only x, b and the key are needed for backward.
"""
# mypy: disable-error-code="import-not-found, import-untyped, no-untyped-def, untyped-decorator, valid-type"

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl

from dropkit.errors import UnknownNameError

from .activation import ACTIVATIONS, activate, chain
from .bits import keep_tile, load_threshold, scale_of
from .philox import load_key
from .walk import (
    UNSPECIALIZED,
    Key,
    Walk,
    key_arguments,
    narrow,
    on_device,
    rate_arguments,
    starts,
    tile_of,
    walk,
    wide,
)


@triton.jit
def biased(value, b, row, rows, cell, inside, extents, others, CELL: tl.constexpr, OTHER: tl.constexpr):
    """x + b in the type it is computed in."""
    h = wide(value)
    if b is not None:
        column = cell[:, None] * CELL + tl.arange(0, CELL)[None, :]
        place = starts(row, rows, 0, extents, others, None)[:, None, None] + (column * OTHER)[None, :, :]
        h += wide(tl.load(b + place, mask=inside, other=0))
    return h


@triton.jit(do_not_specialize=UNSPECIALIZED)
def bias_activation_kernel(
    dy,
    x,
    b,
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
    t: tl.int32,
    rate,
    ROWS: tl.constexpr,
    CELLS: tl.constexpr,
    CELL: tl.constexpr,
    INNER: tl.constexpr,
    ALIGNED: tl.constexpr,
    OTHER: tl.constexpr,
    ACT: tl.constexpr,
):
    """Forward where dy is None: y; else backward: dx."""
    row, cell, offset, inside = tile_of(rows, columns, ROWS, CELLS, CELL)
    value = tl.load(x + offset, mask=inside, other=0)
    if dy is not None:
        grad = tl.load(dy + offset, mask=inside, other=0)
    h = biased(value, b, row, rows, cell, inside, extents, others, CELL, OTHER)
    word0, word1 = load_key(key, step, k0, k1)
    kept_of = load_threshold(t, rate)
    start = starts(row, rows, base, extents, strides, gather)
    kept = keep_tile(start, cell, stride, kept_of, word0, word1, INNER, ALIGNED, CELL)
    scale = scale_of(kept_of, value.dtype)
    if dy is None:
        result = activate(h, ACT) * scale
    else:
        result = chain(h, wide(grad) * scale, ACT)
    tl.store(y + offset, narrow(tl.where(kept, result, 0.0), value.dtype), mask=inside)


def bias_activation(
    x: torch.Tensor,
    bias: torch.Tensor | None,
    key: Key,
    rate: int | torch.Tensor,
    activation: str,
    noise: Sequence[int] | None = None,
    base: int = 0,
    rows: torch.Tensor | None = None,
) -> torch.Tensor:
    """`dropout(act(x + bias))` in one pass.

    Args:
        x: float16, bfloat16, float32 or float64, any shape and strides.
        bias: of a shape that broadcasts to x's, or None.
        key, rate, noise, base, rows: as for `dropout`; the rate is one for all elements.
        activation: "relu", "gelu" (exact, by erf) or "gelu_tanh".

    Returns:
        A tensor in the dtype and the memory format of x.

    Raises:
        UnknownNameError: another activation.
    """
    return _run(None, x, bias, key, rate, activation, noise, base, rows)


def bias_activation_backward(
    dy: torch.Tensor,
    x: torch.Tensor,
    bias: torch.Tensor | None,
    key: Key,
    rate: int | torch.Tensor,
    activation: str,
    noise: Sequence[int] | None = None,
    base: int = 0,
    rows: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Gradients of x and of the bias (None without one), given that of the result; other arguments as forward."""
    dx = _run(dy, x, bias, key, rate, activation, noise, base, rows)
    return dx, None if bias is None else dx.sum_to_size(bias.shape).to(bias.dtype)


def _run(
    dy: torch.Tensor | None,
    x: torch.Tensor,
    bias: torch.Tensor | None,
    key: Key,
    rate: int | torch.Tensor,
    activation: str,
    noise: Sequence[int] | None,
    base: int,
    rows: torch.Tensor | None,
) -> torch.Tensor:
    if activation not in ACTIVATIONS:
        raise UnknownNameError("activation", activation, ACTIVATIONS)
    if x.numel() == 0:
        return torch.empty_like(x)
    plan: Walk = walk(x, noise, base, rows, None if bias is None else bias.expand(x.shape).stride())
    y = torch.empty_like(plan.x)
    given: dict[str, Any] = {**plan.arguments, **plan.others, **key_arguments(key), **rate_arguments(rate, x.device)}
    with on_device(x):
        bias_activation_kernel[(plan.blocks,)](
            None if dy is None else plan.laid(dy), plan.x, bias, y, **given, ACT=ACTIVATIONS[activation]
        )
    return plan.restored(y)
