"""Layers behind which a dropout stands: their own class with another `call`, and how they are saved.

Such a layer is where it was, and of a class that derives from its own, so that the graph of a functional model, the
attributes that refer to it, its weights and its path are as they were. The dropout is a layer in it, as a block's is.
"""

from functools import wraps
from typing import Any

import keras

from ..errors import DropkitTypeError
from .receipt import MISSING, attach, described, detach

INSERTED = "dropkit_drop"  # the attribute, and the name, of the dropout that `insert` adds
_BEHIND = "dropkit_behind"  # in a config: the class of the layer by itself
_KINDS: dict[type, type] = {}
_register = keras.saving.register_keras_serializable(package="dropkit", name="Dropped")


class Dropped:
    """What the class of a layer gets beside its own: the dropout's place in its config."""

    def get_config(self) -> dict[str, Any]:
        """The layer's own, its class, and the dropout's."""
        own = keras.saving.serialize_keras_object(_alone(self))
        kind = {name: own[name] for name in ("module", "class_name", "registered_name")}
        drop = keras.saving.serialize_keras_object(getattr(self, INSERTED))
        return {**own["config"], _BEHIND: kind, INSERTED: drop}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """The layer, and the dropout behind it."""
        config = dict(config)
        drop = keras.saving.deserialize_keras_object(config.pop(INSERTED))
        layer = keras.saving.deserialize_keras_object({**config.pop(_BEHIND), "config": config})
        Insertion(layer.name, layer, drop).do()
        return layer


_register(Dropped)


def own_kind(layer: Any) -> type:
    """The class of a layer, without what stands behind it.

    >>> own_kind(keras.layers.Dense(3)).__name__
    'Dense'
    """
    kind = type(layer)
    return kind.__mro__[2] if issubclass(kind, Dropped) else kind


def _alone(layer: Any) -> Any:
    """The same layer, state and all, as one of its own class."""
    plain: Any = object.__new__(own_kind(layer))
    object.__setattr__(plain, "__dict__", layer.__dict__)
    return plain


def _kind(own: type) -> type:
    """The class that a layer of this one becomes; of the same name, of which Keras makes paths in files."""
    if own not in _KINDS:
        theirs: Any = own

        @wraps(theirs.call)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            return _drop_output(self, theirs.call(self, *args, **kwargs))

        names = {"call": call, "__module__": own.__module__, "__doc__": own.__doc__, "__qualname__": own.__qualname__}
        _KINDS[own] = _register(type(own.__name__, (Dropped, own), names))
        _register(Dropped)  # the one that loading goes by
    return _KINDS[own]


def _drop_output(layer: Any, output: Any) -> Any:
    """An output with noise; a tuple or list keeps its type and all but its first entry."""
    if keras.ops.is_tensor(output) or isinstance(output, keras.KerasTensor):
        return getattr(layer, INSERTED)(output)
    if isinstance(output, list | tuple) and output:
        first = _drop_output(layer, output[0])
        fields = getattr(output, "_fields", None)
        if fields:
            return output._replace(**{fields[0]: first})  # type: ignore[union-attr]
        return type(output)((first, *output[1:]))
    raise DropkitTypeError(
        f"a dropout was inserted behind {layer.name!r} ({own_kind(layer).__name__}), which returns a "
        f"{type(output).__name__}: it can only drop a tensor, or the first entry of a tuple; insert it behind a layer "
        "that returns a tensor"
    )


class Insertion:
    """A dropout behind a layer.

    Args:
        path, layer: it.
        drop: the dropout.
    """

    def __init__(self, path: str, layer: Any, drop: Any) -> None:
        self.layer, self.drop = layer, drop
        self.line = f"{path}: {described(type(drop), drop)} behind {type(layer).__name__}"

    def do(self) -> None:
        """Put it there."""
        attach(self.layer, INSERTED, self.drop)
        object.__setattr__(self.layer, "__class__", _kind(type(self.layer)))

    def stands(self) -> bool:
        """Whether it is there still."""
        return getattr(self.layer, INSERTED, MISSING) is self.drop

    def undo(self) -> None:
        """Take it away."""
        object.__setattr__(self.layer, "__class__", own_kind(self.layer))
        detach(self.layer, INSERTED)


class Removal(Insertion):
    """An inserted dropout that is taken away."""

    def __init__(self, path: str, layer: Any) -> None:
        super().__init__(path, layer, getattr(layer, INSERTED))
        self.line = f"{path}: {described(type(self.drop), self.drop)} behind {type(layer).__name__} -> none"

    def do(self) -> None:
        """Take it away."""
        super().undo()

    def stands(self) -> bool:
        """Whether nothing is there still."""
        return not hasattr(self.layer, INSERTED)

    def undo(self) -> None:
        """Put it back."""
        super().do()
