"""Keep bits on the device: `keep(i) = R(i) < T`, for tiles of elements.

    less = 0;  for each level, lowest first, with r its word and b the bit of t:  less = b ? ~r | less : ~r & less

which is `R < T` read from the other end than in `dropkit.mask`, one three-input operation a level. The levels below the
last set bit of t leave `less` at 0, so whole groups of four are left out there; the count is data, not code.

A tile is ROWS x CELLS x CELL elements. CELL neighbours share one keep-word: at 32 every word is computed once and
handed to the threads that hold its elements; a smaller CELL computes it again for each cell, with less to hand around.
"""
# ruff: noqa: RET505, SIM300 - a kernel's constant branches need their else
# mypy: disable-error-code="import-not-found, import-untyped, no-untyped-def, untyped-decorator, valid-type"

import triton
import triton.language as tl

from dropkit.counter import MASK_ROUNDS

from .philox import philox

ROUNDS = tl.constexpr(MASK_ROUNDS)
SHARED, RUN, SCATTERED = 0, 1, 2  # how the noise index moves along the innermost axis: not, by 1, by some stride
IS_SHARED, IS_RUN = tl.constexpr(SHARED), tl.constexpr(RUN)


@triton.jit
def load_threshold(t, rate):
    """t, kept of 65536: the scalar itself, or from memory, as t (integer) or as p (floating)."""
    if rate is None:
        return t.to(tl.int32)
    else:
        value = tl.load(rate)
        if value.dtype.is_floating():
            return threshold_of(value)
        else:
            return value.to(tl.int32)


@triton.jit
def threshold_of(p):
    """`65536 - round_half_even(65536 p)`; what is not in [0, 1] drops."""
    if p.dtype == tl.float64:
        d = p * 65536.0 + 6755399441055744.0 - 6755399441055744.0  # 1.5 * 2^52: the sum rounds
    else:
        d = p.to(tl.float32) * 65536.0 + 12582912.0 - 12582912.0
    d = tl.where((d >= 0) & (d <= 65536.0), d, 65536.0)
    return 65536 - d.to(tl.int32)


@triton.jit
def scale_of(t, LIKE: tl.constexpr):
    """2^16 / t, rounded correctly, in the type that LIKE is computed in; where t is 0, nothing is kept to be scaled."""
    some = tl.maximum(t, 1)
    if LIKE == tl.float64:
        return 65536.0 / some.to(tl.float64)
    else:
        return tl.div_rn(65536.0, some.to(tl.float32))


@triton.jit
def level(random, less, bit):
    full = (0 - bit).to(tl.uint32)
    return (~random & less) | (full & (~random | less))


@triton.jit
def four_levels(r0, r1, r2, r3, less, bits):
    """The levels of one group, the last first, by the four lowest bits of what is left of t."""
    less = level(r3, less, bits & 1)
    less = level(r2, less, (bits >> 1) & 1)
    less = level(r1, less, (bits >> 2) & 1)
    return level(r0, less, (bits >> 3) & 1)


@triton.jit
def keep_words(number, t, k0, k1):
    """Keep-words of int64 word numbers, uint32; t an int32 scalar, the ends 0 and 65536 included."""
    low, high = number.to(tl.uint32), (number >> 32).to(tl.uint32)
    below = t & 0xFFFF
    groups = ((below & 0xFFFF) != 0).to(tl.int32) + ((below & 0xFFF) != 0).to(tl.int32)
    groups += ((below & 0xFF) != 0).to(tl.int32) + ((below & 0xF) != 0).to(tl.int32)
    less = tl.zeros_like(low) + (0 - (t >> 16)).to(tl.uint32)
    for i in range(groups):
        group = groups - 1 - i
        r0, r1, r2, r3 = philox(low, high, group.to(tl.uint32), 0, k0, k1, ROUNDS)
        less = four_levels(r0, r1, r2, r3, less, t >> (12 - 4 * group))
    return less


@triton.jit
def keep_words_unrolled(number, t, k0, k1, GROUPS: tl.constexpr):
    """`keep_words` where the number of groups is code: no loop stands inside another, which the compiler overlaps.

    GROUPS: four levels each, as many as reach the last set bit of t, which is below 65536.
    """
    low, high = number.to(tl.uint32), (number >> 32).to(tl.uint32)
    less = tl.zeros_like(low)
    for i in tl.static_range(GROUPS):
        group = GROUPS - 1 - i
        r0, r1, r2, r3 = philox(low, high, tl.full(low.shape, group, tl.uint32), 0, k0, k1, ROUNDS)
        less = four_levels(r0, r1, r2, r3, less, t >> (12 - 4 * group))
    return less


@triton.jit
def random16(index, k0, k1):
    """The top 16 bits of R of each int64 index, int32: kept where below t, whatever each element's t is."""
    number, lane = index >> 5, (index & 31).to(tl.uint32)
    low, high = number.to(tl.uint32), (number >> 32).to(tl.uint32)
    total = tl.zeros_like(low)
    for group in range(4):
        r0, r1, r2, r3 = philox(low, high, tl.zeros_like(low) + group, 0, k0, k1, ROUNDS)
        first = (((r0 >> lane) & 1) << 3) | (((r1 >> lane) & 1) << 2)
        total = (total << 4) | first | (((r2 >> lane) & 1) << 1) | ((r3 >> lane) & 1)
    return total.to(tl.int32)


@triton.jit
def keep_tile(start, cell, stride, t, k0, k1, INNER: tl.constexpr, ALIGNED: tl.constexpr, CELL: tl.constexpr):
    """Which elements of a tile are kept.

    start: noise index of each row's column 0, [ROWS] int64. cell: number of each cell in its row, [CELLS] int64.
    stride: of the noise along a row. ALIGNED: every start is a multiple of 32. Returns bool that broadcasts to
    [ROWS, CELLS, CELL].
    """
    lane = tl.arange(0, CELL)
    if INNER == IS_SHARED:
        bits = keep_words(start >> 5, t, k0, k1) >> (start & 31).to(tl.uint32)
        return ((bits & 1) != 0)[:, None, None]
    elif INNER == IS_RUN:
        first = start[:, None] + (cell * CELL)[None, :]
        lead = (first & 31).to(tl.uint32)
        bits = keep_words(first >> 5, t, k0, k1) >> lead
        if not ALIGNED:
            bits |= keep_words((first >> 5) + 1, t, k0, k1) << 1 << (31 - lead)
        return (bits[:, :, None] & (1 << lane).to(tl.uint32)[None, None, :]) != 0
    else:
        index = start[:, None, None] + (cell[:, None] * CELL + lane[None, :])[None, :, :] * stride
        return ((keep_words(index >> 5, t, k0, k1) >> (index & 31).to(tl.uint32)) & 1) != 0


@triton.jit
def keep_tile_by_rate(start, cell, stride, t, k0, k1, CELL: tl.constexpr):
    """The same for a t of each element, int32 that broadcasts to [ROWS, CELLS, CELL]."""
    column = cell[:, None] * CELL + tl.arange(0, CELL)[None, :]
    return random16(start[:, None, None] + column[None, :, :] * stride, k0, k1) < t
