"""Risk and coverage, and what tells inside from outside: by hand, by enumeration, against scikit-learn."""

import itertools
import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from dropkit.errors import DropkitTypeError, DropkitValueError
from dropkit.uncertainty import augrc, aurc, excess_aurc, fpr95, ood_auroc, risk_coverage


def areas_of_order(loss: list[float]) -> tuple[float, float]:
    n = len(loss)
    risks = [sum(loss[:k]) / k for k in range(1, n + 1)]
    return sum(risks) / n, sum(r * k / n for k, r in enumerate(risks, 1)) / n


def test_a_curve_by_hand() -> None:
    found = risk_coverage([0.3, 0.1, 0.2], [1, 0, 1])
    assert found.coverage == pytest.approx([1 / 3, 2 / 3, 1], abs=1e-15)
    assert found.risk == pytest.approx([0, 1 / 2, 2 / 3], abs=1e-15)
    assert found.aurc == pytest.approx(7 / 18, abs=1e-15)
    assert found.augrc == pytest.approx((0 + 1 / 3 + 2 / 3) / 3, abs=1e-15)


def test_ties_are_the_mean_over_all_orders_of_them() -> None:
    uncertainty, loss = [1, 2, 2, 2, 3, 3], [0.5, 1.0, 0.0, 2.0, 0.0, 1.0]
    orders = [
        [0, *first, *second] for first in itertools.permutations([1, 2, 3]) for second in itertools.permutations([4, 5])
    ]
    areas = np.mean([areas_of_order([loss[i] for i in order]) for order in orders], axis=0)
    assert aurc(uncertainty, loss) == pytest.approx(areas[0], abs=1e-15)
    assert augrc(uncertainty, loss) == pytest.approx(areas[1], abs=1e-15)


def test_a_constant_uncertainty_risks_the_mean_loss() -> None:
    assert aurc(np.ones(8), np.arange(8)) == pytest.approx(3.5, abs=1e-14)


def test_no_order_is_better_than_that_of_the_losses() -> None:
    loss = [0.0, 0.5, 0.5, 2.0, 1.0]
    areas = [excess_aurc(order, loss) for order in itertools.permutations(range(5))]
    assert min(areas) == pytest.approx(0, abs=1e-15)
    assert max(areas) == pytest.approx(areas_of_order([2, 1, 0.5, 0.5, 0])[0] - areas_of_order(sorted(loss))[0])
    assert excess_aurc(loss, loss) == 0


def test_all_axes_are_samples_and_infinities_rank_last() -> None:
    random = np.random.default_rng(0)
    u, loss = random.normal(size=12), random.integers(0, 2, 12)
    assert aurc(u.reshape(3, 4), loss.reshape(3, 4)) == aurc(u, loss)
    assert aurc([0.0, math.inf], [0, 1]) == 0.25


@pytest.mark.parametrize("round_to", [1, 8])
def test_auroc_is_that_of_scikit_learn_with_outside_positive(round_to: int) -> None:
    random = np.random.default_rng(round_to)
    inside, outside = random.normal(0, 1, 150).round(round_to), random.normal(0.7, 1, 90).round(round_to)
    both, out = np.concatenate([inside, outside]), np.repeat([0, 1], [150, 90])
    assert ood_auroc(inside, outside) == pytest.approx(roc_auc_score(out, both), abs=1e-12)
    assert ood_auroc(outside, inside) == pytest.approx(1 - ood_auroc(inside, outside), abs=1e-12)
    assert ood_auroc(-outside, -inside) == pytest.approx(ood_auroc(inside, outside), abs=1e-12)


@pytest.mark.parametrize("recall", [0.05, 0.8, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("round_to", [0, 8])
@pytest.mark.parametrize("positive", ["out", "in"])
def test_fpr_is_that_of_the_roc_curve(recall: float, round_to: int, positive: str) -> None:
    random = np.random.default_rng(7)
    inside, outside = random.normal(0, 1, 100).round(round_to), random.normal(1, 1, 60).round(round_to)
    both, label = np.concatenate([inside, outside]), np.repeat([0, 1], [100, 60])
    if positive == "in":
        both, label = -both, 1 - label
    fpr, tpr, _ = roc_curve(label, both, drop_intermediate=False)
    assert fpr95(inside, outside, recall, positive) == fpr[np.argmax(tpr >= recall - 1e-12)]


def test_fpr_by_hand() -> None:
    assert fpr95([0, 0, 0, 0], [1] * 20) == 0
    assert fpr95([0, 0.5, 0, 1], [0.5, *[1] * 19]) == 0.25  # 19 of 20 are 95 %
    assert fpr95([0, 0.5, 0, 1], [0.5, 0.5, *[1] * 18]) == 0.5
    assert fpr95([1, 1], [1, 1]) == 1  # a constant tells nothing
    assert ood_auroc([1, 1], [1, 1]) == 0.5


def test_what_is_refused() -> None:
    for score in (ood_auroc, fpr95):
        with pytest.raises(DropkitValueError, match="outside has no samples; a ROC curve needs both classes"):
            score([0.1], [])
        with pytest.raises(DropkitValueError, match="inside has no samples"):
            score(np.zeros(0), [0.1])
        with pytest.raises(DropkitValueError, match=r"inside must be numbers, got nan at \[1\]"):
            score([0.1, np.nan], [0.1])
    with pytest.raises(DropkitValueError, match="recall must lie strictly between 0 and 1, got 95"):
        fpr95([0.1], [0.2], 95)
    with pytest.raises(DropkitValueError, match="unknown positive class 'ood'; "):
        fpr95([0.1], [0.2], positive="ood")
    with pytest.raises(DropkitValueError, match=r"loss has shape \(3, 1\) and the uncertainty \(3,\)"):
        aurc([1, 2, 3], [[0], [1], [0]])
    with pytest.raises(DropkitValueError, match="uncertainty must hold at least one sample"):
        aurc([], [])
    with pytest.raises(DropkitTypeError, match="uncertainty must be an array of real numbers, got dtype <U1"):
        aurc(["a"], [1])
