"""An objective as functions of JAX, and optax' optimizers by name."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from numpy.typing import NDArray

from ...errors import DropkitTypeError, DropkitValueError, UnknownNameError
from ...visible import a_type
from ..imported import failed, imported, is_named
from ..recipes.learning_rate import USUAL
from ..recipes.objective import CLASSES, TOKENS, Objective
from .given import check_number, check_shape, check_tensor

Function = Callable[[Any, Any], Any]
OPTIMIZERS: Mapping[str, Callable[..., Any]] = {
    name: getattr(optax, name)
    for name in ("sgd", "adam", "adamw", "rmsprop", "adagrad", "adadelta", "adamax", "nadam", "radam", "lion", "lamb")
}


def optimizer(name: str, rate: float, decay: float) -> Any:
    """An optimizer at a learning rate: a name of optax', or `module:name` of a function of a learning rate.

    Raises:
        UnknownNameError: there is none of that name.
        DropkitTypeError: it makes no optimizer.
    """
    if not is_named(name) and name not in OPTIMIZERS:
        raise UnknownNameError("optimizer", str(name), OPTIMIZERS)
    make = imported(name) if is_named(name) else OPTIMIZERS[name]
    try:
        found = make(rate, **({"weight_decay": decay} if decay else {}))
    except Exception as error:
        raise DropkitValueError(failed(f"optimizer {name}", error)) from error
    if not isinstance(found, optax.GradientTransformation):
        raise DropkitTypeError(
            f"optimizer {name} makes {a_type(found)}: give a function of a learning rate such as optax:adam"
        )
    return found


def check_optimizer(name: str) -> None:
    """Refuse an optimizer that there is not, or that takes no learning rate; see `optimizer`."""
    optimizer(name, USUAL, 0.0)


def loss_of(objective: Objective) -> tuple[Function, Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]] | None]:
    """The loss of a batch; and on arrays, where it is the user's, of a batch or of each sample."""
    if is_named(objective.loss):
        function = imported(objective.loss)
        if not callable(function):
            raise DropkitTypeError(f"loss {objective.loss} is {a_type(function)}: give a function (outputs, targets)")

        def found(outputs: Any, targets: Any) -> Any:
            try:
                value = function(outputs, targets)
            except Exception as error:
                raise DropkitValueError(failed(f"loss {objective.loss}", error)) from error
            check_tensor(objective.loss, value)
            check_shape(objective.loss, value.shape, len(targets))
            return value

        return lambda *both: found(*both).mean(), lambda *both: np.asarray(found(*map(jnp.asarray, both)))
    function = named(objective)
    return lambda outputs, targets: function(outputs, targets).mean(), None


def check_loss(outputs: NDArray[Any], targets: NDArray[Any], objective: Objective) -> None:
    """Refuse a loss that fails, or gives no number, tried on what the model gave."""
    batch, _ = loss_of(objective)
    check_number(objective.loss, float(batch(jnp.asarray(outputs), jnp.asarray(targets))), len(targets))


def named(objective: Objective) -> Function:
    """A loss by its name, to be averaged."""

    def tokens(outputs: Any, targets: Any) -> Any:
        known = (targets >= 0) * 1.0  # below 0 is padding
        found = optax.softmax_cross_entropy_with_integer_labels(outputs, jnp.maximum(targets, 0)) * known
        return found.sum() / jnp.maximum(known.sum(), 1.0)

    def sided(outputs: Any, targets: Any) -> Any:
        return optax.sigmoid_binary_cross_entropy(outputs, targets.astype(outputs.dtype))

    found: dict[str, Function] = {
        "cross-entropy": tokens if objective.kind == TOKENS else optax.softmax_cross_entropy_with_integer_labels,
        "nll": lambda outputs, targets: -jnp.take_along_axis(outputs, targets[:, None], -1),
        "binary-cross-entropy": sided,
        "mse": lambda outputs, targets: (outputs - targets) ** 2,
        "mae": lambda outputs, targets: abs(outputs - targets),
        "huber": optax.huber_loss,
    }
    return found[objective.loss]


def trained_figure(objective: Objective) -> Function | None:
    """The metric of each sample of a batch as it is trained; None where none of our formulas is it."""
    each = objective.measured.each
    return each if getattr(each, "__module__", "").endswith("recipes.objective") else None


def outputs_of(found: Any, kind: str) -> Any:
    """The array of a model's outputs: the logits of a dict or an object, the first of several; without an axis of one
    number.
    """
    if isinstance(found, dict):
        found = found.get("logits", next(iter(found.values())))
    found = getattr(found, "logits", found)
    if isinstance(found, list | tuple):
        found = found[0]
    if not hasattr(found, "shape"):
        raise DropkitTypeError(
            f"the model gives {type(found).__name__}: it must give an array, several of which the first counts, or an "
            "object with logits"
        )
    return found[:, 0] if kind not in (CLASSES, TOKENS) and found.ndim == 2 and found.shape[1] == 1 else found


def parted(model: Any) -> Any:
    """A model's graph, its weights, and what else it keeps."""
    return nnx.split(model, nnx.Param, ...)


def modes_of(kind: type) -> dict[str, Callable[[bool], bool]]:
    """How a model's `__call__` is told that it trains: its arguments of that meaning.

    >>> class Net:
    ...     def __call__(self, x, train): ...
    >>> list(modes_of(Net))
    ['train']
    """
    known: dict[str, Callable[[bool], bool]] = {
        "train": lambda trains: trains,
        "training": lambda trains: trains,
        "is_training": lambda trains: trains,
        "deterministic": lambda trains: not trains,
    }
    takes = inspect.signature(kind.__call__).parameters
    return {name: mode for name, mode in known.items() if name in takes}


def call(model: Any, x: Any, trains: bool) -> Any:
    """What a model makes of a batch, told whether it trains."""
    return model(x, **{name: mode(trains) for name, mode in modes_of(type(model)).items()})
