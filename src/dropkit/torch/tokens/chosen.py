"""Which tokens of each sample are kept: an exact count, those with the smallest keyed numbers."""

import torch

from ...axes.share.refining.exactly import rounded_down
from ...drop import Lowered
from ...errors import DropkitTypeError, DropkitValueError
from ...place import Part, Place, place_of
from ..arithmetic import continuous, formula, transforms
from ..layers import Drawn


def checked_tokens(module: Drawn, x: torch.Tensor, prefix: int) -> int:
    """How many tokens there are to choose from.

    Raises:
        DropkitValueError: no sequence, or one that is all prefix.
    """
    if x.dim() < 2 or x.shape[1] <= prefix:
        raise DropkitValueError(
            f"{type(module).__name__} takes samples x tokens x ..., with tokens behind {prefix} of a prefix, got shape "
            f"{tuple(x.shape)}"
        )
    return x.shape[1] - prefix


def checked_prefix(value: int) -> int:
    """A number of tokens that are never dropped.

    Raises:
        DropkitTypeError, DropkitValueError: no whole number, or below 0.
    """
    if type(value) is not int:
        raise DropkitTypeError(f"num_prefix_tokens must be a whole number of tokens, got {value!r}")
    if value < 0:
        raise DropkitValueError(f"num_prefix_tokens must be at least 0, got {value}")
    return value


def chosen(module: Drawn, x: torch.Tensor, law: Lowered | None, prefix: int) -> torch.Tensor | None:
    """Numbers of the tokens that are kept, prefix not counted, smallest keyed number first; None where all are.

    `max(1, int((1 - p) n))` of n, each sample by itself.
    """
    n = checked_tokens(module, x, prefix)
    draw = module.fresh((law, float(module.p)))
    first, p = draw.lowered  # in a forward that is run again, those of the first time
    count = n if first is None else kept_of(n, p)
    if count == n:
        return None
    place = _of_samples(x, n, draw.part)
    if torch._C._are_functorch_transforms_active():
        place = transforms.told_apart(place, draw.key)
    return torch.argsort(continuous.uniform(draw.key, place, x.device), dim=1, stable=True)[:, :count]


def kept_of(n: int, p: float) -> int:
    """How many of n tokens stay: one at least.

    >>> kept_of(196, 0.5), kept_of(10, 0.99)
    (98, 1)
    """
    return max(1, rounded_down(n, p))


def taken(x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """The entries of axis 1 at these places, which differ from sample to sample."""
    return x.gather(1, wide(places, x))


def wide(places: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The places, for every feature of x."""
    return places.reshape(*places.shape, *[1] * (x.dim() - 2)).expand(*places.shape, *x.shape[2:])


def _of_samples(x: torch.Tensor, tokens: int, part: Part) -> Place:
    """Where the numbers of samples x tokens lie in those of the whole batch."""
    _, whole = part.in_whole(x.shape)
    if whole[1] != x.shape[1]:
        raise DropkitValueError(
            f"tokens are counted over whole sequences, and here are {x.shape[1]} of {whole[1]}: gather them before"
        )
    rows = place_of(x.shape, tuple(range(1, x.dim())), part)
    formula.check_rows(rows)
    return Place((x.shape[0], tokens), (tokens, 1), rows.base * tokens, rows.rows)
