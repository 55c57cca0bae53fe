"""dense: the first network of many a Keras tutorial, trained by `keras.Model.fit`.

    Sequential: Dense 64 relu, Dropout 0.5, Dense 64 relu, Dropout 0.5, Dense 10 softmax

The tutorial stops there: it names no data, loss, optimizer, batches or epochs. Chosen here: cross-entropy, Adam at
Keras' own 0.001, batches of 32, weights N(0, 2 / fan-in) and zero biases. At size "tutorial" the first weights are
Keras' own, Glorot's, and a frame of one pixel around a digit makes its 64 pixels the 100 inputs of the tutorial.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from .engine import KERAS
from .recipe import LATER, Recipe, Settings
from .strategies import scheduled

FIXED = {"dropout1": 0.5, "dropout2": 0.5}


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseSettings(Settings):
    """Settings of a network with a frame of so many zeros around each image."""

    frame: int = field(default=0, metadata=LATER)


SMALL = DenseSettings(
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
TUTORIAL = replace(SMALL, first_weights="glorot", frame=1)
TINY = replace(SMALL, epochs=2, seeds=2, step_epochs=1, train_samples=256, test_samples=128)


def settings(size: str, data: str) -> DenseSettings:
    """The settings at a size; only digits need a frame to be of a hundred pixels."""
    tutorial = TUTORIAL if data == "digits" else replace(TUTORIAL, frame=0)
    return {"tiny": TINY, "small": SMALL, "full": FULL, "tutorial": tutorial}[size]


def build(settings: DenseSettings, shape: tuple[int, ...], classes: int, seed: int) -> Any:
    """The network as a `keras.Sequential`, its first weights a function of (seed, variable path) alone."""
    from ..keras_backend import require

    keras = require()
    from ...keras import Dropout
    from .keras_weights import set_first_weights

    layers = [keras.Input(shape)]
    if settings.frame:  # Keras pads images with channels
        layers.append(keras.layers.Reshape((*shape, 1), name="channel"))
        layers.append(keras.layers.ZeroPadding2D(settings.frame, data_format="channels_last", name="frame"))
    layers.append(keras.layers.Flatten(name="flatten"))
    for number, width in enumerate(settings.hidden, start=1):
        # Zeros, because the first weights follow, and Keras' own would move Python's generator.
        layers.append(keras.layers.Dense(width, activation="relu", kernel_initializer="zeros", name=f"hidden{number}"))
        layers.append(Dropout(0.0, seed=seed, name=f"dropout{number}"))
    layers.append(keras.layers.Dense(classes, activation="softmax", kernel_initializer="zeros", name="output"))
    return set_first_weights(keras.Sequential(layers, name="dense"), seed, settings.weight_std, settings.first_weights)


DENSE = Recipe(
    name="dense",
    summary="Keras: Dense 64, Dropout 0.5, Dense 64, Dropout 0.5, Dense 10 softmax; none, fixed, step",
    settings=settings,
    strategies=scheduled(FIXED),
    feeds={"dropout1": "hidden2", "dropout2": "output"},
    build=build,  # type: ignore[arg-type]  # its settings are those that it makes
    engine=KERAS,
    tutorial_data="digits",
    needs=(("keras", '"dropkit[keras]"'),),
)
