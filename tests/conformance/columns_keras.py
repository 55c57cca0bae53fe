"""Keras' columns on the backend that runs: eager, in a program of XLA's, and in a functional model that `fit` compiles.

`tests/keras_frontend` runs them in a process for each backend, since Keras has one backend for a process.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

import dropkit.keras as dk
from dropkit import Key

BACKEND = keras.config.backend()
WIDEST = "float32" if BACKEND == "jax" else "float64"  # JAX without 64-bit types


def values(y: Any) -> np.ndarray:
    if keras.backend.standardize_dtype(y.dtype) == "bfloat16":
        y = ops.cast(y, "float32")
    return np.asarray(ops.convert_to_numpy(y)).astype(np.float64)


def tensor(x: Any, dtype: str = "float32") -> Any:
    return None if x is None else ops.cast(ops.convert_to_tensor(np.array(x, WIDEST), WIDEST), dtype)


def gradients(function: Callable[..., Any], leaves: list[Any]) -> list[Any]:
    """The gradients of a scalar function of tensors; zeros where there is none."""
    if BACKEND == "torch":
        import torch

        leaves = [leaf.detach().requires_grad_() for leaf in leaves]
        return list(torch.autograd.grad(function(*leaves), leaves, materialize_grads=True))
    if BACKEND == "jax":
        import jax

        return list(jax.grad(function, tuple(range(len(leaves))))(*leaves))
    import tensorflow as tf

    with tf.GradientTape() as tape:
        for leaf in leaves:
            tape.watch(leaf)
        y = function(*leaves)
    return tape.gradient(y, leaves, unconnected_gradients="zero")


@dataclass
class Keras:
    """`dropkit.keras`, eager."""

    name: str = f"keras {BACKEND}"
    dtypes: tuple[str, ...] = ("float32", "bfloat16", "float16", *(["float64"] if WIDEST == "float64" else []))

    def rate(self, p: float) -> Any:
        return ops.convert_to_tensor(p, "float32")

    def function(self, x: Any, p: Any, other: Any, how: dict[str, Any]) -> Any:
        return dk.dropout(x, p, other=other, **how)

    def dropout(self, x: Any, p: Any, dtype: str, **how: Any) -> Any:
        other = tensor(how.pop("other"), dtype)
        return values(self.function(tensor(x, dtype), p, other, how))

    def gradients(self, x: Any, p: Any, grad: Any, dtype: str, **how: Any) -> Any:
        leaves = [each for each in (tensor(x, dtype), tensor(how.pop("other"), dtype)) if each is not None]
        if BACKEND == "numpy":
            return self._by_differences(leaves, p, tensor(grad, dtype), how)
        grad = tensor(grad, dtype)

        def loss(x: Any, other: Any = None) -> Any:
            return ops.sum(self.function(x, p, other, how) * grad)

        return (*map(values, gradients(loss, leaves)), None)[:2]

    def _by_differences(self, leaves: list[Any], p: Any, grad: Any, how: dict[str, Any]) -> Any:
        """Keras' NumPy backend has no gradients; what it gives is affine in both tensors."""

        def y(*leaves: Any) -> Any:
            x, other = (*leaves, None)[:2]
            return self.function(x, p, other, how)

        zeros = [ops.zeros_like(leaf) for leaf in leaves]
        found = []
        for k, leaf in enumerate(leaves):
            ones = [ops.ones_like(leaf) if i == k else zero for i, zero in enumerate(zeros)]
            one, zero = values(y(*ones)), values(y(*zeros))
            found.append(values(grad) * np.subtract(one, zero, out=np.zeros_like(one), where=one != zero))
        return (*found, None)[:2]

    def layer(self, x: Any, p: float, key: Key, *, training: bool, other: Any, **axes: Any) -> Any:
        layer = dk.Dropout(p, seed=key.seed, site=key.site, **axes)
        layer.rekey(key.seed, key.site, key.step)
        return values(self.call(layer, [tensor(t) for t in (x, other) if t is not None], training))

    def call(self, layer: Any, tensors: list[Any], training: bool) -> Any:
        return layer(*tensors, training=training)


@dataclass
class Program(Keras):
    """The function with a rate that is traced, and the layer in a functional model with its state passed in."""

    name: str = f"keras {BACKEND}, compiled"
    dtypes: tuple[str, ...] = ("float32",)
    compiled = True  # each case costs seconds, and what is refused comes as the compiler's error

    def function(self, x: Any, p: Any, other: Any, how: dict[str, Any]) -> Any:
        traced = [value for value in (x, p if hasattr(p, "shape") else None, other) if value is not None]

        def program(*given: Any) -> Any:
            rest = list(given)
            x = rest.pop(0)
            rate = rest.pop(0) if hasattr(p, "shape") else p
            return dk.dropout(x, rate, other=rest.pop(0) if rest else None, **how)

        return compiled(program)(*traced)

    def call(self, layer: Any, tensors: list[Any], training: bool) -> Any:
        inputs = [keras.Input(tuple(t.shape[1:])) for t in tensors]
        model = keras.Model(inputs, layer(*inputs))
        if BACKEND != "jax":
            return compiled(lambda *given: model(list(given), training=training))(*tensors)
        state = [variable.value for variable in model.non_trainable_variables]

        def program(state: Any, *given: Any) -> Any:
            return model.stateless_call([], state, list(given), training=training)[0]

        return compiled(program)(state, *tensors)


def compiled(program: Callable[..., Any]) -> Callable[..., Any]:
    if BACKEND == "jax":
        import jax

        return jax.jit(program)
    import tensorflow as tf

    def unknown(t: Any) -> Any:  # the size of the batch is not known, as in `fit` without XLA
        return tf.TensorSpec([None, *t.shape[1:]], t.dtype) if len(t.shape) > 1 else tf.TensorSpec(t.shape, t.dtype)

    return lambda *given: tf.function(program, input_signature=[unknown(t) for t in given])(*given)


KERAS = [Keras()]
PROGRAMS = [Program()] if BACKEND in ("jax", "tensorflow") else []
