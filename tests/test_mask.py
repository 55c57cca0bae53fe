"""The mask against its definition read literally, its golden vectors, its layout rules and its statistics.

Statistical checks use fixed keys; each states how many standard errors it allows. At 5 a true generator fails one
check in 1.7 million, and a fixed key never changes its mind.
"""

import itertools
import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from dropkit import DropkitError, Key, keep, normal, uniform, words
from dropkit.counter import philox4x32
from dropkit.layout import layout
from dropkit.mask import ALPHA_PRIME, ONE, alpha_factors, scale, threshold, thresholds

GOLDEN = json.loads((Path(__file__).parent / "golden" / "mask_vectors.json").read_text())
KEY = Key(seed=1, site="mask", step=2)


def literal_keep(index: int, p: float, key: Key) -> bool:
    """Steps 1 to 7 of the specification, one element at a time, in plain integers."""
    d = round(p * 2**16)
    t = 2**16 - d
    if t in (0, 2**16):
        return t != 0
    word, bit = index >> 5, index & 31
    levels: list[int] = []
    for group in range(8):
        levels += philox4x32((word & 0xFFFFFFFF, word >> 32, group, 0), key.words, 7)
    number = sum(((level >> bit) & 1) << (31 - position) for position, level in enumerate(levels))
    return number < t << 16


@pytest.mark.parametrize("p", [0.5, 0.25, 0.1, 0.3, 0.9, 1 / 3, 0.001, 0.999, 2**-16, 1 - 2**-16, 0.0, 1.0])
def test_equals_the_literal_definition(p: float) -> None:
    index = [*range(70), 2**32 - 1, 2**32, 2**37 - 1, 2**37, 2**40 + 12345, 2**62 + 3, 2**63 - 1, 2**63]
    literal = [literal_keep(i, p, KEY) for i in index]
    assert keep((len(index),), p, KEY, index=np.array(index, np.uint64)).tolist() == literal
    assert keep((70,), p, KEY).tolist() == literal[:70]
    assert keep((70,), np.full(70, p), KEY).tolist() == literal[:70]


@pytest.mark.parametrize("vector", GOLDEN["keep"], ids=lambda vector: f"{vector['p']:.3g}-{len(vector['bits'])}")
def test_golden_masks(vector: dict) -> None:
    key = Key(vector["seed"], vector["site"], vector["step"])
    assert threshold(vector["p"]) << 16 == vector["T"]
    if "index" in vector:
        assert keep((len(vector["index"]),), vector["p"], key, index=vector["index"]).tolist() == vector["bits"]
        return
    mask = keep(vector["shape"], vector["p"], key)
    assert np.packbits(mask.reshape(-1), bitorder="little").tobytes().hex() == vector["bits"]
    packed = words(vector["shape"], vector["p"], key)
    assert packed.dtype == np.uint32
    assert packed.astype("<u4").tobytes().hex().startswith(vector["bits"])


def test_golden_uniforms() -> None:
    for vector in GOLDEN["uniform"]:
        u = uniform((len(vector["index"]),), Key(vector["seed"], vector["site"], vector["step"]))
        assert u.dtype == np.float32
        assert (u * 2**23 - 0.5).tolist() == vector["u_times_2pow23_minus_half"]


def test_threshold_rounds_half_to_even_and_scale_is_exact() -> None:
    assert threshold(0.5 / 65536) == 65536
    assert threshold(1.5 / 65536) == 65534
    assert threshold(2.5 / 65536) == 65534
    assert threshold(np.float32(0.1)) == threshold(0.1) == 65536 - 6554
    assert threshold(True) == 0
    assert scale(threshold(0.1)) == 65536 / 58982
    grid = np.arange(65537) / 65536
    assert (thresholds(grid) == 65536 - np.arange(65537)).all()
    assert (thresholds(grid.astype(np.float32)) == 65536 - np.arange(65537)).all()
    halves = np.array([0.5, 1.5, 2.5]) / 65536
    assert thresholds(halves).tolist() == [threshold(p) for p in halves]
    assert thresholds(np.array([0.1], np.float16)).tolist() == [threshold(float(np.float16(0.1)))]


@pytest.mark.parametrize("t", [1, 13107, 32768, 52429, 62259, 65535])
def test_alpha_factors_in_exact_arithmetic(t: int) -> None:
    """With z of mean 0 and variance 1 the result has mean `q b + p d` = 0, variance `q (a^2 + b^2) + p d^2` = 1."""
    a, b, d = map(Fraction, alpha_factors(t))
    q = Fraction(t, ONE)
    p = 1 - q
    for exact, value in ((q * b + p * d, 0), (q * (a * a + b * b) + p * d * d, 1), (d - a * Fraction(ALPHA_PRIME), b)):
        assert abs(exact - value) < 1e-12 * max(1, float(a))


def test_alpha_factors_known_answers() -> None:
    """Klambauer et al. 2017 with lambda and alpha of SELU as published, in 40 decimal digits, at p = 1/2 and 1/4."""
    known = {
        ONE // 2: (0.8864048946659318475146, 0.7791939305180316489391, -0.7791939305180316489391),
        3 * ONE // 4: (0.8672579238579331473322, 0.3811813960698242040915, -1.1435441882094726122744),
    }
    for t, numbers in known.items():
        np.testing.assert_allclose(alpha_factors(t), numbers, rtol=1e-15)
    assert alpha_factors(ONE) == (1.0, 0.0, 0.0)
    assert alpha_factors(0) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("start", [0, 1, 31, 32, 2**32 - 7, 2**37 - 5, 2**63 - 200])
def test_runs_anywhere_equal_single_indices(start: int) -> None:
    for count in (1, 2, 33, 100):
        index = np.arange(start, start + count, dtype=np.uint64)
        for p in (0.5, 0.3):
            run = keep((count,), p, KEY, offset=(start,), global_shape=(2**63,))
            assert (run == keep((count,), p, KEY, index=index)).all()
        for function in (uniform, normal):
            run = function((count,), KEY, offset=(start,), global_shape=(2**63,))
            assert (run == function((count,), KEY, index=index)).all()


def test_shards_and_rows_of_everything() -> None:
    whole = (4, 3, 9)
    for share in ((), (0,), (1,), (2,), (0, 2)):
        for function in (lambda *a, **k: keep(*a, **k) if len(a) == 3 else None, uniform, normal):
            args = (0.3, KEY) if function not in (uniform, normal) else (KEY,)
            full = function(whole, *args, share=share)
            piece = function((2, 2, 5), *args, share=share, offset=(1, 1, 3), global_shape=whole)
            assert (piece == full[1:3, 1:3, 3:8]).all()
            picked = function((3, 3, 9), *args, share=share, rows=[3, 0, 3])
            assert (picked == full[[3, 0, 3]]).all()


def test_words_pack_the_noise_tensor() -> None:
    packed = words((3, 7, 5), 0.4, KEY, share=(1,))
    bits = np.unpackbits(packed.astype("<u4").view(np.uint8), bitorder="little")
    assert len(packed) == 1
    assert (bits[:15].astype(bool) == keep((3, 7, 5), 0.4, KEY, share=(1,))[:, 0].reshape(-1)).all()
    assert not bits[15:].any()
    assert words((64,), 1.0, KEY).tolist() == [0, 0]
    assert words((40,), 0.0, KEY).tolist() == [0xFFFFFFFF, 0xFF]
    assert len(words((0, 3), 0.5, KEY)) == 0


def test_shape_and_kind_of_the_results() -> None:
    for shape in ((), (0,), (3, 0, 2), (2, 3)):
        for result in (
            keep(shape, 0.5, KEY),
            keep(shape, np.full(shape, 0.5), KEY),
            uniform(shape, KEY),
            normal(shape, KEY),
        ):
            assert result.shape == shape
        assert keep(shape, 0.5, KEY).dtype == np.bool_
        assert uniform(shape, KEY).dtype == normal(shape, KEY).dtype == np.float32


def test_layout_of_plain_tensors_is_one_run() -> None:
    assert layout((2, 3, 4)).runs() == (0, 24)
    assert layout((2, 3, 4), share=(2,)).runs() == (0, 6)
    assert layout((2, 3, 4), offset=(1, 0, 0), global_shape=(5, 3, 4)).runs() == (0, 24)
    assert layout((2, 3, 4), offset=(0, 1, 0), global_shape=(2, 5, 4)).runs() == (1, 12)


@pytest.mark.parametrize(
    ("kwargs", "builtin", "message"),
    [
        ({"index": [0, -1]}, ValueError, r"index must lie in \[0, 2\*\*63\], got -1 to 0"),
        ({"index": [0.5, 1.0]}, TypeError, "index must hold integers, got dtype float64"),
        ({"index": [0, 1, 2]}, ValueError, r"index of shape \(3,\) does not broadcast to shape \(2,\)"),
        ({"index": [0, 1], "rows": [0, 1]}, ValueError, "index gives every element's place outright"),
        ({"index": [0, 1], "share": (0,)}, ValueError, "index gives every element's place outright"),
        ({"rows": np.array([2**63, 0], np.uint64)}, ValueError, "past index"),
        ({"global_shape": (2**64,)}, ValueError, r"more than 2\*\*63 elements"),
        ({"offset": (1,), "rows": [0, 1], "global_shape": (9,)}, ValueError, "both place axis 0"),
        ({"share": (0.5,)}, TypeError, "share must hold integers"),
    ],
)
def test_bad_places(kwargs: dict, builtin: type[Exception], message: str) -> None:
    with pytest.raises(DropkitError, match=message) as caught:
        keep((2,), 0.5, KEY, **kwargs)
    assert isinstance(caught.value, builtin)


# ---------------------------------------------------------------------------------------------------------------------
# statistics

N = 10_000_000


@pytest.mark.parametrize("p", [1e-4, 0.01, 0.1, 0.3, 0.5, 0.9, 0.999])
def test_drop_count(p: float) -> None:
    # At n = 1e7 and p = 0.3 a threshold of 8 bits would be off by 5.4 standard errors. The rate is p's 16-bit rounding.
    exact = 1 - threshold(p) / 65536
    dropped = N - int(keep((N,), p, Key(7, "count")).sum())
    assert abs(dropped - N * exact) < 5 * math.sqrt(N * exact * (1 - exact))


@pytest.mark.parametrize("p", [0.5, 0.1])
def test_every_position_is_as_likely(p: float) -> None:
    """2000 steps of 1000 elements: position counts and residues of the index, chi-square within 5 standard errors."""
    counts = np.zeros(1000)
    for step in range(2000):
        counts += ~keep((1000,), p, Key(3, "position", step))
    exact = 1 - threshold(p) / 65536
    variance = 2000 * exact * (1 - exact)
    chi_square = ((counts - 2000 * exact) ** 2 / variance).sum()
    assert abs(chi_square - 1000) < 5 * math.sqrt(2 * 1000)
    for modulus in (2, 4, 8, 16, 32, 128, 256):
        for residue in range(modulus):
            some = counts[residue::modulus]
            assert abs(some.sum() - len(some) * 2000 * exact) < 5 * math.sqrt(len(some) * variance)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.astype(float), b.astype(float))[0, 1])


@pytest.mark.parametrize("p", [0.5, 0.1, 0.3])
def test_independence(p: float) -> None:
    """|r| sqrt(n) < 5 between lags, rows, columns, steps, sites, seeds."""
    n = 1 << 20
    mask = keep((n,), p, Key(5, "independence", 9))
    for lag in (*range(1, 65), 128, 256, 1024):
        assert abs(correlation(mask[:-lag], mask[lag:])) * math.sqrt(n - lag) < 5, lag
    for other in (
        Key(5, "independence", 10),
        Key(6, "independence", 9),
        Key(5, "independence#1", 9),
        Key(9, "independence", 5),
    ):
        assert abs(correlation(mask, keep((n,), p, other))) * math.sqrt(n) < 5, other
    for a, b in itertools.combinations(range(4), 2):
        assert abs(correlation(keep((n,), p, Key(0, a, 0)), keep((n,), p, Key(0, b, 0)))) * math.sqrt(n) < 5
    table = mask.reshape(1024, 1024)
    sums = table.sum(0)
    exact = threshold(p) / 65536
    assert abs(((sums - 1024 * exact) ** 2 / (1024 * exact * (1 - exact))).sum() - 1024) < 5 * math.sqrt(2 * 1024)


def test_nested_in_p() -> None:
    """What is dropped at a smaller rate is dropped at a larger one: the random number of an element is the same."""
    gone = [~keep((4096,), p, KEY) for p in (0.1, 0.25, 0.5, 0.9)]
    for smaller, larger in itertools.pairwise(gone):
        assert (larger | ~smaller).all()


def test_uniforms_are_uniform() -> None:
    u = uniform((1 << 20,), Key(2, "u")).astype(np.float64)
    assert u.min() > 0
    assert u.max() < 1
    n = len(u)
    assert abs(u.mean() - 0.5) < 5 / math.sqrt(12 * n)
    assert abs((u**2).mean() - 1 / 3) < 5 * math.sqrt(4 / 45 / n)
    counts, _ = np.histogram(u, 256, (0, 1))
    assert abs(((counts - n / 256) ** 2 / (n / 256)).sum() - 255) < 5 * math.sqrt(2 * 255)
    for lag in (1, 2, 3, 4, 8):
        assert abs(correlation(u[:-lag], u[lag:])) * math.sqrt(n) < 5


def test_normals_are_normal() -> None:
    z = normal((1 << 20,), Key(2, "z")).astype(np.float64)
    n = len(z)
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - moment) < 5 * math.sqrt(variance / n), power
    for lag in (1, 2, 3):
        assert abs(correlation(z[:-lag], z[lag:])) * math.sqrt(n) < 5
    inside = (np.abs(z) < 1.959964).mean()
    assert abs(inside - 0.95) < 5 * math.sqrt(0.95 * 0.05 / n)


def test_normals_follow_the_formula() -> None:
    """Against Box-Muller in float64 from the exact 23-bit integers; float32 rounding allowed."""
    for i in range(20):
        j = i >> 1
        u2, u3 = (((philox4x32((j >> 2, 0, 0, domain), KEY.words, 7)[j & 3] >> 9) + 0.5) * 2**-23 for domain in (2, 3))
        angle = 2 * math.pi * u3
        exact = math.sqrt(-2 * math.log(u2)) * (math.sin(angle) if i % 2 else math.cos(angle))
        assert abs(float(normal((20,), KEY)[i]) - exact) < 2e-6
