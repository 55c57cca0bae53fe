"""Dropout composed of torch's operations, for any law, share, device and tensor. Equal to the kernels bit for bit."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from ...axes.noise import Soft
from ...axes.share import Refining
from ...drop import Lowered, settled
from ...place import Part, Place, place_of
from ...threshold import ONE
from ..draw import Words
from . import continuous, formula, laws, transforms


class Refined(NamedTuple):
    """Where a tensor lies whose share refines what is drawn: what it needs in place of a `Place`."""

    share: Refining
    shape: tuple[int, ...]
    part: Part
    shift: Any = None  # as that of a place


class Arrays:
    """torch as laws and shares know a library of arrays."""

    where, sqrt, cumsum = torch.where, torch.sqrt, torch.cumsum
    moveaxis, reshape = torch.moveaxis, torch.reshape

    @staticmethod
    def take(table: np.ndarray, t: torch.Tensor) -> torch.Tensor:
        """Entries of a NumPy table."""
        # As a list of indices: a single one a compiler takes for a number whose value it has to ask for.
        return torch.as_tensor(table, device=t.device).index_select(0, t.reshape(-1)).reshape(t.shape)

    @staticmethod
    def sort(x: torch.Tensor) -> torch.Tensor:
        """Sorted along the last axis."""
        return torch.sort(x, dim=-1)[0]

    @staticmethod
    def pad(bits: torch.Tensor, widths: Sequence[tuple[int, int]]) -> torch.Tensor:
        """False before and behind, as `numpy.pad`."""
        return torch.nn.functional.pad(bits, [width for pair in reversed(widths) for width in pair])


def scale_kept(
    x: torch.Tensor,
    key: Words,
    lowered: Lowered,
    place: Place | Refined,
    inplace: bool = False,
    other: torch.Tensor | None = None,
) -> torch.Tensor:
    """`a x + b o` where kept, `c o` elsewhere; or `m x + s`. The memory format of x is kept."""
    if isinstance(lowered.law, Soft):
        assert isinstance(place, Place)  # else `settle` has refused it
        n = (continuous.normal if lowered.law.source == "normal" else continuous.uniform)(key, place, x.device)
        return laws.softened(x, n, lowered, inplace)
    t = formula.thresholds(lowered.t, x.device) if isinstance(lowered.t, torch.Tensor) else lowered.t
    if isinstance(place, Refined):
        kept = _refined(place, t, key, x.device)
    else:
        kept = formula.keep_mask(place, t, key, x.device)
    return laws.apply_mask(x, kept, lowered, inplace, other)


def _refined(place: Refined, t: Any, key: Words, device: torch.device) -> torch.Tensor:
    if isinstance(t, int) and t in (0, ONE):
        return torch.full(place.shape, t == ONE, dtype=torch.bool, device=device)

    def uniform(shape: tuple[int, ...], part: Part, axes: Sequence[int]) -> torch.Tensor:
        where = place_of(shape, axes, part)
        if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
            where = transforms.told_apart(where, key)
        return continuous.uniform(key, where, device)

    return place.share.kept(t, place.shape, place.part, uniform, Arrays)


def settle(lowered: Lowered, place: Refined) -> Lowered:
    """`dropkit.drop.settled`, of a tensor of drop probabilities as well."""
    if not isinstance(lowered.t, torch.Tensor):
        return settled(lowered, place.share, place.shape, place.part, Arrays)
    t = formula.thresholds(lowered.t, lowered.t.device)
    new = settled(lowered._replace(t=t, q=None), place.share, place.shape, place.part, Arrays)
    return new._replace(t=lowered.t)
