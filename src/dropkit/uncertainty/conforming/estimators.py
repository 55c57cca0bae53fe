"""Estimators of scikit-learn's kind around a prediction; they load scikit-learn."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

from ...errors import DropkitRuntimeError, DropkitTypeError, DropkitValueError
from ..arrays import is_result, numbers, probabilities, quantiles_of


class Fitted(BaseEstimator):
    """What both kinds have: a prediction that was made elsewhere."""

    fitted_ = True  # by which MAPIE knows it

    def fit(self, X: Any, y: Any = None) -> Any:
        """Raises: the prediction is given."""
        raise DropkitRuntimeError("this estimator is a prediction that is given; pass prefit=True")

    def __sklearn_is_fitted__(self) -> bool:
        return True


class Classifying(ClassifierMixin, Fitted):
    """Mean probabilities as a classifier.

    >>> Classifying(lambda x: x, ["a", "b"]).predict(np.array([[0.2, 0.8]])).tolist()
    ['b']
    """

    def __init__(self, predicted: Callable[[Any], Any], classes: Sequence[Any]):
        self.predicted, self.classes = predicted, classes

    @property
    def classes_(self) -> NDArray:
        """The labels, in the order of columns."""
        return np.asarray(self.classes)

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probabilities, (n, classes), which sum to one in float64."""
        p = probabilities(self.predicted(X)).astype(np.float64)
        if p.ndim != 2 or p.shape[1] != len(self.classes):
            raise DropkitValueError(f"the prediction has shape {p.shape}, not (samples, {len(self.classes)} classes)")
        return p / p.sum(1, keepdims=True)

    def predict(self, X: Any) -> NDArray:
        """The label of the most probable class, (n,)."""
        return self.classes_[self.predict_proba(X).argmax(1)]


class Regressing(RegressorMixin, Fitted):
    """A mean, a deviation or a quantile as a regressor.

    >>> Regressing(lambda x: x[:, 0], "mean").predict(np.array([[0.5]]))
    array([0.5])
    """

    def __init__(self, predicted: Callable[[Any], Any], output: Any):
        self.predicted, self.output = predicted, output

    def predict(self, X: Any) -> NDArray[np.float64]:
        """One number for each sample, (n,)."""
        found = numbers("the prediction", self._read(self.predicted(X)))
        return found[:, 0] if found.ndim == 2 and found.shape[1] == 1 else found

    def _read(self, result: Any) -> Any:
        if not is_result(result):
            if self.output != "mean":
                raise DropkitTypeError(f"output={self.output!r} needs a result, got {type(result).__name__}")
            return result
        if self.output == "mean":
            return result.mean
        if self.output == "deviation":
            return np.sqrt(numbers("variance", result.variance))
        return quantiles_of(result, (self.output,))[0]
