"""How a launch covers a tensor: rows and columns in memory order, and where each row starts in the noise tensor.

    memory offset = row * columns + column
    noise index   = base + sum over outer axes of coordinate * noise stride + column * inner noise stride

Every dense tensor is walked as it lies in memory, axes that move together merged into one, so that a whole contiguous
tensor is a single row; one with gaps or overlaps is first copied into a dense one. Sizes and strides are run-time
arguments of the kernels, in tuples of as many entries as axes are left.
"""
# ruff: noqa: RET505, SIM300 - a kernel's constant branches need their else
# mypy: disable-error-code="import-not-found, import-untyped, no-untyped-def, untyped-decorator, valid-type"

import contextlib
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl

from .bits import RUN, SCATTERED, SHARED

# A program's tile. Loads of 16 bytes a thread, several in flight, and one keep-word a thread to compute.
TILE = 4096  # elements
OWN_WORD_TILE = 1024  # where each element computes a word of its own, which takes registers
CELL = 32  # neighbours that share one computed keep-word: 32, or fewer (see bits.py)
WARPS = 4

# Run-time arguments whose value makes no new kernel, not even where it is 1 or a multiple of 16. Triton heeds this for
# arguments alone: a number within a tuple always counts. So what each step or piece has anew (key words, base) is an
# argument of its own, and only what a shape gives (extents, strides) lies in tuples.
UNSPECIALIZED = ["base", "k0", "k1", "t", "stride"]

# The interpreter cuts off the low half of a float32 on its way to bfloat16; `narrow` rounds in its place.
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)

# Products and sums are not contracted: a fused multiply-add would round differently from the CPU.
EXACT = {"enable_fp_fusion": False}


@triton.jit
def tile_of(rows, columns, ROWS: tl.constexpr, CELLS: tl.constexpr, CELL: tl.constexpr):
    """This program's rows [ROWS] and cells [CELLS], its memory offsets and which of them exist."""
    program = tl.program_id(0)
    across = tl.cdiv(columns, CELLS * CELL).to(tl.int32)  # as the grid, below 2^31
    row = (program // across).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    cell = (program % across).to(tl.int64) * CELLS + tl.arange(0, CELLS)
    column = cell[:, None] * CELL + tl.arange(0, CELL)[None, :]
    offset = (row * columns)[:, None, None] + column[None, :, :]
    inside = (row < rows)[:, None, None] & (column < columns)[None, :, :]
    return row, cell, offset, inside


@triton.jit
def starts(row, rows, base, extents, strides, gather):
    """`base + sum of coordinate * stride` of each row, int64; `gather` replaces the outermost coordinate."""
    start = tl.zeros_like(row) + base
    rest = row
    for axis in tl.static_range(len(extents) - 1, -1, -1):
        if axis == 0:
            coordinate = rest
            if gather is not None:
                coordinate = tl.load(gather + rest, mask=row < rows, other=0)
        else:
            coordinate = rest % extents[axis]
            rest = rest // extents[axis]
        start += coordinate.to(tl.int64) * strides[axis]
    return start


@triton.jit
def wide(x):
    """x in the type it is computed in: float64 as it is, all others float32."""
    if x.dtype == tl.float64:
        return x
    else:
        return x.to(tl.float32)


@triton.jit
def narrow(value, LIKE: tl.constexpr):
    """The value in type LIKE, rounded to the nearest, ties to even."""
    if INTERPRETED and LIKE == tl.bfloat16:
        bits = value.to(tl.uint32, bitcast=True)
        nearest = bits + 0x7FFF + ((bits >> 16) & 1)
        kept = tl.where(value == value, nearest, bits | 0x400000) >> 16
        return kept.to(tl.uint16).to(tl.bfloat16, bitcast=True)
    else:
        return value.to(LIKE)


@dataclass
class Axis:
    """One axis of the walk."""

    extent: int
    noise: int
    other: int
    gathered: bool = False

    def continues(self, inner: "Axis") -> bool:
        """Whether a step here equals a whole turn of the axis inside it, so that the two are one."""
        moves = self.noise == inner.extent * inner.noise and self.other == inner.extent * inner.other
        return moves and not self.gathered and not inner.gathered


@dataclass(frozen=True)
class Walk:
    """A walk over a dense tensor: `arguments` for every kernel, and `others`, the strides of a broadcast operand."""

    source: torch.Tensor
    x: torch.Tensor
    arguments: dict[str, Any]
    others: dict[str, Any]

    @property
    def blocks(self) -> int:
        """How many tiles cover the tensor."""
        a = self.arguments
        return triton.cdiv(a["rows"], a["ROWS"]) * triton.cdiv(a["columns"], a["CELLS"] * a["CELL"])

    def laid(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor, or a copy of it, in the strides and dtype of the walk."""
        if tensor.stride() == self.x.stride() and tensor.dtype == self.x.dtype:
            return tensor
        return torch.empty_like(self.x).copy_(tensor)

    def restored(self, out: torch.Tensor) -> torch.Tensor:
        """A result in the memory format of what was given."""
        if self.x is self.source or out.stride() == torch.empty_like(self.source, device="meta").stride():
            return out
        return torch.empty_like(self.source).copy_(out)


def walk(
    x: torch.Tensor,
    noise: Sequence[int] | None,
    base: int,
    gather: torch.Tensor | None,
    other: Sequence[int] | None = None,
    whole_rows: bool = False,
    own_words: bool = False,
) -> Walk:
    """Lower a tensor and the strides of its noise to rows and columns.

    Args:
        x: the data, any strides.
        noise: by how many indices the noise moves along each axis, 0 where a draw is shared; None: C order.
        base: noise index of the first element.
        gather: int64 coordinates that replace 0, 1, 2, ... along axis 0.
        other: strides of an operand broadcast to x's shape, in elements.
        whole_rows: a row is the last axis, and a tile holds whole rows.
        own_words: each element computes a word of its own, as it also does where the noise is scattered.
    """
    source = x
    x = x.contiguous() if whole_rows else dense(x, gathered=gather is not None)
    lowered = _lowered(
        tuple(x.shape),
        None if x.is_contiguous() else x.stride(),  # of an axis of one element a contiguous tensor may say any stride
        None if noise is None else tuple(noise),
        None if other is None else tuple(other),
        gather is not None,
        whole_rows,
        own_words,
    )
    arguments = lowered.arguments | {
        "base": base,
        "gather": None if gather is None else gather.contiguous(),
        "ALIGNED": base % 32 == 0 and lowered.aligned,
    }
    return Walk(source, x, arguments, lowered.others)


@dataclass(frozen=True)
class _Lowered:
    """What the shapes alone say of a walk: the arguments but for those of the call, and whether rows start at words."""

    arguments: dict[str, Any]
    others: dict[str, Any]
    aligned: bool


@functools.lru_cache(maxsize=1024)  # a training loop has few shapes, and this costs as much as a launch
def _lowered(
    shape: tuple[int, ...],
    steps: tuple[int, ...] | None,
    noise: tuple[int, ...] | None,
    other: tuple[int, ...] | None,
    gathered: bool,
    whole_rows: bool,
    own_words: bool,
) -> _Lowered:
    whole = c_order(shape)
    axes = _axes(shape, steps or whole, noise or whole, other, gathered)
    if whole_rows:
        *outer, inner = axes
        axes = [*joined([axis for axis in outer if axis.extent != 1 or axis.gathered]), inner]
    else:
        axes = joined([axis for axis in axes if axis.extent != 1 or axis.gathered])
        axes = [*axes, Axis(1, 1, 0)] if not axes or axes[-1].gathered else axes
    *outer, inner = axes
    kind = {0: SHARED, 1: RUN}.get(inner.noise, SCATTERED)
    rows = math.prod(shape) // inner.extent
    arguments: dict[str, Any] = {
        "rows": rows,
        "columns": inner.extent,
        "extents": tuple(axis.extent for axis in outer),
        "strides": tuple(axis.noise for axis in outer),
        "stride": inner.noise,
        "INNER": kind,
    }
    arguments |= tile(rows, inner.extent, OWN_WORD_TILE if own_words or kind == SCATTERED else TILE, whole_rows)
    others = {"others": tuple(axis.other for axis in outer), "OTHER": inner.other}
    return _Lowered(arguments, others, all(axis.noise % 32 == 0 for axis in outer))


def tile(rows: int, columns: int, size: int, whole_rows: bool) -> dict[str, Any]:
    """The shape of a program's tile of about `size` elements, and its warps."""
    cells = triton.next_power_of_2(triton.cdiv(columns, CELL))
    if not whole_rows:
        cells = min(cells, max(size // CELL, 1))
    high = min(triton.next_power_of_2(rows), max(size // (CELL * cells), 1))
    warps = min(max(high * cells * CELL // size, 1) * WARPS, 32)  # more than WARPS only for long whole rows
    return {"ROWS": high, "CELLS": cells, "CELL": CELL, "num_warps": warps, **EXACT}


def c_order(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of a contiguous tensor.

    >>> c_order((2, 3, 4))
    (12, 4, 1)
    """
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def dense(x: torch.Tensor, gathered: bool = False) -> torch.Tensor:
    """x, or a copy without gaps or overlaps, in the strides of `empty_like`; with axis 0 outermost where asked."""
    if gathered and x.dim() > 0 and x.stride(0) < max(x.stride()):
        return x.contiguous()
    if x.is_contiguous():
        return x
    like = torch.empty_like(x)
    return x if like.stride() == x.stride() else like.copy_(x)


def _axes(
    shape: Sequence[int], steps: Sequence[int], noise: Sequence[int], other: Sequence[int] | None, gathered: bool
) -> list[Axis]:
    """Axes in memory order, outermost first; a gathered axis 0 is outermost."""
    order = sorted(range(len(shape)), key=lambda axis: (not (gathered and axis == 0), -steps[axis], axis))
    return [
        Axis(shape[axis], noise[axis], other[axis] if other is not None else 0, gathered and axis == 0)
        for axis in order
    ]


def joined(axes: list[Axis]) -> list[Axis]:
    """The same walk in as few axes as can be."""
    done: list[Axis] = []
    for axis in reversed(axes):
        if done and axis.continues(done[-1]):
            inner = done.pop()
            axis = Axis(axis.extent * inner.extent, inner.noise, inner.other)
        done.append(axis)
    return done[::-1]


@dataclass(frozen=True)
class StoredKey:
    """A key whose seed and step lie in device memory: what replays a CUDA graph with the mask of the present step.

    Args:
        seed, step: int64 tensors of one element each, on the data's device; read anew by every launch and replay.
        site: the site's number.
    """

    seed: torch.Tensor
    site: int
    step: torch.Tensor


Key = tuple[int, int] | torch.Tensor | StoredKey


def key_arguments(key: Key) -> dict[str, Any]:
    """The arguments of `load_key`, for two words, an int64 tensor of the two, or a stored key."""
    if isinstance(key, StoredKey):
        return {"key": key.seed, "step": key.step, "k0": key.site & 0xFFFFFFFF, "k1": key.site >> 32}
    if isinstance(key, torch.Tensor):
        return {"key": key.contiguous(), "step": None, "k0": 0, "k1": 0}
    return {"key": None, "step": None, "k0": key[0], "k1": key[1]}


def rate_arguments(rate: int | torch.Tensor, device: torch.device) -> dict[str, Any]:
    """The arguments of `load_threshold`, for t of 65536, or a tensor of one element, integer t or floating p."""
    if isinstance(rate, torch.Tensor):
        return {"t": 0, "rate": rate.to(device)}
    return {"t": rate, "rate": None}


_HERE = contextlib.nullcontext()


def on_device(x: torch.Tensor) -> Any:
    """The context in which a launch goes to x's device."""
    elsewhere = x.is_cuda and x.device.index != torch.cuda.current_device()
    return torch.cuda.device(x.device) if elsewhere else _HERE
