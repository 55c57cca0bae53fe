"""What the suite shares: which backend runs, arrays out of tensors, a layer that shows what passes through it."""

from typing import Any

import keras
import numpy as np
import pytest

BACKEND = keras.config.backend()
TRAINS = BACKEND != "numpy"
COMPILES = BACKEND in ("jax", "tensorflow")

trains = pytest.mark.skipif(not TRAINS, reason="Keras' NumPy backend does not train")
compiles = pytest.mark.skipif(not COMPILES, reason="only JAX and TensorFlow compile training steps with XLA")


def array(tensor: Any) -> np.ndarray:
    if keras.backend.standardize_dtype(tensor.dtype) == "bfloat16":
        tensor = keras.ops.cast(tensor, "float32")
    return np.asarray(keras.ops.convert_to_numpy(tensor)).astype(np.float64)


@keras.saving.register_keras_serializable(package="dropkit_tests")
class Tap(keras.layers.Layer):
    """Keeps the last input in a variable, and counts how often Python ran it."""

    def __init__(self, shape: tuple[int, ...], **kwargs: Any):
        super().__init__(**kwargs)
        self.shape = shape
        self.runs = 0
        self.seen = self.add_weight(shape=shape, trainable=False, initializer="zeros", name="seen")

    def call(self, x: Any) -> Any:
        self.runs += 1
        self.seen.assign(x)
        return x

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "shape": self.shape}
