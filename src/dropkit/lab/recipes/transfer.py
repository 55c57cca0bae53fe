"""transfer: two classes of photos told apart on frozen features, after a well-known Keras tutorial.

    InceptionV3 without its top, frozen, cut at mixed7
    Flatten, Dense 512 relu, Dense 1024 relu, Dropout 0.2, Dense 1 sigmoid

Images of 150 x 150 x 3, binary cross-entropy, RMSprop at 1e-4. Nothing is drawn before the frozen part, no dropout and
no augmentation, so its features never change: they are computed once and kept on disk.

Chosen here: pixels in [0, 1] enter as 2 x - 1, which is what the published weights were trained on; batches of 20 and
the number of epochs, which the tutorial leaves open; first weights N(0, 2 / fan-in) and zero biases, but Keras' own, as
the tutorial has them, at size "tutorial". Without a file of weights the frozen part has normal ones too, the same for
every seed, and is a random feature extractor.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from ...errors import DropkitValueError
from . import frozen
from .engine import KERAS
from .recipe import Recipe, Settings
from .strategies import scheduled

FIXED = {"dropout": 0.2}

FULL = Settings(
    epochs=20,
    seeds=5,
    batch_size=20,
    learning_rate=1e-4,
    hidden=(512, 1024),
    step_epochs=4,
    optimizer="rmsprop",
    image_size=150,
)
TUTORIAL = replace(FULL, first_weights="glorot")
SMALL = replace(FULL, epochs=5, seeds=3, step_epochs=1)
TINY = replace(
    SMALL,
    epochs=2,
    seeds=2,
    batch_size=8,
    hidden=(32, 32),
    image_size=75,  # the least that InceptionV3 takes
    train_samples=32,
    test_samples=16,
    threads=1,
)


def settings(size: str, data: str) -> Settings:
    """The settings at a size, the same for every data set."""
    return {"tiny": TINY, "small": SMALL, "full": FULL, "tutorial": TUTORIAL}[size]


def build(settings: Settings, shape: tuple[int, ...], classes: int, seed: int) -> Any:
    """What is trained, the part after mixed7, as a `keras.Sequential` that takes features of this shape."""
    from ..keras_backend import require

    keras = require()
    from ...keras import Dropout
    from .keras_weights import set_first_weights

    layers = [keras.Input(shape), keras.layers.Flatten(name="flatten")]
    for number, width in enumerate(settings.hidden, start=1):
        # Zeros, because the first weights follow, and Keras' own would move Python's generator.
        layers.append(keras.layers.Dense(width, activation="relu", kernel_initializer="zeros", name=f"hidden{number}"))
    layers.append(Dropout(0.0, seed=seed, name="dropout"))
    layers.append(keras.layers.Dense(1, activation="sigmoid", kernel_initializer="zeros", name="output"))
    return set_first_weights(
        keras.Sequential(layers, name="transfer"), seed, settings.weight_std, settings.first_weights
    )


def whole_model(settings: Settings = FULL, weights: Path | None = None) -> Any:
    """The frozen part and what is trained as one `keras.Model` that takes images, its dropout at the fixed rate.

    Training needs the second alone, on features that are computed once; what dropout reaches is seen in the whole.

    Args:
        settings: image_size, hidden and weight_std count here.
        weights: of the frozen part, as `frozen.frozen` takes them; None for random ones.

    Raises:
        DropkitValueError: no image_size.
        DataError: the weights cannot be read or do not fit.
    """
    size = settings.image_size
    if size is None:
        raise DropkitValueError("image_size is None; give the side of the images in pixels, such as 150")
    return topped(frozen.frozen((size, size, 3), weights), settings)


def topped(trunk: Any, settings: Settings) -> Any:
    """A frozen `keras.Model` and what is trained on it as one, its dropout at the fixed rate."""
    from ..keras_backend import require

    keras = require()
    top = build(settings, tuple(trunk.output_shape[1:]), 2, seed=0)
    top.get_layer("dropout").rate = FIXED["dropout"]
    inputs = keras.Input(trunk.input_shape[1:], name="images")
    x = trunk(inputs)
    for layer in top.layers:
        x = layer(x)
    return keras.Model(inputs, x, name="transfer")


TRANSFER = Recipe(
    name="transfer",
    summary="Keras: a new top with Dropout 0.2 on InceptionV3, frozen and cut at mixed7, for two classes of photos "
    "(flowers2 or a folder); none, fixed, step",
    settings=settings,
    strategies=scheduled(FIXED),
    feeds={"dropout": "output"},
    build=build,
    engine=KERAS,
    needs=(("keras", '"dropkit[keras]"'), ("PIL", "pillow")),
    data="flowers2",
    tutorial_data="flowers2",
    prepare=frozen.prepare,
    whole=whole_model,
)
