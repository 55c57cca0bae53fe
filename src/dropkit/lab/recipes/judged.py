"""Metrics of the user's or of scikit-learn's: what they are called with, which side is better, whether of each sample.

Which side is better is found, not asked: the metric is shown perfect outputs and their opposite.
"""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DropkitTypeError, DropkitValueError
from ...visible import a_type, written
from ..imported import failed, imported

SAMPLES, OUTPUTS = 12, 3


def judged(name: str, kind: str, outputs: NDArray, targets: NDArray) -> float:
    """The figure of a function of `module:name`.

    Args:
        name: of a function (outputs, targets), or one in scikit-learn's manner, of y_true and y_pred or y_score, which
            gets classes or scores.
        kind: of the targets.
        outputs, targets: NumPy arrays.

    Raises:
        DropkitTypeError: it gives no number.
    """
    found = _numbers(name, _called(name, kind, outputs, targets))
    if found.size != 1:
        raise DropkitTypeError(f"metric {name} gave an array of shape {found.shape}: it must be one number")
    return float(found.reshape(()))


def of_each(name: str, kind: str) -> Callable[[Any, Any], NDArray] | None:
    """The function as one of each sample, where it gives one score a sample; None where it gives one number."""
    targets, perfect, _ = _shown(kind)
    if np.shape(_called(name, kind, perfect, targets)) != (SAMPLES,):
        judged(name, kind, perfect, targets)
        return None

    def each(outputs: Any, targets: Any) -> NDArray:
        return np.asarray(_called(name, kind, np.asarray(outputs), np.asarray(targets)), np.float32)

    return each


def lower_is_better(name: str, kind: str) -> bool:
    """Whether perfect outputs get a lower figure than their opposite.

    Raises:
        DropkitValueError: its own attribute says otherwise, or it tells them not apart.

    >>> lower_is_better("sklearn.metrics:mean_squared_error", "regression")
    True
    >>> lower_is_better("sklearn.metrics:balanced_accuracy_score", "classification")
    False
    """
    targets, perfect, worst = _shown(kind)
    given = (_numbers(name, _called(name, kind, each, targets)) for each in (perfect, worst))
    best, least = (float(found.mean()) for found in given)
    said = getattr(imported(name), "higher_is_better", None)
    if not best < least and not best > least:
        if said is not None:
            return not said
        raise DropkitValueError(
            f"metric {name} gives perfect outputs {best:g} and their opposite {least:g}, so that nobody knows which "
            "side of it is better: give it an attribute higher_is_better, True or False"
        )
    if said is not None and bool(said) != (best > least):
        raise DropkitValueError(
            f"metric {name} says higher_is_better={said}, and it gives perfect outputs {best:g} and their opposite "
            f"{least:g}: turn one of them round"
        )
    return best < least


def _numbers(name: str, value: Any) -> NDArray:
    try:
        return np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise DropkitTypeError(
            f"metric {name} gave {written(value)}: it must give one number, or one for each sample"
        ) from None


def _shown(kind: str) -> tuple[NDArray, NDArray, NDArray]:
    """Targets, perfect outputs, and their opposite."""
    if kind == "regression":
        numbers = np.linspace(1, 2, SAMPLES, dtype=np.float32)
        return numbers, numbers.copy(), numbers[::-1].copy()
    if kind in ("binary", "multi-label"):
        shape = (SAMPLES,) if kind == "binary" else (SAMPLES, OUTPUTS)
        sides = (np.arange(np.prod(shape)).reshape(shape) % 2).astype(np.float32)
        logits = np.float32(10) * (2 * sides - 1)
        return sides, logits, -logits
    shape = (SAMPLES,) if kind == "classification" else (SAMPLES, OUTPUTS)
    classes = np.arange(np.prod(shape)).reshape(shape) % OUTPUTS
    logits = np.float32(10) * np.eye(OUTPUTS, dtype=np.float32)[classes]
    return classes, logits, -logits


def _called(name: str, kind: str, outputs: NDArray, targets: NDArray) -> Any:
    function = imported(name)
    if not callable(function):
        raise DropkitTypeError(f"metric {name} is {a_type(function)}: give a function (outputs, targets)")
    try:
        words = inspect.signature(function).parameters
    except (TypeError, ValueError):
        words = {}  # type: ignore[assignment]
    try:
        if "y_true" not in words:
            return function(outputs, targets)
        given: dict[str, Any] = {"y_true": targets}
        if "y_pred" in words:
            given["y_pred"] = _predicted(kind, outputs, targets)
            if "average" in words and _several(outputs):
                given["average"] = "macro"
        else:
            given["y_score"] = outputs
        if "zero_division" in words:
            given["zero_division"] = 0.0
        return function(**given)
    except Exception as error:
        raise DropkitValueError(failed(f"metric {name}", error)) from error


def _several(outputs: NDArray) -> bool:
    return outputs.ndim > 1


def _predicted(kind: str, outputs: NDArray, targets: NDArray) -> NDArray:
    """Classes of logits; numbers as they are."""
    if kind == "regression":
        return outputs
    sides = kind in ("binary", "multi-label")
    return (outputs > 0).astype(targets.dtype) if sides else np.asarray(outputs.argmax(-1))
