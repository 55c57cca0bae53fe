"""The first weights of a Keras model: a function of (seed, path of the variable) alone."""

import math
from typing import Any

import numpy as np

from .spread import first_weight


def set_first_weights(model: Any, seed: int, std: float | None, kind: str = "normal") -> Any:
    """Give a built Keras model its first weights, a function of (seed, path of the variable); returns the model.

    Args:
        model: whose names are given, not counted up by Keras.
        seed: the experiment.
        std: standard deviation of kind "normal"; None for sqrt(2 / fan-in).
        kind: "normal" or "glorot", Keras' own; see `first_weight`. Biases are 0.
    """
    for weight in model.trainable_weights:
        shape = tuple(weight.shape)
        if weight.name == "bias":
            weight.assign(np.zeros(shape, np.float32))
        else:
            fans = math.prod(shape[:-1]), math.prod(shape[:-2]) * shape[-1]
            weight.assign(first_weight(shape, seed, path_in(model, weight), fans=fans, kind=kind, std=std))
    return model


def path_in(model: Any, variable: Any) -> str:
    """The path of a variable in its model, such as "hidden1/kernel", without the model's own name."""
    path: str = variable.path
    return path.removeprefix(f"{model.name}/")
