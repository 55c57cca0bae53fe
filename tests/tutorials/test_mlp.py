"""What docs/tutorial-mlp.md and docs/inverted-dropout.md say of the tutorial, and the numbers that they print."""

import math
import re
from pathlib import Path

import numpy as np
import pytest

import dropkit
import dropkit.numpy
from dropkit import Key

PAGE = (Path(__file__).parents[2] / "docs" / "inverted-dropout.md").read_text()
X = np.arange(16, dtype=np.float32).reshape(2, 8)


def by_hand(x: np.ndarray, p: float, generator: np.random.Generator) -> np.ndarray:
    """The tutorial's function, in NumPy."""
    if p == 1:
        return np.zeros_like(x)
    return x * (generator.random(x.shape) < 1 - p) / (1 - p)


@pytest.mark.parametrize("p", [0, 0.5, 1])
def test_the_three_arrays_are_on_the_page(p: float) -> None:
    y = dropkit.numpy.dropout(X, p, training=True, key=Key(seed=0, site="x"))
    assert str(y) in re.sub(r"^    ", "", PAGE, flags=re.MULTILINE)
    assert set(np.unique(y[0, 1:] / X[0, 1:])) <= {0, 1 / (1 - p) if p < 1 else 0}
    assert p == 1 or (y == X / (1 - p)).any()


def test_the_mask_of_a_comparison_keeps_and_the_argument_of_keep_drops() -> None:
    n, key = 200_000, Key(seed=0, site="w")
    sigma = math.sqrt(0.6 * 0.4 / n)
    for mask in (dropkit.uniform((n,), key) < 0.6, dropkit.keep((n,), 0.4, key)):
        assert abs(mask.mean() - 0.6) < 4 * sigma
    assert not np.array_equal(dropkit.uniform((n,), key) < 0.6, dropkit.keep((n,), 0.4, key))


def test_without_its_own_case_rate_1_is_nan_and_integers_change_their_type() -> None:
    ones, generator = np.ones((2, 8)), np.random.default_rng(0)
    with np.errstate(invalid="ignore"):
        assert np.isnan(ones * (generator.random(ones.shape) < 0) / np.float64(0)).all()
    whole = np.arange(16).reshape(2, 8)
    kinds = [by_hand(whole, p, generator).dtype.kind for p in (0, 0.5, 1)]
    assert kinds == ["f", "f", "i"]


def test_the_call_that_leaves_out_the_mode_or_the_key_is_told_so() -> None:
    with pytest.raises(TypeError, match="training"):
        dropkit.numpy.dropout(X, 0.5)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match=r"pass key=dropkit.Key"):
        dropkit.numpy.dropout(X, 0.5, training=True)
    assert dropkit.numpy.dropout(X, 0.5, training=False) is X


def test_mean_and_variance_are_those_of_the_page() -> None:
    h, found = np.full(1_000_000, 3, np.float32), []
    for seed in range(5):
        draw = dropkit.numpy.dropout(h, 0.2, training=True, key=Key(seed, "h"))
        found.append((draw.mean(dtype=float), draw.var(dtype=float)))
        assert f"    {round(found[-1][0], 4)} {round(found[-1][1], 4)}\n" in PAGE
    mean, variance = np.mean(found, axis=0)
    half = 2.776 * np.std(found, axis=0, ddof=1) / math.sqrt(5)
    assert f"{mean:.4f} ± {half[0]:.4f}" in PAGE and f"{variance:.4f} ± {half[1]:.4f}" in PAGE
    assert abs(mean - 3) < half[0] and abs(variance - 0.2 / 0.8 * 9) < half[1]


@pytest.mark.parametrize("p", [0.2, 0.5])
def test_each_scheme_agrees_with_itself_and_not_with_the_other(p: float) -> None:
    h = np.full(200_000, 3.0)
    keep = dropkit.keep(h.shape, p, Key(0, "schemes"))
    original, inverted = (keep * h).mean(), (keep * h / (1 - p)).mean()
    error = 4 * 3 * math.sqrt(p / (1 - p) / h.size)
    assert abs(original - 3 * (1 - p)) < error and abs(inverted - 3) < error
    assert abs(inverted - 3 * (1 - p)) > 20 * error  # trained the one way, evaluated the other
