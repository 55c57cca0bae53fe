"""Gradients of a Keras model's variables, on the backends that have any."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras.src.backend.common import global_state
from keras.src.random import seed_generator

from .intercept import Noise, replaced

_QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}

Gradients = list[np.ndarray | None]


class Loss:
    """`sum 0.5 mean((y - t)**2)` over the floating outputs y, for fixed random t: not linear in y, so that what changes
    an output changes the gradients of all that it depends on."""

    def __init__(self) -> None:
        self._targets: list[Any] = []

    def __call__(self, outputs: Any) -> Any:
        floating = [y for y in keras.tree.flatten(outputs) if keras.backend.is_float_dtype(y.dtype)]
        if not self._targets:
            rng = np.random.Generator(np.random.Philox(1))
            self._targets = [rng.normal(size=tuple(y.shape)).astype("float32") for y in floating]
        terms = [
            0.5 * keras.ops.mean(keras.ops.square(keras.ops.cast(y, "float32") - keras.ops.convert_to_tensor(t)))
            for y, t in zip(floating, self._targets, strict=True)
        ]
        return sum(terms[1:], terms[0]) if terms else None


class Differentiation:
    """Runs a model and differentiates it.

    Args:
        call: runs the model, and returns its outputs.
        variables: what is differentiated by.
        noise: the sites, some of which are on.
    """

    def __init__(self, call: Callable[[], Any], variables: Sequence[Any], noise: Noise) -> None:
        self.call, self.variables, self.noise = call, variables, noise
        self.loss = Loss()
        self.backend = keras.config.backend()
        self._compiled: Any = None

    @property
    def possible(self) -> bool:
        """Whether there are gradients, and something to differentiate by."""
        return self.backend in ("torch", "tensorflow", "jax") and bool(self.variables)

    @property
    def apart(self) -> bool:
        """Whether the forward runs for the gradient alone, since its numbers cannot be seen."""
        return self.backend == "jax"

    def forward(self) -> None:
        """Run the model without a gradient."""
        if self.backend == "torch":
            import torch

            with torch.no_grad():
                self.call()
        else:
            self.call()

    def gradients(self) -> Gradients:
        """Run the model; the gradient by each variable, None where the outputs do not depend on it."""
        found = getattr(self, f"_{self.backend}")()
        return [None if each is None else np.array(keras.ops.convert_to_numpy(each)) for each in found]

    def _torch(self) -> list[Any]:
        import torch

        with torch.enable_grad():
            loss = self.loss(self.call())
            if loss is None or not loss.requires_grad:
                return [None] * len(self.variables)
            values = [variable.value for variable in self.variables]
            return list(torch.autograd.grad(loss, values, allow_unused=True))

    def _tensorflow(self) -> list[Any]:
        import tensorflow as tf

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            values = [variable.value for variable in self.variables]
            tape.watch(values)
            loss = self.loss(self.call())
        if loss is None:
            return [None] * len(self.variables)
        found = tape.gradient(loss, values)
        return [None if each is None else tf.convert_to_tensor(each) for each in found]

    def _jax(self) -> list[Any]:
        """Compiled once, with what is on as data; as it stands where a compiler cannot follow the model."""
        import jax

        values = [variable.value for variable in self.variables]
        on = {site.name: self.noise.is_on(site.name) for site in self.noise.sites}
        gradient = jax.grad(self._jax_loss)
        if self._compiled is None:
            self._compiled = jax.jit(gradient, compiler_options=_QUICK)  # it runs a few times
        try:
            found = self._compiled(values, on)
        except Exception:  # whatever the model raises at a number that is not known yet; raised again if it is another
            found = gradient(values, on)
        # It gives zeros where nothing depends on a variable.
        return [each if bool(jax.numpy.any(each != 0)) else None for each in found]

    def _jax_loss(self, values: list[Any], on: dict[str, Any]) -> Any:
        # Keras does not give it inside of a compiled function.
        generator = global_state.get_global_attribute(seed_generator.GLOBAL_SEED_GENERATOR)
        pairs = list(zip(self.variables, values, strict=True))
        with (
            self.noise.switched(on),
            replaced(seed_generator, "global_seed_generator", lambda old: lambda: generator),
            keras.StatelessScope(state_mapping=pairs),
        ):
            found = self.loss(self.call())
        return keras.ops.zeros(()) if found is None else found


def changed(before: Gradients, after: Gradients) -> list[bool]:
    """For each variable, whether its gradient is another one."""
    return [_differ(a, b) for a, b in zip(before, after, strict=True)]


def stilled(before: Gradients, after: Gradients) -> list[bool]:
    """For each variable, whether it has a gradient before, and one of zeros or none after."""
    return [
        a is not None and bool(a.any()) and not (b is not None and b.any()) for a, b in zip(before, after, strict=True)
    ]


def _differ(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    """Past what the order of a sum changes."""
    if a is None or b is None:
        return a is not b
    scale = np.max(np.abs(a), initial=0.0)
    return not np.allclose(a, b, rtol=0.0, atol=1e-6 * float(scale), equal_nan=True)
