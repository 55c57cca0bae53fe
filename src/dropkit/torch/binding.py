"""Keyed models: every dropout named by its module path, and a clock for the model."""

import warnings
from typing import Any, TypeVar

import torch

from ..counter import Key
from ..errors import DropkitTypeError, DropkitValueError
from ..visible import a_type
from .bound.bond import MARK, bond_of, clock_of
from .bound.clock import BoundSite, Clock, pieces_of
from .bound.state import Own, tensor_of
from .drawing import ranks
from .named import Named
from .reading.structure import CALLS
from .reading.unkeyed import told, unkeyed

Model = TypeVar("Model", bound=torch.nn.Module)

# how torch's wrappers call what they wrap: torch.compile, checkpoint_wrapper, FullyShardedDataParallel
WRAPPED = {"_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"}
_SWAPPABLE = [getattr(torch.nn, name) for name in torch.nn.modules.dropout.__all__]


def bind(model: Model, seed: int = 0, *, data_parallel: Any = None) -> Model:
    """Make a model's masks a function of (seed, module path, step): the same on any device, resumable, replayable.

    Names every dropkit dropout in the model by its module path and gives the model a clock: forward n with active
    dropout, counted from 0, is step n. The state is two int64 buffers, `dropkit_seed` and `dropkit_step`, in the
    model's `state_dict`: a run resumed from it draws the masks it would have drawn. A module called k times in one
    forward counts as k sites: `name`, `name#1`, `name#2`, ... The names leave out what wrappers add to a path
    (`torch.compile`, DistributedDataParallel, checkpoint wrappers).

    A model that is bound with this seed already takes in the dropouts that are new in it; its clock goes on.

    On several ranks the masks are slices of those of one process: rank r of n draws for samples r * B to (r + 1) * B of
    a batch of n * B. DTensors know their slice by themselves; `at(rows=...)` says more where batches differ in size.

    Args:
        model: a module with dropkit dropouts in it; call it, not its parts, in training.
        seed: an int in [0, 2**64).
        data_parallel: the ProcessGroup or DeviceMesh over which the batch (axis 0) is split; False if every rank has
            the whole batch. By default that of the DistributedDataParallel or `fully_shard` around the model or in it.

    Returns:
        The same model.

    Raises:
        DropkitValueError: no dropkit dropout in the model; a part of it is bound already, or all of it, or it is bound
            with another seed; a bad seed.
        DropkitTypeError: not a module; a seed that is no integer.

    Warns:
        UserWarning: dropouts stay on torch's generator, functional calls, attention, recurrent networks and layers of
            others among them; all are named, with what can be done. In the first training forward: several
            processes run the model, and nothing says which samples each of them has. In any: their batches of one
            step differ in size; a tensor-parallel plan leaves them different parts of what a dropout drops, and nothing
            says so.

    >>> from torch import nn
    >>> from dropkit.torch import Dropout, at
    >>> model = bind(nn.Sequential(nn.Linear(4, 4), Dropout(0.5)), seed=1)
    >>> x = torch.ones(1, 4)
    >>> first, second = model(x), model(x)
    >>> with at(step=0):
    ...     again = model(x)
    >>> torch.equal(first, again)
    True
    """
    if not isinstance(model, torch.nn.Module):
        raise DropkitTypeError(f"bind needs a torch.nn.Module, got {type(model).__name__}")
    seed = Key(seed).seed
    root = uncompiled(model)
    batch = ranks.Batch(root, data_parallel)
    named = _named_drops(root)
    _check_bindable(root, named, seed)
    bond = bond_of(root)
    if bond is None:
        clock = Clock(root, [drop for _, drop in named], batch, _registered(root, seed))
    else:
        clock = bond.clock
        clock.belong(root, root._buffers, [drop for _, drop in named])
        if data_parallel is not None:
            clock.batch = batch
    for name, drop in named:
        if isinstance(drop.site, BoundSite):
            if drop.site.clock is clock:
                continue
            drop.site.clock.forget([drop])  # of a model that is gone, or that does not hold it any more
        drop.site = BoundSite(clock, name, pieces_of(drop.site))
    return model


def _registered(root: torch.nn.Module, seed: int) -> Own:
    """The buffers of a model that is bound now."""
    own, device = Own(seed), _device(root)
    for name, value in own.values.items():
        root.register_buffer(name, tensor_of(value, device))
    root.register_buffer(MARK, None, persistent=False)
    own.write_mark(root._buffers, device)
    return own


def uncompiled(model: torch.nn.Module) -> torch.nn.Module:
    """What `torch.compile` wraps: the clock and its buffers belong to the model, so that they are compiled with it."""
    return getattr(model, "_orig_mod", model)


def _check_bindable(model: torch.nn.Module, named: list[tuple[str, Named]], seed: int) -> None:
    if not named:
        foreign = [
            f"{name} ({type(part).__name__})"
            for name, part in model.named_modules()
            if isinstance(part, torch.nn.modules.dropout._DropoutNd)
        ]
        found = (
            f"it has torch's own: {', '.join(foreign)}; use dropkit.torch.Dropout there" if foreign else "it has none"
        )
        raise DropkitValueError(f"no dropkit dropout to bind in {type(model).__name__}: {found}")
    sites = {name: drop.site for name, drop in named if isinstance(drop.site, BoundSite)}
    parts = {id(site.clock): site.clock.parts() for site in sites.values()}
    held = {
        name: owner
        for name, drop in named
        if name in sites and id(drop) in parts[id(sites[name].clock)] and (owner := sites[name].clock.model) is not None
    }
    _check_owners(model, held, [name for name, _ in named if name not in held], seed)
    left = unkeyed(model, Named)
    if left:
        warnings.warn(told("bind leaves torch's own dropouts unbound", left, _SWAPPABLE), stacklevel=3)


def _check_owners(model: torch.nn.Module, held: dict[str, torch.nn.Module], new: list[str], seed: int) -> None:
    """Refuse what other models hold; a bound model may be bound again with its seed, to take in what is new in it."""
    paths = {id(part): path for path, part in model.named_modules()}
    for owner in held.values():
        if owner is model:
            continue
        mine = ", ".join(name for name, each in held.items() if each is owner)
        path = paths.get(id(owner))
        whose = (
            f"the {type(owner).__name__} around it" if path is None else f"the {type(owner).__name__} {path!r} in it"
        )
        remedy = "dropkit.torch.unbind(part) releases a part" if path is None else "dropkit.torch.unbind that first"
        raise DropkitValueError(f"already bound: {mine} of this {type(model).__name__}, with {whose}; {remedy}")
    if not held:
        return
    own = clock_of(model).seed
    if not new:
        raise DropkitValueError(
            f"already bound: {', '.join(held)}; dropkit.torch.unbind the model first, or "
            f"dropkit.torch.reseed(model, {seed}) for other masks"
        )
    if own != seed:
        raise DropkitValueError(
            f"new in {a_type(model)} that is bound with seed {own}: {', '.join(new)}; bind(model, seed={own}) "
            f"takes them in, and dropkit.torch.unbind comes before seed {seed}"
        )


def _named_drops(model: torch.nn.Module) -> list[tuple[str, Named]]:
    """Every dropkit dropout by its path, without the parts of the path that wrappers add."""
    parallel = (torch.nn.parallel.DistributedDataParallel, torch.nn.DataParallel)
    around = {f"{path}.module".lstrip(".") for path, part in model.named_modules() if isinstance(part, parallel)}

    def clean(path: str) -> str:
        parts = path.split(".")
        keep = [part for i, part in enumerate(parts) if part not in WRAPPED and ".".join(parts[: i + 1]) not in around]
        return ".".join(keep).replace(f".{CALLS}.", ":").replace(f"{CALLS}.", ":")  # a call, as `sites` names it

    return [(clean(path), part) for path, part in model.named_modules() if isinstance(part, Named)]


def _device(model: torch.nn.Module) -> torch.device:
    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device
