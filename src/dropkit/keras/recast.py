"""Another law and another share in a dropout that is part of a finished model."""

from typing import Any

from ..axes.noise import Noise
from ..axes.share import Sharing
from ..drop import Drop
from .layers import Dropout


def recast(layer: Any, share: Sharing, noise: Noise) -> None:
    """Make a dropout of dropkit's drop in another way, where it stands; its rate, seed and site stay.

    Args:
        layer: with a rate; becomes a `Dropout`.
        share, noise: as the constructor takes them.

    >>> from dropkit.axes import noise, share
    >>> layer = Dropout(0.5)
    >>> recast(layer, share.Axes((1,)), noise.Bernoulli())
    >>> layer.share
    Axes(axes=(1,))
    """
    drop = Drop(0.0, share=share, noise=noise)
    object.__setattr__(layer, "__class__", Dropout)
    state = layer.__dict__
    for name in ("data_format", "input_spec"):
        state.pop(name, None)
    state["input_spec"], state["noise_shape"] = None, None
    state["_share"], state["_noise"] = drop.share, noise
