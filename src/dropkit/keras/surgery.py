"""Keras' own dropout layers in a finished model become dropkit's, and dropkit's become Keras' own for deployment.

A layer is changed where it stands: it gets the other class, and the state of that class. So whatever refers to it goes
on to do so: the graph of a functional model, attributes and lists of blocks, models that share it; and names, weights,
`trainable` flags and optimizers are as they were.
"""

import warnings
from typing import Any

import keras

from ..axes.when import When
from ..errors import DropkitValueError
from ..receipt import Edit
from . import gaussian, layers
from .base import Keyed
from .finding import listed, places, warn_of_foreign
from .held import Holder
from .inserted import Dropped, Removal
from .layers import checked_noise_shape
from .paths import walk
from .rates import encode_rate, encode_stddev
from .receipt import MISSING, Receipt, attach, check_model, described, detach
from .state import Draws
from .taking import givings, holders, takings

SWAPS: dict[type, type] = {
    getattr(keras.layers, name): getattr(home, name)
    for home, names in (
        (layers, ("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "AlphaDropout")),
        (gaussian, ("GaussianDropout", "GaussianNoise")),
    )
    for name in names
}
_BACK = {own: plain for plain, own in SWAPS.items()}
_OURS = ("_given", "_when", "_named", "_noise", "_share")  # what our classes keep beside Keras'
_CHANGED = ("rate", "stddev", "seed", "seed_generator", "noise_shape", "data_format", *_OURS)


class _Edit:
    """One layer that becomes one of another class.

    Args:
        path, layer: it.
        kind: the class.
        attributes: what it gets; `MISSING` takes away.
        holder: the attention whose dropout it is, and the class that this becomes.
    """

    def __init__(self, path: str, layer: Any, kind: type, attributes: dict[str, Any], holder: Any = None) -> None:
        self.layer, self.kind, self.attributes = layer, kind, attributes
        self.holder: Any = None if holder is None else holder[0]
        self.form: Any = None if holder is None else holder[1]
        self.held_by = type(self.holder)
        self.before = type(layer)
        self.saved = {name: layer.__dict__.get(name, MISSING) for name in _CHANGED}
        self.line = f"{path}: {described(type(layer), layer)} -> {described(kind, layer)}"

    def do(self) -> None:
        """Make it so."""
        self._become(self.kind, self.attributes)
        if self.holder is not None:
            object.__setattr__(self.holder, "__class__", self.form)
            _tell_rate(self.holder, float(self.layer.rate))

    def stands(self) -> bool:
        """Whether it is so still."""
        same = self.layer.__dict__.get("seed_generator", MISSING) is self.attributes["seed_generator"]
        return type(self.layer) is self.kind and same

    def undo(self) -> None:
        """As it was."""
        self._become(self.before, self.saved)
        if self.holder is not None:
            object.__setattr__(self.holder, "__class__", self.held_by)
            _tell_rate(self.holder, float(self.layer.rate))

    def _become(self, kind: type, attributes: dict[str, Any]) -> None:
        layer = self.layer
        object.__setattr__(layer, "__class__", kind)
        if "seed_generator" in layer.__dict__:
            detach(layer, "seed_generator")
        for name, value in attributes.items():
            layer.__dict__.pop(name, None)
            if value is not MISSING and name != "seed_generator":
                layer.__dict__[name] = value
        if attributes["seed_generator"] is not MISSING:
            attach(layer, "seed_generator", attributes["seed_generator"])


def _tell_rate(attention: Any, rate: float) -> None:
    """The number that an attention of Keras' own has beside its dropout; ours keeps in it whether it ever drops."""
    for name in ("_dropout", "dropout"):
        if name in attention.__dict__:
            attention.__dict__[name] = rate or (attention.__dict__[name] if isinstance(attention, Holder) else rate)


def swap(model: keras.Layer) -> Receipt:
    """Make dropkit's layers of Keras' own that drop, in a model that is there already.

    They keep rate, noise shape, seed, name and everything that refers to them: in functional, Sequential and subclassed
    models, in lists of blocks, inside other layers and wrappers, and in what KerasHub builds. Swapped are the exact
    classes `Dropout`, `SpatialDropout1D`, `2D`, `3D`, `AlphaDropout`, `GaussianDropout` and `GaussianNoise`; and those
    which drop within: `MultiHeadAttention`, `GroupQueryAttention`, `Attention`, `AdditiveAttention`, and the cells of
    `LSTM`, `GRU`, `SimpleRNN` and `ConvLSTM1D`, `2D`, `3D`, whose dropouts have sites such as
    "read/lstm_cell/recurrent_dropout". What has a rate of 0 there is left as it is.

    Args:
        model: edited in place, and compiled anew when it runs next. Another model that shares layers with it has to be
            compiled again by hand.

    Returns:
        A `Receipt`, whose `restore()` gives the original back.

    Raises:
        DropkitValueError: no such layer; one with a seed outside [0, 2**64). Nothing is changed then.
        DropkitTypeError: not a Keras layer.

    Warns:
        UserWarning: once, of all places that stay on Keras' generators: subclasses, layers of others that draw by hand;
            and where the model is bound: what is swapped is not.

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dropout(0.5, name="drop")])
    >>> print(swap(model))
    drop: keras Dropout(0.5) -> dropkit Dropout(0.5)
    """
    check_model(model, "swap")
    everywhere = list(walk(model))
    held, taken = holders(everywhere), takings(everywhere)
    swapped = {
        number: _Edit(path, layer, SWAPS[type(layer)], _ours(layer), held.get(id(layer)))
        for number, (path, layer) in enumerate(everywhere)
        if type(layer) in SWAPS
    }
    found: dict[int, Edit] = dict(sorted((swapped | taken).items()))
    if not found:
        raise DropkitValueError(f"no dropout of Keras' own to swap in {model.name!r}; it has {listed(places(model))}")
    bound = any(isinstance(layer, Keyed) and layer.seed_generator.keyed for _, layer in everywhere)
    gone = {id(everywhere[number][1]) for number in found}
    notes = [
        f"{place.path}: left alone, {type(place.layer).__name__} draws by itself"
        for place in places(model)
        if not place.keyed and id(place.layer) not in gone
    ]
    receipt = Receipt(model, list(found.values()), notes)
    warn_of_foreign(model, "swap")
    if bound:
        names = ", ".join(everywhere[number][0] for number in found)
        warnings.warn(f"the model is bound and these are not: {names}; dropkit.keras.bind it again", stacklevel=2)
    return receipt


def unswap(model: keras.Layer) -> Receipt:
    """Make Keras' own layers of dropkit's, for deployment: what is saved then loads without dropkit.

    Args:
        model: edited in place, and compiled anew when it runs next. Rates stay as they are now; seeds of 2**31 and more
            are shortened to what Keras takes. Sites and steps are gone.

    Returns:
        A `Receipt`, whose `restore()` gives dropkit's layers back with their states: as a context,
        `with dropkit.keras.unswap(model): model.save("deployed.keras")`, training goes on afterwards.

    Warns:
        UserWarning: dropouts that `insert` put behind layers are taken out, since Keras' own layers have no place for
            them; none of them acts when the model is used.

    Raises:
        DropkitValueError: nothing to change; a layer that Keras has no counterpart of (`ConcreteDropout`, or one with a
            `when` other than "train", a noise or a share). Nothing is changed then.
        DropkitTypeError: not a Keras layer.

    >>> import dropkit
    >>> model = keras.Sequential([keras.Input((8,)), dropkit.keras.Dropout(0.5, name="drop")])
    >>> print(unswap(model))
    drop: dropkit Dropout(0.5) -> keras Dropout(0.5)
    """
    check_model(model, "unswap")
    everywhere = list(walk(model))
    removals: list[Any] = [Removal(path, layer) for path, layer in everywhere if isinstance(layer, Dropped)]
    inserted = {id(removal.drop) for removal in removals}
    given, held = givings(everywhere), holders(everywhere)
    within = {id(drop) for each in given.values() for drop in each.layer.drops.values()}
    keyed = [(path, layer) for path, layer in everywhere if isinstance(layer, Keyed) and id(layer) not in inserted]
    odd = [
        f"{path} ({', '.join([type(layer).__name__, *_ours_alone(layer)])})"
        for path, layer in keyed
        if type(layer) not in _BACK or _ours_alone(layer)
    ]
    if odd:
        raise DropkitValueError(
            f"Keras has no counterpart of {', '.join(odd)}: build the model that you deploy without them (a "
            "ConcreteDropout's `.layer` is what it wraps) and give it these weights by set_weights"
        )
    if not keyed and not removals and not given:
        raise DropkitValueError(f"no dropkit layer in {model.name!r}; it has {listed(places(model))}")
    edits: list[Edit] = [
        _Edit(path, layer, _BACK[type(layer)], _plain(layer), held.get(id(layer)))
        for path, layer in keyed
        if id(layer) not in within
    ]
    edits += given.values()
    if removals:
        names = ", ".join(path for path, layer in everywhere if isinstance(layer, Dropped))
        warnings.warn(f"unswap takes out what was inserted: {names}; Keras' own have no place for it", stacklevel=2)
    return Receipt(model, edits + removals, [])


def _ours_alone(layer: Keyed) -> list[str]:
    """What a layer was told that no layer of Keras' own knows."""
    told = [] if layer.when == "train" else [f"when={layer.when!r}"]
    return told + [f"{name}={getattr(layer, name)!r}" for name in ("noise", "share") if f"_{name}" in layer.__dict__]


def _ours(layer: Any) -> dict[str, Any]:
    """What a layer of Keras' own has as one of ours."""
    name = "stddev" if isinstance(layer, keras.layers.GaussianNoise) else "rate"
    value = getattr(layer, name)
    level = (encode_stddev if name == "stddev" else encode_rate)(name, value)
    default = layer.name if layer.seed is not None else 0
    attributes: dict[str, Any] = {
        name: MISSING,
        "seed": MISSING,
        "seed_generator": Draws(layer.seed, default, level),
        "_given": (float(value), level),
        "_when": When.TRAIN,
        "_named": False,
    }
    if hasattr(layer, "noise_shape"):
        attributes["noise_shape"] = checked_noise_shape(layer.noise_shape)
    if type(layer) is keras.layers.SpatialDropout1D:
        attributes["data_format"] = "channels_last"
    return attributes


def _plain(layer: Any) -> dict[str, Any]:
    """What a layer of ours has as one of Keras' own."""
    name = "stddev" if isinstance(layer, keras.layers.GaussianNoise) else "rate"
    value = float(getattr(layer, name))
    seed = None if layer.seed is None else layer.seed % (1 << 31)
    attributes: dict[str, Any] = dict.fromkeys(_OURS, MISSING)
    attributes |= {name: value, "seed": seed}
    attributes["seed_generator"] = keras.random.SeedGenerator(seed) if value > 0 else MISSING
    if type(layer) is layers.SpatialDropout1D:
        attributes["data_format"] = MISSING
    return attributes
