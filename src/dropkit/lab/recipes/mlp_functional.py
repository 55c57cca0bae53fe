"""mlp-functional: 784-512-256-10, ReLU, dropout 0.2 after each hidden layer by a function's call, log-softmax.

The network of many a first PyTorch tutorial on MNIST and Fashion-MNIST. The call gets the module's own mode and rate,
and a key: the experiment's seed, the site's name, and how many training forwards came before. So its masks are
those that a bound `Dropout` of that name draws, its rates can be moved, and a resumed run goes on with its own masks.

The tutorial shows the network and does not train it. Chosen, after Udacity's introduction to PyTorch: Adam at 0.003,
batches of 64; here pixels stay in [0, 1]. First weights N(0, 2 / fan-in) and zero biases, but torch's own, as the
tutorial has them, at size "tutorial". The lab's cross-entropy takes log-probabilities as well as logits: the
log-softmax of a log-softmax is itself, so that it is their negative log-likelihood.
"""

from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

from ...counter import Key
from .recipe import Recipe, Settings
from .strategies import DECAY, SCHEDULED, chosen

if TYPE_CHECKING:
    from torch import nn

FIXED = {"dropout1": 0.2, "dropout2": 0.2}

SMALL = Settings(
    epochs=5, seeds=5, batch_size=64, learning_rate=3e-3, optimizer="adam", hidden=(512, 256), step_epochs=1
)
FULL = replace(SMALL, epochs=30, step_epochs=6)
TUTORIAL = replace(SMALL, first_weights="torch")
DIGITS = replace(SMALL, epochs=20, step_epochs=4, threads=1)
TINY = replace(
    DIGITS, epochs=3, seeds=2, batch_size=16, step_epochs=1, hidden=(64, 32), train_samples=512, test_samples=512
)


def settings(size: str, data: str) -> Settings:
    """The settings at a size: in full thirty epochs, as in the course; digits need more epochs than larger sets."""
    if size == "tiny":
        return TINY
    if size == "tutorial":
        return TUTORIAL
    if data == "digits":
        return DIGITS if size == "small" else replace(DIGITS, epochs=60, seeds=10, step_epochs=12)
    return SMALL if size == "small" else FULL


def build(settings: Settings, shape: tuple[int, ...], classes: int, seed: int) -> "nn.Module":
    """The network, its first weights a function of (seed, parameter name) alone, its biases zero."""
    import torch
    from torch import nn
    from torch.nn.functional import log_softmax, relu

    from ...torch import dropout
    from .weights import set_first_weights

    class Network(nn.Module):
        def __init__(self, inputs: int, first: int, second: int) -> None:
            super().__init__()
            # skip_init leaves torch's own generator alone: nothing here depends on it, or moves it.
            self.hidden1 = nn.utils.skip_init(nn.Linear, inputs, first)
            self.hidden2 = nn.utils.skip_init(nn.Linear, first, second)
            self.output = nn.utils.skip_init(nn.Linear, second, classes)
            self.dropout1, self.dropout2 = FIXED.values()  # the rates, which a strategy moves
            self.register_buffer("step", torch.zeros((), dtype=torch.int64))  # a part of the state_dict
            self.step: torch.Tensor

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x.flatten(1)
            x = dropout(relu(self.hidden1(x)), self.dropout1, training=self.training, key=self.key("dropout1"))
            x = dropout(relu(self.hidden2(x)), self.dropout2, training=self.training, key=self.key("dropout2"))
            if self.training:
                self.step += 1
            return log_softmax(self.output(x), dim=1)

        def key(self, site: str) -> Key:
            return Key(seed, site, int(self.step))

    return set_first_weights(Network(prod(shape), *settings.hidden), seed, settings.weight_std, settings.first_weights)


MLP_FUNCTIONAL = Recipe(
    name="mlp-functional",
    summary="784-512-256-10 with ReLU, dropout 0.2 through the functional call, log-softmax; none, fixed, step, and on "
    "request gap and weight-decay",
    settings=settings,
    strategies=chosen(FIXED, *SCHEDULED, "gap", DECAY),
    feeds={"dropout1": "hidden2", "dropout2": "output"},
    build=build,
    compared=SCHEDULED,
    tutorial_data="mnist",
)
