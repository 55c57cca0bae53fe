"""Names of activations, in lower case, of the functions and classes that compute them."""

import re

# the longest name first, where one holds another
_NAMES = ("log_softmax", "softmax", "leaky_relu", "rrelu", "prelu", "relu6", "relu", "gelu", "selu", "celu", "elu",
          "hardswish", "silu", "swish", "mish", "hardtanh", "tanh", "hardsigmoid", "logsigmoid", "sigmoid", "softplus",
          "softsign", "glu")  # fmt: skip
_SAME = {"swish": "silu"}
_CLASS = re.compile("|".join(name.replace("_", "") for name in _NAMES))
_BACK = {name.replace("_", ""): name for name in _NAMES}


def of_function(name: str) -> str | None:
    """The activation that a function of this name is, in place or not.

    >>> of_function("relu_"), of_function("leaky_relu"), of_function("linear")
    ('relu', 'leaky_relu', None)
    """
    name = name.rstrip("_")
    return _SAME.get(name, name) if name in _NAMES else None


def of_class(name: str) -> str | None:
    """The activation that a class of this name computes, if it is one.

    >>> of_class("LeakyReLU"), of_class("NewGELUActivation"), of_class("ReluDense"), of_class("Linear")
    ('leaky_relu', 'gelu', None, None)
    """
    plain = name.lower().replace("_", "")
    found = _CLASS.search(plain)
    if found is None or plain not in _forms(found.group()):
        return None
    name = _BACK[found.group()]
    return _SAME.get(name, name)


def _forms(name: str) -> set[str]:
    """Class names of an activation: bare, as torch and Keras have them, and those of Hugging Face and timm."""
    before, after = ("", "new", "fast", "quick", "pytorch", "linear", "me"), ("", "activation", "tanh", "python", "me")
    return {f"{first}{name}{last}" for first in before for last in after}
