"""Which framework an object belongs to, without importing one: a framework that is not loaded has made nothing."""

import sys
from typing import Any


def is_torch(model: Any) -> bool:
    """Whether it is a torch module, and not a Keras layer on torch.

    >>> is_torch(len)
    False
    >>> from torch import nn
    >>> is_torch(nn.ReLU())
    True
    """
    return _made_by("torch.nn", "Module", model) and not is_keras(model)


def is_keras(model: Any) -> bool:
    """Whether it is a Keras model or layer, on whatever backend.

    >>> is_keras(len)
    False
    """
    return _made_by("keras", "Layer", model)


def is_nnx(model: Any) -> bool:
    """Whether it is a module of flax.nnx, and no Keras layer on it.

    >>> is_nnx(len)
    False
    >>> from flax import nnx
    >>> is_nnx(nnx.Linear(2, 2, rngs=nnx.Rngs(0)))
    True
    """
    return _made_by("flax.nnx", "Module", model) and not is_keras(model)


def is_equinox(model: Any) -> bool:
    """Whether it is a module of Equinox.

    >>> is_equinox(len)
    False
    """
    return _made_by("equinox", "Module", model)


def _made_by(module: str, name: str, value: Any) -> bool:
    # While a framework is being imported, its module is there and its classes are not.
    kind = getattr(sys.modules.get(module), name, None)
    return kind is not None and isinstance(value, kind)
