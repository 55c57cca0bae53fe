"""Which axes of an input are one channel, by the rules of torch's dropout1d, 2d and 3d, texts included."""

import warnings
from collections.abc import Callable

import torch

from ..errors import DropkitRuntimeError


def of_1d(x: torch.Tensor) -> tuple[int, ...]:
    """Shared axes of N x C x L or C x L; other inputs are refused, in evaluation too."""
    dims = x.dim()
    if dims not in (2, 3):
        raise DropkitRuntimeError(
            f"dropout1d: Expected 2D or 3D input, but received a {dims}D input. Note that dropout1d exists to provide "
            "channel-wise dropout on inputs with 1 spatial dimension, a channel dimension, and an optional batch "
            "dimension (i.e. 2D or 3D inputs)."
        )
    return (dims - 1,)


def of_2d(x: torch.Tensor) -> tuple[int, ...]:
    """Shared axes of N x C x H x W; other inputs warn, in evaluation too, and are N x C x anything."""
    dims = x.dim()
    if dims not in (3, 4):
        _deprecated(2, dims, "2 spatial dimensions", "3D or 4D")
    if dims == 3:
        warnings.warn(
            "dropout2d: Received a 3D input to dropout2d and assuming that channel-wise 1D dropout behavior is desired "
            "- input is interpreted as shape (N, C, L), where C is the channel dim. This behavior will change in a "
            "future release to interpret the input as one without a batch dimension, i.e. shape (C, H, W). To maintain "
            "the 1D channel-wise dropout behavior, please switch to using dropout1d instead.",
            stacklevel=4,
        )
    return tuple(range(2, dims))


def of_3d(x: torch.Tensor) -> tuple[int, ...]:
    """Shared axes of N x C x D x H x W or C x D x H x W; inputs without five axes have no batch axis, for torch too."""
    dims = x.dim()
    if dims not in (4, 5):
        _deprecated(3, dims, "3 spatial dimensions", "4D or 5D")
    return tuple(range(2 if dims == 5 else 1, dims))


def of_features(x: torch.Tensor) -> tuple[int, ...]:
    """Shared axes of N x C x anything."""
    return tuple(range(2, x.dim()))


def check(x: torch.Tensor, axes: Callable[[torch.Tensor], tuple[int, ...]]) -> None:
    """Refuse to drop channels of an input that has none, as torch does while training with p other than 0 and 1."""
    if x.dim() < (1 if axes is of_3d else 2):
        raise DropkitRuntimeError(
            f"Feature dropout requires at least 2 dimensions in the input, got shape {tuple(x.shape)}"
        )


def _deprecated(kind: int, dims: int, spatial: str, expected: str) -> None:
    warnings.warn(
        f"dropout{kind}d: Received a {dims}-D input to dropout{kind}d, which is deprecated and will result in an error "
        "in a future release. To retain the behavior and silence this warning, please use dropout instead. Note that "
        f"dropout{kind}d exists to provide channel-wise dropout on inputs with {spatial}, a channel dimension, and an "
        f"optional batch dimension (i.e. {expected} inputs).",
        stacklevel=5,
    )
