"""Keras' own dropout layers in a finished model become dropkit's, and dropkit's become Keras' own for deployment.

A layer is changed where it stands: it gets the other class, and the state of that class. So whatever refers to it goes
on to do so: the graph of a functional model, attributes and lists of blocks, models that share it; and names, weights,
`trainable` flags and optimizers are as they were.
"""

import warnings
from typing import Any

import keras

from ..axes.when import When
from ..errors import DropkitRuntimeError, DropkitTypeError, DropkitValueError
from . import engine, gaussian, layers
from .base import Keyed
from .finding import listed, places, warn_of_foreign
from .layers import checked_noise_shape
from .paths import walk
from .rates import encode_rate, encode_stddev
from .state import Draws

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
_MISSING: Any = object()


class Receipt:
    """What a surgery did, in `lines`; `restore()` gives the original back, once. As a context it does so at the end.

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dropout(0.5, name="drop")])
    >>> with swap(model) as receipt:
    ...     print(receipt)
    drop: keras Dropout(0.5) -> dropkit Dropout(0.5)
    >>> type(model.layers[0]) is keras.layers.Dropout
    True
    """

    def __init__(self, model: keras.Layer, edits: "list[_Edit]", notes: list[str]) -> None:
        self._model, self._edits, self._restored = model, edits, False
        self.lines = (*(edit.line for edit in edits), *notes)
        done: list[_Edit] = []
        try:
            for edit in edits:
                done.append(edit)
                edit.do()
        except BaseException:
            for edit in reversed(done):
                edit.undo()
            raise
        _forget_programs(model)

    def restore(self) -> None:
        """Give the original back, but for `trainable` and the like, which stay as they are now.

        Raises:
            DropkitRuntimeError: it was restored already; a layer was changed again since. Nothing is changed then.
        """
        if self._restored:
            raise DropkitRuntimeError("this receipt was restored already; a receipt restores once")
        fallen = [edit.line for edit in self._edits if not edit.stands()]
        if fallen:
            raise DropkitRuntimeError(
                f"something else stands where this surgery was done ({fallen[0]}); restore what came later first"
            )
        for edit in reversed(self._edits):
            edit.undo()
        self._restored = True
        _forget_programs(self._model)

    def __enter__(self) -> "Receipt":
        return self

    def __exit__(self, *exception: Any) -> None:
        if not self._restored:
            self.restore()

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def __repr__(self) -> str:
        return "\n  ".join([f"Receipt ({'restored' if self._restored else 'in force'})", *self.lines])


class _Edit:
    """One layer that becomes one of another class.

    Args:
        path, layer: it.
        kind: the class.
        attributes: what it gets; `_MISSING` takes away.
    """

    def __init__(self, path: str, layer: Any, kind: type, attributes: dict[str, Any]) -> None:
        self.layer, self.kind, self.attributes = layer, kind, attributes
        self.before = type(layer)
        self.saved = {name: layer.__dict__.get(name, _MISSING) for name in _CHANGED}
        self.line = f"{path}: {_described(type(layer), layer)} -> {_described(kind, layer)}"

    def do(self) -> None:
        """Make it so."""
        self._become(self.kind, self.attributes)

    def stands(self) -> bool:
        """Whether it is so still."""
        same = self.layer.__dict__.get("seed_generator", _MISSING) is self.attributes["seed_generator"]
        return type(self.layer) is self.kind and same

    def undo(self) -> None:
        """As it was."""
        self._become(self.before, self.saved)

    def _become(self, kind: type, attributes: dict[str, Any]) -> None:
        layer = self.layer
        object.__setattr__(layer, "__class__", kind)
        old = layer.__dict__.pop("seed_generator", None)
        if old is not None:
            layer._tracker.untrack(old)
        for name, value in attributes.items():
            layer.__dict__.pop(name, None)
            if value is not _MISSING and name != "seed_generator":
                layer.__dict__[name] = value
        new = attributes["seed_generator"]
        if new is not _MISSING:
            locked = layer._tracker.locked
            layer._tracker.unlock()
            layer.seed_generator = new
            if locked:
                layer._tracker.lock()
        if engine.backend() == "torch":
            layer._track_variables()  # as parameters of the torch module that a Keras layer is there


def swap(model: keras.Layer) -> Receipt:
    """Make dropkit's layers of Keras' own dropout and noise layers, in a model that is there already.

    They keep rate, noise shape, seed, name and everything that refers to them: in functional, Sequential and subclassed
    models, in lists of blocks, inside attention layers, and in what KerasHub builds. Swapped are the exact classes
    `Dropout`, `SpatialDropout1D`, `2D`, `3D`, `AlphaDropout`, `GaussianDropout` and `GaussianNoise`.

    Args:
        model: edited in place, and compiled anew when it runs next. Another model that shares layers with it has to be
            compiled again by hand.

    Returns:
        A `Receipt`, whose `restore()` gives the original back.

    Raises:
        DropkitValueError: no such layer; one with a seed outside [0, 2**64). Nothing is changed then.
        DropkitTypeError: not a Keras layer.

    Warns:
        UserWarning: once, of all places that stay on Keras' generators: subclasses, the dropout of recurrent layers and
            of `Attention`, layers of others that draw by hand; and where the model is bound: what is swapped is not.

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dropout(0.5, name="drop")])
    >>> print(swap(model))
    drop: keras Dropout(0.5) -> dropkit Dropout(0.5)
    """
    _check(model, "swap")
    found = [(path, layer) for path, layer in walk(model) if type(layer) in SWAPS]
    if not found:
        raise DropkitValueError(f"no dropout of Keras' own to swap in {model.name!r}; it has {listed(places(model))}")
    edits = [_Edit(path, layer, SWAPS[type(layer)], _ours(layer)) for path, layer in found]
    bound = any(isinstance(layer, Keyed) and layer.seed_generator.keyed for _, layer in walk(model))
    notes = [
        f"{place.path}: left alone, {type(place.layer).__name__} draws by itself"
        for place in places(model)
        if not place.keyed and type(place.layer) not in SWAPS
    ]
    receipt = Receipt(model, edits, notes)
    warn_of_foreign(model, "swap")
    if bound:
        names = ", ".join(path for path, _ in found)
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

    Raises:
        DropkitValueError: nothing to change; a layer that Keras has no counterpart of (`ConcreteDropout`, or one with a
            `when` other than "train", a noise or a share). Nothing is changed then.
        DropkitTypeError: not a Keras layer.

    >>> import dropkit
    >>> model = keras.Sequential([keras.Input((8,)), dropkit.keras.Dropout(0.5, name="drop")])
    >>> print(unswap(model))
    drop: dropkit Dropout(0.5) -> keras Dropout(0.5)
    """
    _check(model, "unswap")
    keyed = [(path, layer) for path, layer in walk(model) if isinstance(layer, Keyed)]
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
    if not keyed:
        raise DropkitValueError(f"no dropkit layer in {model.name!r}; it has {listed(places(model))}")
    return Receipt(model, [_Edit(path, layer, _BACK[type(layer)], _plain(layer)) for path, layer in keyed], [])


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
        name: _MISSING,
        "seed": _MISSING,
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
    attributes: dict[str, Any] = dict.fromkeys(_OURS, _MISSING)
    attributes |= {name: value, "seed": seed}
    attributes["seed_generator"] = keras.random.SeedGenerator(seed) if value > 0 else _MISSING
    if type(layer) is layers.SpatialDropout1D:
        attributes["data_format"] = _MISSING
    return attributes


def _forget_programs(model: keras.Layer) -> None:
    """Compiled steps of the model, and of models in it, knew the old layers."""
    for _, part in walk(model):
        if isinstance(part, keras.Model):
            part.train_function = part.test_function = part.predict_function = None


def _described(kind: type, layer: Any) -> str:
    home = "dropkit" if issubclass(kind, Keyed) else "keras"
    value: Any = layer.stddev if hasattr(layer, "stddev") else layer.rate
    return f"{home} {kind.__name__}({float(value):g})"


def _check(model: Any, verb: str) -> None:
    if not isinstance(model, keras.Layer):
        raise DropkitTypeError(f"{verb} needs a Keras model or layer, got {type(model).__name__}")
