"""numpy-mlp: the network of `mlp` by hand, with its own backward pass and without a framework.

Fully connected layers of `dropkit.numpy`: 784-256-256-10, ReLU, dropout 0.2 and 0.5 after the hidden layers, and plain
gradient descent on the cross-entropy. Settings, first weights, order and masks are those of `mlp`, so that for one seed
both reach the same losses up to the rounding of float32 sums. Its own strategy is `decay`: the rate falls exponentially
from 0.5 towards 0.1, where `step` falls by 0.1 at a time.
"""

from math import prod

from ...numpy import Dense, Dropout
from ..order import first_weights
from .engine import NUMPY
from .mlp import FIXED, settings
from .recipe import Recipe, Settings
from .strategies import DECAY, SCHEDULED, chosen


def build(settings: Settings, shape: tuple[int, ...], classes: int, seed: int) -> dict[str, Dense]:
    """The layers by name, in order, the last one for the logits; first weights a function of (seed, name) alone."""
    layers, inputs = {}, prod(shape)
    for number, width in enumerate(settings.hidden, start=1):
        drop = Dropout(0.0, seed=seed, site=f"dropout{number}")
        layers[f"hidden{number}"] = Dense(inputs, width, "relu", drop=drop)
        inputs = width
    layers["output"] = Dense(inputs, classes)
    for name, layer in layers.items():
        outputs, inputs = layer.weight.shape
        std = (2 / inputs) ** 0.5 if settings.weight_std is None else settings.weight_std
        layer.weight = first_weights((outputs, inputs), seed, f"{name}.weight", std)
    return layers


NUMPY_MLP = Recipe(
    name="numpy-mlp",
    summary="mlp by hand: layers with their own backward pass, no framework; none, fixed, step, decay, and on request "
    "gap and weight-decay",
    settings=settings,
    strategies=chosen(FIXED, *SCHEDULED, "decay", "gap", DECAY),
    feeds={"dropout1": "hidden2", "dropout2": "output"},
    build=build,
    compared=(*SCHEDULED, "decay"),
    engine=NUMPY,
    tutorial_data="fashion-mnist",
)
