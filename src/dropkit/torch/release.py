"""Bound models, and parts of them, taken apart again; and a copy that is given masks of its own."""

from typing import Any

import torch

from ..counter import Key
from ..errors import DropkitTypeError, DropkitValueError
from .binding import Model
from .bound.bond import MARK, SEED, STEP, bond_of, clock_of
from .bound.clock import BoundSite, pieces_of
from .drawing.coordinates import Sharded
from .named import Named


def unbind(model: Model) -> Model:
    """Undo `bind`: the dropouts are ambient again, the buffers and the hooks are gone.

    A part of a bound model is released: its dropouts leave the clock, so that the part can be called or bound by
    itself, and the rest stays bound; where no dropout is left, the whole is unbound too. Bound parts of the model are
    unbound with it.

    Raises:
        DropkitValueError: the model is not bound, and nothing in it is.
        DropkitTypeError: not a module.

    >>> from torch import nn
    >>> from dropkit.torch import Dropout, bind
    >>> model = unbind(bind(nn.Sequential(Dropout(0.5))))
    >>> model.state_dict()
    OrderedDict()
    """
    if not isinstance(model, torch.nn.Module):
        raise DropkitTypeError(f"unbind needs a torch.nn.Module, got {type(model).__name__}")
    bonds = [bond for part in model.modules() if (bond := bond_of(part)) is not None]
    drops = [part for part in model.modules() if isinstance(part, Named) and isinstance(part.site, BoundSite)]
    if not bonds and not drops:
        raise DropkitValueError(f"this {type(model).__name__} is not bound; bind(model, seed=...) comes first")
    for bond in bonds:
        _dissolve(bond)
    around = {id(drop.site.clock): drop.site.clock for drop in drops if isinstance(drop.site, BoundSite)}
    for clock in around.values():
        mine = [drop for drop in drops if isinstance(drop.site, BoundSite) and drop.site.clock is clock]
        clock.forget(mine)
        for drop in mine:
            _release(drop)
        parts = clock.parts()
        if clock.model is not None and not any(id(drop) in parts for drop in clock.drops):
            _dissolve(bond_of(clock.model))
    return model


def reseed(model: Model, seed: int) -> Model:
    """Give a bound model another seed; its step stays.

    A deep copy draws the masks of its model; `reseed(copy.deepcopy(model), seed)` draws its own.

    Args:
        model: a bound model, or one that holds a bound model; not a part of one.
        seed: an int in [0, 2**64).

    Returns:
        The same model.

    Raises:
        DropkitValueError: the model is not bound, or several of its parts are; a bad seed.
        DropkitTypeError: not a module; a seed that is no integer.

    >>> import copy
    >>> from torch import nn
    >>> from dropkit.torch import Dropout, bind
    >>> model = bind(nn.Sequential(Dropout(0.5)), seed=1)
    >>> other = reseed(copy.deepcopy(model), seed=2)
    >>> int(model.dropkit_seed), int(other.dropkit_seed)
    (1, 2)
    """
    if not isinstance(model, torch.nn.Module):
        raise DropkitTypeError(f"reseed needs a torch.nn.Module, got {type(model).__name__}")
    seed = Key(seed).seed
    bound = {path: part for path, part in model.named_modules() if bond_of(part) is not None}
    if len(bound) > 1:
        raise DropkitValueError(f"several parts are bound by themselves, {', '.join(bound)}: reseed each of them")
    if not bound:
        part = any(isinstance(part, Named) and isinstance(part.site, BoundSite) for part in model.modules())
        raise DropkitValueError(
            f"this {type(model).__name__} is a part of a bound model, which has the seed: reseed that, or unbind the "
            f"part and bind(part, seed={seed})"
            if part
            else f"this {type(model).__name__} is not bound; bind(model, seed={seed}) gives it a seed"
        )
    clock_of(*bound.values()).reseed(seed)
    return model


def _dissolve(bond: Any) -> None:
    owner = bond.clock.model
    bond.undo()
    for drop in bond.clock.drops:
        _release(drop)
    for name in (SEED, STEP, MARK):
        delattr(owner, name)


def _release(drop: Named) -> None:
    pieces = pieces_of(drop.site)
    del drop.site
    if pieces:
        drop.site = Sharded(pieces)
