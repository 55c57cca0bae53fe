"""Attention with dropout of its weights: tiles of queries and keys, online softmax, the mask computed in registers.

    s = scale q k' + mask,  s <- -inf where hidden,  p = exp(s - most) / sum,  w = keep ? p * 2^16 / t : 0,  o = w v

    delta = do . o - dlse;  dw = do v';  ds = p (keep ? dw * 2^16 / t : 0 - delta)
    dq = scale ds k,  dk = scale ds' q,  dv = w' do

Keys dropped before the softmax are hidden, and nothing is scaled. Kept for backward are the output and two numbers for
each query, its greatest score in base 2 and the inverse of its sum; a query that sees nothing has 0 as the latter. One
program holds a tile of queries (forward, dq) or of keys (dk, dv: of all heads of q that share them).

Source: Dao 2023 (arXiv:2307.08691).
"""
# ruff: noqa: RET505 - a kernel's constant branches need their else
# mypy: disable-error-code="import-not-found, import-untyped, no-untyped-def, untyped-decorator, valid-type"

import triton
import triton.language as tl

from .bits import keep_words_unrolled
from .philox import load_key
from .walk import INTERPRETED, narrow

NOT, AFTER, BEFORE = 0, 1, 2  # when weights are dropped
IS_NOT, IS_AFTER, IS_BEFORE = tl.constexpr(NOT), tl.constexpr(AFTER), tl.constexpr(BEFORE)
CELL = tl.constexpr(32)  # keys that share one computed keep-word
LOG2E = tl.constexpr(1.4426950408889634)

# Whose value makes no new kernel: what each step or part has anew.
UNSPECIALIZED = ["base", "k0", "k1", "t", "diagonal"]


@triton.jit
def row_starts(base, batch, head, row, noise, gather):
    """Noise index of each query's first key, int64."""
    if gather is not None:
        batch = tl.load(gather + batch)
    return base + batch.to(tl.int64) * noise[0] + head.to(tl.int64) * noise[1] + row.to(tl.int64) * noise[2]


@triton.jit
def kept(start, first, t, k0, k1, SHARED: tl.constexpr, ALIGNED: tl.constexpr, GROUPS: tl.constexpr, N: tl.constexpr):
    """Which weights of a tile are kept, as what broadcasts to [rows, N]; the first of N keys is a multiple of 32."""
    if SHARED:
        words = keep_words_unrolled(start >> 5, t, k0, k1, GROUPS) >> (start & 31).to(tl.uint32)
        return ((words & 1) != 0)[:, None]
    else:
        at = start[:, None] + (first + tl.arange(0, N // CELL) * CELL)[None, :]
        lead = (at & 31).to(tl.uint32)
        words = keep_words_unrolled(at >> 5, t, k0, k1, GROUPS) >> lead
        if not ALIGNED:
            words |= keep_words_unrolled((at >> 5) + 1, t, k0, k1, GROUPS) << 1 << (31 - lead)
        lane = (1 << tl.arange(0, CELL)).to(tl.uint32)
        return tl.reshape((words[:, :, None] & lane[None, None, :]) != 0, [start.shape[0], N])


@triton.jit
def load_rows(x, row, rows, step, features, BLOCK: tl.constexpr):
    """A tile [rows, BLOCK] of a matrix whose rows are `step` apart; 0 outside."""
    column = tl.arange(0, BLOCK)
    inside = (row < rows)[:, None] & (column < features)[None, :]
    return tl.load(x + row.to(tl.int64)[:, None] * step + column[None, :], mask=inside, other=0.0)


@triton.jit
def store_rows(x, value, row, rows, step, features, BLOCK: tl.constexpr):
    """The same, stored in x's type."""
    column = tl.arange(0, BLOCK)
    inside = (row < rows)[:, None] & (column < features)[None, :]
    place = x + row.to(tl.int64)[:, None] * step + column[None, :]
    tl.store(place, narrow(value, x.dtype.element_ty), mask=inside)


@triton.jit
def product(a, b, sums, PRECISION: tl.constexpr):
    """`a b + sums`. The interpreter multiplies the bits of bfloat16; float32 holds the same numbers."""
    if INTERPRETED:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), sums)
    else:
        return tl.dot(a, b, sums, input_precision=PRECISION)


@triton.jit
def masked(s, mask, batch, head, row, col, steps, queries, keys, diagonal, CAUSAL: tl.constexpr):
    """Scores [rows, keys] in base 2 with the mask added, and -inf where a query does not see a key."""
    inside = (row < queries)[:, None] & (col < keys)[None, :]
    if mask is not None:
        place = batch.to(tl.int64) * steps[0] + head.to(tl.int64) * steps[1]
        place += row.to(tl.int64)[:, None] * steps[2] + col.to(tl.int64)[None, :] * steps[3]
        given = tl.load(mask + place, mask=inside, other=0)
        if given.dtype == tl.uint8:
            inside &= given != 0
        else:
            s += given.to(tl.float32) * LOG2E
    if CAUSAL:
        inside &= col[None, :] <= row[:, None] + diagonal
    return tl.where(inside, s, float("-inf"))


@triton.jit
def seen(first_after, keys, diagonal, CAUSAL: tl.constexpr):
    """How many keys the queries before `first_after` see at most."""
    if CAUSAL:
        return tl.minimum(tl.maximum(first_after + diagonal, 0), keys)
    else:
        return keys


@triton.jit(do_not_specialize=UNSPECIALIZED)
def forward_kernel(
    q, k, v, mask, out, most, inverse,
    q_steps, k_steps, v_steps, mask_steps, out_steps,
    heads: tl.int32, groups: tl.int32, queries: tl.int32, keys: tl.int32, features: tl.int32, others: tl.int32,
    scale: tl.float32, factor: tl.float32, diagonal: tl.int32,
    base: tl.int64, noise, gather, key, step, k0: tl.uint32, k1: tl.uint32, t: tl.int32,
    M: tl.constexpr, N: tl.constexpr, D: tl.constexpr, E: tl.constexpr,
    CAUSAL: tl.constexpr, DROP: tl.constexpr, SHARED: tl.constexpr, ALIGNED: tl.constexpr, GROUPS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """A tile of M queries: the output, the greatest score in base 2 and the inverse of the sum."""
    blocks = tl.cdiv(queries, M)
    block = blocks - 1 - tl.program_id(0) % blocks  # those who see most keys first
    batch, head = tl.program_id(0) // blocks // heads, tl.program_id(0) // blocks % heads
    row = block * M + tl.arange(0, M)
    word0, word1 = load_key(key, step, k0, k1)
    start = row_starts(base, batch, head, row, noise, gather)
    q += batch.to(tl.int64) * q_steps[0] + head.to(tl.int64) * q_steps[1]
    k += batch.to(tl.int64) * k_steps[0] + (head // groups).to(tl.int64) * k_steps[1]
    v += batch.to(tl.int64) * v_steps[0] + (head // groups).to(tl.int64) * v_steps[1]
    tile = load_rows(q, row, queries, q_steps[2], features, D)
    top = tl.full([M], float("-inf"), tl.float32)
    total = tl.zeros([M], tl.float32)
    sums = tl.zeros([M, E], tl.float32)
    for first in range(0, seen((block + 1) * M, keys, diagonal, CAUSAL), N):
        col = first + tl.arange(0, N)
        few = load_rows(k, col, keys, k_steps[2], features, D)
        s = product(tile, tl.trans(few), None, PRECISION) * (scale * LOG2E)
        s = masked(s, mask, batch, head, row, col, mask_steps, queries, keys, diagonal, CAUSAL)
        if DROP != IS_NOT:
            keep = kept(start, first, t, word0, word1, SHARED, ALIGNED, GROUPS, N)
        if DROP == IS_BEFORE:
            s = tl.where(keep, s, float("-inf"))
        higher = tl.maximum(top, tl.max(s, 1))
        level = tl.where(higher == float("-inf"), 0.0, higher)  # a row that has seen nothing yet
        p = tl.exp2(s - level[:, None])
        shrunk = tl.exp2(top - level)
        total = total * shrunk + tl.sum(p, 1)
        if DROP == IS_AFTER:
            p = tl.where(keep, p, 0.0)
        value = load_rows(v, col, keys, v_steps[2], others, E)
        sums = product(narrow(p, value.dtype), value, sums * shrunk[:, None], PRECISION)
        top = higher
    one = tl.where(total == 0, 0.0, 1.0 / tl.where(total == 0, 1.0, total))
    out += batch.to(tl.int64) * out_steps[0] + head.to(tl.int64) * out_steps[1]
    store_rows(out, sums * (one * factor)[:, None], row, queries, out_steps[2], others, E)
    place = (batch.to(tl.int64) * heads + head) * queries + row
    tl.store(most + place, tl.where(top == float("-inf"), 0.0, top), mask=row < queries)
    tl.store(inverse + place, one, mask=row < queries)


@triton.jit(do_not_specialize=UNSPECIALIZED)
def query_gradient_kernel(
    q, k, v, mask, out, most, inverse, grad, lse_grad, delta, dq,
    q_steps, k_steps, v_steps, mask_steps, out_steps, grad_steps, dq_steps,
    heads: tl.int32, groups: tl.int32, queries: tl.int32, keys: tl.int32, features: tl.int32, others: tl.int32,
    scale: tl.float32, factor: tl.float32, diagonal: tl.int32,
    base: tl.int64, noise, gather, key, step, k0: tl.uint32, k1: tl.uint32, t: tl.int32,
    M: tl.constexpr, N: tl.constexpr, D: tl.constexpr, E: tl.constexpr,
    CAUSAL: tl.constexpr, DROP: tl.constexpr, SHARED: tl.constexpr, ALIGNED: tl.constexpr, GROUPS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """A tile of M queries: their gradient, and delta for the other kernel."""
    blocks = tl.cdiv(queries, M)
    block = blocks - 1 - tl.program_id(0) % blocks
    batch, head = tl.program_id(0) // blocks // heads, tl.program_id(0) // blocks % heads
    row = block * M + tl.arange(0, M)
    word0, word1 = load_key(key, step, k0, k1)
    start = row_starts(base, batch, head, row, noise, gather)
    q += batch.to(tl.int64) * q_steps[0] + head.to(tl.int64) * q_steps[1]
    k += batch.to(tl.int64) * k_steps[0] + (head // groups).to(tl.int64) * k_steps[1]
    v += batch.to(tl.int64) * v_steps[0] + (head // groups).to(tl.int64) * v_steps[1]
    out += batch.to(tl.int64) * out_steps[0] + head.to(tl.int64) * out_steps[1]
    grad += batch.to(tl.int64) * grad_steps[0] + head.to(tl.int64) * grad_steps[1]
    tile = load_rows(q, row, queries, q_steps[2], features, D)
    flow = load_rows(grad, row, queries, grad_steps[2], others, E)
    value = load_rows(out, row, queries, out_steps[2], others, E)
    place = (batch.to(tl.int64) * heads + head) * queries + row
    less = tl.sum(flow.to(tl.float32) * value.to(tl.float32), 1)
    less -= tl.load(lse_grad + place, mask=row < queries, other=0.0)
    tl.store(delta + place, less, mask=row < queries)
    top = tl.load(most + place, mask=row < queries, other=0.0)
    one = tl.load(inverse + place, mask=row < queries, other=0.0)
    sums = tl.zeros([M, D], tl.float32)
    for first in range(0, seen((block + 1) * M, keys, diagonal, CAUSAL), N):
        col = first + tl.arange(0, N)
        few = load_rows(k, col, keys, k_steps[2], features, D)
        s = product(tile, tl.trans(few), None, PRECISION) * (scale * LOG2E)
        s = masked(s, mask, batch, head, row, col, mask_steps, queries, keys, diagonal, CAUSAL)
        dw = product(flow, tl.trans(load_rows(v, col, keys, v_steps[2], others, E)), None, PRECISION)
        if DROP != IS_NOT:
            keep = kept(start, first, t, word0, word1, SHARED, ALIGNED, GROUPS, N)
        if DROP == IS_BEFORE:
            s = tl.where(keep, s, float("-inf"))
        if DROP == IS_AFTER:
            dw = tl.where(keep, dw * factor, 0.0)
        ds = tl.exp2(s - top[:, None]) * one[:, None] * (dw - less[:, None])
        sums = product(narrow(ds, few.dtype), few, sums, PRECISION)
    dq += batch.to(tl.int64) * dq_steps[0] + head.to(tl.int64) * dq_steps[1]
    store_rows(dq, sums * scale, row, queries, dq_steps[2], features, D)


@triton.jit(do_not_specialize=UNSPECIALIZED)
def key_gradient_kernel(
    q, k, v, mask, most, inverse, grad, delta, dk, dv,
    q_steps, k_steps, v_steps, mask_steps, grad_steps, dk_steps, dv_steps,
    heads: tl.int32, groups: tl.int32, queries: tl.int32, keys: tl.int32, features: tl.int32, others: tl.int32,
    scale: tl.float32, factor: tl.float32, diagonal: tl.int32,
    base: tl.int64, noise, gather, key, step, k0: tl.uint32, k1: tl.uint32, t: tl.int32,
    M: tl.constexpr, N: tl.constexpr, D: tl.constexpr, E: tl.constexpr,
    CAUSAL: tl.constexpr, DROP: tl.constexpr, SHARED: tl.constexpr, ALIGNED: tl.constexpr, GROUPS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """A tile of N keys of a head of k: the gradients of k and v, summed over the heads of q that share it."""
    blocks = tl.cdiv(keys, N)
    few_heads = heads // groups
    first = tl.program_id(0) % blocks * N
    batch, few_head = tl.program_id(0) // blocks // few_heads, tl.program_id(0) // blocks % few_heads
    col = first + tl.arange(0, N)
    word0, word1 = load_key(key, step, k0, k1)
    q += batch.to(tl.int64) * q_steps[0]
    grad += batch.to(tl.int64) * grad_steps[0]
    k += batch.to(tl.int64) * k_steps[0] + few_head.to(tl.int64) * k_steps[1]
    v += batch.to(tl.int64) * v_steps[0] + few_head.to(tl.int64) * v_steps[1]
    few = load_rows(k, col, keys, k_steps[2], features, D)
    value = load_rows(v, col, keys, v_steps[2], others, E)
    key_sums = tl.zeros([N, D], tl.float32)
    value_sums = tl.zeros([N, E], tl.float32)
    above = 0  # blocks of queries that see none of these keys
    if CAUSAL:
        above = tl.minimum(tl.maximum(first - diagonal, 0), queries) // M
    count = tl.cdiv(queries, M) - above
    for turn in range(groups * count):
        head = few_head * groups + turn // count
        row = (above + turn % count) * M + tl.arange(0, M)
        place = (batch.to(tl.int64) * heads + head) * queries + row
        tile = load_rows(q + head.to(tl.int64) * q_steps[1], row, queries, q_steps[2], features, D)
        flow = load_rows(grad + head.to(tl.int64) * grad_steps[1], row, queries, grad_steps[2], others, E)
        top = tl.load(most + place, mask=row < queries, other=0.0)
        one = tl.load(inverse + place, mask=row < queries, other=0.0)
        less = tl.load(delta + place, mask=row < queries, other=0.0)
        s = product(tile, tl.trans(few), None, PRECISION) * (scale * LOG2E)
        s = masked(s, mask, batch, head, row, col, mask_steps, queries, keys, diagonal, CAUSAL)
        dw = product(flow, tl.trans(value), None, PRECISION)
        if DROP != IS_NOT:
            start = row_starts(base, batch, head, row, noise, gather)
            keep = kept(start, first, t, word0, word1, SHARED, ALIGNED, GROUPS, N)
        if DROP == IS_BEFORE:
            s = tl.where(keep, s, float("-inf"))
        p = tl.exp2(s - top[:, None]) * one[:, None]
        w = p
        if DROP == IS_AFTER:
            dw = tl.where(keep, dw * factor, 0.0)
            w = tl.where(keep, p * factor, 0.0)
        value_sums = product(tl.trans(narrow(w, flow.dtype)), flow, value_sums, PRECISION)
        ds = narrow(p * (dw - less[:, None]), tile.dtype)
        key_sums = product(tl.trans(ds), tile, key_sums, PRECISION)
    dk += batch.to(tl.int64) * dk_steps[0] + few_head.to(tl.int64) * dk_steps[1]
    dv += batch.to(tl.int64) * dv_steps[0] + few_head.to(tl.int64) * dv_steps[1]
    store_rows(dk, key_sums * scale, col, keys, dk_steps[2], features, D)
    store_rows(dv, value_sums, col, keys, dv_steps[2], others, E)
