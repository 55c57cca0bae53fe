"""dense: the first network of many a Keras tutorial, trained by `keras.Model.fit`.

    Sequential: Dense 64 relu, Dropout 0.5, Dense 64 relu, Dropout 0.5, Dense 10 softmax

Cross-entropy. Chosen here: Adam at Keras' own 0.001, batches of 32, weights N(0, 2 / fan-in) and zero biases.
"""

from dataclasses import replace
from typing import Any

from .recipe import Recipe, Settings
from .strategies import scheduled

FIXED = {"dropout1": 0.5, "dropout2": 0.5}

SMALL = Settings(
    epochs=20,
    seeds=5,
    batch_size=32,
    learning_rate=1e-3,
    hidden=(64, 64),
    step_epochs=4,
    optimizer="adam",
    threads=1,
)
FULL = replace(SMALL, epochs=60, seeds=10, step_epochs=12)
TINY = replace(SMALL, epochs=2, seeds=2, step_epochs=1, train_samples=256, test_samples=128)


def settings(size: str, data: str) -> Settings:
    """The settings at a size, the same for every data set."""
    return {"tiny": TINY, "small": SMALL, "full": FULL}[size]


def build(settings: Settings, shape: tuple[int, ...], classes: int, seed: int) -> Any:
    """The network as a `keras.Sequential`, its first weights a function of (seed, variable path) alone."""
    from ..keras_backend import require

    keras = require()
    from ...keras import Dropout
    from .keras_weights import set_first_weights

    layers = [keras.Input(shape), keras.layers.Flatten(name="flatten")]
    for number, width in enumerate(settings.hidden, start=1):
        # Zeros, because the first weights follow, and Keras' own would move Python's generator.
        layers.append(keras.layers.Dense(width, activation="relu", kernel_initializer="zeros", name=f"hidden{number}"))
        layers.append(Dropout(0.0, seed=seed, name=f"dropout{number}"))
    layers.append(keras.layers.Dense(classes, activation="softmax", kernel_initializer="zeros", name="output"))
    return set_first_weights(keras.Sequential(layers, name="dense"), seed, settings.weight_std)


DENSE = Recipe(
    name="dense",
    summary="Keras: Dense 64, Dropout 0.5, Dense 64, Dropout 0.5, Dense 10 softmax; none, fixed, step",
    settings=settings,
    strategies=scheduled(FIXED),
    feeds={"dropout1": "hidden2", "dropout2": "output"},
    build=build,
    engine="keras",
    needs=(("keras", '"dropkit[keras]"'),),
)
