"""Estimators of scikit-learn's kind, compared over the folds of a cross-validation: anything with fit, and a score."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DropkitTypeError, DropkitValueError
from ...language import ENGLISH, Catalogue, say, template
from ...visible import a_type, one_line
from ..data.sets import Data, load_data
from ..data.sources.dividing import divide, target_of
from ..data.sources.door import is_known, read
from ..data.sources.raw import Part, Raw
from ..data.sources.targets import Kind, Target
from ..experiment import Comparison
from ..settling import Settling
from .chosen import Chosen, chosen
from .loop import FOLD, Loop, OnRun, Told, compared, figure

FOLDS = 5
Index = NDArray[np.int64]


@dataclass(slots=True)
class Folds:
    """What each estimator is trained and scored on: the data of a fold, the last one kept."""

    raw: Raw
    target: Target
    places: Sequence[tuple[Index, Index]]
    last: tuple[int, Data] | None = field(default=None, repr=False)

    def data(self, number: int) -> Data:
        """Of a fold, encoded by its training samples alone."""
        if self.last is None or self.last[0] != number:
            self.last = number, Data(**divide(self.raw, self.target, *self.places[number]))
        return self.last[1]

    @property
    def overlap(self) -> float:
        """Test samples by training samples, on average."""
        return float(np.mean([len(test) / len(train) for train, test in self.places]))


@dataclass(frozen=True, slots=True)
class Scoring:
    """Trains a copy of an estimator on a fold's training samples and scores it on the others."""

    estimators: Mapping[str, Any]
    folds: Folds
    scorer: Any
    metric: str

    def __call__(self, strategy: Chosen, fold: int) -> dict[str, float]:
        """The figure of an estimator on a fold."""
        data, model = self.folds.data(fold), _fresh(self.estimators[strategy])
        column = getattr(self.folds.raw.train.y, "ndim", 1) == 2 and data.train_y.ndim == 1
        train, test = ((y[:, None] if column else y) for y in (data.train_y, data.test_y))
        model.fit(data.train_x, train)
        found = model.score(data.test_x, test) if self.scorer is None else self.scorer(model, data.test_x, test)
        return {self.metric: found}


def compare_estimators(
    estimators: Mapping[str, Any],
    *,
    data: Any,
    cv: Any = FOLDS,
    scoring: Any = None,
    target: str | None = None,
    kind: str | None = None,
    margin: float | None = None,
    out: str | Path,
    lower_is_better: bool | None = None,
    resume: bool = False,
    lang: str | Catalogue = ENGLISH,
    on_run: OnRun | None = None,
) -> Comparison:
    """Compare estimators over folds; see `dropkit.lab.compare` for the meanings.

    >>> import tempfile
    >>> from sklearn.linear_model import LogisticRegression
    >>> models = {"none": LogisticRegression(), "C=0.01": LogisticRegression(C=0.01)}
    >>> found = compare_estimators(models, data="sklearn:wine", cv=3, out=tempfile.mkdtemp())
    >>> [line.strategy for line in found.lines], found.lines[0].figures.title
    (['none', 'C=0.01'], 'accuracy')
    """
    names = _names(estimators)
    scorer, metric = _scorer(estimators, scoring)
    raw = _raw(data, target)
    understood = target_of(raw, None if kind is None else Kind.parse(kind))
    folds = Folds(raw, understood, _places(raw, understood, cv))
    settings = {"folds": len(folds.places), "metric": metric, "fingerprint": folds.data(0).fingerprint}
    sources = {str(name): one_line(repr(estimators[name])) for name in names}
    run = Scoring(estimators, folds, scorer, metric)
    words = template(
        "The {n} folds are of one cross-validation of {data}. They share training samples, so their "
        "intervals are widened (Nadeau and Bengio 2003), and tell of models trained on these data, not on other data "
        "sets."
    )
    remarks = (say(words, n=len(folds.places), data=raw.name), *understood.notes)
    loop = Loop(run, "cross-validation", raw.name, FOLD, settings, folds.overlap, remarks, sources)
    settling = Settling.make(figure(metric), len(folds.places), margin, False, None)
    told = Told(settling, metric, False if lower_is_better is None else lower_is_better, lang, on_run)
    return compared(loop, names, Path(out), resume=resume, told=told)


def _names(estimators: Any) -> list[Chosen]:
    if not isinstance(estimators, Mapping):
        raise DropkitTypeError(
            f"estimators must be a dict such as {{'none': model, 'p=0.2': other}}, got {a_type(estimators)}"
        )
    names = chosen(list(estimators), "estimators")
    for name in names:
        if not callable(getattr(_fresh(estimators[name]), "fit", None)):
            raise DropkitTypeError(
                f"estimator {str(name)!r} is {a_type(estimators[name])} without fit; give estimators of "
                "scikit-learn's kind, or functions that make them"
            )
    return names


def _fresh(estimator: Any) -> Any:
    """An untrained copy; of a function what it makes."""
    from sklearn.base import clone

    if not hasattr(estimator, "fit") and callable(estimator):
        return estimator()
    return clone(estimator) if hasattr(estimator, "get_params") else copy.deepcopy(estimator)


def _scorer(estimators: Mapping[str, Any], scoring: Any) -> tuple[Any, str]:
    """What scores, None for the estimators' own; and what the figure is called."""
    from sklearn.base import is_classifier, is_regressor
    from sklearn.metrics import get_scorer

    if isinstance(scoring, str):
        try:
            return get_scorer(scoring), scoring
        except ValueError:
            raise DropkitValueError(
                f"scoring {scoring!r} is none of scikit-learn's; see sklearn.metrics.get_scorer_names(), or give a "
                "function (estimator, X, y)"
            ) from None
    if scoring is not None:
        if not callable(scoring):
            raise DropkitTypeError(f"scoring must be a name or a function (estimator, X, y), got {scoring!r}")
        return scoring, getattr(scoring, "__name__", "score")
    every = {name: _fresh(estimator) for name, estimator in estimators.items()}
    for name, estimator in every.items():
        if not callable(getattr(estimator, "score", None)):
            raise DropkitTypeError(f"estimator {name!r} has no score; say how it is scored with scoring='accuracy'")
    if all(map(is_classifier, every.values())):
        return None, "accuracy"
    return None, "r2" if all(map(is_regressor, every.values())) else "score"


def _raw(data: Any, target: str | None) -> Raw:
    """All there is; of what has a test part, the training part."""
    if isinstance(data, str | Path) and is_known(str(data)):
        data = load_data(data)
    if isinstance(data, Data):
        return Raw(data.name, Part(data.train_x, data.train_y), labels=data.labels)
    raw = read(data, target)
    if raw.train.y is None:
        raise DropkitValueError(f"{raw.name} has no target to be predicted; give (X, y)")
    return replace(raw, test=None)


def _places(raw: Raw, target: Target, cv: Any) -> list[tuple[Index, Index]]:
    """The training and test samples of each fold."""
    from sklearn.model_selection import KFold, StratifiedKFold

    strata, count = target.strata, len(raw.train.x)
    if isinstance(cv, int) and not isinstance(cv, bool):
        most = count if strata is None else int(np.unique(strata, return_counts=True)[1].min())
        if not 2 <= cv <= most:
            what = "samples" if strata is None else "samples of the rarest class"
            raise DropkitValueError(f"cv must lie between 2 and {most}, the number of {what}, got {cv}")
        cv = (KFold if strata is None else StratifiedKFold)(cv, shuffle=True, random_state=0)
    if isinstance(cv, str) or not callable(getattr(cv, "split", None)):
        raise DropkitTypeError(f"cv must be a number of folds or a splitter of scikit-learn's, got {cv!r}")
    try:
        found = [(np.asarray(train), np.asarray(test)) for train, test in cv.split(np.zeros((count, 1)), target.y)]
    except Exception as error:
        raise DropkitValueError(f"cv {one_line(cv)} does not split {raw.name}: {one_line(error)}") from error
    if len(found) < 2 or not all(math.isfinite(len(test) / max(1, len(train))) and len(test) for train, test in found):
        raise DropkitValueError(f"cv {one_line(cv)} makes {len(found)} folds; give two or more, none of them empty")
    return found
