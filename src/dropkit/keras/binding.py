"""Keyed models: every dropout named by its path in the model, one seed, and a step that all count together."""

from typing import TypeVar

import keras

from ..counter import Key
from ..errors import DropkitTypeError, DropkitValueError
from .base import Keyed
from .finding import warn_of_foreign
from .paths import walk
from .state import Clock

Model = TypeVar("Model", bound=keras.Layer)


def bind(model: Model, seed: int = 0, *, step: int = 0) -> Model:
    """Make a model's noise a function of (seed, path, step): the same on any backend, device and number of devices.

    Every dropkit layer in the model is named by its path, such as "encoder/dropout_1"; but a `site` that was given to
    its constructor stays, so that layers of one site share their masks. The seed is the model's for all. In a path, a
    name that Keras made up counts the layers of its class within the model, as it would in a fresh process, so that a
    model made twice has the same sites twice; `layer.site` tells. A call of the model in which at least one of its
    layers draws is a step, counted from 0; a layer called again within it has the sites `path#1`, `path#2`, ... there.
    Seed, step and rate are saved with the model and with its weights: what loads them goes on with the next mask.

    Args:
        model: a built model (or layer) with dropkit layers in it.
        seed: an int in [0, 2**64).
        step: number of the next step; binding again starts over from here.

    Returns:
        The same model.

    Raises:
        DropkitValueError: no dropkit layer in the model, or two of one path; a bad seed or step.
        DropkitTypeError: not a Keras layer; a seed or step that is no integer.

    Warns:
        UserWarning: once, of all places that stay on Keras' generators: Keras' own dropout layers (`swap` makes them
            dropkit's), the dropout of attention and recurrent layers, layers of others that draw by hand.

    >>> import dropkit
    >>> model = bind(keras.Sequential([keras.Input((8,)), dropkit.keras.Dropout(0.5)]), seed=1)
    >>> y = keras.ops.convert_to_numpy(model(keras.ops.ones((2, 8)), training=True))
    >>> bool(((y != 0) == dropkit.keep((2, 8), 0.5, dropkit.Key(seed=1, site="dropout", step=0))).all())
    True
    """
    if not isinstance(model, keras.Layer):
        raise DropkitTypeError(f"bind needs a Keras model or layer, got {type(model).__name__}")
    start = Key(seed, step=step)
    named = sites(model)
    if not named:
        raise DropkitValueError(
            f"no dropkit layer to bind in {model.name!r}: use dropkit.keras.Dropout and its like there, and bind after "
            "the model has its layers"
        )
    for site, layer in named.items():
        layer.rekey(start.seed, layer.site if layer.named else site, start.step)
    clock = Clock(layer.seed_generator for layer in named.values())
    for layer in named.values():
        layer.seed_generator.clock = clock
    warn_of_foreign(model, "bind")
    return model


def sites(model: keras.Layer) -> dict[str, Keyed]:
    """The dropkit layers of a model by their paths in it.

    Raises:
        DropkitValueError: two layers of one path.

    >>> from dropkit.keras import Dropout
    >>> list(sites(keras.Sequential([keras.layers.Dense(2), Dropout(0.5), Dropout(0.1, name="last")])))
    ['dropout', 'last']
    """
    found: dict[str, Keyed] = {}
    for path, layer in walk(model):
        if isinstance(layer, Keyed):
            if path in found:
                raise DropkitValueError(f"two dropkit layers have the path {path!r}; give them different names")
            found[path] = layer
    return found
