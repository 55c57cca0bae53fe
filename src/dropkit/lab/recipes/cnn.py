"""cnn: a small convolutional network with dropout in its dense layers, where a CNN's dropout stands first of all.

    two 3 x 3 convolutions (32 and 64 channels), each with ReLU and a 2 x 2 pooling
    Flatten, Dense 128 relu, Dropout 0.5, Dense 64 relu, Dropout 0.5, Dense 10

A tutorial asks how the neurons of a CNN's dense layers are dropped, and then shows dense layers alone; this is the
network that the question is about. Chosen here: Adam at 0.001, batches of 64, first weights N(0, 2 / fan-in), zero
biases, pixels in [0, 1].
"""

from collections import OrderedDict
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from .recipe import Recipe, Settings
from .strategies import ADAPTIVE, DECAY, PATHWISE, SCHEDULED, standard

if TYPE_CHECKING:
    from torch import nn

FIXED = {"dropout1": 0.5, "dropout2": 0.5}

FULL = Settings(
    epochs=15,
    seeds=5,
    batch_size=64,
    learning_rate=1e-3,
    optimizer="adam",
    hidden=(128, 64),
    channels=(32, 64),
    step_epochs=3,
)
SMALL = replace(FULL, epochs=5, step_epochs=1, train_samples=10_000, evaluated=2_000, threads=1)
DIGITS = replace(SMALL, epochs=20, step_epochs=4)
TINY = replace(
    SMALL,
    epochs=2,
    seeds=2,
    batch_size=16,
    hidden=(32, 16),
    channels=(8, 8),
    train_samples=512,
    test_samples=512,
)


def settings(size: str, data: str) -> Settings:
    """The settings at a size; digits, which are few, take more epochs."""
    if size == "small" and data == "digits":
        return DIGITS
    return {"tiny": TINY, "small": SMALL, "full": FULL}[size]


def build(settings: Settings, shape: tuple[int, ...], classes: int, seed: int) -> "nn.Module":
    """The network, its first weights a function of (seed, parameter name) alone, its biases zero."""
    from torch import nn

    from ...torch import Dropout
    from .weights import set_first_weights

    channels, height, width = shape if len(shape) == 3 else (1, *shape)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if len(shape) == 2:
        layers["channel"] = nn.Unflatten(1, (1, height))
    for number, (before, after) in enumerate(pairwise((channels, *settings.channels)), start=1):
        # skip_init leaves torch's own generator alone: nothing here depends on it, or moves it.
        layers[f"conv{number}"] = nn.utils.skip_init(nn.Conv2d, before, after, 3, padding=1)
        layers[f"conv_relu{number}"] = nn.ReLU()
        layers[f"pool{number}"] = nn.MaxPool2d(2)
        height, width, inputs = height // 2, width // 2, after
    layers["flatten"] = nn.Flatten()
    inputs *= height * width
    for number, units in enumerate(settings.hidden, start=1):
        layers[f"hidden{number}"] = nn.utils.skip_init(nn.Linear, inputs, units)
        layers[f"relu{number}"] = nn.ReLU()
        layers[f"dropout{number}"] = Dropout(0.0)
        inputs = units
    layers["output"] = nn.utils.skip_init(nn.Linear, inputs, classes)
    return set_first_weights(nn.Sequential(layers), seed, settings.weight_std, settings.first_weights)


CNN = Recipe(
    name="cnn",
    summary="a small CNN on MNIST and its like, dropout 0.5 in its two dense layers; none, fixed, step, and on request "
    f"{', '.join((*ADAPTIVE, DECAY, PATHWISE))}",
    settings=settings,
    strategies=standard(FIXED),
    feeds={"dropout1": "hidden2", "dropout2": "output"},
    build=build,
    compared=SCHEDULED,
)
