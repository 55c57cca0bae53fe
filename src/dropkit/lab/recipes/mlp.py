"""mlp: the dropout chapter of Dive into Deep Learning, 784-256-256-10, ReLU, dropout after each hidden layer.

Published setting (Fashion-MNIST, MNIST): pixels / 255, weights N(0, 0.01^2), zero biases, SGD with learning rate 0.5 on
the batch mean of the cross-entropy, batches of 256, ten epochs (five in the first edition, which the tutorial follows,
and so the size of that name), dropout 0.2 and 0.5.

scikit-learn's digits are 1797 images of 8 x 8. At the published setting they make five steps an epoch from weights so
small that 30 epochs without dropout end at 76 % test accuracy. So digits, and the tiny size of any set, take batches of
64, learning rate 0.1 and weights N(0, 0.1^2), which end above 98 % after 60 epochs. One thread, because layers this
small lose more by waiting for a second one than it saves; it also makes the numbers independent of the core count.
"""

from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING

from .recipe import Recipe, Settings
from .strategies import ADAPTIVE, DECAY, PATHWISE, standard

if TYPE_CHECKING:
    from torch import nn

FIXED = {"dropout1": 0.2, "dropout2": 0.5}

PUBLISHED = Settings(
    epochs=10, seeds=5, batch_size=256, learning_rate=0.5, weight_std=0.01, hidden=(256, 256), step_epochs=2
)
TUTORIAL = replace(PUBLISHED, epochs=5)
DIGITS = Settings(
    epochs=60,
    seeds=5,
    batch_size=64,
    learning_rate=0.1,
    weight_std=0.1,
    hidden=(256, 256),
    step_epochs=12,
    threads=1,
)
TINY = replace(DIGITS, epochs=3, seeds=2, batch_size=32, step_epochs=1, train_samples=512, test_samples=512)


def settings(size: str, data: str) -> Settings:
    """The settings at a size: the published one on sets of MNIST's kind, a scaled one on digits."""
    if size == "tiny":
        return TINY
    if size == "tutorial":
        return TUTORIAL
    if data == "digits":
        return DIGITS if size == "small" else replace(DIGITS, epochs=100, seeds=10, step_epochs=20)
    return TUTORIAL if size == "small" else PUBLISHED


def build(settings: Settings, shape: tuple[int, ...], classes: int, seed: int) -> "nn.Module":
    """The network, its first weights a function of (seed, parameter name) alone, its biases zero."""
    from torch import nn

    from ...torch import Dropout
    from .weights import set_first_weights

    inputs = 1
    for extent in shape:
        inputs *= extent
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for number, width in enumerate(settings.hidden, start=1):
        # skip_init leaves torch's own generator alone: nothing here depends on it, or moves it.
        layers[f"hidden{number}"] = nn.utils.skip_init(nn.Linear, inputs, width)
        layers[f"relu{number}"] = nn.ReLU()
        layers[f"dropout{number}"] = Dropout(0.0)
        inputs = width
    layers["output"] = nn.utils.skip_init(nn.Linear, inputs, classes)
    return set_first_weights(nn.Sequential(layers), seed, settings.weight_std, settings.first_weights)


MLP = Recipe(
    name="mlp",
    summary="784-256-256-10 with ReLU and dropout after each hidden layer (Dive into Deep Learning); none, fixed, "
    f"step, and on request {', '.join((*ADAPTIVE, DECAY, PATHWISE))}",
    settings=settings,
    strategies=standard(FIXED),
    feeds={"dropout1": "hidden2", "dropout2": "output"},
    build=build,
    compared=("none", "fixed", "step"),
    tutorial_data="fashion-mnist",
)
