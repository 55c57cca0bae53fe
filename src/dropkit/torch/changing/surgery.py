"""Change the dropouts of a model that is there already: swap, insert, set rates, strip; all of it can be taken back.

Each function checks everything first, then edits instances (never classes), and returns a `Receipt`. Keys of the
`state_dict`, parameters, optimizers and hooks are left as they are.
"""

import copy
import warnings
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from ... import patterns
from ...errors import DropkitTypeError, DropkitValueError
from ...patterns import listed
from ...receipt import Edit
from ...threshold import threshold
from ...visible import a_type
from .. import layers
from ..finding.inventory import sites
from ..finding.rates import FoundRate, rates
from ..layers import Drawn
from ..named import Named
from ..reading.structure import taken
from ..reading.unkeyed import Unkeyed, told, unkeyed
from .implementing import implementations
from .receipt import INSERTED, Assignment, Insertion, Position, Receipt, Replacement, described, positions
from .taking import takings
from .where import Where, matcher

SWAPS: dict[type[nn.Module], type[nn.Module]] = {
    getattr(nn, name): getattr(layers, name)
    for name in ("Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout")
}
_FORWARDS = {kind.forward for pair in SWAPS.items() for kind in pair}
_INNER = set(layers.Dropout().__dict__) - set(nn.Dropout().__dict__)  # how our classes keep p


def swap(model: nn.Module, *inputs: Any, **kwargs: Any) -> Receipt:
    """Replace torch's dropout modules by dropkit's of the same name: same p, inplace, mode, hooks and extra attributes.

    Only the exact classes `torch.nn.Dropout`, `Dropout1d`, `Dropout2d`, `Dropout3d`, `AlphaDropout` and
    `FeatureAlphaDropout` are replaced, in containers, inside torch's transformer layers and in parametrizations too.
    Left alone are subclasses and layers of others, and what is no dropout layer: `nn.MultiheadAttention`, `nn.LSTM`,
    functional calls, LayerDrop. The receipt names them, as far as structure and source show them, and so does a
    warning. A module that sits in several places is one new module in all of them.

    With inputs the model is run as `sites(model, *inputs)` runs it, and what the run shows is taken over too: the calls
    of functions that drop (`F.dropout` and its kin, `scaled_dot_product_attention`), `nn.MultiheadAttention`, and
    dropout between the layers of `nn.LSTM`, `nn.GRU` and `nn.RNN`. Each module that calls gets sites of its own, which
    `bind` names "path:function"; rates, masks and arguments stay the caller's. On a CPU attention runs by
    `dropkit.torch.attention`, which stores no weights. So does Hugging Face's eager attention, where it is softmax of
    scores and a mask: its config then names "dropkit" as its implementation. Weights that are asked for
    (`output_attentions=True`) have the same mask.

    Args:
        model: holds the dropouts; edited in place.
        inputs, kwargs: what its forward takes, to take over what it calls.

    Returns:
        A `Receipt`, whose `restore()` gives the original back.

    Raises:
        DropkitValueError: no such dropout; the model itself is one; one that cannot be replaced alike (a forward of
            its own, compiled, with parameters, buffers or submodules, p outside [0, 1]). Nothing is changed then.
        DropkitTypeError: not a module.
        DropkitRuntimeError: the model fails with these inputs.

    Warns:
        UserWarning: dropouts stay on torch's generator; all are named, with what can be done. The model is bound: what
            is swapped in is not, until it is unbound and bound again.

    >>> import dropkit.torch
    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.3))
    >>> print(dropkit.torch.swap(model))
    1: torch.nn Dropout(p=0.3, inplace=False) -> dropkit Dropout(p=0.3, inplace=False)
    >>> import torch
    >>> model = nn.LSTM(4, 4, num_layers=2, dropout=0.3)
    >>> print(dropkit.torch.swap(model, torch.ones(2, 1, 4)))
    the model itself (LSTM): dropout between layers, drawn by dropkit
    """
    _check_model(model, "swap", SWAPS)
    edits: list[Edit] = []
    notes: list[str] = []
    if inputs or kwargs:
        calls = takings(model, sites(model, *inputs, **kwargs))
        named, notes = implementations(model, calls, inputs, kwargs)
        edits += [*calls, *named]
    found = [place for place in positions(model) if type(place.module) in SWAPS]
    if not found and not edits:
        raise DropkitValueError(f"no dropout of torch.nn to swap in {type(model).__name__}: {_what_there_is(model)}")
    news = {id(place.module): _twin(place) for place in found}
    edits += [Replacement(place, news[id(place.module)]) for place in found]
    _warn_if_bound(model, [place.path for place in found])
    receipt = Receipt(edits, notes)
    left = unkeyed(model, Named)
    receipt.lines += tuple(_left_alone(model, left))
    if left:
        warnings.warn(told("swap leaves dropouts that it cannot replace", left), stacklevel=2)
    return receipt


def _left_alone(model: nn.Module, left: list[Unkeyed]) -> list[str]:
    """Lines on what stays with torch."""
    kinds = tuple(SWAPS)
    subclasses = [
        (place, next(kind for kind in kinds if isinstance(place.module, kind)))
        for place in positions(model)
        if isinstance(place.module, kinds) and not isinstance(place.module, layers.Drawn) and not taken(place.module)
    ]
    notes = [
        f"{place.path}: left alone, {type(place.module).__name__} is a subclass of {kind.__name__}"
        for place, kind in subclasses
    ]
    told_of = {id(place.module) for place, _ in subclasses}
    return notes + [
        f"{site.name}: left alone, torch draws what {'it' if site.what == 'number' else site.what} drops"
        for site in left
        if id(site.module) not in told_of
    ]


def insert(model: nn.Module, after: Where, drop: nn.Module | Callable[[], nn.Module]) -> Receipt:
    """Put a dropout behind every submodule that matches, without changing a path or a key of the `state_dict`.

    The dropout becomes a submodule `dropkit_drop` of the module behind which it stands, so that `modules()`, `train()`,
    `eval()` and `bind` see it, and a forward hook runs it on the output: a tensor, or the first entry of a tuple.
    Behind an `nn.Sequential` means behind its last module.

    Args:
        model: edited in place.
        after: a pattern of module paths as in `fnmatch` ("encoder.*.linear2"), a module class or a tuple of them, one
            of the model's modules, or a function of (path, module) that says whether.
        drop: a dropout, of which each place gets its own deep copy; or a function without arguments that makes one.

    Returns:
        A `Receipt`, whose `restore()` gives the original back.

    Raises:
        DropkitValueError: nothing matches; a match that is never called (a list of modules; if nothing else matches,
            the projection inside `nn.MultiheadAttention`), has an inserted dropout already, or sits in several places
            of which not all match; a drop that is bound. Nothing is changed then.
        DropkitTypeError: not a module; an `after` or `drop` of another kind; when the model runs, an output of another.

    Warns:
        UserWarning: the model is bound: what is inserted is not, until it is unbound and bound again.

    >>> import dropkit.torch
    >>> from dropkit.torch import Dropout
    >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    >>> print(dropkit.torch.insert(model, nn.ReLU, Dropout(0.1)))
    1: dropkit Dropout(p=0.1, inplace=False) behind ReLU
    >>> list(model.state_dict())
    ['0.weight', '0.bias', '2.weight', '2.bias']
    """
    _check_model(model, "insert")
    meant = matcher(after)
    everywhere = list(positions(model))
    chosen = [place for place in everywhere if meant(place.path, place.module)]
    if not isinstance(after, str) and meant("", model):
        chosen.append(Position("", model, "", model))
    if not chosen:
        known = listed([f"{place.path} ({type(place.module).__name__})" for place in everywhere])
        raise patterns.unmatched(f"after={after!r}", "nothing", type(model).__name__, known)
    targets = {id(target.module): target for target in map(_behind, chosen)}
    unused = [target for target in targets.values() if _never_called(target)]
    targets = {key: target for key, target in targets.items() if target not in unused} or targets
    for target in targets.values():
        _check_insertable(target, chosen, everywhere)
    make = _maker(drop)
    edits: list[Edit] = []
    for target in targets.values():
        new = make()
        new.train(target.module.training)
        edits.append(Insertion(target.path or "the model itself", target.module, new))
    _warn_if_bound(model, [f"{target.path}.{INSERTED}" for target in targets.values()])
    return Receipt(edits, [f"{target.path}: left alone, nn.MultiheadAttention never calls it" for target in unused])


def set_rate(model: nn.Module, pattern: str, p: float) -> Receipt:
    """Set the rate of every dropout whose path matches: modules, and numbers that a forward reads.

    A layer goes by its path ("encoder.layers.0.dropout1", "block.drop_path", an `nn.MultiheadAttention`, an `nn.LSTM`),
    a number that a forward reads by its owner's path and its attribute ("encoder.layerdrop", "config.layerdrop"), as
    in `dropkit.torch.sites(model)`; a layer's path and attribute, an owner's path alone and the paths of the modules
    that read a config find them too. In config objects only what a forward reads is set: most of it is read once, when
    modules are made, and writing that changes nothing (transformers#14914). A config that several modules read is one
    rate.

    Args:
        model: edited in place.
        pattern: of paths as in `fnmatch`; "*" is all.
        p: drop probability in [0, 1].

    Returns:
        A `Receipt`, whose `restore()` gives the old rates back.

    Raises:
        DropkitValueError: nothing matches; p outside [0, 1] or NaN. Nothing is changed then.
        DropkitTypeError: not a module; p no number.

    >>> import dropkit.torch
    >>> model = nn.TransformerEncoderLayer(8, 2, dropout=0.1)
    >>> print(dropkit.torch.set_rate(model, "*attn*", 0.2))
    self_attn: dropout 0.1 -> 0.2
    """
    _check_model(model, "set_rate")
    threshold(p)
    patterns.one(pattern, "encoder.*")
    known = rates(model)
    matched = [rate for rate in known if rate.matches(pattern)]
    chosen = [rate for rate in matched if not rate.learned]
    if not chosen:
        names = listed(f"{rate.name or 'the model itself'} ({rate.p})" for rate in known if not rate.learned)
        learned = f"; the rate of {matched[0].name or 'the model itself'} is learned" if matched else ""
        raise patterns.unmatched(f"pattern {pattern!r}", "no rate", type(model).__name__, names, learned)
    return Receipt(_assignments(chosen, float(p)), [])


def strip(model: nn.Module, *inputs: Any, **kwargs: Any) -> Receipt:
    """Take dropout out for export, so that a graph holds none even when it is traced in training mode.

    Dropout modules become `nn.Identity`; subclasses with a forward of their own stay, at rate 0; numbers that a forward
    reads (`nn.MultiheadAttention`, `nn.LSTM`, DropPath, attention modules, configs) become 0. What a forward writes out
    as a literal, `F.dropout(x, 0.1, ...)`, is no part of any module: with inputs the model is run and refused if such
    calls are left. `dropkit.torch.disabled` reaches them, while a graph is traced too.

    Args:
        model: edited in place.
        inputs, kwargs: what the model's forward takes, to make sure that nothing is left.

    Returns:
        A `Receipt`, whose `restore()` gives the original back; as a context it does so at the end.

    Raises:
        DropkitValueError: nothing to strip; the model itself is a dropout; calls are left. Nothing is changed then.
        DropkitTypeError: not a module.

    >>> import dropkit.torch
    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.3))
    >>> with dropkit.torch.strip(model):
    ...     print(model[1])
    Identity()
    """
    _check_model(model, "strip", _DropoutNd)
    gone = [place for place in positions(model) if _plain(place.module)]
    out = {id(place.module) for place in gone}
    rest = [rate for rate in rates(model) if id(rate.module) not in out and not rate.learned]
    if not gone and not rest:
        raise DropkitValueError(f"nothing to strip in {type(model).__name__}: {_what_there_is(model)}")
    news = {id(place.module): _carry(place, nn.Identity()) for place in gone}
    receipt = Receipt([Replacement(place, news[id(place.module)]) for place in gone] + _assignments(rest, 0.0), [])
    left = [site for site in sites(model, *inputs, **kwargs) if site.train or site.eval] if inputs or kwargs else []
    if left:
        receipt.restore()
        raise DropkitValueError(
            f"calls drop that no module shows: {listed([f'{site.name} at {site.source}' for site in left])}; trace "
            "the model inside dropkit.torch.disabled(model), or give them rates that are attributes of modules"
        )
    return receipt


def _assignments(chosen: list[FoundRate], p: float) -> list[Edit]:
    return [Assignment(rate.name or "the model itself", rate.module, rate.attribute, rate.stored(p)) for rate in chosen]


def _plain(module: nn.Module) -> bool:
    """Whether a module is a dropout and nothing else: torch's forward or ours, not one of a subclass or an instance."""
    return isinstance(module, _DropoutNd) and type(module).forward in _FORWARDS and "forward" not in module.__dict__


def _twin(place: Position) -> nn.Module:
    """dropkit's module for one of torch's, with all that was hung on it."""
    old: Any = place.module
    try:
        new = SWAPS[type(old)](old.p, old.inplace)
    except (DropkitValueError, DropkitTypeError, ValueError, TypeError) as error:
        raise DropkitValueError(f"cannot swap {place.path}: {error}") from None
    return _carry(place, new)


def _carry(place: Position, new: nn.Module) -> nn.Module:
    """The new module with mode, hooks and extra attributes of the old one.

    Dictionaries of hooks are handed on as they are: a handle removes its hook from both, and order is kept.
    """
    old = place.module
    reasons = {
        "it holds parameters, buffers or submodules": old._parameters or old._buffers or old._modules,
        "its forward was replaced on the instance": "forward" in old.__dict__,
        "it was compiled by itself": old.__dict__.get("_compiled_call_impl") is not None,
    }
    for reason, holds in reasons.items():
        if holds:
            raise DropkitValueError(f"cannot replace {place.path} ({described(old)}): {reason}; replace it by hand")
    own = {"p", "inplace", "share", "when", "site", "_parameters", "_buffers", "_modules"} | _INNER
    new.__dict__.update({name: value for name, value in old.__dict__.items() if name not in own})
    return new


def _behind(place: Position) -> Position:
    """Where the output of a place is made: an `nn.Sequential` would run an added submodule by itself."""
    module = place.module
    while isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward and len(module):
        name, last = list(module._modules.items())[-1]
        assert last is not None
        place = Position(f"{place.path}.{name}" if place.path else name, module, name, last)
        module = last
    return place


def _never_called(target: Position) -> bool:
    """Whether the module is there for its weights only."""
    return isinstance(target.parent, nn.MultiheadAttention) and target.name == "out_proj"


def _check_insertable(target: Position, chosen: list[Position], everywhere: list[Position]) -> None:
    module, path = target.module, target.path or "the model itself"
    inert = type(module).forward is nn.Module.forward
    if inert or isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        raise DropkitValueError(
            f"cannot insert behind {path}: {a_type(module)} is not called as a whole; name its entries"
        )
    if _never_called(target):
        raise DropkitValueError(
            f"cannot insert behind {path}: nn.MultiheadAttention uses its weights and never calls it; insert behind "
            "the attention itself"
        )
    if INSERTED in module._modules:
        raise DropkitValueError(f"{path} has an inserted dropout already; set its rate with set_rate, or restore first")
    reached = {_behind(place).path for place in chosen}
    missed = [place.path for place in everywhere if place.module is module and place.path not in reached]
    if missed:
        raise DropkitValueError(
            f"cannot insert behind {path} alone: the same module also sits at {', '.join(missed)}; match all of them, "
            "or give each place a module of its own"
        )


def _maker(drop: nn.Module | Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    if isinstance(drop, nn.Module):
        if getattr(drop, "site", None) is not None:
            raise DropkitValueError("drop is bound to a model; pass a fresh one such as dropkit.torch.Dropout(0.1)")
        _check_drop(drop)
        return lambda: copy.deepcopy(drop)
    if not callable(drop):
        raise DropkitTypeError(f"drop must be a module such as dropkit.torch.Dropout(0.1), got {drop!r}")

    def make() -> nn.Module:
        new = drop()
        if not isinstance(new, nn.Module):
            raise DropkitTypeError(f"drop() must return a torch.nn.Module, got {new!r}")
        _check_drop(new)
        return new

    return make


def _check_drop(drop: nn.Module) -> None:
    if isinstance(drop, Drawn) and drop.takes_out == "edge":
        raise DropkitValueError(
            f"{drop!r} takes an edge list, which no layer puts out: give the model one that its forward calls"
        )


def _check_model(model: Any, verb: str, kinds: Any = ()) -> None:
    if not isinstance(model, nn.Module):
        raise DropkitTypeError(f"{verb} needs a torch.nn.Module, got {type(model).__name__}")
    if type(model) in kinds if isinstance(kinds, dict) else isinstance(model, kinds):
        raise DropkitValueError(
            f"the model itself is a dropout, {described(model)}, and nothing holds it that could be edited: put "
            "another module in its place"
        )


def _warn_if_bound(model: nn.Module, paths: list[str]) -> None:
    if any(getattr(module, "site", None) is not None for module in model.modules()):
        warnings.warn(
            f"the model is bound and these are not: {listed(paths)}; dropkit.torch.bind(model, seed) with its seed "
            "takes them in",
            stacklevel=3,
        )


def _what_there_is(model: nn.Module) -> str:
    names = [f"{rate.name or 'itself'} ({type(rate.module).__name__})" for rate in rates(model)]
    found = f"it has {listed(names)}" if names else "it has no dropout module and no rate in an attribute"
    return f"{found}; dropkit.torch.sites(model, *inputs) finds functional calls"
