"""Every CPU path against the vectors and the NumPy oracle, bit for bit."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dropkit.counter import Key, fold
from dropkit.errors import DropkitValueError
from dropkit.kernels import cpu
from dropkit.mask import alpha_factors, keep_words

from .cases import KEY, LAYOUTS, MEMORY, Case, memory, narrow, numbers, same, storage, widen

pytestmark = pytest.mark.skipif(not cpu.available(), reason=str(cpu.info()["why"]))

GOLDEN = Path(__file__).parents[1] / "golden"
VECTORS = json.loads((GOLDEN / "mask_vectors.json").read_text())
DTYPES = tuple(cpu.DTYPES)
PATHS = cpu.paths()


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def scale(case: Case, x: np.ndarray, out: np.ndarray, dtype: str, path: str, **more: Any) -> None:
    cpu.walk(cpu.SCALE, [x], out, case.key.words, case.t, **case.place, dtype=dtype, path=path, **more)


# ---- vectors


@pytest.mark.parametrize("row", VECTORS["fold"], ids=lambda row: str(row["site"]))
def test_fold_vectors(row: dict[str, Any]) -> None:
    assert cpu.extension().fold(row["seed"], row["site_id"], row["step"]) == tuple(row["key"])


@pytest.mark.parametrize("row", VECTORS["keep"], ids=lambda row: f"p={row['p']}")
def test_keep_vectors(row: dict[str, Any], path: str) -> None:
    key = fold(row["seed"], row["site"], row["step"])
    t = row["T"] >> 16
    if "index" in row:
        index = np.array(row["index"], np.int64)
        out = np.empty((len(index), 1), np.uint8)
        cpu.walk(cpu.KEEP, [], out, key, t, (1, 0), rows=index, path=path)
        assert out[:, 0].astype(bool).tolist() == row["bits"]
        return
    n = math.prod(row["shape"])
    words = cpu.words(row["shape"], key, t, (row["shape"][1], 1), path=path)
    assert words.view(np.uint8)[: (n + 7) // 8].tobytes().hex() == row["bits"]


@pytest.mark.parametrize("row", VECTORS["uniform"])
def test_uniform_vectors(row: dict[str, Any], path: str) -> None:
    out = np.empty(len(row["index"]), np.float32)
    key = fold(row["seed"], row["site"], row["step"])
    cpu.extension().uniform(out.ctypes.data, len(out), *key, row["domain"], 0, 1, cpu.path_code(path))
    assert (out.astype(np.float64) * 2**23 - 0.5).tolist() == row["u_times_2pow23_minus_half"]


@pytest.mark.parametrize("base", [0, 3, 4093, (1 << 34) - 5, (1 << 63) - 200])
def test_uniform_equals_the_oracle(base: int, path: str) -> None:
    from dropkit.mask import uniform

    out = np.empty(171, np.float32)
    cpu.extension().uniform(out.ctypes.data, len(out), *KEY.words, 1, base, 1, cpu.path_code(path))
    np.testing.assert_array_equal(out, uniform((171,), KEY, index=np.arange(171, dtype=np.uint64) + np.uint64(base)))


# Long runs are decided many words at a time; the bases lie within a word, and before the word number's 33rd bit.
@pytest.mark.parametrize("base", [0, 5, (1 << 37) - 7777])
@pytest.mark.parametrize("t", [1, 2048 + 16, 32768, 40960 + 256, 52428, 58982, 65535])
def test_long_runs(t: int, base: int, path: str) -> None:
    n = 40_000
    first = base // 32
    words = keep_words(np.arange(first, (base + n) // 32 + 1, dtype=np.uint64), t, KEY.words).astype("<u4")
    bits = np.unpackbits(words.view(np.uint8), bitorder="little")[base % 32 :][:n]
    out = np.empty(n, np.uint8)
    cpu.walk(cpu.KEEP, [], out, KEY.words, t, (1,), base, path=path)
    np.testing.assert_array_equal(out, bits)
    packed = cpu.words((n,), KEY.words, t, (1,), base, path=path)
    np.testing.assert_array_equal(packed.view(np.uint8), np.packbits(bits, bitorder="little"))


# ---- layouts and dtypes


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_scale(case: Case, dtype: str, path: str) -> None:
    x = numbers(case.shape, dtype, seed=1)
    out = np.empty_like(x)
    scale(case, x, out, dtype, path)
    same(out, case.dropped(x, dtype), dtype)


@pytest.mark.parametrize("kinds", [(a, b) for a in MEMORY for b in MEMORY], ids=" to ".join)
@pytest.mark.parametrize("name", ["odd tail", "spatial", "locked in time", "shard of columns", "gathered rows"])
def test_any_memory(name: str, kinds: tuple[str, str], path: str) -> None:
    case = LAYOUTS[name]
    x, out = (memory(case.shape, np.dtype("float32"), kind) for kind in kinds)
    x[...] = numbers(case.shape, "float32", seed=2)
    scale(case, x, out, "float32", path)
    same(out, case.dropped(x, "float32"), "float32")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["odd tail", "spatial", "several windows"])
def test_in_place(name: str, dtype: str, path: str) -> None:
    case = LAYOUTS[name]
    x = numbers(case.shape, dtype, seed=3)
    expected = case.dropped(x, dtype)
    scale(case, x, x, dtype, path)
    same(x, expected, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("base", [0, 1, 31, 32, 4095, 70001])
def test_contiguous_call(base: int, dtype: str, path: str) -> None:
    n = 5003
    case = Case((n,), 0.1, KEY, offset=(base,), global_shape=(base + n,))
    x = numbers((n,), dtype, seed=4)
    out = np.empty_like(x)
    call = cpu.extension().dropout
    call(x.ctypes.data, out.ctypes.data, n, cpu.DTYPES[dtype], *KEY.words, case.t, base, 1, cpu.path_code(path))
    same(out, case.dropped(x, dtype), dtype)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_half_number(dtype: str, path: str) -> None:
    """All 65536 bit patterns, kept and scaled by 65536 / 39322, which rounds in every way."""
    x = np.arange(65536, dtype=np.uint16).view(storage(dtype))
    for step in range(3):
        case = Case((65536,), 0.4, Key(1, 2, step))
        out = np.empty_like(x)
        scale(case, x, out, dtype, path)
        same(out, case.dropped(x, dtype), dtype)


def test_dropped_is_plus_zero(path: str) -> None:
    x = np.full(4000, -np.inf, np.float32)
    x[::2] = np.nan
    case = Case((4000,), 0.5, KEY)
    scale(case, x, x, "float32", path)
    assert not x[~case.keep()].view(np.uint32).any()
    assert not np.isfinite(x[case.keep()]).any()


# ---- the mask itself


@pytest.mark.parametrize("case", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_words_and_keep(case: Case, path: str) -> None:
    bits = case.keep()
    out = np.empty(case.shape, np.uint8)
    cpu.walk(cpu.KEEP, [], out, case.key.words, case.t, **case.place, path=path)
    np.testing.assert_array_equal(out, bits)
    words = cpu.words(case.shape, case.key.words, case.t, **case.place, path=path)
    packed = np.packbits(bits.reshape(-1), bitorder="little")
    np.testing.assert_array_equal(words.view(np.uint8)[: len(packed)], packed)
    assert not words.view(np.uint8)[len(packed) :].any()


# ---- p by element


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rate_dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["odd tail", "spatial", "shard of columns", "gathered rows", "several windows"])
def test_rates(name: str, rate_dtype: str, dtype: str, path: str) -> None:
    case = LAYOUTS[name]
    p = np.random.default_rng(5).random(case.shape).astype(rate_dtype)
    p.flat[::7], p.flat[1::7], p.flat[2::7] = 0.0, 1.0, 2.5 / 65536  # the last is a tie
    x = numbers(case.shape, dtype, seed=6)
    out = np.empty_like(x)
    cpu.walk(cpu.RATES, [x, p], out, case.key.words, 0, **case.place, dtype=dtype, path=path)
    wide = widen(x, dtype)
    t = 65536 - np.rint(p * 65536).astype(np.int64)
    factor = (65536 / np.maximum(t, 1)).astype(wide.dtype)
    with np.errstate(all="ignore"):
        same(out, narrow(np.where(case.keep(p), wide * factor, wide.dtype.type(0)), dtype), dtype)


# ---- a value for what is dropped


def affine(case: Case, x: np.ndarray, out: np.ndarray, dtype: str, path: str, **more: Any) -> None:
    cpu.walk(
        cpu.AFFINE, [x], out, case.key.words, case.t, **case.place, dtype=dtype, path=path,
        factors=alpha_factors(case.t), **more,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_affine(case: Case, dtype: str, path: str) -> None:
    x = numbers(case.shape, dtype, seed=1)
    out = np.empty_like(x)
    affine(case, x, out, dtype, path, threads=2)
    same(out, case.alpha_dropped(x, dtype), dtype)
    affine(case, x, x, dtype, path)
    same(x, out, dtype)


@pytest.mark.parametrize("kinds", [(a, b) for a in MEMORY for b in MEMORY], ids=" to ".join)
@pytest.mark.parametrize("name", ["odd tail", "spatial", "gathered rows"])
def test_affine_in_any_memory(name: str, kinds: tuple[str, str], path: str) -> None:
    case = LAYOUTS[name]
    x, out = (memory(case.shape, np.dtype("float64"), kind) for kind in kinds)
    x[...] = numbers(case.shape, "float64", seed=2)
    affine(case, x, out, "float64", path)
    same(out, case.alpha_dropped(x, "float64"), "float64")


def test_affine_is_rounded_after_the_product_and_after_the_sum(path: str) -> None:
    """4097^2 = 2^24 + 2^13 + 1 less its rounded self: 0 where the product is rounded first, 1 where both are fused."""
    x = np.full(64, 4097.0, np.float32)
    out = np.empty_like(x)
    rounded = float(np.float32(4097) * np.float32(4097))
    assert rounded != 4097.0**2
    cpu.walk(cpu.AFFINE, [x], out, KEY.words, 65536, (1,), path=path, factors=(4097.0, -rounded, 0.0))
    assert not out.any()


def test_dropped_nan_is_the_given_value_and_minus_zero_survives(path: str) -> None:
    x = np.full(4000, np.nan, np.float32)
    x[1::2] = -0.0
    case, out = Case((4000,), 0.5, KEY), np.empty(4000, np.float32)
    cpu.walk(cpu.AFFINE, [x], out, KEY.words, case.t, (1,), path=path, factors=(2.0, -0.0, -1.5))
    kept = case.keep()
    assert (out[~kept] == -1.5).all()
    assert np.isnan(out[::2][kept[::2]]).all()
    assert np.signbit(out[1::2][kept[1::2]]).all()


# ---- fused operations


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["odd tail", "spatial", "identity", "nothing", "several windows"])
def test_residual(name: str, dtype: str, path: str) -> None:
    case = LAYOUTS[name]
    x, r = numbers(case.shape, dtype, seed=7), numbers(case.shape, dtype, seed=8)
    out = np.empty_like(x)
    cpu.walk(cpu.RESIDUAL, [x, r], out, case.key.words, case.t, **case.place, dtype=dtype, path=path)
    with np.errstate(all="ignore"):
        same(out, narrow(case.dropped_wide(x, dtype) + widen(r, dtype), dtype), dtype)


_erf = np.vectorize(math.erf, otypes=[np.float64])
TANH = math.sqrt(2 / math.pi)


def gelu_tanh_grad(h: np.ndarray) -> np.ndarray:
    u = np.tanh(TANH * (h + 0.044715 * h**3))
    return 0.5 * (1 + u) + 0.5 * h * (1 - u * u) * TANH * (1 + 3 * 0.044715 * h * h)


ACTIVATIONS = {
    "relu": (cpu.RELU, lambda h: np.maximum(h, 0)),
    "gelu": (cpu.GELU, lambda h: 0.5 * h * (1 + _erf(h / math.sqrt(2)))),
    "gelu_tanh": (cpu.GELU_TANH, lambda h: 0.5 * h * (1 + np.tanh(TANH * (h + 0.044715 * h**3)))),
}
GRADIENTS = {
    "relu": (cpu.RELU_GRAD, lambda h: (h > 0).astype(np.float64)),
    "gelu": (
        cpu.GELU_GRAD,
        lambda h: 0.5 * (1 + _erf(h / math.sqrt(2))) + h * np.exp(-0.5 * h * h) / math.sqrt(2 * math.pi),
    ),
    "gelu_tanh": (cpu.GELU_TANH_GRAD, gelu_tanh_grad),
}
# Absolute, for values of about 1: float32 rounds its polynomials at 6e-8, half types round the result.
TOLERANCE = {"float64": 1e-14, "float32": 1e-6, "float16": 4e-3, "bfloat16": 3e-2}


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["relu", "gelu", "gelu_tanh"])
def test_activation(name: str, dtype: str, with_bias: bool, path: str) -> None:
    case = Case((33, 45), 0.2, KEY)
    x, bias = numbers(case.shape, dtype, 9, specials=False), numbers((45,), dtype, 10, specials=False)
    dy = numbers(case.shape, dtype, 11, specials=False)
    more = [np.broadcast_to(bias, case.shape)] if with_bias else []
    h = widen(x, dtype) + (widen(bias, dtype) if with_bias else 0)
    h = h.astype(np.float64)
    out, grad = np.empty_like(x), np.empty_like(x)
    op, value = ACTIVATIONS[name]
    cpu.walk(op, [x, *more], out, case.key.words, case.t, **case.place, dtype=dtype, path=path)
    op, slope = GRADIENTS[name]
    cpu.walk(op, [dy, x, *more], grad, case.key.words, case.t, **case.place, dtype=dtype, path=path)
    factor = np.where(case.keep(), 65536 / case.t, 0)
    # Relative for what half types round, absolute where Phi(x) nears 0.
    close = {"rtol": TOLERANCE[dtype], "atol": 4 * TOLERANCE[dtype]}
    np.testing.assert_allclose(widen(out, dtype), value(h) * factor, **close)
    np.testing.assert_allclose(widen(grad, dtype), widen(dy, dtype) * slope(h) * factor, **close)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", [cpu.RELU, cpu.GELU, cpu.GELU_TANH])
def test_activation_extremes(op: int, dtype: str, path: str) -> None:
    x = narrow(np.array([np.nan, np.inf, -np.inf, 0.0, 1e4, -1e4, 20.0, -20.0], np.float32).repeat(4), dtype)
    out = np.empty_like(x)
    cpu.walk(op, [x], out, KEY.words, 65536, (1,), dtype=dtype, path=path)
    got = widen(out, dtype)[::4]
    assert np.isnan(got[0]) and got[1] == np.inf and got[3] == 0 and got[6] == 20
    assert got[4] == widen(x, dtype)[16]
    assert (np.abs(got[[5, 7]]) < 1e-30).all()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("op", [cpu.RELU, cpu.GELU, cpu.GELU_TANH, cpu.RELU_GRAD, cpu.GELU_GRAD, cpu.GELU_TANH_GRAD])
def test_activations_agree_between_paths(op: int, dtype: str) -> None:
    case = Case((20000,), 0.2, KEY)
    x, dy = numbers(case.shape, dtype, 12, specials=False), numbers(case.shape, dtype, 13, specials=False)
    x = narrow(widen(x, dtype) * 4, dtype)
    results = []
    for path in PATHS:
        out = np.empty_like(x)
        inputs = [x] if op < cpu.RELU_GRAD else [dy, x]
        cpu.walk(op, inputs, out, case.key.words, case.t, **case.place, dtype=dtype, path=path)
        results.append(out)
    for other in results[1:]:
        same(results[0], other, dtype)


# ---- threads, forks, and being told what to do


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("base", [0, 13])
def test_thread_count_changes_nothing(threads: int, base: int, path: str) -> None:
    n = 300_001
    case = Case((n,), 0.1, KEY, offset=(base,), global_shape=(base + n,))
    x = numbers((n,), "float32", seed=14)
    out = np.empty_like(x)
    scale(case, x, out, "float32", path, threads=threads)
    same(out, case.dropped(x, "float32"), "float32")
    words = cpu.words(case.shape, KEY.words, case.t, **case.place, threads=threads, path=path)
    np.testing.assert_array_equal(words, cpu.words(case.shape, KEY.words, case.t, **case.place, path="portable"))


def test_threads_on_strided_work() -> None:
    case = Case((11, 300, 100), 0.1, KEY, share=(1,), rows=tuple(range(20, 9, -1)))
    x = numbers(case.shape, "float32", seed=15)
    out = np.empty_like(x)
    scale(case, x, out, "float32", PATHS[-1], threads=3)
    same(out, case.dropped(x, "float32"), "float32")


CHILD = """
import os, sys, threading
import numpy as np
from dropkit.kernels import cpu
if sys.argv[1] == "openmp":
    import torch
    torch.set_num_threads(2)
    torch.ones(1 << 20).mul_(2)
    assert cpu.adopt_openmp()
x = np.ones(1 << 18, np.float32)
def work(out):
    for _ in range(20):
        cpu.walk(cpu.SCALE, [x], out, (1, 2), 58982, (1,), threads=2)
    return out
first = work(np.empty_like(x))
if sys.argv[1] == "openmp":
    torch.set_num_threads(1)
    work(np.empty_like(x))
    torch.set_num_threads(2)
pid = os.fork()
if pid == 0:
    same = (work(np.empty_like(x)) == first).all()
    os._exit(0 if same else 1)
outs = [np.empty_like(x) for _ in range(4)]
crowd = [threading.Thread(target=work, args=(out,)) for out in outs]
[t.start() for t in crowd]
[t.join() for t in crowd]
assert all((out == first).all() for out in outs)
assert os.waitpid(pid, 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("pool", ["own", "openmp"])
def test_fork_and_concurrent_calls(pool: str) -> None:
    if pool == "openmp":
        pytest.importorskip("torch")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "ignore", "-c", CHILD, pool]
    done = subprocess.run(command, env=environment, timeout=120, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def loaded_with(force: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "DROPKIT_CPU": force}
    script = "from dropkit.kernels import cpu; print(cpu.path(), cpu.info()['forced'])"
    command = [sys.executable, "-c", script]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_forced_path(path: str) -> None:
    assert loaded_with(path).stdout.split() == [path, path]


def test_impossible_force() -> None:
    missing = next(name for name in cpu.PATHS if name not in PATHS)
    reason = "is not part of this build" if missing not in cpu.info()["compiled"] else "does not run on this machine"
    assert f"DropkitValueError: DROPKIT_CPU={missing} cannot be met: CPU path '{missing}' {reason}" in (
        loaded_with(missing).stderr
    )
    assert "DROPKIT_CPU=sse cannot be met: unknown CPU path 'sse'; known: portable, neon, avx2, avx512" in (
        loaded_with("sse").stderr
    )


def test_refused() -> None:
    x = np.ones(4, np.int32)
    with pytest.raises(DropkitValueError, match="no kernel for dtype 'int32'; known: float32, float64"):
        cpu.walk(cpu.SCALE, [x], x, KEY.words, 1, (1,))
    with pytest.raises(DropkitValueError, match="unknown CPU path 'mmx'"):
        cpu.path_code("mmx")
    with pytest.raises(ValueError, match=r"t must lie in \[0, 65536\]"):
        cpu.words((4,), KEY.words, 65537, (1,))
    with pytest.raises(ValueError, match="one entry per axis"):
        cpu.words((4, 4), KEY.words, 5, (1,))
    with pytest.raises(ValueError, match="wrong number of inputs"):
        cpu.extension().walk(cpu.RESIDUAL, 0, [1], [1], 0, [1], [0], [[1]], 0, 0, 1)


def test_refused_arrays() -> None:
    x, out = np.ones((3, 4), np.float32), np.ones((4, 3), np.float32)
    with pytest.raises(DropkitValueError, match=r"input 0 has shape \(3, 4\) and dtype float32, the output \(4, 3\)"):
        cpu.walk(cpu.SCALE, [x], out, KEY.words, 1, (3, 1))
    with pytest.raises(DropkitValueError, match="keep bits take a byte each, got an output of dtype float32"):
        cpu.walk(cpu.KEEP, [], out, KEY.words, 1, (3, 1))
    with pytest.raises(DropkitValueError, match="rows must be 3 contiguous int64 coordinates, got shape"):
        cpu.words((3, 4), KEY.words, 1, (4, 1), rows=np.arange(4))
    with pytest.raises(DropkitValueError, match=r"call words\(\) instead of walk\(\)"):
        cpu.walk(cpu.WORDS, [], out, KEY.words, 1, (3, 1))


def test_without_the_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_cpu", None)
    monkeypatch.setattr(cpu, "_why", "not compiled")
    assert not cpu.available()
    assert cpu.info()["why"] == "not compiled"
    with pytest.raises(DropkitValueError, match="CPU kernels cannot be used: not compiled; reinstall dropkit"):
        cpu.path()
