"""Which dropouts of a model stay on torch's generator whatever is bound, by structure and source, without a run."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from torch import nn

from .forwards import called, holders, readings
from .structure import dropped, held, is_probability, layer_p, layer_rate, taken
from .values import ANY, DROPS, Chain, Handed, Reading

_SHOWN = 60  # sites that a message names
_ATTENTION = "scaled_dot_product_attention"


class Unkeyed(NamedTuple):
    """A dropout that draws from torch's generator.

    name: its path; of a call "path:function".
    what: the layer's class, the function, or the attribute that a forward draws with.
    module: the layer, or the module that calls.
    p: its rate; None where only a run could tell.
    """

    name: str
    what: str
    module: nn.Module
    p: float | None

    def __str__(self) -> str:
        return f"{self.name.partition(':')[0] or 'the model itself'} ({self.what})"


def unkeyed(model: nn.Module, keyed: type[nn.Module]) -> list[Unkeyed]:
    """Layers of torch and of others, attention, recurrent networks, calls and LayerDrop, as far as they have a rate.

    Modules whose source cannot be had are passed over.

    Args:
        model: any module.
        keyed: the class of layers that bind can name.

    >>> [str(site) for site in unkeyed(nn.Sequential(nn.Dropout(0.1), nn.LSTM(2, 2, 2, dropout=0.2)), nn.Dropout)]
    ['1 (LSTM)']
    """
    code, known = readings(model), holders(model)
    found: list[Unkeyed] = []
    numbers: set[str] = set()
    for path, module in model.named_modules():
        rate = layer_rate(module)
        if isinstance(module, keyed) or (rate is not None and taken(module)):
            continue
        if rate is None:
            found += _calls(path, module, code[id(module)])
            for chain in [] if taken(module, random=True) else _deciding(module, code[id(module)]):
                name = called(path, module, chain, known)
                if name not in numbers:
                    numbers.add(name)
                    found.append(Unkeyed(name, "number", module, _value(module, chain)))
        elif layer_p(module, rate) > 0 and not (isinstance(module, nn.RNNBase) and module.num_layers == 1):
            found.append(Unkeyed(path, type(module).__name__, module, layer_p(module, rate)))
    return found


def told(verb: str, found: Iterable[Unkeyed], swappable: Iterable[type[nn.Module]] = ()) -> str:
    """One warning about all of them, with what can be done."""
    every = list(found)
    names = ", ".join(map(str, every[:_SHOWN])) + (f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else "")
    kinds = tuple(swappable)
    ours = [site for site in every if type(site.module) in kinds]
    swap = "dropkit.torch.swap(model) replaces torch's dropout layers; " if ours else ""
    calls = "dropkit's functions take a key=, or give way to its layers; " if _ours(every) else ""
    rest = "others repeat " if ours else "they repeat "
    return (
        f"{verb}: {names}. They draw from torch's generator, which no seed, step or at() reaches: {swap}{calls}"
        f"{rest if len(ours) < len(every) else 'they repeat '}after torch.manual_seed and inside dropkit.torch.replay, "
        "and a rate of 0 turns them off (dropkit.torch.set_rate)"
    )


def _ours(found: Iterable[Unkeyed]) -> bool:
    return any(site.what.startswith("dropkit.") for site in found)


def _calls(path: str, module: nn.Module, reading: Reading) -> list[Unkeyed]:
    found: dict[str, Unkeyed] = {}
    for call in () if taken(module) else reading.handed:
        p = _rate_of(module, call)
        unknown = p is None and call.known and not call.rates and call.function != _ATTENTION
        if unknown or (p is not None and p > 0):
            name = f"{path}:{call.function.rpartition('.')[2]}"
            found.setdefault(call.function, Unkeyed(name, call.function, module, p))
    return list(found.values())


def attention_rates(model: nn.Module) -> dict[int, set[float]]:
    """The rates above 0 that modules hand to attention, or to a function that they choose as they run, by identity.

    Where a module hands over 0 in evaluation, its source still says which number it hands over in training.
    """
    code = readings(model)
    found: dict[int, set[float]] = {}
    for module in model.modules():
        for call in code[id(module)].handed:
            values = {_value(module, chain) for chain in call.rates}
            if (call.function == _ATTENTION or not call.known) and (rates := {p for p in values if p}):
                found.setdefault(id(module), set()).update(rates)
    return found


def _deciding(module: nn.Module, reading: Reading) -> list[Chain]:
    """Numbers with which a forward itself draws whether it drops, and that it hands to nobody."""
    handed = {chain for call in reading.handed for chain in call.rates}
    chains = [chain for chain in sorted(reading.decides - handed) if chain and DROPS.search(chain[-1])]
    return [chain for chain in chains if (_value(module, chain) or 0.0) > 0]


def _rate_of(module: nn.Module, call: Handed) -> float | None:
    """The largest rate that a call may get; None where nothing tells."""
    values = [*call.numbers, *(value for chain in call.rates if (value := _value(module, chain)) is not None)]
    return max(values, default=0.0 if call.rates else None)


def _value(module: nn.Module, chain: Chain) -> float | None:
    """The drop probability that a chain leads to; None if it leads to something else."""
    owner: Any = module
    for name in chain:
        if name == ANY:
            owner = next(iter(owner), None) if isinstance(owner, list | tuple | nn.ModuleList | nn.Sequential) else None
        else:
            try:
                owner = held(owner, name)
            except Exception:  # whatever an object of the user's says when it is asked for what it does not hold
                return None
    return dropped(float(owner), chain[-1]) if is_probability(owner) else None
