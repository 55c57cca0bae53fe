"""gan-functional: the networks of `gan` as the tutorial writes them, with one Dropout that is called three times.

    class Discriminator: layer_one to layer_four, and one Dropout(0.1); its forward calls the layers and, after each of
    the first three, leaky ReLU 0.2 and the dropout; then a sigmoid at size "tutorial"

A module that is called three times draws three masks, each of its own layer's width, but has one rate: `fixed:0.3` sets
all three, and no strategy can tell them apart. Settings, engine, figures and strategies are those of `gan`.
"""

from dataclasses import replace
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING

from .gan import GAN, SLOPE, GanSettings
from .strategies import scheduled

if TYPE_CHECKING:
    from torch import nn

FIXED = {"dropout": 0.1}


def build(settings: GanSettings, shape: tuple[int, ...], classes: int, seed: int) -> "nn.Module":
    """Both networks, as `generator` and `discriminator` of one module; see `gan.build`."""
    import torch
    from torch import nn
    from torch.nn.functional import leaky_relu

    from ...torch import Dropout
    from .weights import set_first_weights

    class Layers(nn.Module):
        def __init__(self, *widths: int) -> None:
            super().__init__()
            sizes = pairwise(widths)
            # skip_init leaves torch's own generator alone: nothing here depends on it, or moves it.
            self.layer_one = nn.utils.skip_init(nn.Linear, *next(sizes))
            self.layer_two = nn.utils.skip_init(nn.Linear, *next(sizes))
            self.layer_three = nn.utils.skip_init(nn.Linear, *next(sizes))
            self.layer_four = nn.utils.skip_init(nn.Linear, *next(sizes))

    class Discriminator(Layers):
        def __init__(self, *widths: int) -> None:
            super().__init__(*widths)
            self.dropout = Dropout(0.0)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = leaky_relu(self.layer_one(x.flatten(1)), SLOPE)
            x = self.dropout(x)
            x = leaky_relu(self.layer_two(x), SLOPE)
            x = self.dropout(x)
            x = leaky_relu(self.layer_three(x), SLOPE)
            x = self.dropout(x)
            x = self.layer_four(x)
            return x if settings.logits else torch.sigmoid(x)

    class Generator(Layers):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = leaky_relu(self.layer_one(x), SLOPE)
            x = leaky_relu(self.layer_two(x), SLOPE)
            x = leaky_relu(self.layer_three(x), SLOPE)
            return torch.tanh(self.layer_four(x)).unflatten(1, shape)

    pixels, model = prod(shape), nn.Module()
    model.generator = Generator(settings.latent, *settings.generator, pixels)
    model.discriminator = Discriminator(pixels, *settings.hidden, 1)
    return set_first_weights(model, seed, settings.weight_std, settings.first_weights)


GAN_FUNCTIONAL = replace(
    GAN,
    name="gan-functional",
    summary="gan as its tutorial writes it, one Dropout(0.1) called three times; none, fixed, step",
    strategies=scheduled(FIXED),
    feeds={"dropout": "layer_four"},
    build=build,  # type: ignore[arg-type]  # its settings are those that it makes
)
