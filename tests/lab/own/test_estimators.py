"""Estimators over folds: copies trained on a fold's training samples alone, intervals that know of the overlap."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from scipy import stats
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import RepeatedKFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dropkit.errors import DataError, DropkitError, DropkitTypeError, DropkitValueError, UnknownNameError
from dropkit.lab import compare, load_data
from dropkit.language import told

RNG = np.random.default_rng(3)
X = RNG.normal(size=(90, 4)).astype(np.float32)
Y = (X[:, 0] + RNG.normal(size=90) > 0).astype(int)
MODELS = {"none": LogisticRegression(), "C=0.01": LogisticRegression(C=0.01)}


def test_scores_are_those_of_scikit_learn(tmp_path: Path) -> None:
    found = compare(estimators=MODELS, data=(X, Y), cv=4, out=tmp_path)
    folds = StratifiedKFold(4, shuffle=True, random_state=0)
    for line in found.lines:
        expected = cross_val_score(MODELS[line.strategy], X, Y, cv=folds)
        assert line.values["accuracy"] == pytest.approx(expected)
    assert not hasattr(MODELS["none"], "coef_")


def test_the_interval_is_corrected_for_shared_training_samples(tmp_path: Path) -> None:
    line = compare(estimators=MODELS, data=(X, Y), cv=5, out=tmp_path).lines[1]
    assert line.differences is not None and line.difference is not None
    sd = np.std(line.differences, ddof=1)
    assert line.difference.half == pytest.approx(stats.t.ppf(0.975, 4) * sd * np.sqrt(1 / 5 + 18 / 72))


def test_the_result_says_what_the_folds_share(tmp_path: Path) -> None:
    found = compare(estimators=MODELS, data=(X, Y), cv=3, out=tmp_path)
    assert any("share training samples" in words and "Nadeau and Bengio" in words for words in found.verdict)
    assert (tmp_path / "none" / "fold2" / "figures.json").exists()


@pytest.mark.parametrize("cv", [3, 6])
@pytest.mark.parametrize("margin", [None, 0.4])
def test_folds_are_called_folds_wherever_a_reader_looks(tmp_path: Path, cv: int, margin: float | None) -> None:
    same = {**MODELS, "again": LogisticRegression()}
    found = compare(estimators=same, data=(X, Y), cv=cv, margin=margin, out=tmp_path)
    page = re.sub(r"(?s)<(script|style).*?</\1>|<[^>]+>", " ", (tmp_path / "report.html").read_text())
    for text in ("\n".join(found.verdict), (tmp_path / "table.md").read_text(), page):
        assert f"{cv} folds" in text
        assert not re.search("(?i)seed|--until-settled|--resume", text), text


def test_the_chinese_of_folds_speaks_of_folds(tmp_path: Path) -> None:
    found = compare(estimators=MODELS, data=(X, Y), cv=6, lang="zh", out=tmp_path)
    for text in ("".join(told(list(found.verdict), "zh")), (tmp_path / "table.md").read_text()):
        assert "6 折" in text and "种子" not in text


def test_each_fold_is_encoded_by_its_training_samples(tmp_path: Path) -> None:
    table = pandas.DataFrame(X * [1, 10, 100, 1000], columns=list("abcd")).assign(y=Y)
    path = tmp_path / "a.csv"
    table.to_csv(path, index=False)
    found = compare(estimators={"none": LogisticRegression()}, data=path, target="y", cv=4, out=tmp_path / "out")
    folds = StratifiedKFold(4, shuffle=True, random_state=0)
    model = make_pipeline(StandardScaler(), LogisticRegression())
    expected = cross_val_score(model, table[list("abcd")].to_numpy(), Y, cv=folds)
    assert found.lines[0].values["accuracy"] == pytest.approx(expected)


def test_regression_scorers_splitters_and_named_data(tmp_path: Path) -> None:
    models = {"none": Ridge(1e-3), "strong": lambda: Ridge(100.0)}
    cv = RepeatedKFold(n_splits=3, n_repeats=2, random_state=1)
    found = compare(estimators=models, data="sklearn:diabetes", cv=cv, out=tmp_path / "1")
    assert found.lines[0].figures.compared == "r2" and found.lines[0].seeds == 6
    found = compare(
        estimators=models, data="sklearn:diabetes", scoring="neg_mean_absolute_error", cv=2, out=tmp_path / "2"
    )
    kind = found.lines[0].figures
    assert (kind.compared, kind.lower_is_better) == ("neg_mean_absolute_error", False)
    assert found.lines[0].compared.mean < 0
    digits = load_data("digits")
    assert digits.classes == 10


def test_going_on_trains_only_what_is_new(tmp_path: Path) -> None:
    fits: list[int] = []

    class Counting(ClassifierMixin, BaseEstimator):
        def fit(self, x: Any, y: Any) -> "Counting":
            fits.append(len(x))
            self.classes_ = np.unique(y)
            return self

        def predict(self, x: Any) -> Any:
            return np.zeros(len(x), int)

    compare(estimators={"none": Counting()}, data=(X, Y), cv=3, out=tmp_path)
    assert len(fits) == 3
    compare(estimators={"none": Counting(), "more": Counting()}, data=(X, Y), cv=3, out=tmp_path, resume=True)
    assert len(fits) == 6
    with pytest.raises(DropkitError, match="folds 3, this one has 4"):
        compare(estimators={"none": Counting()}, data=(X, Y), cv=4, out=tmp_path, resume=True)
    with pytest.raises(DropkitError, match="fingerprint"):
        compare(estimators={"none": Counting()}, data=(X + 1, Y), cv=3, out=tmp_path, resume=True)


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ({"estimators": [LogisticRegression()]}, DropkitTypeError, "must be a dict"),
        ({"estimators": {}}, DropkitValueError, "no estimators given"),
        ({"estimators": {"none": object()}}, DropkitTypeError, "'none' is an object without fit"),
        ({"estimators": {"none": StandardScaler()}}, DropkitTypeError, "'none' has no score; say how"),
        ({"cv": 1}, DropkitValueError, "cv must lie between 2 and"),
        ({"cv": 10**6}, DropkitValueError, "cv must lie between 2 and"),
        ({"cv": "five"}, DropkitTypeError, "a number of folds or a splitter"),
        ({"scoring": "acuracy"}, DropkitValueError, "none of scikit-learn's"),
        ({"scoring": 3}, DropkitTypeError, "a name or a function"),
        ({"seeds": 3}, DropkitValueError, "takes no seeds"),
        ({"data": X}, DropkitValueError, "no target"),
        ({"kind": "next-token"}, DataError, "has none but the tokens"),
        ({"kind": "binry"}, UnknownNameError, "did you mean 'binary'"),
    ],
)
def test_wrong_arguments(tmp_path: Path, words: dict, error: type[DropkitError], message: str) -> None:
    with pytest.raises(error, match=message):
        compare(**{"estimators": MODELS, "data": (X, Y), "out": tmp_path / "a", **words})
    assert not (tmp_path / "a").exists()


def test_the_example_runs_and_goes_on(tmp_path: Path) -> None:
    path = Path(__file__).parents[3] / "examples" / "own_sklearn.py"
    spec = importlib.util.spec_from_file_location("own_sklearn", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    first = module.main(tmp_path)
    assert [line.strategy for line in first.lines] == ["none", "p=0.3"]
    assert first.lines[0].compared.mean > 0.5
    assert module.main(tmp_path).lines[1].values == first.lines[1].values
