"""How much of a compiled step is dropout, in operations; and that what a program draws is what NumPy knows."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

import dropkit.keras as dk
from dropkit import Key, keep
from dropkit.keras.binding import sites

from .tools import BACKEND, Tap, array, compiles

on_jax = pytest.mark.skipif(BACKEND != "jax", reason="counts JAX's operations")
X = np.ones((4, 16), "float32")


def stack(make: Callable[[], keras.Layer], depth: int) -> keras.Model:
    return keras.Sequential([keras.Input((16,), batch_size=4), *[make() for _ in range(depth)]])


def step_of(model: keras.Model) -> tuple[Callable[..., Any], list[Any]]:
    """The model's stateless call in training, and its arguments."""

    def step(trainable: Any, rest: Any, x: Any) -> Any:
        return model.stateless_call(trainable, rest, x, training=True)

    states = [variable.value for variable in model.non_trainable_variables]
    return step, [[variable.value for variable in model.trainable_variables], states, X]


def equations(model: keras.Model) -> tuple[int, int, int]:
    """Of the jaxpr of a training call: its equations, those with all inside them, and the steps it begins."""
    import jax

    def within(jaxpr: Any) -> int:
        inner = [value for each in jaxpr.eqns for value in each.params.values() if hasattr(value, "jaxpr")]
        return len(jaxpr.eqns) + sum(within(value.jaxpr) for value in inner)

    step, arguments = step_of(model)
    jaxpr = jax.make_jaxpr(step)(*arguments).jaxpr
    return len(jaxpr.eqns), within(jaxpr), sum(each.params.get("name") == "_begin" for each in jaxpr.eqns)


@on_jax
@pytest.mark.parametrize("name", ["Dropout", "SpatialDropout1D"])
def test_a_site_adds_no_more_equations_to_a_jax_program_than_keras_own(name: str) -> None:
    shape = (4, 16) if name == "Dropout" else (4, 3, 16)

    def each(library: Any) -> int:
        make = getattr(library, name)
        counts = []
        for depth in (2, 6):
            model = keras.Sequential([keras.Input(shape[1:]), *[make(0.1) for _ in range(depth)]])
            step, (trainable, states, _) = step_of(model)
            import jax

            counts.append(len(jax.make_jaxpr(step)(trainable, states, np.ones(shape, "float32")).eqns))
        return (counts[1] - counts[0]) // 4

    assert 1 <= each(dk) <= each(keras.layers)


@on_jax
def test_all_sites_of_a_bound_model_begin_a_step_and_fold_their_keys_at_once() -> None:
    (few, few_within, begun), (many, many_within, begun_by_many) = (
        equations(dk.bind(stack(lambda: dk.Dropout(0.1), depth))) for depth in (2, 12)
    )
    assert begun == begun_by_many == 1
    assert (many - few) / 10 <= 5
    assert (many_within - few_within) / 10 <= 30  # ten rounds of the generator for each would be two hundred


@on_jax
@pytest.mark.parametrize("make", [dk.GaussianDropout, dk.GaussianNoise, dk.AlphaDropout])
def test_other_noises_add_at_most_some_dozens(make: Any) -> None:
    few, many = (equations(stack(lambda: make(0.1), depth))[0] for depth in (2, 6))
    assert (many - few) / 4 <= 60


@compiles
def test_a_compiled_step_past_two_to_the_32_draws_the_masks_of_its_number() -> None:
    inputs = keras.Input((16,), batch_size=4)
    x = Tap((4, 16), name="tap")(dk.Dropout(0.5, name="first")(inputs))
    model = dk.bind(keras.Model(inputs, keras.layers.Dense(2)(x)), seed=2**63 + 5, step=2**32 - 1)
    model.compile("sgd", "mse", jit_compile=True)
    for step in range(2**32 - 1, 2**32 + 2):
        model.fit(X, np.zeros((4, 2), "float32"), batch_size=4, verbose=0)
        seen = array(model.get_layer("tap").seen) != 0
        np.testing.assert_array_equal(seen, keep((4, 16), 0.5, Key(2**63 + 5, "first", step)))


@on_jax
def test_a_rate_that_moves_within_a_program_counts_from_the_next_draw() -> None:
    import jax

    class Halved(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = dk.Dropout(0.9, name="first"), dk.Dropout(0.9, name="second")

        def call(self, x: Any, training: bool = False) -> Any:
            y = self.first(x, training=training)
            if training and isinstance(x, jax.core.Tracer):
                self.second.rate = x[0, 0] * 0.25
            return y, self.second(x, training=training)

    model = Halved()
    model(X)
    dk.bind(model, seed=3)
    assert set(sites(model)) == {"first", "second"}
    step, arguments = step_of(model)
    (first, second), _ = jax.jit(step)(*arguments)
    np.testing.assert_array_equal(array(first) != 0, keep((4, 16), 0.9, Key(3, "first", 0)))
    np.testing.assert_array_equal(array(second) != 0, keep((4, 16), 0.25, Key(3, "second", 0)))
