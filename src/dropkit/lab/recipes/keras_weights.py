"""The first weights of a Keras model: a function of (seed, path of the variable) alone."""

import math
from typing import Any

import numpy as np

from ..order import first_weights


def set_first_weights(model: Any, seed: int, std: float | None) -> Any:
    """Give a built Keras model its first weights, a function of (seed, path of the variable); returns the model.

    Args:
        model: whose names are given, not counted up by Keras.
        seed: the experiment.
        std: standard deviation; None for sqrt(2 / fan-in). Biases are 0.
    """
    for weight in model.trainable_weights:
        if weight.name == "bias":
            weight.assign(np.zeros(weight.shape, np.float32))
        else:
            spread = (2 / math.prod(weight.shape[:-1])) ** 0.5 if std is None else std
            weight.assign(first_weights(tuple(weight.shape), seed, path_in(model, weight), spread))
    return model


def path_in(model: Any, variable: Any) -> str:
    """The path of a variable in its model, such as "hidden1/kernel", without the model's own name."""
    path: str = variable.path
    return path.removeprefix(f"{model.name}/")
