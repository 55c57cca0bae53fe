"""The optimizer of a Keras model, by name, and its learning rate at each step."""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...errors import DropkitTypeError, DropkitValueError, UnknownNameError
from ..imported import failed, imported, is_named
from ..recipes.learning_rate import Factor
from ..recipes.recipe import Settings

OPTIMIZERS: Mapping[str, str] = {
    "sgd": "SGD",
    "adam": "Adam",
    "adamw": "AdamW",
    "rmsprop": "RMSprop",
    "adagrad": "Adagrad",
    "adadelta": "Adadelta",
    "adamax": "Adamax",
    "nadam": "Nadam",
    "lion": "Lion",
    "lamb": "Lamb",
    "adafactor": "Adafactor",
    "ftrl": "Ftrl",
}
"""Names -> Keras' classes."""


def family(name: str) -> Any:
    """The class of an optimizer, by its name or its `module:name`.

    Raises:
        UnknownNameError: there is none of that name.
        DropkitTypeError: it is no optimizer of Keras.
    """
    import keras

    if is_named(name):
        made: Any = imported(name)
        if not inspect.isclass(made) or not issubclass(made, keras.optimizers.Optimizer):
            raise DropkitTypeError(
                f"optimizer {name} is no class of Keras' optimizers: give one such as keras.optimizers:Nadam"
            )
        return made
    if name not in OPTIMIZERS:
        raise UnknownNameError("optimizer", str(name), OPTIMIZERS)
    return getattr(keras.optimizers, OPTIMIZERS[name])


def optimizer(settings: Settings, rate: Any) -> Any:
    """The optimizer that settings name, at a learning rate or a schedule of it."""
    name, made = settings.optimizer, family(settings.optimizer)
    words = {"weight_decay": settings.weight_decay} if settings.weight_decay else {}
    try:
        return made(learning_rate=rate, **words)
    except Exception as error:
        raise DropkitValueError(failed(f"optimizer {name}", error)) from error


def learning_rate(rate: float, factor: Factor | None, steps: int) -> Any:
    """The rate, or a schedule of all its steps as a table, so that it is data on every backend."""
    import keras

    if factor is None:
        return rate
    table = np.array([rate * factor(step, steps) for step in range(steps)], np.float32)

    class Table(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step: Any) -> Any:
            number = keras.ops.minimum(keras.ops.cast(step, "int32"), steps - 1)
            return keras.ops.take(keras.ops.convert_to_tensor(table), number)

    return Table()
