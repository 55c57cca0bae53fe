"""An objective as functions of Keras, whatever the model ends in, probabilities or logits; any backend."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DropkitTypeError, DropkitValueError
from ...visible import a_type
from ..imported import failed, imported, is_named
from ..recipes.objective import CLASSES, TOKENS, Objective
from .given import check_number, check_shape, check_tensor

TINY = 1e-7  # Keras' own epsilon: probabilities keep that distance from 0 and 1

Function = Callable[[Any, Any], Any]
"""(outputs, targets) -> tensors."""


@dataclass(frozen=True, slots=True)
class Loss:
    """An objective's loss.

    Args:
        batch: a scalar for a batch.
        own: of a loss of the user's, on arrays: a number, or one for each sample.
    """

    batch: Function
    own: Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]] | None = None


def logits(given: NDArray[Any], kind: str, probabilities: bool) -> NDArray[Any]:
    """What a model gave, before any softmax or sigmoid.

    >>> logits(np.float32([[0.5, 0.5]]), "classification", True).round(3).tolist()
    [[-0.6930000185966492, -0.6930000185966492]]
    """
    if not probabilities:
        return given
    p = np.clip(given, TINY, 1 - TINY)
    found: NDArray[Any] = np.log(p) if kind in (CLASSES, TOKENS) else np.log(p / (1 - p))
    return found


def loss_of(objective: Objective, probabilities: bool) -> Loss:
    """The functions of an objective.

    Args:
        objective: what is trained for.
        probabilities: whether the model ends in a softmax or a sigmoid.
    """
    if is_named(objective.loss):
        return _own(objective.loss, probabilities)
    from keras import losses, ops

    def crossed(outputs: Any, targets: Any) -> Any:
        return losses.sparse_categorical_crossentropy(targets, outputs, from_logits=not probabilities)

    def tokens(outputs: Any, targets: Any) -> Any:
        known = ops.cast(targets >= 0, outputs.dtype)  # below 0 is padding
        found = crossed(outputs, ops.maximum(targets, 0)) * known
        return ops.sum(found) / ops.maximum(ops.sum(known), 1.0)

    named: dict[str, Function] = {
        "cross-entropy": tokens if objective.kind == TOKENS else crossed,
        "nll": lambda outputs, targets: -ops.take_along_axis(outputs, targets[:, None], -1),
        "binary-cross-entropy": lambda outputs, targets: losses.binary_crossentropy(
            ops.cast(targets, outputs.dtype), outputs, from_logits=not probabilities
        ),
        "mse": lambda outputs, targets: ops.square(outputs - targets),
        "mae": lambda outputs, targets: ops.abs(outputs - targets),
        "huber": lambda outputs, targets: losses.huber(targets, outputs, delta=1.0),
    }
    function = named[objective.loss]
    return Loss(lambda outputs, targets: ops.mean(function(outputs, targets)))


def check_loss(outputs: NDArray[Any], targets: NDArray[Any], objective: Objective, probabilities: bool) -> None:
    """Refuse a loss that fails, or gives no number, tried on what the model gave."""
    own = loss_of(objective, probabilities).own
    if own is not None:
        check_number(objective.loss, float(own(outputs, targets).mean()), len(targets))


def _own(name: str, probabilities: bool) -> Loss:
    """A loss of the user's, a function (outputs, targets); or one of Keras', which take targets first."""
    from keras import ops

    function = _called(name, imported(name), probabilities)

    def found(outputs: Any, targets: Any) -> Any:
        try:
            value = function(outputs, targets)
        except Exception as error:
            raise DropkitValueError(failed(f"loss {name}", error)) from error
        check_tensor(name, value)
        return value

    def on_arrays(outputs: NDArray[Any], targets: NDArray[Any]) -> NDArray[Any]:
        value = ops.convert_to_numpy(found(ops.convert_to_tensor(outputs), ops.convert_to_tensor(targets)))
        check_shape(name, value.shape, len(targets))
        return np.asarray(value)

    return Loss(lambda outputs, targets: ops.mean(found(outputs, targets)), on_arrays)


def _called(name: str, function: Any, probabilities: bool) -> Function:
    theirs = getattr(function, "__module__", "").partition(".")[0] == "keras"
    if inspect.isclass(function):
        words = {"reduction": None, "from_logits": not probabilities}
        takes = inspect.signature(function).parameters
        made: Any = function(**{word: value for word, value in words.items() if word in takes})
        return lambda outputs, targets: made(*_columns(targets, outputs))
    if not callable(function):
        raise DropkitTypeError(f"loss {name} is {a_type(function)}: give a function (outputs, targets)")
    if not theirs:
        return lambda outputs, targets: function(outputs, targets)
    logits = {"from_logits": not probabilities} if "from_logits" in inspect.signature(function).parameters else {}
    return lambda outputs, targets: function(*_columns(targets, outputs), **logits)


def _columns(targets: Any, outputs: Any) -> tuple[Any, Any]:
    """As Keras' losses take them: one number a sample along an axis of its own, which they take the mean over."""
    return (targets[:, None], outputs[:, None]) if len(outputs.shape) == 1 else (targets, outputs)


def trained_figure(objective: Objective, probabilities: bool) -> Function | None:
    """The metric of a batch as it is trained: one score for each sample; None where no formula of ours is one."""
    from keras import ops

    border = 0.5 if probabilities else 0.0

    def right(outputs: Any, targets: Any) -> Any:
        return ops.cast(ops.equal(ops.argmax(outputs, -1), ops.cast(targets, "int32")), "float32")

    def known(outputs: Any, targets: Any) -> Any:
        there = ops.cast(targets >= 0, "float32")
        return ops.sum(right(outputs, targets) * there, -1) / ops.maximum(ops.sum(there, -1), 1.0)

    def sided(outputs: Any, targets: Any) -> Any:
        return ops.cast(ops.equal(outputs > border, targets > 0.5), "float32")

    accuracy = {CLASSES: right, TOKENS: known}.get(objective.kind, sided)
    named: dict[str, Function] = {
        "accuracy": accuracy,
        "exact-match": lambda outputs, targets: ops.min(sided(outputs, targets), -1),
        "mse": lambda outputs, targets: ops.square(outputs - targets),
        "mae": lambda outputs, targets: ops.abs(outputs - targets),
    }
    return named.get(objective.metric)
