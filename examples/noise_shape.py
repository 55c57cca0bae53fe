"""The shapes of a dropout's noise, as targets of `dropkit explain`: in Keras by noise_shape, in torch by share.

    cd examples
    dropkit explain noise_shape:neurons           # Keras: whole neurons, the same at every time step
    dropkit explain noise_shape:torch_neurons     # the same in torch

Each is Dense 8, a dropout of 0.25, Dense 1: on batch x 5 steps x 16 features, `for_all_2d` on batch x 16 features.
"""

import os
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

STEPS, INPUTS, FEATURES, P = 5, 16, 8, 0.25


def _keras(noise_shape: tuple[int | None, ...] | None, *steps: int) -> Any:
    import keras

    dropout = keras.layers.Dropout(P, noise_shape=noise_shape, name="dropout")
    layers = [keras.Input((*steps, INPUTS)), keras.layers.Dense(FEATURES, "relu", name="hidden"), dropout]
    return keras.Sequential([*layers, keras.layers.Dense(1, name="output")], name="network")


def _torch(share: tuple[int, ...], *steps: int) -> Any:
    import torch
    from torch import nn

    from dropkit.torch import Dropout

    network = nn.Sequential()
    network.add_module("hidden", nn.Linear(INPUTS, FEATURES))
    network.add_module("relu", nn.ReLU())
    network.add_module("dropout", Dropout(P, share=share))
    network.add_module("output", nn.Linear(FEATURES, 1))
    return network, torch.randn(8, *steps, INPUTS)


def elements() -> Any:
    """A draw for each element."""
    return _keras(None, STEPS)


def neurons() -> Any:
    """A draw for each neuron of each sample, the same at every step."""
    return _keras((None, 1, FEATURES), STEPS)


def for_all() -> Any:
    """A draw for each neuron, the same at every step of every sample."""
    return _keras((1, 1, FEATURES), STEPS)


def for_all_2d() -> Any:
    """The same without time steps."""
    return _keras((1, FEATURES))


def torch_elements() -> Any:
    """`elements` in torch."""
    return _torch((), STEPS)


def torch_neurons() -> Any:
    """`neurons` in torch."""
    return _torch((1,), STEPS)


def torch_for_all() -> Any:
    """`for_all` in torch."""
    return _torch((0, 1), STEPS)


def torch_for_all_2d() -> Any:
    """`for_all_2d` in torch."""
    return _torch((0,))
