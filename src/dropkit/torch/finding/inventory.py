"""Every place in a model where dropout happens."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from ...axes.noise import Noise
from ...errors import DropkitTypeError
from ...language import SEMICOLON, joined, say
from ..layers import Drawn
from ..reading.calls import Shape
from ..reading.structure import config_numbers, holds_survival, numbers
from .axes import layer_noise, layer_share, words
from .intercept import Call, Place
from .rates import NUMBER, FoundRate, rates
from .trace import Tagged, Traces, traces_of

__all__ = ["Site", "config_numbers", "numbers", "sites", "table"]

_LEARNED = say("its rate is learned")
_FIXED = say("its rate is a constant of the method")
_UNSEEN = say("a number; whether a forward reads it, inputs would tell")
_ONE_LAYER = say("one layer: there is nothing between layers to drop")
_FAST = say("the layer's fast path skips it under no_grad while the layer is in eval")
_DECIDES = say("a number that a forward compares with what it draws; it draws by means that no run shows")
_NOT_REACHED = say("not reached with these inputs")
_SKIPPED = say("its layer did not run in training: the model skips it, always or at random")
_MADE_INSIDE = say("a layer made inside forward: eval() does not reach it")


@dataclass(frozen=True)
class Site:
    """A place where dropout happens.

    name: module path; of a functional call "path:function", with "#1", "#2" ... for later ones in the same forward.
    kind: the layer's class, the function ("F.dropout", "scaled_dot_product_attention"), or "number".
    p: drop probability.
    mask_shape: shape of the mask at the first call, with 1 where a draw is shared; one layer's for recurrent networks;
        batch, heads, queries, keys for attention. None where nothing was seen to run.
    train, eval: whether it drops with p above 0 in that mode; None if only a run could tell.
    attribute: path of the owner and name of the attribute that holds p; None where no one attribute holds just that.
    note: what else should be known about it.
    source: file and line of a functional call.
    noise: its law, a value of `dropkit.axes.noise`; None where nothing says.
    share: axes that share a draw, or a share that refines, a value of `dropkit.axes.share`.

    >>> site = Site("block.drop", "Dropout", 0.1, train=True, eval=False)
    >>> site.p, site.attribute
    (0.1, None)
    """

    name: str
    kind: str
    p: float
    mask_shape: Shape | None = None
    train: bool | None = None
    eval: bool | None = None
    attribute: tuple[str, str] | None = None
    note: str = ""
    source: str = ""
    noise: Noise | None = field(default=None, repr=False, compare=False)
    share: Any = field(default=(), repr=False, compare=False)
    place: Place | None = field(default=None, repr=False, compare=False)  # of a functional call, as `Call.place`


def sites(model: nn.Module, *inputs: Any, **kwargs: Any) -> list[Site]:
    """Every place where dropout happens: layers, functional calls, attention, recurrent networks, DropPath and its kin.

    Without inputs only what the structure shows: layers, and numbers that some forward may read. With them the model
    runs once in training and once in evaluation mode (and once more where torch has a fast path), on copies of the
    input tensors, so that functional calls are seen and every site is known to be active or not as the model really
    runs. Afterwards modes, buffers, gradients and random generators are as before.

    Args:
        model: any module, bound by `dropkit.torch.bind` or not.
        inputs, kwargs: what its forward takes.

    Returns:
        Sites in the order of `model.named_modules()`; empty if there are none. Calls of C++ extensions unknown to torch
        (flash-attn, xformers) and the inside of TorchScript are not seen.

    Raises:
        DropkitTypeError: not a module.
        DropkitRuntimeError: the model fails with these inputs; the cause is kept.
        DropkitValueError: parameters of lazy modules are not there yet.

    >>> import torch
    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.drop, self.p = nn.Dropout2d(0.2), 0.1
    ...     def forward(self, x):
    ...         return nn.functional.dropout(self.drop(x), self.p)
    >>> for site in sites(Net(), torch.ones(2, 3, 4, 4)):
    ...     print(site.name, site.kind, site.p, site.mask_shape, site.train, site.eval)
    :dropout F.dropout 0.1 (2, 3, 4, 4) True True
    drop Dropout2d 0.2 (2, 3, 1, 1) True False
    """
    if not isinstance(model, nn.Module):
        raise DropkitTypeError(f"sites needs a torch.nn.Module, got {type(model).__name__}")
    known = rates(model)
    found = [_layer(rate) for rate in known if rate.kind != NUMBER]
    if not inputs and not kwargs:
        found += [_number(rate, _UNSEEN) for rate in known if rate.kind == NUMBER]
    else:
        seen = traces_of(model, inputs, kwargs)
        found = [_ran(site, model.get_submodule(site.name), seen) for site in found]
        found += _functional(model, seen, known)
        spoken_for = {site.attribute for site in found}
        for rate in known:
            if rate.kind == NUMBER and (rate.owner, rate.attribute) not in spoken_for:
                if not any(seen.train.visits[path] for path in rate.read_by):
                    found.append(_number(rate, joined((_UNSEEN, _NOT_REACHED), SEMICOLON)))
                elif rate.decides and rate.p > 0 and not any(_within(site, rate) for site in found):
                    found.append(_number(rate, _DECIDES))
    order = {path: number for number, (path, _) in enumerate(model.named_modules())}
    at = {_number(rate, "").name: order.get(rate.read_by[0], -1) for rate in known if rate.kind == NUMBER}
    return sorted(found, key=lambda site: at.get(site.name, order.get(site.name.partition(":")[0], -1)))


def table(found: Sequence[Site]) -> str:
    """Sites as text in aligned columns.

    >>> print(table([Site("block.drop", "Dropout", 0.1, (2, 8), True, False)]))
    site        kind     p    mask  train  eval  note
    block.drop  Dropout  0.1  2x8   on     off
    """
    rows: list[tuple[str, ...]] = [("site", "kind", "p", "mask", "train", "eval", "note")]
    for site in found:
        mask = "?" if site.mask_shape is None else "x".join(map(str, site.mask_shape)) or "1"
        modes = [{True: "on", False: "off", None: "?"}[mode] for mode in (site.train, site.eval)]
        note = "; ".join(filter(None, (words(site.noise, site.share), site.note)))
        rows.append((site.name or "(the model)", site.kind, f"{site.p:g}", mask, *modes, note))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _within(site: Site, rate: FoundRate) -> bool:
    """Whether a site in a module that reads the rate has the same one, so that it may be what the rate decides on."""
    inside = any(site.name.startswith((f"{path}.".removeprefix("."), f"{path}:")) for path in rate.read_by)
    return inside and site.p == rate.p


def _layer(rate: FoundRate) -> Site:
    module = rate.module
    idle = isinstance(module, nn.RNNBase) and module.num_layers == 1
    when = getattr(module, "when", "train") if isinstance(module, Drawn) else "train"
    held = _FIXED if isinstance(module, Drawn) and module.fixed else _LEARNED
    return Site(
        rate.place,
        rate.kind,
        round(rate.p, 6) if rate.learned else rate.p,  # a tensor in single precision
        train=rate.p > 0 and not idle and when != "never",
        eval=rate.p > 0 and when == "always",
        attribute=None if rate.learned or holds_survival(rate.attribute) else (rate.place, rate.attribute),
        note=_ONE_LAYER if idle else held if rate.learned else "",
        noise=layer_noise(module),
        share=layer_share(module),
    )


def _number(rate: FoundRate, note: str) -> Site:
    name = f"{rate.place}.{rate.attribute}" if rate.place else rate.name
    return Site(name, NUMBER, rate.p, attribute=(rate.owner, rate.attribute), note=note)


def _ran(site: Site, module: nn.Module, seen: Traces) -> Site:
    """A layer's site, with what the run showed of it."""
    calls = [[call for call in trace.calls if call.module is module] for trace in (seen.train, seen.eval)]
    visits = seen.train.visits[site.name]
    notes = [site.note] if site.note else []
    if not visits and not seen.eval.visits[site.name]:
        notes.append(_NOT_REACHED)
    if visits > 1:
        notes.append(say("called {visits} times in a forward", visits=visits))
    if seen.fast and _in_fast_path(site.name, seen):
        notes.append(_FAST)
    active = [any(_dropped(call, site.p) for call in mode) and _ONE_LAYER not in notes for mode in calls]
    first = next((call for mode in calls for call in mode if _dropped(call, site.p)), None)
    first = first or next((call for mode in calls for call in mode if call.mask_shape is not None), None)
    p = site.p if first is None or first.p is None or not first.drops else float(first.p)
    shape = None if first is None or _ONE_LAYER in notes else first.mask_shape
    # A model that skips layers at random may have run this one in evaluation alone.
    skipped = not visits and seen.eval.visits[site.name] > 0
    if skipped:
        notes.append(_SKIPPED)
    train = None if skipped and p > 0 else active[0]
    return replace(site, p=p, mask_shape=shape, train=train, eval=active[1], note=joined(notes, SEMICOLON))


def _dropped(call: Call, p: float) -> bool:
    """Whether a call drew a mask; mere random numbers do, in a layer whose p is above 0."""
    return p > 0 if call.p is None else call.drops


def _in_fast_path(path: str, seen: Traces) -> bool:
    return any(f"{path}.".startswith(f"{inside}." if inside else "") for inside in seen.fast)


def _functional(model: nn.Module, seen: Traces, known: Sequence[FoundRate]) -> list[Site]:
    """Calls that no layer's site covers, by their place in the code, so that both modes meet."""
    layers = {id(rate.module) for rate in known if rate.kind != NUMBER}
    places: dict[Any, dict[str, list[Call]]] = {}
    for mode, trace in (("train", seen.train), ("eval", seen.eval)):
        for call in trace.calls:
            if id(call.module) not in layers and call.place is not None:
                groups = places.setdefault((call.path, call.kind, call.place), {"train": [], "eval": []})
                groups[mode].append(call)
    spoken_for = {_tag(call) for groups in places.values() for calls in groups.values() for call in calls}
    names: Counter[str] = Counter()
    found = []
    for (path, kind, place), groups in places.items():
        site = _called(groups, kind, place, spoken_for, known)
        if site is not None and not seen.train.visits[path] and site.p > 0:
            site = replace(site, train=None, note=_SKIPPED)
        if site is not None:
            name = f"{path}:{kind.rpartition('.')[2].rstrip('_')}"
            found.append(replace(site, name=name + (f"#{names[name]}" if names[name] else "")))
            names[name] += 1
    return found


def _called(
    groups: dict[str, list[Call]], kind: str, place: Place, spoken_for: Iterable[Any], known: Sequence[FoundRate]
) -> Site | None:
    """The site of one place in the code; None if it is none: attention without dropout, a chance of another kind."""
    calls = [*groups["train"], *groups["eval"]]
    first = next((call for call in calls if call.p is not None and call.drops), calls[0])
    attribute = next((tag for call in calls if (tag := _tag(call)) is not None), None)
    if kind.startswith("random."):
        if "normal" in kind or "randn" in kind:
            return None
        held = [n for n in known if n.kind == NUMBER and id(first.module) in n.readers]
        held = [n for n in held if n.module is first.module or n.decides]
        held = [n for n in held if (n.owner, n.attribute) not in spoken_for]
        held = [n for n in held if n.decides] or held
        if len(held) != 1:
            return None
        p, attribute = held[0].p, (held[0].owner, held[0].attribute)
    else:
        p = max(0.0, float(first.p))
        if p == 0 and attribute is None and not kind.startswith(("F.", "torch.", "dropkit.")):
            return None
    return Site(
        "",
        kind,
        p,
        first.mask_shape,
        train=any(_dropped(call, p) for call in groups["train"]),
        eval=any(_dropped(call, p) for call in groups["eval"]),
        attribute=attribute,
        note=_MADE_INSIDE if first.made_inside else "",
        source=f"{place.filename}:{place.line}",
        noise=first.noise,
        share=first.share,
        place=place,
    )


def _tag(call: Call) -> tuple[str, str] | None:
    return (call.p.number.path, call.p.number.attribute) if isinstance(call.p, Tagged) else None
