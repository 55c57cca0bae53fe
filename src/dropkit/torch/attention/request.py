"""What an attention call asks for, checked, and where its weights lie in the whole."""

import math
from typing import NamedTuple

import torch

from ...errors import DropkitTypeError, DropkitValueError
from ...place import Place
from ..draw import Words


class Masked(NamedTuple):
    """Which keys a query sees besides what a mask says: key j where `j <= i + diagonal`; all where it is None."""

    mask: torch.Tensor | None  # bool (True: visible) or floating (added), of the weights' shape
    diagonal: int | None

    @property
    def learned(self) -> bool:
        """Whether the mask wants a gradient."""
        return self.mask is not None and self.mask.requires_grad


class Request(NamedTuple):
    """All of a call but its three tensors and its dropout.

    Args:
        masked: what is visible.
        scale: of the scores.
        before: drop keys before the softmax.
    """

    masked: Masked
    scale: float
    before: bool


class KernelDraw(NamedTuple):
    """A dropout as a kernel takes it: the key's words, kept of 65536, and where the weights lie in the whole."""

    key: Words
    t: int
    place: Place | None


def checked_shapes(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, enable_gqa: bool) -> tuple[int, ...]:
    """The shape (batch, heads, queries, keys) of the weights.

    Raises:
        DropkitTypeError, DropkitValueError: the three do not belong together.
    """
    for name, x in (("q", q), ("k", k), ("v", v)):
        if not isinstance(x, torch.Tensor):
            raise DropkitTypeError(f"{name} must be a tensor, got {x!r}")
        if x.dim() != 4:
            raise DropkitValueError(f"{name} must have 4 axes, batch x heads x length x features, got {_told(x)}")
        if x.device != q.device:
            raise DropkitValueError(f"q, k and v must lie on one device, got {q.device}, {k.device} and {v.device}")
        if x.dtype != q.dtype:
            raise DropkitTypeError(f"q, k and v must have one dtype, got {q.dtype}, {k.dtype} and {v.dtype}")
    if not q.is_floating_point():
        raise DropkitTypeError(f"attention needs floating tensors, got {q.dtype}; convert with q.float()")
    batch, heads, queries, features = q.shape
    if k.shape[-1] != features:
        raise DropkitValueError(f"q and k must have as many features, got {_told(q)} and {_told(k)}")
    if k.shape[:3] != v.shape[:3]:
        raise DropkitValueError(f"k and v must have the same batch, heads and length, got {_told(k)} and {_told(v)}")
    if k.shape[0] != batch:
        raise DropkitValueError(f"q and k must have the same batch, got {_told(q)} and {_told(k)}")
    if enable_gqa:
        if not k.shape[1] or heads % k.shape[1]:
            raise DropkitValueError(f"{heads} heads of q are no multiple of {k.shape[1]} heads of k and v")
    elif k.shape[1] != heads:
        raise DropkitValueError(
            f"q has {heads} heads and k has {k.shape[1]}: give as many, or say enable_gqa=True where several heads of "
            "q share one of k"
        )
    return batch, heads, queries, k.shape[2]


def checked_mask(mask: torch.Tensor | None, shape: tuple[int, ...], device: torch.device) -> torch.Tensor | None:
    """The mask in the shape of the weights, without a copy.

    Raises:
        DropkitTypeError, DropkitValueError: neither bool nor floating, of a shape that does not broadcast, on
            another device.
    """
    if mask is None:
        return None
    if not isinstance(mask, torch.Tensor) or (mask.dtype != torch.bool and not mask.is_floating_point()):
        raise DropkitTypeError(
            "mask must be a bool tensor (True where a query sees a key) or a floating one that is added to the "
            f"scores, got {mask.dtype if isinstance(mask, torch.Tensor) else mask!r}"
        )
    if mask.device != device:
        raise DropkitValueError(f"the mask lies on {mask.device} and q on {device}: move it with mask.to(q.device)")
    try:
        return mask.expand(shape)
    except RuntimeError:
        raise DropkitValueError(
            f"mask of shape {tuple(mask.shape)} does not broadcast to (batch, heads, queries, keys) = {shape}"
        ) from None


def checked_scale(scale: float | None, features: int) -> float:
    """The factor of the scores, 1 / sqrt(features) where none is given.

    Raises:
        DropkitValueError: no finite number.
    """
    if scale is None:
        return 1 / math.sqrt(max(features, 1))
    try:
        found = float(scale)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise DropkitValueError(f"scale must be a finite number, such as {max(features, 1) ** -0.5:.3g}, got {scale!r}")
    return found


def _told(x: torch.Tensor) -> str:
    return str(tuple(x.shape))
