"""Set the rates of a Keras model that is there already: of layers, and of numbers inside other layers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
from keras.src.layers.rnn.dropout_rnn_cell import DropoutRNNCell

from .. import patterns
from ..threshold import threshold
from .base import Keyed
from .finding import ATTENTION, NOISES, numbers_of
from .held import Holder
from .paths import walk
from .rated import Rated
from .receipt import MISSING, Receipt, attach, check_model, detach

_GENERATED = (*NOISES, keras.layers.Attention)  # what makes its generator only where its rate is not 0


@dataclass(slots=True)
class Found:
    """A rate in a model.

    Args:
        name: of a layer its path, of a number path and attribute.
        layer, attribute: what holds it, and as what.
        names: what else a pattern may match.
        survives: whether the number is what is kept.
        learned: whether nothing but training sets it.
    """

    name: str
    layer: Any
    attribute: str
    names: tuple[str, ...] = ()
    survives: bool = False
    learned: bool = False

    @property
    def p(self) -> float:
        """The drop probability now; of a learned one the mean."""
        if self.learned:
            return float(keras.ops.convert_to_numpy(self.layer.p).mean()) if self.layer.built else self.layer.init_min
        return self.stored(float(getattr(self.layer, self.attribute)))

    def stored(self, p: float) -> float:
        """What the attribute holds for a drop probability."""
        return 1 - p if self.survives else p


def rates(model: keras.Layer) -> list[Found]:
    """Every rate of a model.

    >>> layers = [keras.Input((4, 8)), keras.layers.Dropout(0.1), keras.layers.LSTM(3, dropout=0.2, name="read")]
    >>> [(rate.name, rate.p) for rate in rates(keras.Sequential(layers))]
    [('dropout', 0.1), ('read/lstm_cell/dropout', 0.2), ('read/lstm_cell/recurrent_dropout', 0.0)]
    """
    everywhere = list(walk(model))
    owners = {id(layer.cell): path for path, layer in everywhere if isinstance(layer, keras.layers.RNN)}
    inside = {id(layer._dropout_layer) for _, layer in everywhere if hasattr(layer, "_dropout_layer")}
    inside |= {id(drop) for _, layer in everywhere if isinstance(layer, Holder) for drop in layer.drops.values()}
    return [
        rate
        for path, layer in everywhere
        if id(layer) not in inside  # the attention that holds it sets it
        for rate in _of(path, layer, owners.get(id(layer)))
    ]


def _of(path: str, layer: Any, owner: str | None) -> Iterator[Found]:
    if isinstance(layer, Rated) or (isinstance(layer, NOISES) and hasattr(layer, "rate")):
        yield Found(path, layer, "rate")
    elif isinstance(layer, Keyed):
        if hasattr(layer, "p"):
            yield Found(path, layer, "p", learned=True)
    elif isinstance(layer, Holder) and layer.drops_at_all:
        for name, drop in layer.drops.items():
            yield Found(f"{path}/{name}", drop, "rate", _known(path, owner, name))
    elif isinstance(layer, ATTENTION):
        yield Found(f"{path}/dropout", layer, "_dropout" if "_dropout" in vars(layer) else "dropout", (path,))
    elif isinstance(layer, keras.layers.Attention):
        yield Found(f"{path}/dropout", layer, "dropout", (path,))
    elif isinstance(layer, DropoutRNNCell) and not isinstance(layer, Holder):
        for name in ("dropout", "recurrent_dropout"):
            yield Found(f"{path}/{name}", layer, name, _known(path, owner, name))
    else:
        for name in numbers_of(layer):
            yield Found(f"{path}/{name}", layer, name, (path,), survives=name.startswith("survival"))


def _known(path: str, owner: str | None, name: str) -> tuple[str, ...]:
    """By what else a rate of a layer goes, which may be the cell of an owner."""
    return (path,) if owner is None else (path, owner, f"{owner}/{name}")


def set_rate(model: keras.Layer, pattern: str, rate: float) -> Receipt:
    """Set the rate of every dropout whose path matches: layers, and numbers inside other layers.

    dropkit's layers hold their rate as data, and nothing is compiled again for them. In Keras' own layers, in attention
    and recurrent ones and in layers of others that draw at a number of theirs (DropPath), a rate is a part of the
    program: the model is compiled anew when it runs next. A number goes by its layer's path and its attribute
    ("lstm/lstm_cell/recurrent_dropout", "attention/dropout", "block/path/drop_prob"); the layer's path alone means all
    numbers in it.

    Args:
        model: edited in place.
        pattern: of paths as in `fnmatch`; "*" is all.
        rate: drop probability in [0, 1].

    Returns:
        A `Receipt`, whose `restore()` gives the old rates back.

    Raises:
        DropkitValueError: nothing matches; a rate outside [0, 1] or NaN. Nothing is changed then.
        DropkitTypeError: not a Keras layer; a rate that is no number.

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dropout(0.5, name="drop")])
    >>> print(set_rate(model, "*", 0.2))
    drop: rate 0.5 -> 0.2
    """
    check_model(model, "set_rate")
    threshold(rate)
    patterns.one(pattern, "encoder/*")
    known = rates(model)
    matched = [each for each in known if patterns.matches((each.name, *each.names), pattern)]
    chosen = [each for each in matched if not each.learned]
    if not chosen:
        names = patterns.listed(f"{each.name} ({each.p:g})" for each in known if not each.learned)
        learned = f"; the rate of {matched[0].name} is learned" if matched else ""
        raise patterns.unmatched(f"pattern {pattern!r}", "no rate", repr(model.name), names, learned)
    edits = [_Assignment(each, float(rate)) for each in chosen]
    return Receipt(model, edits, [], compiled=not all(isinstance(each.layer, Rated) for each in chosen))


class _Assignment:
    """Another rate."""

    def __init__(self, found: Found, rate: float) -> None:
        layer, name = found.layer, found.attribute
        value = found.stored(rate)
        self.layer, self.generator = layer, MISSING
        self.line = f"{found.name}: {name.removeprefix('_')} {float(getattr(layer, name)):g} -> {value:g}"
        self.after = [(layer, name, value)]
        if isinstance(layer, ATTENTION) and hasattr(layer, "_dropout_layer"):
            self.after.append((layer._dropout_layer, "rate", rate))
        if name == "recurrent_dropout" and rate and getattr(layer, "implementation", 1) != 1:
            # as their constructors do: Keras' other implementation knows no recurrent dropout
            masks = 3 if isinstance(layer, keras.layers.GRUCell) else 4
            self.after += [(layer, "implementation", 1), (layer, "dropout_mask_count", masks)]
        self.before = [(owner, name, getattr(owner, name, MISSING)) for owner, name, _ in self.after]

    def do(self) -> None:
        """Assign it; a layer made at rate 0 has no generator of Keras' yet."""
        for owner, name, value in self.after:
            setattr(owner, name, value)
        for owner in (self.layer, getattr(self.layer, "_dropout_layer", None)):
            if isinstance(owner, _GENERATED) and not hasattr(owner, "seed_generator"):
                self.generator = keras.random.SeedGenerator(owner.seed)
                attach(owner, "seed_generator", self.generator)

    def stands(self) -> bool:
        """Always: whatever was assigned since, the original is what comes back."""
        return True

    def undo(self) -> None:
        """The old rate again."""
        for owner, name, value in self.before:
            if value is MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, float(value) if name == "rate" else value)
        for owner in (self.layer, getattr(self.layer, "_dropout_layer", None)):
            if self.generator is not MISSING and getattr(owner, "seed_generator", None) is self.generator:
                detach(owner, "seed_generator")
