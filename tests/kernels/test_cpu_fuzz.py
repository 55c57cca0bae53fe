"""Random shapes, strides, shards, rows, rates and dtypes on every path, against the NumPy oracle.

`DROPKIT_FUZZ=20000 pytest tests/kernels/test_cpu_fuzz.py` looks at that many examples.
"""

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dropkit.counter import Key
from dropkit.kernels import cpu
from dropkit.mask import alpha_factors

from .cases import MEMORY, Case, memory, narrow, numbers, same, storage, widen

pytestmark = pytest.mark.skipif(not cpu.available(), reason=str(cpu.info()["why"]))

EXAMPLES = int(os.environ.get("DROPKIT_FUZZ", "300"))
U64 = st.integers(0, 2**64 - 1)
RATES = st.one_of(
    st.sampled_from([0.0, 0.5, 0.25, 0.75, 0.1, 0.2, 0.9, 1.0, 1e-7, 2.0**-16, 1 - 2.0**-16]), st.floats(0, 1)
)
FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize="DROPKIT_FUZZ" not in os.environ,
)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    rank = draw(st.integers(0, 4))
    sizes = (
        st.one_of(st.integers(0, 9), st.sampled_from([1, 1, 31, 32, 33, 100, 300])) if rank < 3 else st.integers(0, 9)
    )
    shape = tuple(draw(sizes) for _ in range(rank))
    share = tuple(axis for axis in range(rank) if draw(st.integers(0, 3)) == 0)
    key = Key(draw(U64), draw(U64), draw(U64))
    p = draw(RATES)
    place = draw(st.sampled_from(["plain", "shard", "rows"])) if rank else "plain"
    if place == "plain":
        return Case(shape, p, key, share)
    far = st.one_of(st.integers(0, 70), st.integers(0, 2**14))
    if place == "rows":
        rows = tuple(draw(st.integers(0, 2**20)) for _ in range(shape[0]))
        return Case(shape, p, key, share, rows=rows)
    offset = tuple(draw(far) for _ in range(rank))
    whole = tuple(a + size + draw(far) for a, size in zip(offset, shape, strict=True))
    return Case(shape, p, key, share, offset, whole)


@FUZZ
@given(
    case=cases(),
    dtype=st.sampled_from(list(cpu.DTYPES)),
    kinds=st.tuples(st.sampled_from(MEMORY), st.sampled_from(MEMORY), st.sampled_from(MEMORY)),
    path=st.sampled_from(cpu.paths() or [None]),
    threads=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_fuzz(case: Case, dtype: str, kinds: tuple[str, str, str], path: str, threads: int, seed: int) -> None:
    x, r, out = (memory(case.shape, storage(dtype), kind) for kind in kinds)
    x[...], r[...] = numbers(case.shape, dtype, seed), numbers(case.shape, dtype, seed + 1)
    more = {"dtype": dtype, "path": path, "threads": threads, **case.place}
    words, t = case.key.words, case.t

    cpu.walk(cpu.SCALE, [x], out, words, t, **more)
    same(out, case.dropped(x, dtype), dtype)
    cpu.walk(cpu.AFFINE, [x], out, words, t, factors=alpha_factors(t), **more)
    same(out, case.alpha_dropped(x, dtype), dtype)
    cpu.walk(cpu.RESIDUAL, [x, r], out, words, t, **more)
    with np.errstate(all="ignore"):
        same(out, narrow(case.dropped_wide(x, dtype) + widen(r, dtype), dtype), dtype)

    packed = cpu.words(case.shape, words, t, **case.place, path=path, threads=threads)
    bits = np.unpackbits(packed.view(np.uint8), bitorder="little")[: out.size].astype(bool)
    np.testing.assert_array_equal(bits, case.keep().reshape(-1))


@FUZZ
@given(
    case=cases(),
    dtype=st.sampled_from(list(cpu.DTYPES)),
    rate_dtype=st.sampled_from(["float32", "float64"]),
    kinds=st.tuples(st.sampled_from(MEMORY), st.sampled_from(MEMORY), st.sampled_from(MEMORY)),
    path=st.sampled_from(cpu.paths() or [None]),
    seed=st.integers(0, 1000),
)
def test_fuzz_rates(case: Case, dtype: str, rate_dtype: str, kinds: tuple[str, str, str], path: str, seed: int) -> None:
    x, out = (memory(case.shape, storage(dtype), kind) for kind in kinds[:2])
    p = memory(case.shape, np.dtype(rate_dtype), kinds[2])
    x[...], p[...] = numbers(case.shape, dtype, seed), np.random.default_rng(seed).random(case.shape)
    cpu.walk(cpu.RATES, [x, p], out, case.key.words, 0, dtype=dtype, path=path, **case.place)
    wide = widen(x, dtype)
    t = 65536 - np.rint(p * 65536).astype(np.float64)
    factor = (65536 / np.maximum(t, 1)).astype(wide.dtype)
    with np.errstate(all="ignore"):
        same(out, narrow(np.where(case.keep(p), wide * factor, wide.dtype.type(0)), dtype), dtype)
