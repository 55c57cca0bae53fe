"""What a call drew, read from what it made of ones: by the numbers of its law, whatever law that is."""

from typing import Any, NamedTuple

import numpy as np
import torch

from ...axes.noise import Soft
from ...drop import Lowered, lower, settled
from ...place import WHOLE
from ...threshold import threshold
from .inventory import Site

_ADDED = "it adds numbers, which no gradient shows"
_ALIKE = "what its law keeps and what it drops look the same"


class Outcome(NamedTuple):
    """What a call showed on ones.

    Args:
        forward: which elements were dropped; of a soft law what it gave.
        wrong: in how many elements the backward says otherwise.
        values: it draws a number for each element, and no mask.
        unseen: why the gradient could not show it.
    """

    forward: torch.Tensor
    wrong: int
    values: bool = False
    unseen: str = ""


def outcome(site: Site, y: torch.Tensor, gradient: torch.Tensor, other: Any, shape: tuple[int, ...]) -> Outcome:
    """What a site drew, by its output y on ones of a shape, and by the gradient of their sum."""
    law = site.noise
    lowered = None if law is None else numbers(site, shape)
    if isinstance(law, Soft):
        forward, backward = local(y), local(gradient)
        if lowered is not None and law.factors(np.array([0.25, 0.75]), np.asarray(lowered.q), np)[1] is not None:
            return Outcome(forward, 0, True, _ADDED)
        return Outcome(forward, int((~torch.isclose(forward, backward, 1e-2, 1e-3)).sum()), True)
    backward = local(gradient == 0)
    if lowered is None or (lowered.b == 0 == lowered.c):
        forward = local(y == 0)
        return Outcome(forward, int((forward != backward).sum()))
    part = local(y).double()
    o = 1.0 if other is None else local(other if other.is_nested else other.expand(shape)).double()
    forward, known = gone(torch.ones_like(part), part, lowered, o)
    if not lowered.a or not bool(known.any()):
        return Outcome(forward, 0, unseen=_ALIKE)
    return Outcome(forward, int((forward != backward)[known].sum()))


def numbers(site: Site, shape: tuple[int, ...]) -> Lowered | None:
    """The numbers of a site's law on a tensor of a shape; None where it does nothing, or nothing says what it is."""
    if site.noise is None or (lowered := lower(site.noise, threshold(site.p))) is None:
        return None
    return settled(lowered, site.share, shape, WHOLE, np)


def gone(x: torch.Tensor, y: torch.Tensor, lowered: Lowered, o: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Which elements of x a hard law dropped, as y shows, and where that can be told from what it keeps."""
    a, b, c = (float(number) for number in lowered[2:5])
    kept = a * x + b * o
    dropped = torch.as_tensor(c * o, dtype=kept.dtype, device=kept.device).expand(kept.shape)
    known = ~torch.isclose(kept, dropped, 1e-2, 1e-3, equal_nan=True)
    return (y == dropped) | ((y - dropped).abs() < (y - kept).abs()), known


def local(x: Any) -> torch.Tensor:
    """What of a tensor that wraps another lies here."""
    if hasattr(x, "device_mesh"):
        x = x.to_local()
    inside: torch.Tensor = x.values() if jagged(x) else x
    return inside


def jagged(x: torch.Tensor) -> bool:
    """Whether it is a nested tensor whose values lie in one."""
    return x.is_nested and x.layout is torch.jagged
