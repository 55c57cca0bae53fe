"""Values of `dropkit.jax.dropout`, whatever the rate, the dtype and the way it is computed."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import dropkit.numpy
import dropkit.torch
from dropkit import DropkitError, Key, keep
from dropkit.axes.noise import Alpha
from dropkit.jax import arithmetic, dropout, formula, primitive

KEY = Key(5, "values", 2)
drop = partial(dropout, training=True, key=KEY)


def test_numpy_torch_and_jax_agree() -> None:
    x = np.random.default_rng(0).normal(size=(33, 70)).astype(np.float32)
    for p in (0.5, 0.1, 1 / 3, 1.0):
        coordinates: dict[str, Any] = {
            "training": True,
            "key": KEY,
            "share": (),
            "offset": (3, 1),
            "global_shape": (50, 71),
        }
        by_numpy = dropkit.numpy.dropout(x, p, **coordinates)
        by_torch = dropkit.torch.dropout(torch.from_numpy(x), p, **coordinates).numpy()
        by_jax = np.asarray(dropout(jnp.asarray(x), p, **coordinates))
        np.testing.assert_array_equal(by_numpy, by_torch)
        np.testing.assert_array_equal(by_numpy, by_jax)


def test_values_and_mean() -> None:
    n = 1_000_000
    for p in (0.5, 0.1, 0.9):
        y = np.asarray(drop(jnp.ones(n), p))
        scale = 65536 / (65536 - round(p * 65536))
        assert set(np.unique(y)) == {0.0, np.float32(scale)}
        error = np.sqrt(p / (1 - p) / n)  # of the mean of n draws of 0 or 1 / (1 - p)
        assert abs(y.mean(dtype=np.float64) - 1) < 5 * error


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_traced_rates_equal_known_ones(dtype: str) -> None:
    x = jax.random.normal(jax.random.key(0), (7, 45)).astype(dtype)
    call = jax.jit(lambda x, p: drop(x, p))
    for p in (0.0, 1e-7, 0.5, 0.25, 0.1, 1 / 3, 0.999, 1.0):
        y = call(x, p)
        assert y.dtype == x.dtype
        np.testing.assert_array_equal(np.asarray(y, np.float64), np.asarray(drop(x, p), np.float64))
    assert call._cache_size() == 1


def test_traced_rates_by_element() -> None:
    x = jax.random.normal(jax.random.key(0), (6, 40))
    rates = np.linspace(0, 1, 40, dtype=np.float32)
    for p in (rates, rates[None, :], np.broadcast_to(rates, (6, 40)), rates[:6, None]):
        np.testing.assert_array_equal(jax.jit(drop)(x, p), drop(x, p))
        np.testing.assert_array_equal(np.asarray(drop(x, p)) != 0, keep(x.shape, p, KEY) & (np.asarray(x) != 0))


@pytest.mark.parametrize("p", [-0.5, 1.5, np.nan, np.inf])
def test_a_traced_rate_that_is_none_gives_nan(p: float) -> None:
    x = jnp.ones((2, 40))
    assert np.isnan(jax.jit(drop)(x, p)).all()
    assert np.isnan(jax.jit(partial(drop, noise=Alpha()))(x, p)).all()
    assert np.isnan(jax.jit(jax.grad(lambda x, p: drop(x, p).sum()))(x, p)).all()
    rates = jnp.array([0.5] * 39 + [p])
    np.testing.assert_array_equal(np.isnan(jax.jit(drop)(x, rates)), [[False] * 39 + [True]] * 2)


def test_nothing_dropped_and_all_dropped() -> None:
    x = jax.random.normal(jax.random.key(0), (3, 50))
    assert drop(x, 0.0) is x
    assert dropout(x, 0.5, training=False) is x
    bad = x.at[0].set(jnp.nan).at[1].set(jnp.inf)
    for call in (drop, jax.jit(drop)):
        np.testing.assert_array_equal(call(bad, 1.0), np.zeros((3, 50)))
        np.testing.assert_array_equal(jax.grad(lambda x, call=call: call(x, 1.0).sum())(bad), np.zeros((3, 50)))
    slope = jax.jit(jax.grad(lambda x, p: drop(x, p).sum(), argnums=(0, 1)))
    for p in (0.0, 0.5, 1.0):
        dx, dp = slope(x, p)
        assert np.isfinite(dx).all()
        assert dp == 0


def test_dropped_not_finite_is_zero_in_the_gradient_too() -> None:
    kept = keep((4, 40), 0.5, KEY)
    for bad in (np.nan, np.inf):
        grad = jax.vjp(lambda x: drop(x, 0.5), jnp.ones((4, 40)))[1](jnp.full((4, 40), bad))[0]
        np.testing.assert_array_equal(np.asarray(grad), np.where(kept, bad, 0))


def test_numpy_arrays_and_their_rates() -> None:
    x = np.ones((4, 40), np.float32)
    for p in (np.float64(0.3), np.array(0.3), np.array([0.3]), jnp.float32(0.3)):
        np.testing.assert_array_equal(np.asarray(drop(x, p)) != 0, keep((4, 40), float(np.ravel(p)[0]), KEY))
    with pytest.raises(DropkitError, match=r"between 0 and 1, but got 1\.5"):
        drop(x, jnp.float32(1.5))
    with pytest.raises(DropkitError, match=r"between 0 and 1, but got 1\.5"):
        drop(x, jnp.array([0.5] * 39 + [1.5], jnp.bfloat16))


# ---------------------------------------------------------------------------------------------------------------------
# alpha dropout


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_alpha_dropout(dtype: str) -> None:
    x = np.random.default_rng(0).normal(size=(16, 50)).astype(dtype)
    for p in (0.1, 0.5, 1.0):
        wanted = dropkit.numpy.alpha_dropout(x, p, training=True, key=KEY)
        for call in (drop, jax.jit(drop, static_argnames="noise")):
            # XLA may join the product and the sum into one rounding, and computes the factors of a traced rate itself.
            tolerance = 2e-3 if dtype == "float16" else 2e-6
            np.testing.assert_allclose(call(jnp.asarray(x), p, noise=Alpha()), wanted, tolerance, tolerance)
        slope = jax.grad(lambda x, p=p: drop(x, p, noise=Alpha()).sum())(jnp.asarray(x))
        wanted = dropkit.numpy.alpha_dropout_backward(np.ones_like(x), p, training=True, key=KEY)
        np.testing.assert_array_equal(np.asarray(slope), wanted)


def test_alpha_dropout_of_rates_and_second_order() -> None:
    x = jnp.asarray(np.random.default_rng(0).normal(size=(16, 50)).astype(np.float32))
    p = np.linspace(0, 1, 50).astype(np.float32)
    wanted = dropkit.numpy.alpha_dropout(np.asarray(x), p, training=True, key=KEY)
    np.testing.assert_allclose(drop(x, p, noise=Alpha()), wanted, rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(jax.jit(partial(drop, noise=Alpha()))(x, p), wanted, rtol=2e-6, atol=1e-6)

    def energy(x: jax.Array) -> jax.Array:
        return (drop(x, 0.3, noise=Alpha()) ** 2).sum()

    hessian = jax.jvp(jax.grad(energy), (x,), (jnp.ones_like(x),))[1]
    gain = dropkit.numpy.alpha_dropout_backward(np.ones((16, 50), np.float32), 0.3, training=True, key=KEY)
    np.testing.assert_allclose(hessian, 2 * gain**2, rtol=1e-6)


def test_what_is_no_noise() -> None:
    with pytest.raises(DropkitError, match=r"noise must be a value of dropkit.axes.noise, got 'alpha'"):
        drop(jnp.ones(3), 0.5, noise="alpha")


# ---------------------------------------------------------------------------------------------------------------------
# kernels and XLA


@pytest.mark.parametrize("seed", range(12))
def test_kernels_and_formula_agree(seed: int) -> None:
    """The primitive, lowered as here, and its definition in XLA's operations: random shapes, places, batches."""
    rng = np.random.default_rng(seed)
    batch = tuple(rng.integers(1, 4, rng.integers(0, 3)))
    shape = tuple(rng.integers(1, 40, rng.integers(0, 4)))
    strides = tuple(int(s) for s in rng.choice([0, 1, 7, 32, 96, 2**33 + 5, 2**40], len(shape)))
    with_rows = bool(len(shape) and rng.integers(2))
    if with_rows:
        strides = (max(strides[0], 1), *strides[1:])

    def small(*last: int) -> tuple[int, ...]:
        return tuple(size if rng.integers(2) else 1 for size in batch) + last

    x = jnp.asarray(rng.normal(size=batch + shape), rng.choice(["float16", "float32", "bfloat16"]))
    t = rng.choice([0, 1, 32768, 58982, 40000, 65536, formula.INVALID], small()).astype(np.uint32)
    numbers = ("t", "a", "abc")[seed % 3]
    operands = [t, rng.integers(0, 2**32, small(2), dtype=np.uint32), rng.integers(0, 2**31, small(2), dtype=np.uint32)]
    if with_rows:
        operands.append(rng.integers(0, 2**16, small(shape[0], 2), dtype=np.uint32))
    operands += [rng.normal(size=t.shape).astype(np.float32) for _ in numbers if numbers != "t"]
    if numbers != "t":  # for these, what is no rate shows in the numbers
        operands[0] = np.minimum(t, 65536)
    params: dict[str, Any] = {"strides": strides, "batch": len(batch), "aligned": False, "with_rows": with_rows}
    params["way"] = arithmetic.Way(numbers)
    y = primitive.dropout_p.bind(x, *(jnp.asarray(operand) for operand in operands), **params)
    for early in (False, True):
        wanted = jax.jit(partial(arithmetic.applied, early=early, **params))(x, *operands)
        tolerance = 0 if numbers != "abc" else 1e-2 if x.dtype != jnp.float32 else 1e-5
        np.testing.assert_allclose(np.asarray(y, np.float32), np.asarray(wanted, np.float32), tolerance, tolerance)


def test_philox_of_random_counters_equals_the_definition() -> None:
    from dropkit.counter import philox4x32

    rng = np.random.default_rng(0)
    counter = rng.integers(0, 2**32, (4, 100), dtype=np.uint64)
    counter[:, :4] = [0, 0xFFFFFFFF, 0xFFFF0000, 0x0000FFFF]
    key = (0xFFFFFFFF, 0x9E3779B9)
    wanted = philox4x32(tuple(counter), key, 10)
    got = formula.philox4x32(tuple(counter.astype(np.uint32)), (np.uint32(key[0]), np.uint32(key[1])), 10)
    np.testing.assert_array_equal(np.stack(got), np.stack(wanted))


def test_arithmetic_of_pairs() -> None:
    rng = np.random.default_rng(1)
    numbers = [int(n) for n in rng.integers(0, 2**64, 50, dtype=np.uint64)] + [0, 2**64 - 1, 2**32, 2**32 - 1]
    for a, b in zip(numbers, numbers[::-1], strict=True):
        pair = jnp.uint32(a & 0xFFFFFFFF), jnp.uint32(a >> 32)
        other = jnp.uint32(b & 0xFFFFFFFF), jnp.uint32(b >> 32)
        for (low, high), wanted in ((formula.plus(pair, other), a + b), (formula.times(pair, b), a * b)):
            assert int(low) | int(high) << 32 == wanted % 2**64
