"""Alpha dropout on arrays: values, moments, gradient, ends; with the kernels and without them the same bits."""

import math
from typing import Any

import numpy as np
import pytest

from dropkit import DropkitError, Key, keep
from dropkit.mask import alpha_factors, threshold
from dropkit.numpy import alpha_dropout, alpha_dropout_backward, ops

KEY = Key(seed=1, site="alpha", step=2)
N = 1_000_000


@pytest.fixture(params=["as chosen", "array operations"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "array operations":
        monkeypatch.setattr(ops, "_KERNELS", None)


def normal_numbers(*shape: int, dtype: Any = np.float64) -> np.ndarray:
    return np.random.Generator(np.random.Philox(9)).standard_normal(shape).astype(dtype)


def literal(x: np.ndarray, p: float, **where: Any) -> np.ndarray:
    """The formula in the arithmetic of x's wide type."""
    wide = np.float64 if x.dtype == np.float64 else np.float32
    scale, shift, dropped = (wide(value) for value in alpha_factors(threshold(p)))
    return np.where(keep(x.shape, p, KEY, **where), x.astype(wide) * scale + shift, dropped).astype(x.dtype)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("p", [0.05, 0.2, 0.5, 0.8, 1 / 3, 1.0])
def test_values(p: float, dtype: Any) -> None:
    x = normal_numbers(7, 95, dtype=dtype)
    y = alpha_dropout(x, p, training=True, key=KEY)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, literal(x, p))
    for where in ({"share": (1,)}, {"rows": [9, 2, 2, 0, 100, 5, 7]}, {"offset": (3, 1), "global_shape": (99, 100)}):
        np.testing.assert_array_equal(alpha_dropout(x, p, training=True, key=KEY, **where), literal(x, p, **where))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("p", [0.05, 0.2, 0.5, 0.8])
def test_mean_and_variance_of_normal_numbers_are_kept(p: float) -> None:
    """Within five standard errors; the variance's comes from the fourth moment of the result's exact mixture."""
    y = alpha_dropout(normal_numbers(N), p, training=True, key=KEY)
    a, b, d = alpha_factors(threshold(p))
    q = threshold(p) / 65536
    fourth = q * (3 * a**4 + 6 * a * a * b * b + b**4) + (1 - q) * d**4
    assert abs(y.mean()) < 5 / math.sqrt(N)
    assert abs(y.var() - 1) < 5 * math.sqrt((fourth - 1) / N)


def test_moments_would_show_zeros_in_place_of_the_saturated_value() -> None:
    """What the test above is to catch: kept values scaled as here, dropped ones 0."""
    y = literal(normal_numbers(N), 0.2)
    y[~keep(y.shape, 0.2, KEY)] = 0
    assert abs(y.mean()) > 50 / math.sqrt(N)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_gradient(dtype: Any) -> None:
    x, dy = normal_numbers(4, 50), normal_numbers(4, 50)[::-1].astype(dtype)
    dx = alpha_dropout_backward(dy, 0.3, training=True, key=KEY)
    kept = keep(x.shape, 0.3, KEY)
    wide = np.float64 if dtype == np.float64 else np.float32
    factor = wide(alpha_factors(threshold(0.3))[0])
    np.testing.assert_array_equal(dx, np.where(kept, dy.astype(wide) * factor, 0).astype(dtype))
    step = 1e-6
    up, down = (alpha_dropout(x + s, 0.3, training=True, key=KEY) for s in (step, -step))
    slope = (up - down) / (2 * step)
    np.testing.assert_allclose(alpha_dropout_backward(np.ones_like(x), 0.3, training=True, key=KEY), slope, atol=1e-8)
    minus_zero = alpha_dropout_backward(np.full((4, 50), -0.0, dtype), 0.3, training=True, key=KEY)
    np.testing.assert_array_equal(np.signbit(minus_zero), kept)


@pytest.mark.usefixtures("way")
def test_ends() -> None:
    x = normal_numbers(5, 5, dtype=np.float32)
    x[0] = np.nan
    for function in (alpha_dropout, alpha_dropout_backward):
        assert function(x, 0.0, training=True, key=KEY) is x
        assert function(x, 1e-7, training=True, key=KEY) is x
        assert function(x, 0.9, training=False) is x
        zeros = function(x, 1.0, training=True, key=KEY)
        assert not zeros.view(np.uint32).any()  # +0, from NaN too
    empty = np.empty((0, 3), np.float32)
    assert alpha_dropout(empty, 0.5, training=True, key=KEY) is empty


@pytest.mark.usefixtures("way")
def test_dropped_nan_and_infinity_are_the_dropped_value() -> None:
    x = np.array([np.nan, np.inf, -np.inf, 1.0] * 500)
    y, kept = alpha_dropout(x, 0.5, training=True, key=KEY), keep(x.shape, 0.5, KEY)
    assert (y[~kept] == alpha_factors(32768)[2]).all()
    assert (np.isfinite(y[kept]) == np.isfinite(x[kept])).all()


@pytest.mark.usefixtures("way")
def test_memory_order_and_strides() -> None:
    base = normal_numbers(12, 8, dtype=np.float32)
    for x in (np.asfortranarray(base), base[::2, ::-1], np.broadcast_to(base[0], (5, 8))):
        np.testing.assert_array_equal(alpha_dropout(x, 0.5, training=True, key=KEY), literal(x, 0.5))
    assert alpha_dropout(np.asfortranarray(base), 0.5, training=True, key=KEY).flags.f_contiguous
    scalar = alpha_dropout(np.array(0.5), 0.5, training=True, key=KEY)
    assert scalar.shape == ()


def test_rates_by_element() -> None:
    x = normal_numbers(6, 40, dtype=np.float32)
    p = np.array([0.0, 0.1, 0.5, 0.9, 1.0, 0.1])[:, None]
    y = alpha_dropout(x, p, training=True, key=KEY)
    kept = keep(x.shape, p, KEY)
    for row, rate in enumerate(p[:, 0]):
        scale, shift, dropped = map(np.float32, alpha_factors(threshold(rate)))
        np.testing.assert_array_equal(y[row], np.where(kept[row], x[row] * scale + shift, dropped))
    with pytest.raises(DropkitError, match=r"p of shape \(7,\) does not broadcast"):
        alpha_dropout(x, np.full(7, 0.5), training=True, key=KEY)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"p": 1.5}, "dropout probability has to be between 0 and 1, but got 1.5"),
        ({"p": 0.5, "key": None}, "NumPy has no ambient generator"),
        ({"p": 0.5, "training": 1}, "training must be True or False, got 1"),
        ({"p": 0.5, "x": np.ones(3, int)}, "needs float16, float32 or float64, but x is int64"),
    ],
)
def test_refusals(kwargs: dict[str, Any], message: str) -> None:
    given = {"x": np.ones(3), "training": True, "key": KEY, **kwargs}
    for function in (alpha_dropout, alpha_dropout_backward):
        with pytest.raises(DropkitError, match=message):
            function(given["x"], given["p"], training=given["training"], key=given["key"])
