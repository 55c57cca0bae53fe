"""Temperature scaling: the minimum, by another search and in closed form; when there is none."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from dropkit.errors import DropkitValueError
from dropkit.uncertainty import accuracy, ece, nll, temperature_scaling

from .drawn import Result, passes, predictions


@pytest.mark.parametrize("sure", [0.01, 0.5, 2.0, 40.0])
def test_it_is_the_minimum_of_the_likelihood(sure: float) -> None:
    random = np.random.default_rng(0)
    z = random.normal(size=(400, 5))
    y = (z + random.gumbel(size=z.shape)).argmax(1)
    found = temperature_scaling(sure * z, y)
    search = minimize_scalar(
        lambda t: nll(sure * z / np.exp(t), y, log=True), bracket=(-9, 9), method="golden", options={"xtol": 1e-9}
    )
    assert np.log(found.value) == pytest.approx(search.x, abs=1e-6)
    assert found.value == pytest.approx(sure, rel=0.3)
    assert found.after == pytest.approx(search.fun, rel=1e-12)
    assert found.before == pytest.approx(nll(sure * z, y, log=True), rel=1e-12)


def test_of_two_classes_and_one_gap_it_is_known() -> None:
    """k of n right at a gap d: the probability of being right is k / n, so T = d / ln(k / (n - k))."""
    for right, total, gap in ((3, 4, 2.0), (9, 10, 0.01), (501, 1000, 50.0)):
        z = [[gap, 0.0]] * total
        found = temperature_scaling(z, [0] * right + [1] * (total - right))
        assert found.value == pytest.approx(gap / np.log(right / (total - right)), rel=1e-9)


def test_a_scale_of_the_logits_is_a_scale_of_the_temperature_and_a_shift_is_nothing() -> None:
    p, y = predictions(300, 4, sure=3.0)
    found = temperature_scaling(np.log(p), y)
    assert temperature_scaling(8 * np.log(p) - 100, y).value == pytest.approx(8 * found.value, rel=1e-9)
    assert found.value == pytest.approx(3, rel=0.25)


def test_it_calibrates_new_samples_and_keeps_their_classes() -> None:
    p, y = predictions(6000, 4, seed=1, sure=3.0)
    found = temperature_scaling(np.log(p[:3000]), y[:3000])
    scaled = found.predict(np.log(p[3000:]))
    assert scaled.sum(1) == pytest.approx(np.ones(3000), abs=1e-12)
    assert accuracy(scaled, y[3000:]) == accuracy(p[3000:], y[3000:])
    assert ece(scaled, y[3000:]) < 0.04 < 0.15 < ece(p[3000:], y[3000:])


def test_of_many_passes_it_scales_the_logarithm_of_the_mean() -> None:
    mean = passes(20, 200, 3).mean(0)
    y = np.random.default_rng(0).integers(0, 3, 200)
    y[:120] = mean[:120].argmax(1)
    of_result, of_logs = temperature_scaling(Result(torch.tensor(mean)), y), temperature_scaling(np.log(mean), y)
    assert of_result == of_logs
    assert of_result.predict(Result(mean)).tolist() == of_logs.predict(np.log(mean)).tolist()


def test_it_repeats_to_the_last_bit_and_takes_any_shape() -> None:
    p, y = predictions(120, 3)
    z = np.log(p)
    assert temperature_scaling(z, y) == temperature_scaling(z.reshape(4, 30, 3), y.reshape(4, 30))
    assert temperature_scaling(z, y).predict(z.reshape(4, 30, 3)).shape == (4, 30, 3)


def test_classes_of_probability_0_stay_there() -> None:
    z = np.array([[1.0, 0.0, -np.inf]] * 4)
    found = temperature_scaling(z, [0, 0, 0, 1])
    assert found.value == pytest.approx(1 / np.log(3), rel=1e-9)
    assert found.predict(z)[0].tolist() == pytest.approx([0.75, 0.25, 0])


def test_where_no_temperature_is_best_it_says_so() -> None:
    with pytest.raises(
        DropkitValueError, match=r"each of the 2 labels has the largest logit.*give more held-out samples"
    ):
        temperature_scaling([[1.0, 0.0], [0.0, 2.0]], [0, 1])
    with pytest.raises(DropkitValueError, match="the 2 labels have no larger logits than other classes on average"):
        temperature_scaling([[1.0, 0.0], [0.0, 2.0]], [1, 0])
    with pytest.raises(DropkitValueError, match="the label of sample 1 has probability 0"):
        temperature_scaling([[1.0, 0.0], [0.0, -np.inf]], [0, 1])
    with pytest.raises(DropkitValueError, match="labels hold 2"):
        temperature_scaling([[1.0, 0.0]], [2])
    with pytest.raises(DropkitValueError, match="logits must be numbers, got nan"):
        temperature_scaling([[np.nan, 0.0]], [1])
