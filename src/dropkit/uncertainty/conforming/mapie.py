"""A prediction as the estimator that MAPIE calls, already fitted."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

from ...errors import DropkitTypeError, DropkitValueError, UnknownNameError
from ..arrays import count

OUTPUTS = ("mean", "deviation")


def as_mapie(predict: Callable[[Any], Any], classes: int | Sequence[Any] | None = None, output: Any = "mean") -> Any:
    """An estimator of scikit-learn's kind around a prediction, for MAPIE's classes with `prefit=True`.

    | what MAPIE wants | what to give |
    | --- | --- |
    | `SplitConformalClassifier(estimator, prefit=True)` | `as_mapie(f, classes=10)` |
    | `SplitConformalRegressor(estimator, prefit=True)` | `as_mapie(f)` |
    | its `ResidualNormalisedScore(residual_estimator, prefit=True)` | `as_mapie(f, output="deviation")` |
    | `ConformalizedQuantileRegressor([low, high, middle], prefit=True)` | `as_mapie(f, output=0.05)`, 0.95, 0.5 |

    Args:
        predict: what is predicted of the inputs X: a result, or an array: probabilities (n, classes) with classes, else
            means (n,). `lambda x: predict(model, x, samples=50)`, say.
        classes: how many there are, or their labels in the order of columns; None for regression.
        output: of regression, what it predicts: "mean", "deviation" (the root of the result's `variance`), or a level
            in (0, 1), the result's quantile there.

    Returns:
        An estimator with `predict`, and with classes `predict_proba` and `classes_`. It says that it is fitted; `fit`
        raises.

    Raises:
        DropkitValueError: scikit-learn is not installed, fewer than two classes, labels that repeat, no such output.
        DropkitTypeError: no function.

    Source: MAPIE 1.x, https://mapie.readthedocs.io.

    >>> import numpy as np
    >>> model = as_mapie(lambda x: np.stack([x[:, 0], 1 - x[:, 0]], -1), classes=["cat", "dog"])
    >>> model.predict(np.array([[0.9], [0.2]])).tolist()
    ['cat', 'dog']
    """
    if not callable(predict):
        raise DropkitTypeError(
            "as_mapie needs a function of the inputs, such as lambda x: predict(model, x), got "
            f"{type(predict).__name__}"
        )
    if find_spec("sklearn") is None:
        raise DropkitValueError('as_mapie needs scikit-learn, which is not installed: pip install "dropkit[lab]"')
    from .estimators import Classifying, Regressing

    if classes is None:
        return Regressing(predict, _output(output))
    names = list(range(count("classes", classes))) if isinstance(classes, int) else list(classes)
    if len(names) < 2 or len(set(names)) != len(names):
        raise DropkitValueError(f"classes must be two different ones or more, got {classes!r}")
    return Classifying(predict, names)


def _output(output: Any) -> Any:
    if isinstance(output, str):
        if output not in OUTPUTS:
            raise UnknownNameError("output", output, OUTPUTS)
        return output
    if isinstance(output, bool) or not isinstance(output, int | float) or not 0 < output < 1:
        raise DropkitValueError(f'output must be "mean", "deviation" or a level in (0, 1), got {output!r}')
    return float(output)
