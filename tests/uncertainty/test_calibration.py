"""Calibration errors: by hand, by definition, against torchmetrics; ties and edges as stated."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torchmetrics.functional.classification import multiclass_calibration_error

from dropkit.errors import DropkitValueError
from dropkit.uncertainty import adaptive_ece, classwise_ece, ece, reliability, smooth_ece

from .drawn import predictions


def by_loop(sure: np.ndarray, hit: np.ndarray, bins: int) -> float:
    total = 0.0
    for b in range(bins):
        inside = [i for i in range(len(sure)) if b / bins < sure[i] <= (b + 1) / bins or (b == 0 and sure[i] == 0)]
        if inside:
            total += len(inside) / len(sure) * abs(np.mean(hit[inside]) - np.mean(sure[inside]))
    return total


def binary(sure: list[float], hit: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Two classes whose first is predicted with these confidences, above 0.5, and right or not."""
    return np.stack([sure, 1 - np.array(sure)], -1), 1 - np.array(hit)


def test_ece_by_hand() -> None:
    p, y = binary([0.55, 0.6, 0.85, 0.95], [1, 0, 1, 0])
    # Four bins: (0.5, 0.75] holds two, half right at 0.575; (0.75, 1] two, half right at 0.9.
    assert ece(p, y, bins=4) == pytest.approx(0.5 * 0.075 + 0.5 * 0.4, abs=1e-15)
    assert ece(p, y, bins=4, norm="max") == pytest.approx(0.4, abs=1e-15)
    assert ece(p, y, bins=4, norm="l2") == pytest.approx(math.sqrt(0.5 * 0.075**2 + 0.5 * 0.4**2), abs=1e-15)


@pytest.mark.parametrize("bins", [1, 7, 15, 100])
def test_ece_is_its_definition_and_that_of_torchmetrics(bins: int) -> None:
    p, y = predictions(400, 5, seed=bins)
    hit = p.argmax(1) == y
    assert ece(p, y, bins) == pytest.approx(by_loop(p.max(1), hit, bins), abs=1e-14)
    for norm in ("l1", "l2", "max"):
        theirs = multiclass_calibration_error(torch.tensor(p), torch.tensor(y), 5, bins, norm)
        assert ece(p, y, bins, norm) == pytest.approx(float(theirs), abs=1e-6)
    assert ece(p, y, bins) > 0.05  # they are too sure


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_confidence_on_an_edge_belongs_to_the_bin_below(dtype: type) -> None:
    for numerator in range(8, 15):  # of 15 bins; the floats 0.6, 0.8, ... are those of the edges
        p = np.array([[numerator / 15, 1 - numerator / 15]], dtype)
        assert reliability(p, [0]).count.argmax() == numerator - 1
    p, y = binary([0.6, 0.61], [1, 0])
    assert reliability(p, y, bins=5).count.tolist() == [0, 0, 1, 1, 0]
    assert reliability([[1.0, 0.0]], [0]).count[-1] == 1


def test_class_wise_by_hand_and_by_definition() -> None:
    p, y = predictions(300, 4, seed=3)
    assert classwise_ece(p, y, 10) == pytest.approx(
        np.mean([by_loop(p[:, c], y == c, 10) for c in range(4)]), abs=1e-14
    )
    # One sample, certain of the first of three classes, and wrong: 1, 1 and 0 are its errors.
    assert classwise_ece([[1.0, 0.0, 0.0]], [1]) == pytest.approx(2 / 3, abs=1e-15)


def test_adaptive_by_hand() -> None:
    p, y = binary([0.6, 0.7, 0.8, 0.9, 1.0], [1, 0, 1, 1, 0])
    # Bins of 3 and 2: right 2 of 2.1, and 1 of 1.9.
    assert adaptive_ece(p, y, bins=2) == pytest.approx((abs(2 - 2.1) + abs(1 - 1.9)) / 5, abs=1e-15)
    assert adaptive_ece(p, y, bins=50) == pytest.approx((0.4 + 0.7 + 0.2 + 0.1 + 1.0) / 5, abs=1e-15)


def test_neither_order_nor_ties_move_an_error() -> None:
    random = np.random.default_rng(0)
    p, y = binary(np.repeat([0.6, 0.8, 0.9], 40), random.integers(0, 2, 120))
    for error in (ece, adaptive_ece, classwise_ece, smooth_ece):
        found = error(p, y)
        for _ in range(5):
            order = random.permutation(120)
            assert error(p[order], y[order]) == pytest.approx(found, abs=1e-12)


@pytest.mark.parametrize(("kind", "error"), [("width", ece), ("mass", adaptive_ece)])
def test_a_diagram_shows_the_error(kind: str, error: object) -> None:
    p, y = predictions(200, 3, seed=5)
    found = reliability(p, y, 12, kind)
    assert found.count.sum() == 200
    assert found.error == pytest.approx(error(p, y, 12), abs=1e-14)  # type: ignore[operator]
    full = found.count > 0
    assert (found.low[full] <= found.accuracy[full]).all() and (found.accuracy[full] <= found.high[full]).all()
    assert np.isnan(found.accuracy[~full]).all() and np.isnan(found.low[~full]).all()
    assert len(found.edges) == 13 and (np.diff(found.edges) >= 0).all()
    assert found.edges[0] == 0 and found.edges[-1] == 1


def test_the_interval_of_a_diagram_is_wilsons() -> None:
    p, y = binary([0.9] * 10, [1] * 7 + [0] * 3)
    found = reliability(p, y, bins=1)
    # Roots of (share - p)^2 = z^2 p (1 - p) / n.
    roots = np.roots([1 + 1.959963984540054**2 / 10, -2 * 0.7 - 1.959963984540054**2 / 10, 0.49])
    assert [found.low[0], found.high[0]] == pytest.approx(sorted(roots), abs=1e-12)


def slow_smooth(sure: np.ndarray, hit: np.ndarray) -> float:
    """By images of a Gaussian, on a grid finer than any that is smoothed over."""
    t = np.linspace(0, 1, 10_001)

    def integral(s: float) -> float:
        total = np.zeros_like(t)
        for f, h in zip(sure, hit, strict=True):
            for image in (f + 2 * k for k in range(-3, 4)):
                for centre in (image, -image):
                    total += (h - f) * np.exp(-0.5 * ((t - centre) / s) ** 2)
        return float(np.trapezoid(np.abs(total / (s * math.sqrt(2 * math.pi))), t)) / len(sure)

    return float(brentq(lambda s: integral(s) - s, 1e-3, 1, xtol=1e-9))


@pytest.mark.parametrize("seed", [0, 1])
def test_smooth_is_the_fixed_point_of_reflected_kernels(seed: int) -> None:
    p, y = predictions(25, 3, seed=seed)
    assert smooth_ece(p, y) == pytest.approx(slow_smooth(p.max(1), p.argmax(1) == y), abs=1e-4)


def test_smooth_where_it_is_known() -> None:
    assert smooth_ece([[1.0, 0.0]] * 4, [0, 0, 0, 0]) == pytest.approx(0, abs=1e-9)
    assert smooth_ece([[1.0, 0.0]] * 4, [0, 0, 0, 1]) == pytest.approx(0.25, abs=1e-9)  # one sign: a kernel keeps it
    assert smooth_ece([[1.0, 0.0]] * 4, [1, 1, 1, 1]) == pytest.approx(1, abs=1e-9)


def test_smooth_moves_little_where_confidences_do() -> None:
    """The errors of bins do not: half of the samples below an edge and half above it are one bin or two."""
    hit = np.arange(200) % 2
    below, above = binary(np.where(hit, 0.6 - 1e-9, 0.6 + 1e-9), hit), binary(np.full(200, 0.6), hit)
    assert abs(smooth_ece(*below) - smooth_ece(*above)) < 1e-6
    assert abs(ece(*below, bins=5) - ece(*above, bins=5)) > 0.3


def test_calibrated_confidences_have_small_errors() -> None:
    p, y = predictions(20_000, 4, seed=2, sure=1.0)
    # |mean - p| of a bin of m samples is about sqrt(2 p (1 - p) / (pi m)): with 15 bins 0.01 at most.
    assert max(ece(p, y), adaptive_ece(p, y), smooth_ece(p, y), classwise_ece(p, y)) < 0.02
    p, y = predictions(20_000, 4, seed=2, sure=3.0)
    assert min(ece(p, y), adaptive_ece(p, y), smooth_ece(p, y)) > 0.15
    assert classwise_ece(p, y) > 0.07


def test_bad_settings_are_refused() -> None:
    for bins in (0, -1, 2.5, True):
        with pytest.raises(DropkitValueError, match=f"bins must be a whole number of at least 1, got {bins}"):
            ece([[0.5, 0.5]], [0], bins)  # type: ignore[arg-type]
    with pytest.raises(DropkitValueError, match="unknown norm 'L1'; did you mean 'l1'"):
        ece([[0.5, 0.5]], [0], norm="L1")
    with pytest.raises(DropkitValueError, match="unknown kind of bins 'masses'; did you mean 'mass'"):
        reliability([[0.5, 0.5]], [0], kind="masses")
