"""Dropout composed of torch's operations, for any law, share, device and tensor. Equal to the kernels bit for bit."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from ...axes.noise import Soft
from ...axes.share import Refining
from ...drop import Lowered, settled
from ...place import Part, Place, place_of
from ...threshold import ONE
from ..draw import Words
from . import continuous, formula, laws, transforms
from .arrays import Arrays


class Refined(NamedTuple):
    """Where a tensor lies whose share refines what is drawn: what it needs in place of a `Place`."""

    share: Refining
    shape: tuple[int, ...]
    part: Part
    shift: Any = None  # as that of a place


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
