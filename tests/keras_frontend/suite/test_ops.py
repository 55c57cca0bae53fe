"""The function `dropkit.keras.dropout`, by the checks that every frontend must pass."""

from typing import Any

import numpy as np
import pytest
from keras import ops

import dropkit.keras as dk
from tests.conformance.checks import CHECKS

from .test_layers import gradient
from .tools import BACKEND, TRAINS, array


class Frontend:
    """The row of this frontend in the conformance suite."""

    name = f"keras-{BACKEND}"
    dtypes = ("float16", "bfloat16", "float32") if BACKEND == "jax" else ("float16", "bfloat16", "float32", "float64")
    layouts = ("contiguous",)
    integer = ops.ones((2, 3), "int32")

    def array(self, values: np.ndarray, dtype: str, layout: str = "contiguous") -> Any:
        widest = "float32" if BACKEND == "jax" else "float64"
        return ops.cast(ops.convert_to_tensor(np.array(values, widest), widest), dtype)

    def values(self, y: Any) -> np.ndarray:
        return array(y)

    def dropout(self, x: Any, p: Any, **coordinates: Any) -> Any:
        return dk.dropout(x, p, **coordinates)

    def gradient(self, x: Any, p: Any, grad: Any, **coordinates: Any) -> Any:
        if not TRAINS:
            return dk.dropout(grad, p, **coordinates)
        return gradient(lambda x: ops.sum(dk.dropout(x, p, **coordinates) * grad), x)

    def rates(self, p: np.ndarray) -> Any:
        return p


@pytest.mark.parametrize("check", CHECKS)
def test_conforms(check: str) -> None:
    CHECKS[check](Frontend())
