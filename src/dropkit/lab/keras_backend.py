"""Keras for the lab: on which backend it runs is settled here, before it is imported."""

import math
import os
import sys
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DropkitValueError

VARIABLE = "KERAS_BACKEND"
DEFAULT = "torch"  # what the lab has anyway
TRAINS = ("torch", "jax", "tensorflow")


def require() -> Any:
    """The package keras, on the backend that KERAS_BACKEND names, or on torch.

    Raises:
        DropkitValueError: keras or its backend is not installed, or the backend cannot train.
    """
    if "keras" not in sys.modules:
        os.environ.setdefault(VARIABLE, DEFAULT)
    try:
        keras = import_module("keras")
    except ModuleNotFoundError as error:
        if error.name == "keras":
            raise DropkitValueError(
                'keras is not installed, and this recipe trains with it: pip install "dropkit[lab,keras]"'
            ) from None
        raise DropkitValueError(
            f"Keras cannot start on {VARIABLE}={os.environ.get(VARIABLE)}: {error}; install that package or set "
            f"{VARIABLE} to one of {', '.join(TRAINS)}"
        ) from None
    if keras.config.backend() not in TRAINS:
        raise DropkitValueError(
            f"Keras runs on {keras.config.backend()!r}, which cannot train: set {VARIABLE} to one of "
            f"{', '.join(TRAINS)}"
        )
    return keras


def batches(x: NDArray, y: NDArray, order: NDArray[np.int64], size: int) -> Any:
    """Samples in this order, as a dataset that Keras takes on any backend: no copy of them all."""

    class Batches(require().utils.PyDataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return math.ceil(len(order) / size)

        def __getitem__(self, number: int) -> tuple[NDArray, NDArray]:
            index = order[number * size : (number + 1) * size]
            return x[index], y[index]

    return Batches()


def backend() -> str:
    """The name of the backend that Keras runs on; raises what `require` raises."""
    return str(require().config.backend())
