"""numpy-layer: a fully connected layer by hand, with a sigmoid and the mask in front of it, after a tutorial's class.

    hidden    y = sigmoid((x W + b) mask / (1 - p)), 100 units, p = 0.5
    output    x W + b, softmax and cross-entropy

Trained an iteration at a time: each draws its batch from the training set with replacement, so that no epoch goes once
through the data, and a row of metrics.csv stands for so many iterations, one at size "tutorial". Loss and accuracy of
the whole training set and of the test set, dropout off, are the four lists of the tutorial. Its `dropout_interval` is
the strategy `step`: 0.1 less each 100 iterations, never below 0.1.

The tutorial leaves open how many layers its network has and how wide they are, the first weights, the optimizer, its
rate, the batches and how many iterations there are. Chosen here: as above; N(0, 1 / inputs), zero biases; gradient
descent at 0.5 on batches of 100; 500 iterations.
"""

from dataclasses import replace
from math import prod, sqrt

from ...numpy import Dense, Dropout
from ..order import first_weights
from .engine import NUMPY
from .measures import CLASSIFICATION
from .recipe import Recipe, Settings
from .strategies import DECAY, SCHEDULED, chosen

FIXED = {"dropout1": 0.5}

TUTORIAL = Settings(
    epochs=500,
    seeds=5,
    batch_size=100,
    learning_rate=0.5,
    hidden=(100,),
    step_epochs=100,
    evaluated=1_000_000,
    iterations=1,
    threads=1,
)
SMALL = replace(TUTORIAL, epochs=60, iterations=50, step_epochs=12)
FULL = replace(SMALL, epochs=200, iterations=100, step_epochs=40)
TINY = replace(SMALL, epochs=3, seeds=2, iterations=20, batch_size=32, step_epochs=1)


def settings(size: str, data: str) -> Settings:
    """The settings at a size, the same for every data set."""
    return {"tiny": TINY, "small": SMALL, "full": FULL, "tutorial": TUTORIAL}[size]


def build(settings: Settings, shape: tuple[int, ...], classes: int, seed: int) -> dict[str, Dense]:
    """The layers by name, in order, the last one for the logits; first weights a function of (seed, name) alone."""
    layers, inputs = {}, prod(shape)
    for number, width in enumerate(settings.hidden, start=1):
        drop = Dropout(0.0, seed=seed, site=f"dropout{number}")
        layers[f"hidden{number}"] = Dense(inputs, width, "sigmoid", drop=drop, placement="pre")
        inputs = width
    layers["output"] = Dense(inputs, classes)
    for name, layer in layers.items():
        outputs, inputs = layer.weight.shape
        std = sqrt(1 / inputs) if settings.weight_std is None else settings.weight_std
        layer.weight = first_weights((outputs, inputs), seed, f"{name}.weight", std)
    return layers


NUMPY_LAYER = Recipe(
    name="numpy-layer",
    summary="a dense layer by hand, its mask before the sigmoid, trained by iterations; none, fixed, step, and on "
    f"request decay, {DECAY}",
    settings=settings,
    strategies=chosen(FIXED, *SCHEDULED, "decay", DECAY),
    feeds={"dropout1": "output"},
    build=build,
    compared=SCHEDULED,
    engine=NUMPY,
    tutorial_data="digits",
    figures=replace(
        CLASSIFICATION,
        printed=(
            ("train loss", "train_eval_loss"),
            ("train accuracy", "train_eval_accuracy"),
            ("test loss", "test_loss"),
            ("test accuracy", "test_accuracy"),
        ),
    ),
)
