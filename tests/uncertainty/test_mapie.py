"""The estimator for MAPIE: of scikit-learn's kind; and MAPIE with it, where that is installed."""

from typing import Any

import numpy as np
import pytest
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.utils.validation import check_is_fitted

from dropkit.errors import DropkitRuntimeError, DropkitTypeError, DropkitValueError
from dropkit.uncertainty import as_mapie, conformal, interval_coverage, set_coverage

from .drawn import Result, predictions


def regression(n: int = 600) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    x = random.normal(size=(n, 2))
    return x, x[:, 0] + np.exp(x[:, 1] / 2) * random.normal(size=n)


def predicted(x: np.ndarray) -> Result:
    mean, variance = x[:, 0], np.exp(x[:, 1])
    ends = {0.05: mean - 1.645 * np.sqrt(variance), 0.5: mean, 0.95: mean + 1.645 * np.sqrt(variance)}
    return Result(mean, variance, quantiles=np.stack(list(ends.values())), levels=tuple(ends))


def test_a_classifier_of_scikit_learns_kind() -> None:
    p, _ = predictions(20, 3)
    model = as_mapie(lambda x: Result(p[x[:, 0]]), classes=["a", "b", "c"])
    x = np.arange(20)[:, None]
    check_is_fitted(model)
    assert is_classifier(model) and not is_regressor(model)
    assert model.classes_.tolist() == ["a", "b", "c"]
    assert model.predict_proba(x) == pytest.approx(p, abs=1e-15)
    assert model.predict(x).tolist() == [["a", "b", "c"][c] for c in p.argmax(1)]
    assert clone(model).predict(x).tolist() == model.predict(x).tolist()
    assert as_mapie(lambda x: p, classes=3).classes_.tolist() == [0, 1, 2]
    with pytest.raises(DropkitRuntimeError, match="a prediction that is given; pass prefit=True"):
        model.fit(x, x)


def test_a_regressor_of_scikit_learns_kind() -> None:
    x, _ = regression(20)
    outputs: dict[Any, np.ndarray] = {"mean": x[:, 0], "deviation": np.exp(x[:, 1] / 2), 0.5: x[:, 0]}
    for output, expected in outputs.items():
        model = as_mapie(predicted, output=output)
        check_is_fitted(model)
        assert is_regressor(model)
        assert model.predict(x) == pytest.approx(expected, abs=1e-15)
    assert as_mapie(lambda x: x[:, :1]).predict(x).shape == (20,)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: as_mapie(lambda x: x, classes=1), "classes must be two different ones or more, got 1"),
        (lambda: as_mapie(lambda x: x, classes=["a", "a"]), r"two different ones or more, got \['a', 'a'\]"),
        (lambda: as_mapie(lambda x: x, output="std"), "unknown output 'std'"),
        (lambda: as_mapie(lambda x: x, output=95), r'must be "mean", "deviation" or a level in .*, got 95'),
        (
            lambda: as_mapie(lambda x: np.full((1, 3), 1 / 3), classes=2).predict([[0]]),
            r"shape \(1, 3\), not .*2 classes",
        ),
    ],
)
def test_bad_values_are_refused(call: Any, says: str) -> None:
    with pytest.raises(DropkitValueError, match=says):
        call()


def test_bad_types_are_refused() -> None:
    with pytest.raises(DropkitTypeError, match=r"needs a function of the inputs.*got list"):
        as_mapie([0.5])  # type: ignore[arg-type]
    with pytest.raises(DropkitTypeError, match="output='deviation' needs a result, got ndarray"):
        as_mapie(lambda x: x, output="deviation").predict(np.zeros(2))


def test_without_scikit_learn_it_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dropkit.uncertainty.conforming.mapie.find_spec", lambda name: None)
    with pytest.raises(
        DropkitValueError, match=r'needs scikit-learn, which is not installed: pip install "dropkit\[lab'
    ):
        as_mapie(lambda x: x)


def test_mapie_makes_the_same_sets_of_it() -> None:
    classification = pytest.importorskip("mapie.classification")
    p, y = predictions(600, 4)
    x = np.arange(600)[:, None]
    theirs = classification.SplitConformalClassifier(
        as_mapie(lambda x: p[x[:, 0]], classes=4), confidence_level=0.9, conformity_score="lac", prefit=True
    )
    theirs.conformalize(x[:300], y[:300])
    labels, sets = theirs.predict_set(x[300:])
    ours = conformal(p[:300], y[:300], 0.1, "lac").predict(p[300:])
    assert (labels == p[300:].argmax(1)).all()
    assert (sets[..., 0] == ours).all()
    assert 0.85 < set_coverage(ours, y[300:]) < 0.95


def test_mapie_makes_the_same_intervals_of_it() -> None:
    regressors = pytest.importorskip("mapie.regression")
    x, y = regression()
    theirs = regressors.SplitConformalRegressor(as_mapie(predicted), confidence_level=0.9, prefit=True)
    _, ends = theirs.conformalize(x[:300], y[:300]).predict_interval(x[300:])
    low, high = conformal(predicted(x[:300]), y[:300], 0.1, "split").predict(predicted(x[300:]))
    assert ends[:, 0, 0] == pytest.approx(low, abs=1e-12) and ends[:, 1, 0] == pytest.approx(high, abs=1e-12)


def test_mapie_conformalises_deviations_and_quantiles_of_it() -> None:
    regressors, scores = pytest.importorskip("mapie.regression"), pytest.importorskip("mapie.conformity_scores")
    x, y = regression()
    normalised = regressors.SplitConformalRegressor(
        as_mapie(predicted),
        confidence_level=0.9,
        conformity_score=scores.ResidualNormalisedScore(as_mapie(predicted, output="deviation"), prefit=True),
        prefit=True,
    )
    quantile = regressors.ConformalizedQuantileRegressor(
        [as_mapie(predicted, output=level) for level in (0.05, 0.95, 0.5)], confidence_level=0.9, prefit=True
    )
    for method, theirs in (("normalised", normalised), ("cqr", quantile)):
        _, ends = theirs.conformalize(x[:300], y[:300]).predict_interval(x[300:])
        low, high = conformal(predicted(x[:300]), y[:300], 0.1, method).predict(predicted(x[300:]))  # type: ignore[call-overload]
        assert 0.85 < interval_coverage(ends[:, 0, 0], ends[:, 1, 0], y[300:]) < 0.95
        assert ends[:, 0, 0] == pytest.approx(low, abs=0.2) and ends[:, 1, 0] == pytest.approx(high, abs=0.2)
