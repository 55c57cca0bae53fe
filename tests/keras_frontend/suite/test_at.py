"""`at`: coordinates by hand, in eager calls and in programs that were compiled before the block or inside it."""

import threading
from typing import Any

import keras
import numpy as np
import pytest

import dropkit
import dropkit.keras as dk
from dropkit import Key, keep
from dropkit.errors import DropkitTypeError, DropkitValueError

from .test_layers import every_layer, make
from .tools import BACKEND, COMPILES, array, trains

X = np.ones((4, 8), "float32")


def always() -> keras.Model:
    inputs = keras.Input((8,))
    return dk.bind(keras.Model(inputs, dk.Dropout(0.5, when="always", name="drop")(inputs)), seed=3)


def mask(step: int, seed: int = 3, site: str = "drop", **where: Any) -> np.ndarray:
    return keep((4, 8), 0.5, Key(seed, site, step), **where)


@every_layer
def test_one_step_is_replayed_and_the_count_stands_still(name: str) -> None:
    layer, x = make(name, seed=1, site="s")
    outputs = [array(layer(x, training=True)) for _ in range(3)]
    twin, _ = make(name, seed=1, site="s")
    with dk.at(step=2):
        for _ in range(2):
            np.testing.assert_array_equal(array(twin(x, training=True)), outputs[2])
    np.testing.assert_array_equal(array(twin(x, training=True)), outputs[0])


def test_seed_and_site_win_and_blocks_add_up() -> None:
    layer = dk.Dropout(0.5, seed=1, name="own")
    with dk.at(seed=5, step=2), dk.at(site="s"):
        np.testing.assert_array_equal(array(layer(X, training=True)) != 0, mask(2, 5, "s"))
        with dk.at(step=3):
            np.testing.assert_array_equal(array(layer(X, training=True)) != 0, mask(3, 5, "s"))
    with dk.at(seed=5):  # the step goes on by itself
        for step in range(2):
            np.testing.assert_array_equal(array(layer(X, training=True)) != 0, mask(step, 5, "own"))


def test_predict_follows_whatever_was_compiled_before() -> None:
    """F16: one mask for several predicts, and the replay of a step."""
    model = always()
    for step in range(2):
        np.testing.assert_array_equal(model.predict(X, verbose=0) != 0, mask(step))
    for step in (7, 9, 7):
        with dk.at(step=step):
            np.testing.assert_array_equal(model.predict(X, verbose=0) != 0, mask(step))
            np.testing.assert_array_equal(model.predict(X, verbose=0) != 0, mask(step))
    np.testing.assert_array_equal(model.predict(X, verbose=0) != 0, mask(2))
    with dk.at(seed=5, site="s"):
        np.testing.assert_array_equal(model.predict(X, verbose=0) != 0, mask(3, 5, "s"))
    np.testing.assert_array_equal(model.predict(X, verbose=0) != 0, mask(4))


def test_predict_that_is_compiled_inside_does_not_keep_it() -> None:
    model = always()
    with dk.at(step=7):
        np.testing.assert_array_equal(model.predict(X, verbose=0) != 0, mask(7))
    np.testing.assert_array_equal(model.predict(X, verbose=0) != 0, mask(0))


@pytest.mark.skipif(not COMPILES, reason="a function that the user compiles")
def test_functions_that_the_user_compiles_follow() -> None:
    model = always()
    if BACKEND == "jax":
        import jax

        compiled = jax.jit(lambda state, x: model.stateless_call([], state, x)[0])

        def run() -> np.ndarray:
            return array(compiled([v.value for v in model.non_trainable_variables], X))
    else:
        import tensorflow as tf

        function = tf.function(lambda x: model(x))

        def run() -> np.ndarray:
            return array(function(tf.constant(X)))

    run()
    for step in (7, 9):
        with dk.at(step=step):
            np.testing.assert_array_equal(run() != 0, mask(step))
    with dk.at(step=7, rows=[3, 2, 1, 0]):
        np.testing.assert_array_equal(run() != 0, mask(7)[::-1])
    assert not np.array_equal(run() != 0, mask(7)[::-1])


@trains
def test_fit_inside_a_block_repeats_a_step() -> None:
    x, y = np.ones((4, 16), "float32"), np.zeros((4, 2), "float32")
    weights = []
    for _ in range(2):
        keras.utils.set_random_seed(1)
        layers = [keras.Input((16,)), dk.Dropout(0.5), keras.layers.Dense(2)]
        model = dk.bind(keras.Sequential(layers), seed=7)
        model.compile("sgd", "mse")
        with dk.at(step=5):
            model.fit(x, y, batch_size=4, epochs=2, verbose=0)
        weights.append(array(model.layers[1].kernel))
        assert int(array(model.layers[0].seed_generator.state)[1]) == 0  # the count stood still
    np.testing.assert_array_equal(weights[0], weights[1])


def test_rows_are_the_numbers_of_samples() -> None:
    layer = dk.Dropout(0.5, seed=3, site="drop")
    rows = [5, 0, 7, 5]
    with dk.at(rows=rows, step=1):
        y = array(layer(X, training=True)) != 0
    np.testing.assert_array_equal(y, keep((8, 8), 0.5, Key(3, "drop", 1))[rows])
    noise = dk.GaussianNoise(0.5, seed=3, site="drop")
    with dk.at(rows=np.array(rows), step=1):
        z = (array(noise(X, training=True)) - 1) / 0.5
    np.testing.assert_allclose(z, dropkit.normal((8, 8), Key(3, "drop", 1))[rows], rtol=1e-5, atol=1e-5)
    shared = dk.Dropout(0.5, noise_shape=(1, 8), seed=3, site="drop")
    with dk.at(rows=rows, step=1):
        y = array(shared(X, training=True)) != 0
    np.testing.assert_array_equal(y, np.broadcast_to(keep((1, 8), 0.5, Key(3, "drop", 1)), y.shape))
    maps = dk.SpatialDropout1D(0.5, seed=3, site="drop")
    with dk.at(rows=rows, step=1):
        y = array(maps(np.ones((4, 3, 8), "float32"), training=True)) != 0
    np.testing.assert_array_equal(y[:, 0], keep((8, 8), 0.5, Key(3, "drop", 1))[rows])
    with dk.at(rows=[1, 2]), pytest.raises(Exception, match="rows"):
        layer(X, training=True)


def test_a_layer_called_again_is_another_site_in_a_block_too() -> None:
    drop = dk.Dropout(0.5, name="drop")
    inputs = keras.Input((8,))
    first = drop(inputs)
    model = dk.bind(keras.Model(inputs, [first, drop(first)]), seed=3)
    with dk.at(step=4):
        for _ in range(2):
            once, twice = (array(y) != 0 for y in model(X, training=True))
            np.testing.assert_array_equal(once, mask(4))
            np.testing.assert_array_equal(twice, mask(4) & mask(4, site="drop#1"))


def test_other_threads_do_not_see_it() -> None:
    layer, seen = dk.Dropout(0.5, seed=3, site="drop"), []
    with dk.at(step=7):
        thread = threading.Thread(target=lambda: seen.append(array(layer(X, training=True)) != 0))
        thread.start()
        thread.join()
    np.testing.assert_array_equal(seen[0], mask(0))


def test_bad_coordinates() -> None:
    with pytest.raises(DropkitValueError, match=r"step must lie in \[0, 2\*\*64\)"), dk.at(step=-1):
        pass
    for rows, error, message in (
        ([0.5], DropkitTypeError, "rows must hold whole numbers, got dtype float64"),
        ([[1]], DropkitValueError, r"rows must be one-dimensional, a number for each sample; got shape \(1, 1\)"),
        ([-1], DropkitValueError, "rows must not be negative, got -1"),
    ):
        with pytest.raises(error, match=message), dk.at(rows=rows):
            pass
