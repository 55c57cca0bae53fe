"""The law of a layer, and who shares a draw in it: asked of the layer, which holds them as values."""

from typing import Any

from torch import nn

from ...axes.noise import Alpha, Bernoulli, Noise
from ...axes.share import Axes, Refining
from ...visible import written
from ..layers import Drawn


def layer_noise(module: Any) -> Noise | None:
    """The law of a layer; None where nothing says, as of rates that are learned and of layers of the user's own.

    >>> layer_noise(nn.Dropout(0.5)), layer_noise(nn.AlphaDropout(0.5)), layer_noise(nn.Linear(1, 1))
    (Bernoulli(), Alpha(), None)
    """
    if isinstance(module, Drawn):
        known = module.law_known and isinstance(module, nn.modules.dropout._DropoutNd)
        return module.noise if known else None
    if isinstance(module, nn.AlphaDropout | nn.FeatureAlphaDropout):
        return Alpha()
    known = isinstance(module, nn.modules.dropout._DropoutNd | nn.MultiheadAttention | nn.RNNBase)
    return Bernoulli() if known else None


def layer_share(module: Any) -> Any:
    """Axes that share a draw, or a share that refines; () where the layer has no such argument.

    >>> from dropkit.torch import Dropout
    >>> layer_share(Dropout(0.5, share=(2, 3))), layer_share(nn.Dropout2d(0.5))
    ((2, 3), ())
    """
    share = getattr(module, "share", ()) if isinstance(module, Drawn) else ()
    return share.axes if isinstance(share, Axes) else share


def words(noise: Noise | None, share: Any) -> str:
    """What is not as in ordinary dropout, as its arguments say it.

    >>> from dropkit.axes.share import Exactly
    >>> words(Bernoulli(), (2, 3)), words(Alpha(), Exactly((-1,)))
    ('', 'noise Alpha(), share Exactly(over=(-1,))')
    """
    unusual = [] if noise is None or type(noise) is Bernoulli else [f"noise {written(noise)}"]
    unusual += [f"share {written(share)}"] if isinstance(share, Refining) else []
    return ", ".join(unusual)
