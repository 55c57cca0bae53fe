"""Keras' own layers that hold dropouts, in a finished model: cells and attention become ours, and ours Keras'.

As with dropouts, a layer is changed where it stands: it gets the other class, and the parts that this class has.
"""

from dataclasses import dataclass, field
from typing import Any

import keras
from keras.src.layers.rnn.dropout_rnn_cell import DropoutRNNCell

from . import attention
from .held import Holder, made_drop
from .receipt import MISSING, attach, detach
from .recurrent import CELLS, LAYERS

HEADS: dict[type, type] = {
    getattr(keras.layers, name): getattr(attention, name) for name in ("MultiHeadAttention", "GroupQueryAttention")
}
_SCORED: dict[type, type] = {
    getattr(keras.layers, name): getattr(attention, name) for name in ("Attention", "AdditiveAttention")
}
_TAKEN = CELLS | _SCORED | HEADS
_BACK = {own: plain for plain, own in (_TAKEN | LAYERS).items()}


@dataclass(slots=True)
class _Form:
    """What a layer is.

    Args:
        kind: its class.
        numbers: attributes that Keras does not track.
        parts: attributes that it does.
    """

    kind: type
    numbers: dict[str, Any]
    parts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, layer: Any, names: Any, parts: Any) -> "_Form":
        """As a layer is now."""
        kept = {name: layer.__dict__.get(name, MISSING) for name in (*names, "seed", "_ready")}
        return cls(type(layer), kept, {name: getattr(layer, name, MISSING) for name in parts})

    def put_on(self, layer: Any) -> None:
        """Make a layer so."""
        object.__setattr__(layer, "__class__", self.kind)
        for name, part in self.parts.items():
            if getattr(layer, name, MISSING) is not part:
                if hasattr(layer, name):
                    detach(layer, name)
                if part is not MISSING:
                    attach(layer, name, part)
        for name, value in self.numbers.items():
            layer.__dict__.pop(name, None)
            if value is not MISSING:
                layer.__dict__[name] = value


class Taking:
    """A layer that holds dropouts becomes one of ours, or one of ours Keras' own; with the layer around it.

    Args:
        path, layer: it.
        owner: the recurrent layer that made it, if any, which becomes one of ours, or of Keras' own, too.
        back: whether ours becomes Keras'.
    """

    def __init__(self, path: str, layer: Any, owner: Any, back: bool = False) -> None:
        self.layer, self.owner = layer, owner
        own = type(layer) if back else _TAKEN[type(layer)]
        held: dict[str, str] = own.held_as  # type: ignore[attr-defined]
        parts = [*held.values(), *(() if own in HEADS.values() else ("seed_generator",))]
        self.before = _Form.of(layer, held, parts)
        self.after = (_plain if back else _ours)(layer, owner, held, self.before)
        self.owners = () if owner is None else (type(owner), (_BACK if back else LAYERS)[type(owner)])
        homes = ("dropkit", "keras") if back else ("keras", "dropkit")
        kind = f"{type(layer).__name__}({_rates(layer, held)})"
        self.line = f"{path}: {homes[0]} {kind} -> {homes[1]} {kind}"

    def do(self) -> None:
        """Make it so."""
        self.after.put_on(self.layer)
        if self.owners:
            object.__setattr__(self.owner, "__class__", self.owners[1])

    def stands(self) -> bool:
        """Whether it is so still."""
        parts = (getattr(self.layer, name, MISSING) is part for name, part in self.after.parts.items())
        built = not issubclass(self.after.kind, Holder) and self.after.kind in HEADS
        return type(self.layer) is self.after.kind and (built or all(parts))

    def undo(self) -> None:
        """As it was; attention that was built since has a dropout of Keras' own."""
        missing = self.before.parts["_dropout_layer"] is MISSING
        if self.before.kind in HEADS and self.layer.built and missing:
            self.before.parts["_dropout_layer"] = _keras_drop(self.layer, self.before)
        self.before.put_on(self.layer)
        if self.owners:
            object.__setattr__(self.owner, "__class__", self.owners[0])


def _rates(layer: Any, held: Any) -> str:
    rates = {name.lstrip("_"): float(getattr(layer, name)) for name in held}
    return ", ".join(f"{name}={rate:g}" for name, rate in rates.items() if rate)


def _ours(layer: Any, owner: Any, held: Any, before: _Form) -> _Form:
    prefix = None if owner is None else owner.name
    drops = {
        attribute: made_drop(layer, name, rate, layer.seed, None, "train", prefix)
        for name, attribute in held.items()
        if (rate := layer.__dict__.get(name, 0.0))
    }
    parts = dict.fromkeys(before.parts, MISSING) | drops
    return _Form(_TAKEN[before.kind], {**before.numbers, "_ready": True}, parts)


def _plain(layer: Any, owner: Any, held: Any, before: _Form) -> _Form:
    seed = None if layer.seed is None else layer.seed % (1 << 31)
    rates = {name: float(getattr(layer, name)) for name in held}
    numbers = {**before.numbers, **rates, "seed": seed, "_ready": MISSING}
    after = _Form(_BACK[before.kind], numbers, dict.fromkeys(before.parts, MISSING))
    if "seed_generator" in after.parts and (any(rates.values()) or issubclass(after.kind, DropoutRNNCell)):
        after.parts["seed_generator"] = keras.random.SeedGenerator(seed)
    return after


def _keras_drop(layer: Any, form: _Form) -> keras.layers.Dropout:
    rate = next(value for name, value in form.numbers.items() if name.lstrip("_") == "dropout")
    return keras.layers.Dropout(rate, dtype=layer.dtype_policy, seed=layer.seed)


def takings(everywhere: list[tuple[str, Any]]) -> dict[int, Taking]:
    """What there is to take over of a model's layers: for the number of each in the list, the edit.

    Attention with heads that is built has a dropout layer, which is swapped as every other; see `holders`.
    """
    owners = {id(layer.cell): layer for _, layer in everywhere if type(layer) in LAYERS}
    found = {}
    for number, (path, layer) in enumerate(everywhere):
        kind = type(layer)
        drops = kind in _TAKEN and any(layer.__dict__.get(name) for name in _TAKEN[kind].held_as)  # type: ignore[attr-defined]
        if drops and not (kind in HEADS and hasattr(layer, "_dropout_layer")):
            found[number] = Taking(path, layer, owners.get(id(layer)))
    return found


def givings(everywhere: list[tuple[str, Any]]) -> dict[int, Taking]:
    """What there is of ours that holds dropouts, likewise; but for built attention with heads."""
    owners = {id(layer.cell): layer for _, layer in everywhere if type(layer) in LAYERS.values()}
    return {
        number: Taking(path, layer, owners.get(id(layer)), back=True)
        for number, (path, layer) in enumerate(everywhere)
        if type(layer) in _BACK and isinstance(layer, Holder) and not _built_heads(layer)
    }


def _built_heads(layer: Any) -> bool:
    return type(layer) in HEADS.values() and layer.built


def holders(everywhere: list[tuple[str, Any]]) -> dict[int, tuple[Any, type]]:
    """For the dropouts of built attention with heads, by their ids: the attention, and the class that it becomes."""
    kinds = HEADS | {own: plain for plain, own in HEADS.items()}
    return {
        id(layer._dropout_layer): (layer, kinds[type(layer)])
        for _, layer in everywhere
        if type(layer) in kinds and hasattr(layer, "_dropout_layer")
    }
