"""Two facts about dropout that have a closed form, met by the masks within 5 standard errors (two-sided 6e-7 each)."""

import numpy as np
import pytest

from dropkit import Key, keep
from dropkit.mask import ONE, scale, threshold
from dropkit.numpy import dropout

DRAWS = 4000


def within(samples: np.ndarray, expected: float) -> None:
    """The mean of the samples is the expected one, within 5 of its standard errors."""
    error = samples.std(ddof=1) / np.sqrt(len(samples))
    assert error > 0
    assert abs(samples.mean() - expected) < 5 * error, (samples.mean(), expected, error)


def odds(p: float) -> float:
    """p / (1 - p) of the rate that is really drawn, p rounded to 1/65536."""
    t = threshold(p)
    return (ONE - t) / t


def draws(shape: tuple[int, ...], p: float, site: str) -> np.ndarray:
    """Masks of DRAWS steps, scaled: entries 0 or 1 / (1 - p)."""
    ones = np.ones(shape)
    return np.stack([dropout(ones, p, training=True, key=Key(5, site, step)) for step in range(DRAWS)])


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_dropout_of_inputs_is_a_ridge(p: float) -> None:
    """E ||y - (M * X) w||^2 = ||y - X w||^2 + p/(1-p) w' diag(X'X) w (Srivastava et al. 2014, section 9.1)."""
    rng = np.random.Generator(np.random.Philox(3))
    x, y = rng.normal(size=(20, 6)), rng.normal(size=20)
    ridge = odds(p) * np.diag(np.diag(x.T @ x))
    best = np.linalg.solve(x.T @ x + ridge, x.T @ y)
    masked = draws(x.shape, p, "ridge") * x
    for w in (best, rng.normal(size=6)):
        loss = ((y - masked @ w) ** 2).sum(axis=1)
        within(loss, float(((y - x @ w) ** 2).sum() + w @ ridge @ w))
    # At the minimum of the closed form the expected gradient of the noisy loss is zero, in each direction.
    gradient = -2 * np.einsum("dni,dn->di", masked, y - masked @ best)
    for direction in range(6):
        within(gradient[:, direction], 0.0)


def test_the_ridge_test_can_fail() -> None:
    x = np.ones((4, 3))
    loss = ((draws(x.shape, 0.5, "ridge") * x).sum(axis=2) ** 2).sum(axis=1)
    with pytest.raises(AssertionError):
        within(loss, float((x.sum(axis=1) ** 2).sum()))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_dropout_of_hidden_units_penalises_products_of_norms(p: float) -> None:
    """E ||Y - U D V X||^2 = ||Y - U V X||^2 + p/(1-p) sum_i ||u_i||^2 ||v_i X||^2 (Cavazza et al. 2018)."""
    rng = np.random.Generator(np.random.Philox(4))
    u, v = rng.normal(size=(3, 5)), rng.normal(size=(5, 4))
    x, y = rng.normal(size=(4, 10)), rng.normal(size=(3, 10))
    masks = draws((5,), p, "hidden")
    loss = ((y - np.einsum("oh,dh,hn->don", u, masks, v @ x)) ** 2).sum(axis=(1, 2))
    products = (u**2).sum(axis=0) * ((v @ x) ** 2).sum(axis=1)
    within(loss, float(((y - u @ v @ x) ** 2).sum() + odds(p) * products.sum()))


def test_masks_of_the_facts_are_those_of_keep() -> None:
    kept = keep((5,), 0.5, Key(5, "hidden", 7))
    np.testing.assert_array_equal(draws((5,), 0.5, "hidden")[7], kept * scale(threshold(0.5)))
