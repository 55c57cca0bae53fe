"""What the structure of a model shows of its dropout, without running it: layers, and numbers that a forward reads."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import FrozenInstanceError
from functools import cache
from typing import Any, NamedTuple

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

_NAMED_DROP = re.compile("drop", re.IGNORECASE)
_LAYER = re.compile(r"drop|stochastic_?depth", re.IGNORECASE)  # DropPath, DropBlock2d, LockedDropout, StochasticDepth
_LAYER_RATE = (re.compile("drop", re.IGNORECASE), re.compile("^(p|prob|rate)$"))
_SURVIVAL = re.compile("surviv|keep", re.IGNORECASE)
_CONFIG = re.compile(r"^_?(.*config|.*cfg|args|hparams|options?|opts?)$", re.IGNORECASE)
_DEEP = 4  # how far configs nest
CALLS = "dropkit_calls"  # the submodule that holds the sites of calls that are taken over


def taken(module: nn.Module, random: bool = False) -> bool:
    """Whether the calls of this module are drawn by sites of ours; and the numbers that it draws itself.

    >>> taken(nn.Linear(2, 2))
    False
    """
    sites: Any = module._modules.get(CALLS)
    return sites is not None and (sites.draws or not random)


class Number(NamedTuple):
    """A drop probability that lives in a plain attribute."""

    path: str  # of its owner
    module: Any  # the owner: a module, a config object or dict
    attribute: str
    value: float

    @property
    def name(self) -> str:
        """Path and attribute."""
        return f"{self.path}.{self.attribute}" if self.path else self.attribute

    def write(self, value: float) -> None:
        """Put another value there, past any `__setattr__` where that is possible."""
        entries = _entries(self.module)
        if isinstance(entries, dict) and self.attribute in entries:
            entries[self.attribute] = value
        else:
            put(self.module, self.attribute, value)


def numbers(model: nn.Module) -> list[Number]:
    """Drop probabilities in attributes of modules, other than the `p` of dropout layers; a shared module's repeatedly.

    They are the `dropout` of `nn.MultiheadAttention`, `nn.LSTM` and `nn.GRU`, the rate of layers like DropPath, and
    every float in [0, 1] with "drop" in its name. Whether a forward reads it, only a run
    can tell: `sites(model, *inputs)`.

    >>> [(n.name, n.value) for n in numbers(nn.TransformerEncoderLayer(8, 2, dropout=0.1))]
    [('self_attn.dropout', 0.1)]
    """
    return [
        Number(path, module, name, vars(module)[name])
        for path, module in model.named_modules(remove_duplicate=False)
        for name in own_numbers(module)
    ]


def own_numbers(module: nn.Module) -> list[str]:
    """The attributes of one module that hold such a number."""
    if isinstance(module, _DropoutNd):
        return []
    own = layer_rate(module)
    if own is not None:
        return [] if holds_survival(own) else [own]
    if isinstance(module, nn.RNNBase):  # one layer, no dropout
        return []
    return [name for name, value in vars(module).items() if _is_rate(name, value)]


def layer_rate(module: nn.Module) -> str | None:
    """The attribute that holds the rate of a layer whose very work is dropping, or which torch lets drop as well.

    >>> layer_rate(nn.Dropout(0.5)), layer_rate(nn.GRU(2, 2, 2)), layer_rate(nn.Linear(2, 2))
    ('p', 'dropout', None)
    """
    if isinstance(module, _DropoutNd):
        return "p"
    if isinstance(module, nn.MultiheadAttention):
        return "dropout"
    if isinstance(module, nn.RNNBase):
        return "dropout" if module.num_layers > 1 or module.dropout else None
    if module._modules or not _LAYER.search(type(module).__name__):
        return None
    held = [name for name, value in vars(module).items() if is_probability(value)]
    for pattern in (*_LAYER_RATE, _SURVIVAL):
        for name in held:
            if pattern.search(name):
                return name
    return None


def layer_p(module: Any, attribute: str) -> float:
    """The drop probability that a layer holds; one minus what it holds where that is a survival probability."""
    return dropped(float(held(module, attribute) or 0.0), attribute)


def dropped(value: float, attribute: str) -> float:
    """The drop probability that a number stands for, and the number that stands for a drop probability.

    >>> dropped(0.9, "survival_prob"), dropped(0.9, "drop_prob")
    (0.1, 0.9)
    """
    return round(1.0 - value, 15) if holds_survival(attribute) else value  # 1 - 0.9 is a little less than 0.1


def held(owner: Any, name: str) -> Any:
    """What a module, a config object or a dict holds under a name."""
    return owner[name] if isinstance(owner, Mapping) else getattr(owner, name)


def put(owner: Any, name: str, value: Any) -> None:
    """Have it hold something else there; a frozen dataclass too.

    Raises:
        AttributeError, TypeError: it cannot be changed.
    """
    if isinstance(owner, Mapping):
        owner[name] = value  # type: ignore[index]
        return
    try:
        setattr(owner, name, value)
    except FrozenInstanceError:
        object.__setattr__(owner, name, value)


@cache
def holds_survival(attribute: str) -> bool:
    """Whether an attribute says what is kept rather than what is dropped.

    >>> holds_survival("survival_prob"), holds_survival("drop_prob")
    (True, False)
    """
    return _SURVIVAL.search(attribute) is not None


def config_numbers(model: nn.Module) -> list[Number]:
    """Drop probabilities in config objects and dicts that modules hold (`config`, `cfg`, `args`, `hparams` ...).

    Most are read once, when the modules are made, so that writing them changes nothing (transformers#14914).
    """
    found: list[Number] = []
    seen: set[int] = set()
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if _CONFIG.match(name) and not isinstance(value, nn.Module):
                found += _in_config(f"{path}.{name}" if path else name, value, seen, _DEEP)
    return found


def _in_config(path: str, config: Any, seen: set[int], depth: int) -> Iterator[Number]:
    entries = _entries(config)
    if not isinstance(entries, dict) or id(config) in seen or depth == 0:
        return
    seen.add(id(config))
    for name, value in list(entries.items()):
        if not isinstance(name, str):
            continue
        if _is_rate(name, value):
            yield Number(path, config, name, value)
        elif not isinstance(value, nn.Module | type):
            yield from _in_config(f"{path}.{name}", value, seen, depth - 1)


def _entries(owner: Any) -> Any:
    return owner if isinstance(owner, Mapping) else getattr(owner, "__dict__", None)


def _is_rate(name: str, value: Any) -> bool:
    return type(value) is float and 0.0 <= value <= 1.0 and _NAMED_DROP.search(name) is not None


def is_probability(value: Any) -> bool:
    """Whether a value may be a rate: a number from 0 to 1 that is no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
