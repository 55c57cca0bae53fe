"""Rates over depth: one for each layer, from the input to the output.

Two rules are in use under the same words, and they differ by one. With 12 layers and p = 0.1 the first layer has 0.0083
by the paper's rule and 0 by timm's.
"""

from .schedule import Constant, Rate, Scale, as_rate, whole


def linear_in_depth(rate: Rate | float, layers: int) -> list[Rate]:
    """Layer l of L, counted from 1, has l/L of the rate: `p_l(step) = l / L * p(step)`.

    Args:
        rate: the last layer's rate, or its drop probability.
        layers: L, at least 1.

    Returns:
        L rates, the first layer's first.

    Raises:
        DropkitTypeError, DropkitValueError: a p outside [0, 1]; fewer than 1 layer.

    Source: stochastic depth (Huang et al. 2016, arXiv:1603.09382, p = 0.5); progressive layer dropping (Zhang and He
    2020); ScheduledDropPath (Zoph et al. 2018).

    >>> [rate.at(0) for rate in linear_in_depth(0.5, 4)]
    [0.125, 0.25, 0.375, 0.5]
    """
    return [_share(rate, layer + 1, layers) for layer in range(_count(layers))]


def linspace_in_depth(rate: Rate | float, layers: int) -> list[Rate]:
    """From none at the first layer to the rate at the last: `p_l(step) = (l - 1) / (L - 1) * p(step)`.

    One layer alone has 0, as linspace(0, p, 1) does.

    Args:
        rate: the last layer's rate, or its drop probability.
        layers: L, at least 1.

    Returns:
        L rates, the first layer's first.

    Raises:
        DropkitTypeError, DropkitValueError: a p outside [0, 1]; fewer than 1 layer.

    Source: `drop_path_rate` of timm's transformers and ConvNeXts; torchvision's Swin and ConvNeXt; Liu et al. 2023,
    whose early and late stochastic depth spread p(step) in this way.

    >>> [rate.at(0) for rate in linspace_in_depth(0.5, 3)]
    [0.0, 0.25, 0.5]
    """
    return [_share(rate, layer, max(1, _count(layers) - 1)) for layer in range(_count(layers))]


def uniform_in_depth(rate: Rate | float, layers: int) -> list[Rate]:
    """The same rate in every layer: `p_l(step) = p(step)`.

    Source: LayerDrop (Fan et al. 2020, p = 0.2); the uniform rule that Huang et al. 2016 compare with.

    >>> uniform_in_depth(0.2, 2)
    [Constant(p=0.2), Constant(p=0.2)]
    """
    return [as_rate(rate)] * _count(layers)


def exponential_in_depth(rate: Rate | float, layers: int) -> list[Rate]:
    """From none at the first layer to the rate at the last, more than straight: `(2^((l - 1) / (L - 1)) - 1) p(step)`.

    One layer alone has 0.

    Args:
        rate: the last layer's rate, or its drop probability.
        layers: L, at least 1.

    Returns:
        L rates, the first layer's first.

    Raises:
        DropkitTypeError, DropkitValueError: a p outside [0, 1]; fewer than 1 layer.

    Source: LayerSkip (Elhoushi et al. 2024, arXiv:2404.16710), whose exp((l - 1) ln 2 / (L - 1)) - 1 this is.

    >>> [round(rate.at(0), 4) for rate in exponential_in_depth(0.2, 3)]
    [0.0, 0.0828, 0.2]
    """
    last = max(1, _count(layers) - 1)
    return [_scaled(rate, 2.0 ** (layer / last) - 1.0) for layer in range(layers)]


def _share(rate: Rate | float, numerator: int, denominator: int) -> Rate:
    return _scaled(rate, numerator / denominator)


def _scaled(rate: Rate | float, factor: float) -> Rate:
    last = as_rate(rate)
    if factor == 1.0:
        return last
    return Constant(factor * last.p) if isinstance(last, Constant) else Scale(last, factor)


def _count(layers: int) -> int:
    return whole("layers", layers, least=1, unit="layer")
