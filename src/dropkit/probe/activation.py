"""Names of activations, in lower case, of the functions and classes that compute them."""

import math
import re

# the longest name first, where one holds another
_NAMES = ("log_softmax", "softmax", "leaky_relu", "rrelu", "prelu", "relu6", "relu", "gelu", "selu", "celu", "elu",
          "hardswish", "silu", "swish", "mish", "hardtanh", "tanh", "hardsigmoid", "logsigmoid", "sigmoid", "softplus",
          "softsign", "glu")  # fmt: skip
_SAME = {"swish": "silu"}
# f(0) of functions of one number, by their names and those of torch's operators, where that is not 0.
AT_ZERO = {"sigmoid": 0.5, "hardsigmoid": 0.5, "softplus": math.log(2), "logsigmoid": -math.log(2), "exp": 1.0,
           "exp2": 1.0, "exponential": 1.0, "cos": 1.0, "cosh": 1.0, "erfc": 1.0}  # fmt: skip
_CLASS = re.compile("|".join(name.replace("_", "") for name in _NAMES))
_BACK = {name.replace("_", ""): name for name in _NAMES}


def at_zero(name: str) -> str:
    """The name in AT_ZERO of a function, a class or an operator; "" of one that gives 0 at 0, or is unknown.

    >>> at_zero("Sigmoid"), at_zero("log_sigmoid_forward"), at_zero("relu")
    ('sigmoid', 'logsigmoid', '')
    """
    plain = name.lower().strip("_").removesuffix("_forward").replace("_", "")
    return plain if plain in AT_ZERO else ""


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
