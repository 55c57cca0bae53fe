"""Conformal sets and intervals: scores by loops, quantiles in exact arithmetic, coverage by simulation."""

import math
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import dropkit
from dropkit.errors import DropkitError, DropkitTypeError, DropkitValueError
from dropkit.uncertainty import ConformalSets, conformal, set_coverage, set_size
from dropkit.uncertainty.conforming.quantile import finite_quantile

from .drawn import Result, predictions


def split(n: int, seed: int, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means, variances and truths of a regression whose noise grows with the variance."""
    random = np.random.default_rng(seed)
    mean, variance = random.normal(size=n), np.exp(random.normal(size=n))
    return mean, variance, mean + spread * np.sqrt(variance) * random.standard_t(4, size=n)


class NotAskedError(DropkitError, AttributeError):
    pass


class Unasked:
    """A result that was not asked for quantiles, and says so."""

    mean = (0.0,)

    @property
    def quantiles(self) -> Any:
        raise NotAskedError("say quantiles=(0.05, 0.95)")


# -- the quantile


@pytest.mark.parametrize("fraction", ["1/100", "1/20", "1/10", "2/10", "3/10", "7/10", "9/10", "1/3", "123456/1000000"])
def test_the_quantile_is_the_kth_smallest_in_exact_arithmetic(fraction: str) -> None:
    alpha = float(Fraction(fraction))
    for n in range(1, 130):
        k = math.ceil((n + 1) * (1 - Fraction(fraction)))
        scores = np.random.default_rng(n).permutation(n).astype(float)
        if k <= n:
            assert finite_quantile(scores, alpha) == k - 1
        else:
            assert n < 1 / Fraction(fraction) - 1
            with pytest.warns(UserWarning, match=f"{n} calibration samples are too few for alpha = {alpha}"):
                assert finite_quantile(scores, alpha) == math.inf


def test_the_smallest_alpha_is_one() -> None:
    with pytest.warns(UserWarning, match="too few for alpha = 1e-300"):
        assert finite_quantile(np.zeros(5), 1e-300) == math.inf


def test_too_few_samples_give_sets_of_everything_with_a_word() -> None:
    with pytest.warns(
        UserWarning, match=r"9 calibration samples .* alpha = 0.05: every set holds all classes.*give 19"
    ):
        sets = conformal([[0.9, 0.1]] * 9, [0] * 9, 0.05)
    assert sets.quantile == math.inf
    assert sets.predict([[1.0, 0.0]]).tolist() == [[True, True]]
    for method, predicted in (("split", [0.0]), ("normalised", ([0.0], [1.0])), ("cqr", ([0.0], [1.0]))):
        with pytest.warns(UserWarning, match="1 calibration samples are too few"):
            low, high = conformal(predicted, [0.0], 0.05, method).predict(predicted)  # type: ignore[call-overload]
        assert (low[0], high[0]) == (-math.inf, math.inf)


# -- scores


def slow_scores(p: np.ndarray, u: np.ndarray, method: str, penalty: float, rank: int) -> np.ndarray:
    found = np.empty_like(p)
    for i, row in enumerate(p):
        for c in range(len(row)):
            above = [d for d in range(len(row)) if row[d] > row[c] or (row[d] == row[c] and d < c)]
            if method == "lac":
                found[i, c] = 1 - row[c]
                continue
            found[i, c] = sum(row[d] for d in above) + u[i] * row[c]
            if method == "raps":
                found[i, c] += penalty * max(0, len(above) + 1 - rank)
    return found


@pytest.mark.parametrize("method", ["lac", "aps", "raps"])
@pytest.mark.parametrize("randomised", [True, False])
def test_sets_hold_the_classes_whose_score_is_at_most_the_quantile(method: Any, randomised: bool) -> None:
    p, y = predictions(120, 6, seed=1)
    p = p.round(2) / p.round(2).sum(1, keepdims=True)  # with ties
    rows = np.arange(1000, 1060)
    options: dict[str, Any] = {"penalty": 0.05, "rank": 2} if method == "raps" else {}
    sets = conformal(p[:60], y[:60], 0.2, method, seed=7, rows=rows, randomised=randomised, **options)
    draws = [
        dropkit.uniform((60,), dropkit.Key(7, f"conformal/{site}"), rows=rows).astype(float)
        if randomised
        else np.ones(60)
        for site in ("calibration", "prediction")
    ]
    scores = [slow_scores(part, u, method, 0.05, 2) for part, u in zip((p[:60], p[60:]), draws, strict=True)]
    of_labels = sorted(scores[0][np.arange(60), y[:60]])
    assert sets.quantile == pytest.approx(of_labels[math.ceil(61 * 0.8) - 1], abs=1e-12)
    clear = abs(scores[1] - sets.quantile) > 1e-12
    assert (sets.predict(p[60:], rows) == (scores[1] <= sets.quantile))[clear].all()
    assert (sets.n, sets.classes, sets.method, sets.alpha) == (60, 6, method, 0.2)


def test_a_set_depends_on_its_row_and_not_on_its_batch() -> None:
    p, y = predictions(200, 5, seed=2)
    sets = conformal(p[:100], y[:100], 0.1, "aps")
    whole = sets.predict(p[100:], rows=np.arange(100, 200))
    order = np.random.default_rng(0).permutation(100)
    assert (sets.predict(p[100:][order], rows=100 + order) == whole[order]).all()
    assert (sets.predict(p[100:]) == sets.predict(p[100:])).all()
    other = conformal(p[:100], y[:100], 0.1, "aps", seed=1)
    assert other.quantile != sets.quantile
    assert (other.predict(p[100:]) != sets.predict(p[100:])).any()


def test_sets_without_empty_ones_hold_the_most_probable_class_in_their_place() -> None:
    p, y = predictions(400, 3, seed=3, sure=1.0)
    sets = conformal(p, y, 0.8)
    held, filled = sets.predict(p), sets.predict(p, allow_empty=False)
    empty = ~held.any(1)
    assert 50 < empty.sum() < 400
    assert (filled[~empty] == held[~empty]).all()
    assert (filled[empty].sum(1) == 1).all() and filled[empty, p.argmax(1)[empty]].all()


def test_results_and_tensors_say_the_same_as_arrays() -> None:
    p, y = predictions(50, 4)
    for given in (Result(p), Result(torch.tensor(p)), torch.tensor(p, requires_grad=True)):
        found = conformal(given, torch.tensor(y), 0.1, "raps")
        assert isinstance(found, ConformalSets)
        assert found == conformal(p, y, 0.1, "raps")
        assert (found.predict(given) == found.predict(p)).all()


def test_a_larger_penalty_makes_sets_more_alike_in_size() -> None:
    p, y = predictions(2000, 10, seed=4, sure=0.7)
    sizes = []
    for penalty in (0.0, 0.03, 2.0):
        held = conformal(p[:1000], y[:1000], 0.1, "raps", penalty=penalty, rank=3).predict(p[1000:])
        assert set_coverage(held, y[1000:]) == pytest.approx(0.9, abs=0.04)
        sizes.append(held.sum(1).std())
    assert sizes[0] > sizes[1] > sizes[2]
    aps = conformal(p[:1000], y[:1000], 0.1, "aps")
    assert aps.quantile == conformal(p[:1000], y[:1000], 0.1, "raps", penalty=0.0).quantile


# -- intervals


def test_split_by_hand() -> None:
    found = conformal([1.0, 2.0, 3.0, 4.0], [1.5, 2.0, 2.0, 8.0], 0.4, "split")  # errors 0.5, 0, 1, 4; the third
    assert found.quantile == 1.0
    low, high = found.predict(Result([10.0]))
    assert (low.tolist(), high.tolist()) == ([9.0], [11.0])


def test_normalised_by_hand() -> None:
    mean, variance = [0.0, 0.0, 0.0, 0.0], [1.0, 4.0, 9.0, 16.0]
    found = conformal((mean, variance), [1.0, 1.0, 6.0, -12.0], 0.4, "normalised")  # 1, 0.5, 2, 3
    assert found.quantile == 2.0
    assert [end.tolist() for end in found.predict(([1.0], [25.0]))] == [[-9.0], [11.0]]
    of_result = conformal(Result(mean, variance), [1.0, 1.0, 6.0, -12.0], 0.4, "normalised", beta=1.0)
    assert of_result.quantile == 1.5  # 0.5, 1/3, 1.5, 2.4
    assert [end.tolist() for end in of_result.predict(Result([1.0], [0.0]))] == [[-0.5], [2.5]]


def test_cqr_by_hand() -> None:
    low, high = [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]
    found = conformal((low, high), [0.5, 1.25, -2.0, 0.25], 0.4, "cqr")  # -0.5, 0.25, 2, -0.25
    assert found.quantile == 0.25
    assert [end.tolist() for end in found.predict(([0.0], [4.0]))] == [[-0.25], [4.25]]
    narrow = conformal((low, high), [0.5, 0.5, 0.5, 0.75], 0.4, "cqr")
    assert narrow.quantile == -0.5
    # Quantiles that are narrower than what is taken off leave a point and not an interval inside out.
    assert [end.tolist() for end in narrow.predict(([0.0, 0.0], [4.0, 0.5]))] == [[0.5, 0.25], [3.5, 0.25]]


def test_cqr_finds_its_quantiles_in_a_result_however_it_holds_them() -> None:
    mean, _, y = split(40, 0)
    both = {0.05: mean - 1, 0.5: mean, 0.95: mean + 1}
    expected = conformal((mean - 1, mean + 1), y, 0.1, "cqr").quantile
    given: list[Any] = [
        Result(mean, quantiles=both),
        Result(mean, quantiles=lambda levels: [both[round(level, 9)] for level in levels]),
        Result(mean, quantiles=torch.tensor(np.stack(list(both.values()))), levels=tuple(both)),
        SimpleNamespace(mean=mean, quantiles=np.stack([mean - 1, mean + 1])),  # those that are wanted
    ]
    for result in given:
        assert conformal(result, y, 0.1, "cqr").quantile == expected
    with pytest.raises(DropkitValueError, match=r"quantiles at \(0.1, 0.9\) are needed, this Result has 3"):
        conformal(given[0], y, 0.2, "cqr")
    with pytest.raises(DropkitValueError, match=r"this Result has no quantiles; predict with those at \(0.05, 0.95\)"):
        conformal(Result(mean), y, 0.1, "cqr")
    with pytest.raises(DropkitError, match="say quantiles="):  # its own words, where it has some
        conformal(Unasked(), y, 0.1, "cqr")


def test_several_outputs_have_each_their_own_quantile() -> None:
    mean, variance, y = (part.reshape(60, 3) for part in split(180, 1))
    for method, predicted in (("split", mean), ("normalised", (mean, variance)), ("cqr", (mean - 1, mean + 1))):
        found = conformal(predicted, y, 0.1, method)  # type: ignore[call-overload]
        alone = [
            conformal(
                tuple(p[:, d] for p in predicted) if isinstance(predicted, tuple) else predicted[:, d],
                y[:, d],
                0.1,
                method,
            )  # type: ignore[call-overload]
            for d in range(3)
        ]
        assert found.quantile.tolist() == [float(one.quantile) for one in alone]
        assert found.predict(predicted)[0].shape == (60, 3)


# -- coverage: with scores that have no ties, that of one new sample is k / (n + 1) exactly

N, NEW, REPEATS, ALPHA = 19, 40, 400, 0.1
EXACT = math.ceil((N + 1) * (1 - ALPHA)) / (N + 1)


def coverage(method: str, repeat: int, **options: Any) -> float:
    """Of NEW samples, calibrated on N others; the model is much too sure in both."""
    if method in ("lac", "aps", "raps"):
        p, y = predictions(N + NEW, 5, seed=repeat, sure=3.0)
        sets = conformal(p[:N], y[:N], ALPHA, method, seed=repeat, **options)  # type: ignore[call-overload]
        return set_coverage(sets.predict(p[N:]), y[N:])
    mean, variance, y = split(N + NEW, repeat, spread=2.0)
    deviation = np.sqrt(variance)
    predicted: Any = {"split": (mean,), "normalised": (mean, variance), "cqr": (mean - deviation, mean + deviation)}[
        method
    ]
    first, new = ([part[cut] for part in predicted] for cut in (slice(N), slice(N, None)))
    found = conformal(first if len(first) > 1 else first[0], y[:N], ALPHA, method, **options)  # type: ignore[call-overload]
    low, high = found.predict(new if len(new) > 1 else new[0])
    return float(((low <= y[N:]) & (y[N:] <= high)).mean())


def z_of(found: list[float], expected: float) -> float:
    return (np.mean(found) - expected) / (np.std(found, ddof=1) / math.sqrt(len(found)))


@pytest.mark.parametrize("method", ["lac", "aps", "raps", "split", "normalised", "cqr"])
def test_coverage_is_what_it_says_and_not_more(method: str) -> None:
    """Fixed seeds; two-sided at 4.5 standard errors, of 0.004 or so: 7e-6 for each method."""
    found = [coverage(method, repeat) for repeat in range(REPEATS)]
    assert abs(z_of(found, EXACT)) < 4.5


def test_the_simulation_sees_a_quantile_without_its_correction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "dropkit.uncertainty.conforming.sets.finite_quantile", lambda scores, alpha: np.quantile(scores, 1 - alpha)
    )
    assert z_of([coverage("lac", repeat) for repeat in range(REPEATS)], EXACT) < -6


def test_without_randomness_sets_hold_the_truth_more_often_than_they_say() -> None:
    """u = 1 counts the whole of the last class. Scores then tie at 1 where all classes are needed."""
    found = [coverage("aps", repeat, randomised=False) for repeat in range(REPEATS)]
    assert z_of(found, EXACT) > -4.5


def test_normalised_intervals_are_wide_where_variances_are() -> None:
    mean, variance, y = split(4000, 5)
    plain = conformal(mean[:2000], y[:2000], 0.1, "split").predict(mean[2000:])
    scaled = conformal((mean[:2000], variance[:2000]), y[:2000], 0.1, "normalised").predict(
        (mean[2000:], variance[2000:])
    )
    certain = variance[2000:] < 0.3
    inside = [((low <= y[2000:]) & (y[2000:] <= high))[certain].mean() for low, high in (plain, scaled)]
    assert inside[0] > 0.98 and abs(inside[1] - 0.9) < 0.05
    assert (scaled[1] - scaled[0]).mean() < (plain[1] - plain[0]).mean()


def test_sets_of_a_better_model_are_smaller() -> None:
    good, y = predictions(2000, 5, seed=6, sure=1.0)
    flat = (good + 0.6) / (good + 0.6).sum(1, keepdims=True)
    noisy = good[np.random.default_rng(0).permutation(2000)]
    sizes = [set_size(conformal(p[:1000], y[:1000], 0.1).predict(p[1000:])) for p in (good, flat, noisy)]
    assert sizes[0] == pytest.approx(sizes[1], abs=0.2) and sizes[2] > sizes[0] + 0.5


# -- what is refused

P, Y = [[0.9, 0.1]] * 19, [0] * 19
REFUSED = [
    (lambda: conformal(P, Y, 0), "alpha must lie strictly between 0 and 1, got 0; 0.1 is usual"),
    (lambda: conformal(P, Y, 1.0), "alpha must lie strictly between 0 and 1, got 1.0"),
    (lambda: conformal(P, Y, math.nan), "alpha must lie strictly between 0 and 1, got nan"),
    (lambda: conformal(P, Y, True), "alpha must lie strictly between 0 and 1, got True"),
    (lambda: conformal(P, Y, 0.1, "lacc"), "unknown conformal method 'lacc'; did you mean 'lac'"),
    (lambda: conformal(P, [2] * 19, 0.1), "labels hold 2"),
    (lambda: conformal(P, Y[:3], 0.1), r"labels must have one class number.*got \(3,\)"),
    (lambda: conformal([[0.9, 0.9]] * 19, Y, 0.1), "sum to 1.8"),
    (lambda: conformal(np.full((2, 2, 2), 0.5), [[0, 0]] * 2, 0.4), "samples must be exchangeable, which pixels"),
    (lambda: conformal(P, Y, 0.1, "raps", penalty=-1), "penalty must be 0 or more.*got -1"),
    (lambda: conformal(P, Y, 0.1, "raps", rank=1.5), "rank must be a whole number.*got 1.5"),
    (lambda: conformal(P, Y, 0.1, "aps", penalty=0.1), 'penalty=0.1 is an option of method "raps", got "aps"'),
    (lambda: conformal(P, Y, 0.1, "split", beta=1.0), 'beta=1.0 is an option of method "normalised", got "split"'),
    (lambda: conformal(P, Y, 0.1, "aps", rows=[1, 2]), "rows"),
    (lambda: conformal(P, Y, 0.1).predict([[0.5, 0.25, 0.25]]), "calibrated on 2 classes, got 3"),
    (lambda: conformal([0.0] * 19, [[0.0]] * 19, 0.1, "split"), r"y has shape \(19, 1\) and the prediction \(19,\)"),
    (lambda: conformal([0.0] * 19, [math.nan] * 19, 0.1, "split"), "y must be finite numbers, got nan"),
    (lambda: conformal(0.0, 0.0, 0.1, "split"), "must have an axis of samples first"),
    (lambda: conformal(([0.0] * 19, [0.0] * 19), [0.0] * 19, 0.1, "normalised"), "19 of 19 variances are 0.*beta > 0"),
    (lambda: conformal(([0.0] * 19, [-1.0] * 19), [0.0] * 19, 0.1, "normalised"), "variance must be 0 or more, got -1"),
    (lambda: conformal(([0.0] * 19, [1.0] * 19), Y, 0.1, "normalised", beta=-1), "beta must be 0 or more.*got -1"),
    (
        lambda: conformal(([1.0] * 19, [0.0] * 19), Y, 0.1, "cqr"),
        r"low lies above high in 19 of 19; give \(low, high\)",
    ),
    (lambda: conformal([0.0] * 19, Y, 0.1, "split").predict([[0.0, 1.0]]), r"outputs of shape \(\), got \(2,\)"),
]


@pytest.mark.parametrize(("call", "says"), REFUSED)
def test_bad_values_are_refused(call: Any, says: str) -> None:
    with pytest.raises(DropkitValueError, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_pairs_are_asked_for() -> None:
    for method in ("normalised", "cqr"):
        with pytest.raises(DropkitTypeError, match=rf'method "{method}" needs a pair \(.*\), or a result, got ndarray'):
            conformal(np.zeros(19), [0.0] * 19, 0.1, method)  # type: ignore[call-overload]
