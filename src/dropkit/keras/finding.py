"""Where a Keras model drops: dropkit's layers, Keras' own, and what draws inside other layers."""

import dis
import types
import warnings
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import keras
from keras.src.layers.preprocessing.image_preprocessing.base_image_preprocessing_layer import (
    BaseImagePreprocessingLayer,
)
from keras.src.layers.rnn.dropout_rnn_cell import DropoutRNNCell

from ..errors import DropkitTypeError, DropkitValueError
from .base import Keyed
from .held import Holder
from .paths import walk

NOISES = (
    keras.layers.Dropout,
    keras.layers.AlphaDropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
)
ATTENTION = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)
_RATES = ("rate", "p", "prob", "survival_probability", "survival_prob")
_FRAMEWORKS = ("keras", "tensorflow", "torch", "jax")
_SHOWN = 20  # sites that a message lists


class Place(NamedTuple):
    """Where a model drops.

    Args:
        path: of the layer, as `bind` names it.
        layer: it.
        drops: what of it: empty for a layer that does nothing else, or "dropout", "recurrent_dropout", "function".
        on: whether it has a rate above 0, as far as that can be told.
    """

    path: str
    layer: Any
    drops: str
    on: bool

    @property
    def keyed(self) -> bool:
        """Whether dropkit draws there."""
        return isinstance(self.layer, Keyed)

    @property
    def alone(self) -> bool:
        """Whether `training` decides nothing else in this layer."""
        if self.drops != "function":
            return True
        own = self.layer
        return not own.weights and not list(own._flatten_layers(include_self=False, recursive=False))

    @property
    def line(self) -> str:
        """Path and class, for people."""
        kind = type(self.layer).__name__
        return f"{self.path} ({kind}{': ' if self.drops else ''}{self.drops})"


def places(model: keras.Layer) -> list[Place]:
    """Every place in a model that drops, in the order of `bind`.

    >>> import dropkit
    >>> layers = [keras.Input((4, 8)), dropkit.keras.Dropout(0.1), keras.layers.LSTM(3, dropout=0.2)]
    >>> [place.line for place in places(keras.Sequential(layers))]
    ['dropout (Dropout)', 'lstm/lstm_cell (LSTMCell: dropout)']
    """
    return [place for path, layer in walk(model) for place in _of(path, layer)]


def _of(path: str, layer: Any) -> Iterator[Place]:
    if isinstance(layer, Keyed):
        yield Place(path, layer, "", True)
    elif isinstance(layer, NOISES):
        yield Place(path, layer, "", bool(getattr(layer, "rate", 0) or getattr(layer, "stddev", 0)))
    elif isinstance(layer, Holder):
        return  # whose dropouts are layers
    elif isinstance(layer, DropoutRNNCell):
        rates = ("dropout", "recurrent_dropout")
        found = [name for name in rates if getattr(layer, name) > 0]
        if found:
            yield Place(path, layer, ", ".join(found), True)
    elif isinstance(layer, keras.layers.Attention):
        if layer.dropout > 0:
            yield Place(path, layer, "dropout", True)
    elif not isinstance(layer, BaseImagePreprocessingLayer) and (
        _draws_at_a_rate(layer) or _calls_dropout(type(layer))
    ):
        yield Place(path, layer, "function", True)


def _draws_at_a_rate(layer: Any) -> bool:
    """Whether a layer that is none of Keras' own has a generator and a rate, as DropPath has."""
    return _has_generators(layer) and any(getattr(layer, name) for name in _numbers(layer))


def _has_generators(layer: Any) -> bool:
    return any(isinstance(each, keras.random.SeedGenerator) for each in layer._seed_generators)


def _numbers(layer: Any) -> list[str]:
    if type(layer).__module__.partition(".")[0] == "keras":
        return []
    numbers = {name for name, value in vars(layer).items() if isinstance(value, int | float)}
    return sorted(name for name in numbers if name in _RATES or "drop" in name)


def numbers_of(layer: Any) -> list[str]:
    """The attributes that hold the rates, 0 among them, of a layer of others that draws by hand."""
    if not (_has_generators(layer) or _calls_dropout(type(layer))):
        return []
    values = {name: getattr(layer, name) for name in _numbers(layer)}
    return [name for name, value in values.items() if not isinstance(value, bool) and 0 <= value <= 1]


def _calls_dropout(kind: type) -> bool:
    """Whether a class that is none of Keras' own calls a framework's function for dropout, as its code says."""
    for base in kind.__mro__:
        if base.__module__.partition(".")[0] in (*_FRAMEWORKS, "dropkit", "builtins"):
            continue
        for function in vars(base).values():
            if isinstance(function, types.FunctionType) and any(map(_is_dropout, _globals_named(function))):
                return True
    return False


def _globals_named(function: types.FunctionType) -> Iterator[Any]:
    """The objects that a function reaches by dotted names from its globals."""
    now: Any = None
    for instruction in dis.get_instructions(function):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            now = function.__globals__.get(instruction.argval)
        elif instruction.opname in ("LOAD_ATTR", "LOAD_METHOD") and now is not None:
            try:
                now = getattr(now, instruction.argval, None)
            except Exception:  # a lazy module that does not load
                now = None
        elif instruction.opname not in ("PRECALL", "CACHE", "PUSH_NULL", "EXTENDED_ARG"):
            now = None
        if now is not None:
            yield now


def _is_dropout(value: Any) -> bool:
    name, home = getattr(value, "__name__", ""), str(getattr(value, "__module__", ""))
    known = home.partition(".")[0] in _FRAMEWORKS and not isinstance(value, type | types.ModuleType)
    return known and name in ("dropout", "dropout_v2", "alpha_dropout", "stateless_dropout")


def matched(model: keras.Layer, found: Sequence[Place], sites: Any) -> list[Place]:
    """The places that patterns of paths mean; None means all.

    Raises:
        DropkitTypeError, DropkitValueError: no patterns; one that matches nothing.
    """
    if sites is None:
        return list(found)
    patterns = (sites,) if isinstance(sites, str) else tuple(sites)
    if not patterns or not all(isinstance(pattern, str) for pattern in patterns):
        raise DropkitTypeError(f"sites must be a pattern such as 'encoder/*' or a list of them, got {sites!r}")
    chosen: dict[int, Place] = {}
    for pattern in patterns:
        # a block's own path means all that stands in it
        hits = [each for each in found if any(fnmatchcase(path, pattern) for path in _and_blocks(each.path))]
        if not hits:
            raise DropkitValueError(
                f"site pattern {pattern!r} matches no dropout of {model.name!r}; it has {listed(found)}"
            )
        chosen.update({id(each.layer): each for each in hits})
    return [each for each in found if id(each.layer) in chosen]


def _and_blocks(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[: n + 1]) for n in range(len(parts))]


def warn_of_foreign(model: keras.Layer, verb: str, stacklevel: int = 3) -> None:
    """Name, once, the places whose noise stays on Keras' generators."""
    foreign = [place for place in places(model) if place.on and not place.keyed]
    if not foreign:
        return
    own = any(type(place.layer).__module__.startswith("keras.") and not place.drops for place in foreign)
    remedies = ["dropkit.keras.swap(model) first for Keras' own dropout layers"] if own and verb == "bind" else []
    if any(place.drops for place in foreign):
        remedies.append("rate 0 there and a dropkit.keras.Dropout in front, or dropkit.keras.dropout(x, p, key=...)")
    if not remedies:
        remedies.append("dropkit.keras layers in their place")
    warnings.warn(
        f"{verb}: what drops here in {model.name!r} stays on Keras' generators, so that its noise is no function of "
        f"seed, site and step: {listed(foreign)}. Use {'; '.join(remedies)}",
        UserWarning,
        stacklevel=stacklevel,
    )


def listed(found: Sequence[Place]) -> str:
    """Places in a sentence."""
    lines = [place.line for place in found]
    more = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    return (", ".join(lines[:_SHOWN]) or "none") + more
