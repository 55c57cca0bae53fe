"""Nested tensors: pieces of several lengths, packed into one."""

from collections.abc import Sequence
from typing import Any

import torch

from ...axes.share import Refining
from ...errors import DropkitValueError
from .value import Parts


def parts_of(x: Any) -> Parts:
    """A jagged tensor's coordinates are those of its packed values: batch and ragged axis are one axis there."""
    if x.layout is not torch.jagged:
        return strided(x)
    ragged = x._ragged_idx

    def share_of_values(share: Any) -> list[int]:
        _axes_alone(share)
        axes = [axis % x.dim() for axis in share]
        if set(axes) & {0, ragged}:
            raise DropkitValueError(
                f"share {tuple(share)} names the batch or the ragged axis of a nested tensor, whose rows differ"
            )
        return [axis - 1 for axis in axes]

    def rebuilt(values: torch.Tensor) -> torch.Tensor:
        return torch.nested.nested_tensor_from_jagged(
            values, x.offsets(), getattr(x, "_lengths", None), jagged_dim=ragged
        )

    def matched(other: Any) -> torch.Tensor:
        if not other.is_nested or other.shape != x.shape:
            raise DropkitValueError(
                f"other must be nested with the offsets of x, got {tuple(other.shape)} for {tuple(x.shape)}"
            )
        values: torch.Tensor = other.values()
        return values

    return Parts(x.values(), rebuilt, lambda fresh: fresh, share_of_values, matched)


def strided(x: torch.Tensor) -> Parts:
    """torch's older kind of nested tensor: its pieces, one behind the other."""
    pieces = x.unbind()

    def rebuilt(flat: torch.Tensor) -> torch.Tensor:
        parts = flat.split([piece.numel() for piece in pieces])
        shaped = [part.view(piece.shape) for part, piece in zip(parts, pieces, strict=True)]
        return torch.nested.as_nested_tensor(shaped)

    def share_of_flat(share: Any) -> Sequence[int]:
        _axes_alone(share)
        if share:
            raise DropkitValueError(
                f"share {tuple(share)} on a nested tensor needs the jagged layout: build it with layout=torch.jagged"
            )
        return share

    def flat_of(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([piece.reshape(-1) for piece in x.unbind()])

    return Parts(flat_of(x), rebuilt, lambda fresh: fresh, share_of_flat, flat_of)


def _axes_alone(share: Any) -> None:
    if isinstance(share, Refining):
        raise DropkitValueError(f"share {share!r} needs the elements' places, which a nested tensor does not have")
