"""First weights as the libraries of the tutorials draw them, each value a function of (seed, name) alone."""

from math import sqrt

import numpy as np
from numpy.typing import NDArray

from ...counter import Key
from ...errors import UnknownNameError
from ...mask import uniform
from ..order import first_weights

KINDS = ("normal", "glorot", "torch")


def first_weight(
    shape: tuple[int, ...], seed: int, name: str, *, fans: tuple[int, int], kind: str, std: float | None
) -> NDArray[np.float32]:
    """The first values of a weight.

    Args:
        shape: of the parameter, in the framework's own layout.
        seed: the experiment.
        name: the parameter's path in the model.
        fans: how many inputs and how many outputs a unit of it has.
        kind: "normal", N(0, std^2); "glorot", uniform within sqrt(6 / (inputs + outputs)), which Keras and lasagne's
            GlorotUniform draw; "torch", uniform within 1 / sqrt(inputs), which torch's layers draw.
        std: of "normal"; None for He's sqrt(2 / inputs).

    Raises:
        UnknownNameError: another kind.

    >>> float(abs(first_weight((9, 4), 0, "w", fans=(4, 9), kind="torch", std=None)).max()) <= 0.5
    True
    """
    if kind == "normal":
        return first_weights(shape, seed, name, (2 / fans[0]) ** 0.5 if std is None else std)
    if kind not in KINDS:
        raise UnknownNameError("kind of first weights", str(kind), KINDS)
    return _uniform(shape, seed, name, sqrt(6 / sum(fans)) if kind == "glorot" else 1 / sqrt(fans[0]))


def first_bias(shape: tuple[int, ...], seed: int, name: str, *, inputs: int, kind: str) -> NDArray[np.float32]:
    """The first values of a bias: zeros, but of kind "torch" uniform within 1 / sqrt(inputs), as its weight.

    >>> first_bias((2,), 0, "b", inputs=4, kind="glorot").tolist()
    [0.0, 0.0]
    """
    return _uniform(shape, seed, name, 1 / sqrt(inputs)) if kind == "torch" else np.zeros(shape, np.float32)


def _uniform(shape: tuple[int, ...], seed: int, name: str, bound: float) -> NDArray[np.float32]:
    found = np.float32(bound) * (2 * uniform(shape, Key(seed, f"init/{name}", 0)) - 1)
    return found.astype(np.float32)
