"""Errors, likelihoods, intervals and quantiles: by hand, by definition, against SciPy."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from dropkit.errors import DropkitTypeError, DropkitValueError
from dropkit.uncertainty import (
    crps,
    gaussian_nll,
    interval_coverage,
    interval_width,
    log_likelihood,
    quantile_calibration,
    rmse,
    set_coverage,
    set_size,
)
from dropkit.uncertainty.judging.regression import gaussian_nll_of_each, log_likelihood_of_each

from .drawn import Result


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def test_rmse_by_hand() -> None:
    assert rmse([1, 2, 3], [1, 4, 7]) == pytest.approx(math.sqrt(20 / 3), abs=1e-15)
    assert rmse(Result(torch.tensor([[1.0, 2.0]], requires_grad=True)), [[1.0, 2.0]]) == 0


def test_gaussian_nll_is_that_of_scipy_and_outputs_add() -> None:
    m, v, y = drawn(20, 3), np.exp(drawn(20, 3, seed=1)), drawn(20, 3, seed=2)
    each = -stats.norm.logpdf(y, m, np.sqrt(v))
    assert gaussian_nll(m, v, y) == pytest.approx(each.sum(1).mean(), rel=1e-13)
    assert gaussian_nll(m[:, 0], v[:, 0], y[:, 0]) == pytest.approx(each[:, 0].mean(), rel=1e-13)
    assert gaussian_nll_of_each(m, v, y).mean() == gaussian_nll(m, v, y)


def test_log_likelihood_is_that_of_a_mixture() -> None:
    samples, y, tau = drawn(7, 11), drawn(11, seed=1), 2.5
    each = np.log(np.mean([stats.norm.pdf(y, one, tau**-0.5) for one in samples], axis=0))
    assert log_likelihood_of_each(samples, y, tau) == pytest.approx(each, rel=1e-12)
    assert log_likelihood(samples, y, tau) == pytest.approx(each.mean(), rel=1e-12)
    assert log_likelihood(Result(samples.mean(0), samples=samples), y, tau) == log_likelihood(samples, y, tau)


def test_log_likelihood_of_several_outputs_is_that_of_vectors() -> None:
    samples, y, tau = drawn(5, 6, 3), drawn(6, 3, seed=1), 0.7
    each = [
        math.log(np.mean([stats.multivariate_normal.pdf(y[i], one[i], np.eye(3) / tau) for one in samples]))
        for i in range(6)
    ]
    assert log_likelihood_of_each(samples, y, tau) == pytest.approx(each, rel=1e-12)


def test_log_likelihood_of_one_pass_is_a_normal_density_and_far_points_do_not_underflow() -> None:
    y = drawn(4)
    assert log_likelihood(y[None] + 1, y, 4.0) == pytest.approx(stats.norm.logpdf(1, 0, 0.5), rel=1e-14)
    assert log_likelihood([[0.0], [1.0]], [1e6], 1.0) == pytest.approx(-0.5 * (1e6 - 1) ** 2, rel=1e-9)


def test_log_likelihood_in_another_unit_moves_by_the_logarithm_of_it() -> None:
    samples, y = drawn(5, 8), drawn(8, seed=1)
    assert log_likelihood(10 * samples, 10 * y, 2.0 / 100) == pytest.approx(
        log_likelihood(samples, y, 2.0) - math.log(10), rel=1e-12
    )


@pytest.mark.parametrize("fair", [False, True])
def test_crps_is_its_definition(fair: bool) -> None:
    samples, y = drawn(6, 9), drawn(9, seed=1)
    pairs = [[abs(a - b) for a in samples] for b in samples]
    expected = abs(samples - y).mean(0) - 0.5 * np.sum(pairs, (0, 1)) / (30 if fair else 36)
    assert crps(samples, y, fair=fair) == pytest.approx(expected.mean(), rel=1e-13)
    assert crps(samples.reshape(6, 3, 3), y.reshape(3, 3), fair=fair) == pytest.approx(expected.mean(), rel=1e-13)


def test_crps_is_an_integral_and_of_many_samples_that_of_their_distribution() -> None:
    samples, y = np.array([0.0, 1.0, 3.0]), 1.5
    area, _ = integrate.quad(lambda t: ((samples <= t).mean() - (y <= t)) ** 2, -1, 4, points=[0, 1, 1.5, 3])
    assert crps(samples[:, None], [y]) == pytest.approx(area, abs=1e-10)
    quantiles = stats.norm.ppf((np.arange(4000) + 0.5) / 4000)
    known = 0.7 * (2 * stats.norm.cdf(0.7) - 1) + 2 * stats.norm.pdf(0.7) - 1 / math.sqrt(math.pi)
    assert crps(quantiles[:, None], [0.7]) == pytest.approx(known, abs=1e-4)


def test_intervals_by_hand() -> None:
    low, high = [0.0, 0.0, -np.inf, 0.0], [1.0, 1.0, np.inf, 1.0]
    assert interval_coverage(low, high, [0.0, 1.0, 9.0, 1.1]) == 0.75
    assert interval_width(low, high) == math.inf
    assert interval_width([[0.0, 1.0]], [[1.0, 4.0]]) == 2


def test_sets_by_hand() -> None:
    sets = [[True, False, True], [False, False, False]]
    assert set_coverage(sets, [2, 0]) == 0.5
    assert set_size(sets) == 1.0


def test_quantiles_by_hand() -> None:
    found = quantile_calibration([[0.0] * 4, [1.0] * 4], [0.1, 0.5], [-1.0, 0.0, 1.0, 2.0])
    assert found.observed.tolist() == [0.5, 0.75]
    assert found.error == pytest.approx((0.4 + 0.25) / 2, abs=1e-15)


def test_quantiles_of_the_true_distribution_are_calibrated() -> None:
    levels = np.array([0.05, 0.25, 0.5, 0.9])
    y = drawn(10_000)
    found = quantile_calibration(np.tile(stats.norm.ppf(levels)[:, None], (1, 10_000)), levels, y)
    assert (abs(found.observed - levels) < 4 * np.sqrt(levels * (1 - levels) / 10_000)).all()


REFUSED = [
    (lambda: rmse([[1.0], [2.0]], [1.0, 2.0]), r"y has shape \(2,\) and the prediction \(2, 1\)"),
    (lambda: rmse([], []), "the prediction must hold at least one sample"),
    (lambda: rmse([np.inf], [0.0]), r"the prediction must be finite numbers, got inf at \[0\], as 1 of 1"),
    (lambda: gaussian_nll([0.0, 0.0], [0.0, 1.0], [0.0, 0.0]), "variance must be above 0, got 0 of 1 of 2; add the"),
    (lambda: gaussian_nll([0.0], [1.0, 1.0], [0.0]), r"variance has shape \(2,\) and the mean \(1,\)"),
    (lambda: log_likelihood([[0.0]], [0.0], 0), "tau must be a precision above 0.*got 0"),
    (lambda: log_likelihood([[0.0]], [0.0], math.nan), "tau must be a precision above 0.*got nan"),
    (lambda: log_likelihood([[0.0]], [0.0], "1"), "tau must be a precision above 0.*got '1'"),
    (lambda: log_likelihood([0.0], [0.0], 1.0), r"samples must have shape \(passes, n, ...\).*got \(1,\)"),
    (lambda: log_likelihood([[0.0]], [[0.0]], 1.0), r"y has shape \(1, 1\) and each pass \(1,\)"),
    (lambda: log_likelihood(Result([0.0]), [0.0], 1.0), "this Result did not keep its samples"),
    (lambda: crps([[0.0]], [0.0], fair=True), "fair needs two samples or more, got 1"),
    (lambda: interval_coverage([0.0], [0.0, 1.0], [0.0]), r"low has shape \(1,\) and high \(2,\)"),
    (lambda: quantile_calibration([[0.0]], [1.0], [0.0]), r"levels must be a row of numbers strictly.*got \[1.0\]"),
    (lambda: quantile_calibration([[0.0]], [0.1, 0.2], [0.0]), r"quantiles of shape \(1, 1\) need 2 on axis 0"),
    (lambda: set_size([True]), r"sets must have shape \(samples, classes\), got \(1,\)"),
]


@pytest.mark.parametrize(("call", "says"), REFUSED)
def test_bad_values_are_refused(call: object, says: str) -> None:
    with pytest.raises(DropkitValueError, match=says):
        call()  # type: ignore[operator]


def test_sets_are_bool() -> None:
    with pytest.raises(
        DropkitTypeError, match="sets must be bool, True for each class that a set holds, got dtype int"
    ):
        set_coverage([[0, 1]], [1])
