"""What a surgery on a Keras model did, and how it is taken back: edits of layers, each of which knows its way back."""

from collections.abc import Sequence
from typing import Any

import keras

from .. import receipt
from ..errors import DropkitTypeError
from ..receipt import Edit
from . import engine
from .base import Keyed
from .paths import walk

MISSING: Any = object()


class Receipt(receipt.Receipt):
    """What a surgery did, in `lines`; `restore()` gives the original back, once. As a context it does so at the end.

    >>> from dropkit.keras import swap
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dropout(0.5, name="drop")])
    >>> with swap(model) as receipt:
    ...     print(receipt)
    drop: keras Dropout(0.5) -> dropkit Dropout(0.5)
    >>> type(model.layers[0]) is keras.layers.Dropout
    True
    """

    def __init__(self, model: keras.Layer, edits: Sequence[Edit], notes: Sequence[str], compiled: bool = True) -> None:
        self._model, self._compiled = model, compiled
        super().__init__(edits, notes, halves=True)
        self._forget_programs()

    def restore(self) -> None:
        """Give the original back, but for `trainable` and the like, which stay as they are now.

        Raises:
            DropkitRuntimeError: it was restored already; a layer was changed again since. Nothing is changed then.
        """
        super().restore()
        self._forget_programs()

    def _forget_programs(self) -> None:
        """Compiled steps of the model, and of models in it, knew the old layers."""
        for _, part in walk(self._model) if self._compiled else ():
            if isinstance(part, keras.Model):
                part.train_function = part.test_function = part.predict_function = None


def attach(layer: Any, name: str, value: Any) -> None:
    """Set an attribute that Keras tracks, on a layer that may be built."""
    locked = layer._tracker.locked
    layer._tracker.unlock()
    setattr(layer, name, value)
    if locked:
        layer._tracker.lock()
    _retrack(layer)


def detach(layer: Any, name: str) -> None:
    """Take an attribute that Keras tracks away."""
    layer._tracker.untrack(getattr(layer, name))
    object.__delattr__(layer, name) if name in layer.__dict__ else delattr(layer, name)
    _retrack(layer)


def _retrack(layer: Any) -> None:
    if engine.backend() == "torch":
        layer._track_variables()  # as parameters of the torch module that a Keras layer is there


def described(kind: type, layer: Any) -> str:
    """A dropout's class, and its rate now."""
    home = "dropkit" if issubclass(kind, Keyed) else "keras"
    value: Any = layer.stddev if hasattr(layer, "stddev") else getattr(layer, "rate", None)
    return f"{home} {kind.__name__}" + (f"({float(value):g})" if value is not None else "")


def check_model(model: Any, verb: str) -> None:
    """Refuse what is no Keras layer."""
    if not isinstance(model, keras.Layer):
        raise DropkitTypeError(f"{verb} needs a Keras model or layer, got {type(model).__name__}")
