"""Where a model drops: one answer for `sites`, `set_rate`, `Schedule`, `site_rates`, `disabled`, `enabled`, `strip`."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from ... import patterns
from ..binding import WRAPPED
from ..layers import Drawn
from ..reading.forwards import called, holders, readings
from ..reading.structure import dropped, held, is_probability, layer_rate, own_numbers
from ..reading.values import ANY, DROPS, Chain, Reading

NUMBER = "number"
_RATE = re.compile(r"(drop(out|_?path|_?connect)?|prob|rate|\bp|_p)$", re.IGNORECASE)  # not "dropped", a count of 0


@dataclass(slots=True)
class FoundRate:
    """A rate of a model: of a layer whose work is dropping, or a number that some forward reads.

    name: of a layer its path; of a number the path of its owner and the attribute ("encoder.layerdrop",
        "encoder.config.layerdrop").
    names: all that a pattern may match: also path and attribute of a layer, the owner of a number, the other paths of
        a shared module, and the modules that read a config.
    owner: path of the module, the config object or the dict that holds it.
    module: that holder.
    attribute: under which name it is held.
    kind: the layer's class, or "number".
    readers: ids of the modules whose forward reads it.
    read_by: their paths.
    place: the path of its module as torch has it, wrappers included; "" for what no module holds.
    decides: a forward compares it, or draws with it, by itself: LayerDrop.
    """

    name: str
    owner: str
    module: Any
    attribute: str
    kind: str
    names: set[str] = field(default_factory=set)
    readers: set[int] = field(default_factory=set)
    read_by: list[str] = field(default_factory=list)
    place: str = ""
    decides: bool = False

    @property
    def learned(self) -> bool:
        """Whether it is a parameter, which nothing but training sets, or a constant, which nothing does."""
        if not isinstance(self.module, Drawn):
            return False
        return self.module.fixed or not isinstance(self.module, _DropoutNd)

    @property
    def p(self) -> float:
        """The present drop probability; the mean of a learned one."""
        return dropped(float(held(self.module, self.attribute) or 0.0), self.attribute)

    def stored(self, p: float) -> float:
        """What the attribute holds for a drop probability: some hold what survives."""
        return dropped(p, self.attribute)

    def matches(self, pattern: str) -> bool:
        """Whether a pattern, as in `fnmatch`, means it."""
        return patterns.matches(self.names, pattern)


def rates(model: nn.Module) -> list[FoundRate]:
    """Every rate of a model, each once, in the order of its modules.

    Layers are those of `dropkit.torch.reading.structure.layer_rate` and learned ones; numbers are floats with "drop" in
    the name, and whatever else a forward reads for a rate: from the module, its class, or an object or dict that it
    holds. What nobody reads after construction is left out where the source says so and a dropout below was made of it.

    >>> class DropPath(nn.Module):
    ...     drop_prob = 0.1
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.drop_prob = 0.2
    >>> model = nn.Sequential(nn.Dropout(0.1), nn.MultiheadAttention(4, 1, dropout=0.3), DropPath())
    >>> [(rate.name, rate.attribute, rate.p) for rate in rates(model)]
    [('0', 'p', 0.1), ('1', 'dropout', 0.3), ('2', 'drop_prob', 0.2)]
    """
    found: dict[tuple[int, str], FoundRate] = {}
    everywhere = list(paths(model))
    code = _Code(everywhere)
    for path, raw, module in everywhere:
        new = [*_layer(path, module), *_numbers(path, module, code), *code.beyond(path, module)]
        for rate in new:
            known = found.setdefault((id(rate.module), rate.attribute), rate)
            if known is rate:
                rate.place = raw if rate.module is module else ""
                rate.decides = (id(rate.module), rate.attribute) in code.decides
            known.readers |= {id(module)}
            known.read_by.append(raw)
            known.names |= rate.names | {rate.name, f"{rate.owner}.{rate.attribute}".removeprefix("."), rate.owner}
            known.names |= {path} if known.kind == NUMBER else set()
            if raw != path:
                known.names |= {raw, f"{raw}.{rate.attribute}"}
    return list(found.values())


def paths(model: nn.Module) -> Iterator[tuple[str, str, nn.Module]]:
    """Path, path as torch has it, and module; the first is as it was before anything wrapped the model or a part.

    A shared module comes under each of its paths.
    """
    before = ""
    while isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel) or hasattr(model, "_orig_mod"):
        inner = "_orig_mod" if hasattr(model, "_orig_mod") else "module"
        model, before = getattr(model, inner), f"{before}{inner}."
    for path, module in model.named_modules(remove_duplicate=False):
        yield ".".join(part for part in path.split(".") if part not in WRAPPED), f"{before}{path}".rstrip("."), module


def _layer(path: str, module: nn.Module) -> Iterator[FoundRate]:
    attribute = "p" if isinstance(module, Drawn) else layer_rate(module)
    if attribute is not None:
        yield FoundRate(path, path, module, attribute, type(module).__name__, {path})


def _numbers(path: str, module: nn.Module, code: "_Code") -> Iterator[FoundRate]:
    """Numbers of a module itself."""
    if isinstance(module, Drawn) or layer_rate(module) is not None:
        return
    names = own_numbers(module)
    names += [name for name in code.wanted(module) if name not in names]
    for name in names:
        if not code.made_of(path, module, name):
            yield FoundRate(f"{path}.{name}".removeprefix("."), path, module, name, NUMBER, {path})


class _Code:
    """What the forwards of a model read."""

    def __init__(self, everywhere: list[tuple[str, str, nn.Module]]) -> None:
        self.readings: dict[int, Reading] = readings(everywhere[0][2])
        self.layers = [(path, module) for path, _, module in everywhere if isinstance(module, _DropoutNd)]
        self.read: dict[tuple[int, str], Any] = {}
        self.decides: set[tuple[int, str]] = set()
        self.holders = holders(everywhere[0][2])
        for _, _, module in everywhere:
            for holder, chain in _resolved(module, self.readings[id(module)]):
                self.read.setdefault((id(holder), chain[-1]), holder)
            deciding = self.readings[id(module)].decides
            for holder, chain in _resolved(module, Reading(reads=deciding)) if deciding else ():
                self.decides.add((id(holder), chain[-1]))

    def wanted(self, module: nn.Module) -> Iterator[str]:
        """Attributes of a module or its class that are read for a rate."""
        yield from (name for (_, name), holder in self.read.items() if holder is module)

    def made_of(self, path: str, module: nn.Module, name: str) -> bool:
        """Whether a number was there to make the dropouts below, and nobody reads it since."""
        if (id(module), name) in self.read or not self.readings[id(module)].whole:
            return False
        below = f"{path}." if path else ""
        value = dropped(float(getattr(module, name)), name)
        return any(layer.p == value and where.startswith(below) and where != path for where, layer in self.layers)

    def beyond(self, path: str, module: nn.Module) -> Iterator[FoundRate]:
        """Rates that a module reads from objects and dicts."""
        for holder, chain in _resolved(module, self.readings[id(module)]):
            if isinstance(holder, nn.Module):
                continue
            own = ".".join([path, *chain[:-1]]).removeprefix(".")
            name = called(path, module, chain, self.holders)
            yield FoundRate(name, name.rpartition(".")[0], holder, chain[-1], NUMBER, {own, f"{own}.{chain[-1]}"})


def _resolved(module: nn.Module, reading: Reading) -> Iterator[tuple[Any, Chain]]:
    """Holder and chain of every rate that a module's forward reads."""
    rated = {chain for call in reading.handed if call.known for chain in call.rates}
    for chain in sorted({chain for chain in reading.reads if chain and DROPS.search(chain[-1])} | rated):
        if not chain or chain[-1] == ANY:
            continue
        for holder, names in _holders(module, chain[:-1]):
            if _holds_rate(holder, chain[-1]):
                yield holder, (*names, chain[-1])


def _holders(start: Any, chain: Chain) -> Iterator[tuple[Any, Chain]]:
    """What a chain leads to; "*" leads to every entry."""
    if not chain:
        yield start, ()
        return
    for name, value in _step(start, chain[0]):
        for holder, names in _holders(value, chain[1:]):
            yield holder, (name, *names)


def _step(holder: Any, name: str) -> Iterator[tuple[str, Any]]:
    if name != ANY:
        try:
            yield name, held(holder, name)
        except Exception:  # whatever an object of the user's says when it is asked for what it does not hold
            return
    elif isinstance(holder, nn.Module):
        yield from holder.named_children()
    elif isinstance(holder, dict):
        yield from ((str(key), value) for key, value in holder.items())
    elif isinstance(holder, list | tuple):
        yield from ((str(number), value) for number, value in enumerate(holder))


def _holds_rate(holder: Any, name: str) -> bool:
    if isinstance(holder, nn.Module) and layer_rate(holder) is not None:
        return False  # a layer's own
    if isinstance(holder, tuple):  # a named tuple: nothing can be written there
        return False
    return any(
        is_probability(value) and (isinstance(value, float) or _RATE.search(name)) for _, value in _step(holder, name)
    )
