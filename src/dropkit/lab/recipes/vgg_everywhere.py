"""vgg-everywhere and vgg-channels: the VGG of `vgg-adaptive` with dropout after every convolution too.

The tutorial's text wants a dropout after each convolutional layer; its code has two, after fc6 and fc7. Here is what
the text says: after each of the 13 convolutions and its ReLU a dropout, of single elements (`vgg-everywhere`) or whole
channels (`vgg-channels`), and drop6 and drop7 as before. The text gives no rates: 0.1 after convolutions is chosen
here, 0.5 after fc6 and fc7 is the code's. `fixed:0.5` sets all fifteen to 0.5. All else is `vgg-adaptive`.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from .recipe import Recipe, Settings
from .strategies import DECAY, SCHEDULED, chosen
from .vgg_adaptive import FIXED as DENSE
from .vgg_adaptive import GROUPS, VGG_ADAPTIVE
from .vgg_adaptive import build as without

if TYPE_CHECKING:
    from torch import nn

CONVOLUTIONS = sum(GROUPS)
FIXED = {**{f"conv_drop{number}": 0.1 for number in range(1, CONVOLUTIONS + 1)}, **DENSE}
FEEDS = {
    **{f"conv_drop{number}": f"conv{number + 1}" for number in range(1, CONVOLUTIONS)},
    f"conv_drop{CONVOLUTIONS}": "fc6",
    **VGG_ADAPTIVE.feeds,
}


def elements(settings: Settings, shape: tuple[int, ...], classes: int, seed: int) -> "nn.Module":
    """The network with dropout of single elements after each convolution."""
    return _build(settings, shape, classes, seed, share=())


def channels(settings: Settings, shape: tuple[int, ...], classes: int, seed: int) -> "nn.Module":
    """The network with dropout of whole channels after each convolution."""
    return _build(settings, shape, classes, seed, share=(2, 3))


def _build(settings: Settings, shape: tuple[int, ...], classes: int, seed: int, share: tuple[int, ...]) -> "nn.Module":
    """The code's network, and behind each convolution's ReLU a dropout; the first weights are the same."""
    from torch import nn

    from ...torch import Dropout

    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for name, layer in without(settings, shape, classes, seed).named_children():
        layers[name] = layer
        if name.startswith("conv_relu"):
            layers[name.replace("relu", "drop")] = Dropout(0.0, share=share)
    return nn.Sequential(layers)


def _recipe(name: str, what: str, build: Callable[..., "nn.Module"]) -> Recipe:
    return replace(
        VGG_ADAPTIVE,
        name=name,
        summary=f"vgg-adaptive with dropout 0.1 after each convolution too, {what}; none, fixed, and on request step, "
        f"{DECAY}",
        strategies=chosen(FIXED, *SCHEDULED, DECAY),
        compared=("none", "fixed"),
        feeds=FEEDS,
        build=build,
    )


VGG_EVERYWHERE = _recipe("vgg-everywhere", "single elements", elements)
VGG_CHANNELS = _recipe("vgg-channels", "whole channels", channels)
