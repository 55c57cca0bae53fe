"""Facts about dropout that have a closed form, met by the masks within 5 standard errors (two-sided 6e-7 each).

Where a few units have few masks, all of them are gone through in place of drawing some.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from dropkit import Key, keep
from dropkit.axes.noise import Alpha, Bernoulli, Gaussian, LogNormal, Raw, Uniform
from dropkit.axes.rate import linear_in_depth
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


def all_masks(n: int, p: float, law: Any = None) -> Iterator[tuple[float, np.ndarray]]:
    """Every mask of n units with its probability, as the factors of a law."""
    q = threshold(p) / ONE
    a, _, c = (Bernoulli() if law is None else law).numbers(q)
    for kept in itertools.product((True, False), repeat=n):
        yield q ** sum(kept) * (1 - q) ** (n - sum(kept)), np.where(kept, a, c)


@pytest.mark.parametrize("p", [0.3, 0.1])
def test_higher_moments_tell_one_noise_from_another(p: float) -> None:
    """Third and fourth central moments of the factors: a mask's, a normal's, a uniform's; the first two are alike."""
    r, q = odds(p), threshold(p) / ONE
    b = (3 * r) ** 0.5
    moments = {
        Bernoulli(): ((1 - q) * (1 - 2 * q) / q**2, (1 - q) * ((1 - q) ** 3 + q**3) / q**3),
        Gaussian(): (0.0, 3 * r * r),
        Uniform(): (0.0, b**4 / 5),
        LogNormal(): (r * r * (r + 3), r * r * ((1 + r) ** 4 + 2 * (1 + r) ** 3 + 3 * (1 + r) ** 2 - 3)),
    }
    for noise, (third, fourth) in moments.items():
        x = dropout(np.ones(400_000), p, training=True, key=Key(5, "moments"), noise=noise) - 1
        for power, expected in ((1, 0.0), (2, r), (3, third), (4, fourth)):
            within(x**power, expected)


@pytest.mark.parametrize("noise", [Gaussian(), Uniform()])
def test_any_noise_of_that_variance_is_the_same_ridge(noise: Any) -> None:
    rng = np.random.Generator(np.random.Philox(3))
    x, y, w = rng.normal(size=(20, 6)), rng.normal(size=20), rng.normal(size=6)
    ones = np.ones(x.shape)
    noisy = [dropout(ones, 0.3, training=True, key=Key(5, "any", step), noise=noise) for step in range(800)]
    loss = ((y - np.stack(noisy) * x @ w) ** 2).sum(axis=1)
    within(loss, float(((y - x @ w) ** 2).sum() + odds(0.3) * (w**2 * (x**2).sum(axis=0)).sum()))


def test_raw_masks_have_the_same_best_weights_divided_by_q() -> None:
    """argmin over w of E ||y - (m * X) w||^2, over all masks of a row's six inputs."""
    rng = np.random.Generator(np.random.Philox(3))
    x, y, q = rng.normal(size=(20, 6)), rng.normal(size=20), threshold(0.3) / ONE
    best = {}
    for law in (Bernoulli(), Raw()):
        second = np.zeros((6, 6))
        first = np.zeros(6)
        for chance, mask in all_masks(6, 0.3, law):
            second += chance * (mask * x).T @ (mask * x)
            first += chance * (mask * x).T @ y
        best[law] = np.linalg.solve(second, first)
    np.testing.assert_allclose(best[Raw()], best[Bernoulli()] / q, rtol=1e-10)


@pytest.mark.parametrize(("p", "size"), [(0.1, 0.1), (0.5, 0.1)])
def test_dropout_of_a_logistic_regression_adds_a_curvature(p: float, size: float) -> None:
    """E[A(m x . b)] - A(x . b) is near p/(1-p) A''(x . b) sum (x b)^2 / 2, to 1 % here (Wager et al. 2013)."""
    products = np.array([1, -1, 1, 1, -1, 1, -1, 1]) * size
    base = np.log1p(np.exp(products.sum()))
    noisy = sum(chance * np.log1p(np.exp((mask * products).sum())) for chance, mask in all_masks(8, p))
    s = 1 / (1 + np.exp(-products.sum()))
    predicted = 0.5 * odds(p) * s * (1 - s) * (products**2).sum()
    assert predicted > 0 and abs((noisy - base) / predicted - 1) < 0.01


@pytest.mark.parametrize("law", [Bernoulli(), Raw()])
def test_softmax_regression_is_the_geometric_mean_of_its_masks(law: Any) -> None:
    """Normalised over classes, exactly, with the weights as they are, or times q where masks are not scaled.

    The log-probability under that mean is at least the mean of the log-probabilities (Jensen).
    """
    rng = np.random.Generator(np.random.Philox(6))
    x, w, q = rng.normal(size=5), rng.normal(size=(3, 5)), threshold(0.3) / ONE

    def log_probability(logits: np.ndarray) -> np.ndarray:
        return logits - np.log(np.exp(logits).sum())

    mean = sum(chance * log_probability(w @ (mask * x)) for chance, mask in all_masks(5, 0.3, law))
    network = log_probability(w @ x * (q if isinstance(law, Raw) else 1))
    np.testing.assert_allclose(log_probability(mean), network, atol=1e-12)
    assert (network >= mean - 1e-12).all()


def test_a_linear_network_of_any_depth_is_the_mean_of_its_masks() -> None:
    """Masks of two layers, each by itself; and a network with a relu is not."""
    rng = np.random.Generator(np.random.Philox(7))
    x, v, u = rng.normal(size=4), rng.normal(size=(4, 4)), rng.normal(size=(2, 4))
    both = list(itertools.product(all_masks(4, 0.5), repeat=2))
    mean = sum(a * b * u @ (n * (v @ (m * x))) for (a, m), (b, n) in both)
    np.testing.assert_allclose(mean, u @ v @ x, atol=1e-12)
    bent = sum(a * b * u @ (n * np.maximum(v @ (m * x), 0)) for (a, m), (b, n) in both)
    assert abs(bent - u @ np.maximum(v @ x, 0)).max() > 0.01


def test_masks_of_weights_do_not_couple_outputs_and_masks_of_inputs_do() -> None:
    """The covariance of two outputs is 0 for DropConnect, p/(1-p) sum w_ai w_bi x_i^2 for dropout of what goes in."""
    rng = np.random.Generator(np.random.Philox(8))
    w, x = rng.normal(size=(2, 3)), rng.normal(size=3)
    for shape, expected in (((2, 3), 0.0), ((1, 3), odds(0.3) * float((w[0] * w[1] * x**2).sum()))):
        centred = draws(shape, 0.3, "outputs") * w @ x - w @ x
        within(centred[:, 0] * centred[:, 1], expected)


def test_the_variance_before_batch_norm_shifts_by_the_published_ratio() -> None:
    """v / ((c^2 + v) / q - c^2) of inputs with mean c and variance v; q where c = 0 (Li et al. 2019)."""
    q = threshold(0.5) / ONE
    for c in (0.0, 0.7):
        x = np.random.Generator(np.random.Philox(9)).normal(c, 1.0, size=200_000)
        y = dropout(x, 0.5, training=True, key=Key(5, "shift"))
        trained = (c * c + 1) / q - c * c
        within((y - c) ** 2, trained)
        assert abs(1 / trained - (q if c == 0 else 1 / (2.98 - 0.49))) < 1e-3


def test_scaling_the_input_scales_the_output_but_for_alpha() -> None:
    x = np.random.Generator(np.random.Philox(10)).normal(size=100)
    for noise in (Bernoulli(), Gaussian(), Uniform(), LogNormal(), Raw(), Alpha()):
        y, doubled = (dropout(k * x, 0.3, training=True, key=Key(5, "k"), noise=noise) for k in (1, 2))
        assert np.array_equal(doubled, 2 * y) == (noise != Alpha())


def test_half_of_a_residual_network_runs_on_average() -> None:
    """The expected number of branches of stochastic depth with the last at 1/2 is (3 L - 1) / 4: 40.25 of 54."""
    for layers in (1, 12, 54):
        assert sum(1 - rate.at(0) for rate in linear_in_depth(0.5, layers)) == pytest.approx((3 * layers - 1) / 4)
