"""passes: n draws of one step, each a function of its number; pass 0 is the ordinary draw."""

from typing import Any

import keras
import numpy as np
import pytest

import dropkit.keras as dk
from dropkit import DropkitError, Key, keep

from .tools import BACKEND, Tap, array, trains

X = np.ones((4, 64), "float32")


def bound(step: int = 0) -> keras.Model:
    return dk.bind(keras.Sequential([keras.Input((64,)), dk.Dropout(0.5, name="drop")]), seed=7, step=step)


def kept(site: str, step: int) -> np.ndarray:
    return keep(X.shape, 0.5, Key(7, site, step))


def check(found: Any, step: int, site: str = "drop") -> None:
    for number, y in enumerate(found):
        np.testing.assert_array_equal(array(y) != 0, kept(f"{site}@{number}" if number else site, step))


def test_passes_are_named_sites_of_one_step() -> None:
    model = bound()
    for step in range(2):
        with dk.passes(model, 3) as each:
            check([model(X, training=True) for _ in each], step)
    check([model(X, training=True)], 2)


def test_several_forwards_of_a_pass_are_several_steps() -> None:
    model = bound(step=2**32 - 1)  # whose count has two words
    with dk.passes(model, 3) as each:
        found = [[model(X, training=True) for _ in range(2 + (number == 2))] for number in each]
    for i in range(2):
        check([ys[i] for ys in found], 2**32 - 1 + i)
    np.testing.assert_array_equal(array(found[2][2]) != 0, kept("drop@2", 2**32 + 1))
    check([model(X, training=True)], 2**32 + 2)


def test_at_a_given_step_they_draw_of_it() -> None:
    model = bound()
    with dk.at(step=5), dk.passes(model, 2) as each:
        check([model(X, training=True) for _ in each], 5)
    check([model(X, training=True)], 0)


@keras.saving.register_keras_serializable(package="dropkit_tests")
class Views(keras.Model):
    """Runs an encoder twice on purpose, in its own call."""

    def __init__(self, taps: bool = False) -> None:
        super().__init__()
        self.drop = dk.Dropout(0.5, name="drop")
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")
        self.taps = [Tap(X.shape, name=f"tap{j}") for j in range(2 * taps)]

    def call(self, x: Any, training: Any = None) -> Any:
        before = self.drop(x, training=training)
        with dk.passes(self, 2) as each:
            views = [self.drop(x, training=training) for _ in each]
        views = [tap(y) for tap, y in zip(self.taps, views, strict=True)] if self.taps else views
        return [before, *(y * self.scale for y in views), self.drop(x, training=training)]


def test_inside_of_a_call_each_pass_counts_the_draws_from_the_same_number() -> None:
    model = Views()
    model(X)
    dk.bind(model, seed=7)
    for step in range(2):
        for y, site in zip(model(X, training=True), ("drop", "drop#1", "drop#1@1", "drop#2"), strict=True):
            np.testing.assert_array_equal(array(y) != 0, kept(site, step))


@trains
@pytest.mark.filterwarnings("ignore:.*run_functions_eagerly")
def test_in_fit_a_model_that_calls_another_twice() -> None:
    model = Views(taps=True)
    model(X)
    dk.bind(model, seed=7)
    model.compile("sgd", [None, "mse", "mse", None])
    model.fit(np.tile(X, (3, 1)), [np.zeros((12, 64))] * 4, batch_size=4, verbose=0, shuffle=False)
    for tap, site in zip(model.taps, ("drop#1", "drop#1@1"), strict=True):
        np.testing.assert_array_equal(array(tap.seen) != 0, kept(site, 2))


class Trained(keras.Model):
    """SimCSE's kind of train_step: one batch, two passes."""

    def train_step(self, *given: Any) -> Any:
        if BACKEND == "jax":
            (trainable, rest, optimizer, metrics), (x, _) = given
            with dk.passes(self, 2) as each:
                for number in each:
                    y, rest = self.stateless_call(trainable, rest, x, training=True)
                    rest = [y if v.name == f"seen{number}" else old
                            for v, old in zip(self.non_trainable_variables, rest, strict=True)]  # fmt: skip
            return {"done": keras.ops.zeros(())}, (trainable, rest, optimizer, metrics)
        ((x, _),) = given
        with dk.passes(self, 2) as each:
            for number in each:
                self.seen[number].assign(self(x, training=True))
        return {"done": keras.ops.zeros(())}


@trains
@pytest.mark.parametrize("eager", [False, True])
def test_in_a_train_step(eager: bool) -> None:
    inputs = keras.Input((64,))
    model = Trained(inputs, dk.Dropout(0.5, name="drop")(inputs))
    model.seen = [model.add_weight(shape=X.shape, trainable=False, name=f"seen{j}") for j in range(2)]
    dk.bind(model, seed=7)
    model.compile("sgd", run_eagerly=eager)
    for epoch in range(2):
        model.fit(np.tile(X, (2, 1)), np.zeros((8, 1)), batch_size=4, verbose=0)
        check(model.seen, 2 * epoch + 1)


@pytest.mark.skipif(BACKEND != "jax", reason="of JAX's compiled functions")
def test_a_compiled_function_inside_the_block_is_refused() -> None:
    import jax

    model = bound()
    run = jax.jit(lambda state: model.stateless_call([], state, X, training=True)[0])
    state = [variable.value for variable in model.non_trainable_variables]
    with dk.passes(model, 2) as each, pytest.raises(DropkitError, match="inside of the function"):
        for _ in each:
            run(state)


def test_an_exception_or_an_early_end_leaves_everything_in_order() -> None:
    model = bound()
    with pytest.raises(KeyError), dk.passes(model, 2) as each:
        for number in each:
            model(X, training=True)
            if number:
                raise KeyError
    with dk.passes(model, 3) as each:
        for _ in each:
            model(X, training=True)
            break
    check([model(X, training=True)], 2)


def test_layers_with_seeds_of_their_own_have_passes_without_bind() -> None:
    model = keras.Sequential([keras.Input((64,)), dk.Dropout(0.5, seed=7, name="drop")])
    with dk.passes(model, 2) as each:
        check([model(X, training=True) for _ in each], 0)


def test_attention_weights_have_the_mask_of_their_pass() -> None:
    layer = dk.MultiHeadAttention(2, 4, dropout=0.5, seed=7, name="attend")
    x = keras.ops.ones((2, 3, 8))
    twin = dk.MultiHeadAttention(2, 4, dropout=0.5, seed=7, site="attend/dropout@1", name="twin")
    layer(x, x), twin(x, x)
    twin.set_weights(layer.get_weights())
    twin.drops["dropout"].seed_generator.site = "attend/dropout@1"
    with dk.passes(layer, 2) as each:
        found = [array(layer(x, x, training=True)) for _ in each]
    np.testing.assert_array_equal(found[1], array(twin(x, x, training=True)))
    assert (found[0] != found[1]).any()


def test_what_does_not_fit_is_told() -> None:
    model = bound()
    plain = keras.Sequential([keras.Input((8,)), keras.layers.Dropout(0.5)])
    for given, words in (
        ((plain, 2), "no dropkit layer.*swap"),
        ((3, 2), "int"),
        ((model, 0), "n=0"),
        ((model, -1), "n=-1"),
        ((model, True), "n=True"),
        ((model, 1.5), "1.5"),
    ):
        with pytest.raises(DropkitError, match=words), dk.passes(*given):
            pass
    with dk.passes(model, 2) as each:
        next(each)
        with pytest.raises(DropkitError, match="take all of them in one"), dk.passes(model, 2):
            pass
