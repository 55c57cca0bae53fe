"""The six dropouts of torch.nn.functional with torch's own signatures, so that a changed import is the whole change.

Like torch's, four of them drop by default: pass `training=self.training`, or use `dropkit.torch.dropout`, which asks.
The key is ambient, or that of an enclosing `dropkit.torch.at`. The same object comes back where nothing is dropped.
"""

from collections.abc import Callable, Sequence

import torch
from torch.overrides import handle_torch_function, has_torch_function_unary

from ..axes.noise import Alpha, Bernoulli, Noise
from . import channels, ops
from .draw import Fresh
from .drawing import coordinates

_INVERTED, _ALPHA = Bernoulli(), Alpha()


def dropout(input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
    """`torch.nn.functional.dropout`: elements are zeroed with probability p, the rest is multiplied by 1 / (1 - p).

    Args:
        input: floating tensor of any shape.
        p: drop probability in [0, 1].
        training: whether to drop.
        inplace: write into input.

    Returns:
        A tensor like input, or input itself where nothing is dropped.

    Raises:
        DropkitValueError, DropkitTypeError: as `dropkit.torch.dropout`.

    >>> dropout(torch.ones(3), p=1.0)
    tensor([0., 0., 0.])
    """
    if has_torch_function_unary(input):
        return handle_torch_function(dropout, (input,), input, p=p, training=training, inplace=inplace)
    return _drop(input, p, training, inplace, ())


def dropout1d(input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
    """`torch.nn.functional.dropout1d`: whole channels of N x C x L, or of C x L. Arguments as `dropout`.

    >>> dropout1d(torch.ones(2, 3, 4), training=False).sum()
    tensor(24.)
    """
    if has_torch_function_unary(input):
        return handle_torch_function(dropout1d, (input,), input, p=p, training=training, inplace=inplace)
    return _drop_channels(input, p, training, inplace, channels.of_1d)


def dropout2d(input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
    """`torch.nn.functional.dropout2d`: whole channels of N x C x H x W. Arguments as `dropout`.

    >>> dropout2d(torch.ones(2, 3, 4, 4), p=1.0).sum()
    tensor(0.)
    """
    if has_torch_function_unary(input):
        return handle_torch_function(dropout2d, (input,), input, p=p, training=training, inplace=inplace)
    return _drop_channels(input, p, training, inplace, channels.of_2d)


def dropout3d(input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
    """`torch.nn.functional.dropout3d`: whole channels of (N x) C x D x H x W. Arguments as `dropout`.

    >>> dropout3d(torch.ones(1, 3, 2, 2, 2), p=1.0).sum()
    tensor(0.)
    """
    if has_torch_function_unary(input):
        return handle_torch_function(dropout3d, (input,), input, p=p, training=training, inplace=inplace)
    return _drop_channels(input, p, training, inplace, channels.of_3d)


def alpha_dropout(input: torch.Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> torch.Tensor:
    """`torch.nn.functional.alpha_dropout`, for SELU: keeps mean 0 and variance 1. Off by default, as torch's.

    >>> x = torch.ones(3)
    >>> alpha_dropout(x) is x
    True
    """
    if has_torch_function_unary(input):
        return handle_torch_function(alpha_dropout, (input,), input, p=p, training=training, inplace=inplace)
    return _drop(input, p, training, inplace, (), _ALPHA)


def feature_alpha_dropout(
    input: torch.Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> torch.Tensor:
    """`torch.nn.functional.feature_alpha_dropout`: whole channels of N x C x anything. Off by default, as torch's.

    >>> x = torch.ones(2, 3)
    >>> feature_alpha_dropout(x) is x
    True
    """
    if has_torch_function_unary(input):
        return handle_torch_function(feature_alpha_dropout, (input,), input, p=p, training=training, inplace=inplace)
    return _drop_channels(input, p, training, inplace, channels.of_features, _ALPHA)


def _drop(
    x: torch.Tensor,
    p: float,
    training: bool,
    inplace: bool,
    share: Sequence[int],
    law: Noise = _INVERTED,
    fresh: Fresh = coordinates.draw_for,
) -> torch.Tensor:
    lowered = ops.lower(x, p, bool(training), law)
    return x if lowered is None else ops.apply(x, lowered, fresh, share, inplace)


def _drop_channels(
    x: torch.Tensor,
    p: float,
    training: bool,
    inplace: bool,
    axes: Callable[[torch.Tensor], tuple[int, ...]],
    law: Noise = _INVERTED,
    fresh: Fresh = coordinates.draw_for,
) -> torch.Tensor:
    lowered = ops.lower(x, p, bool(training), law)
    share = axes(x)
    if lowered is None:
        return x
    if isinstance(lowered.t, torch.Tensor) or lowered.t != 0:  # a tensor's value is no code to compile
        channels.check(x, axes)
    return ops.apply(x, lowered, fresh, share, inplace)


def drawn_by(name: str, x: torch.Tensor, p: float, training: bool, inplace: bool, fresh: Fresh) -> torch.Tensor:
    """The function of this name, or torch's of the same law, with a draw that is given.

    >>> drawn_by("dropout", torch.ones(2), 1.0, True, False, coordinates.draw_for)
    tensor([0., 0.])
    """
    axes = _CHANNELS.get(name)
    law = _ALPHA if "alpha" in name else _INVERTED
    if axes is None:
        return _drop(x, p, training, inplace, (), law, fresh)
    return _drop_channels(x, p, training, inplace, axes, law, fresh)


_CHANNELS: dict[str, Callable[[torch.Tensor], tuple[int, ...]]] = {
    "dropout1d": channels.of_1d,
    "dropout2d": channels.of_2d,
    "dropout3d": channels.of_3d,
    "feature_dropout": channels.of_features,
    "feature_alpha_dropout": channels.of_features,
}
