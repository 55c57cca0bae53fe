"""Rates are data: read as floats, assigned at any time, moved by a callback, and nothing is compiled again."""

import json
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import dropkit.keras as dk
from dropkit import Key, keep
from dropkit.axes.rate import Gap, Step
from dropkit.errors import DropkitError, DropkitTypeError, DropkitValueError

from .tools import COMPILES, Tap, array, trains

X, Y = np.ones((4, 16), "float32"), np.zeros((4, 2), "float32")


def network(*drops: Any, batch_size: int | None = 4, jit: bool = COMPILES) -> tuple[keras.Model, Tap]:
    tap = Tap((4, 16))
    model = keras.Sequential([keras.Input((16,), batch_size=batch_size), *drops, tap, keras.layers.Dense(2)])
    model.compile("sgd", "mse", jit_compile=jit)
    return model, tap


def test_reads_as_a_float() -> None:
    layer = dk.Dropout(0.1)
    assert layer.rate == 0.1
    assert isinstance(layer.rate, float)
    assert f"{layer.rate:.2f} {layer.rate}" == "0.10 0.1"
    assert json.dumps({"rate": layer.rate}) == '{"rate": 0.1}'
    assert type(layer.get_config()["rate"]) is float
    layer.rate += 0.2
    assert abs(layer.rate - 0.3) < 1e-12


@pytest.mark.parametrize("layer", [dk.Dropout, dk.AlphaDropout, dk.GaussianDropout, dk.SpatialDropout1D])
def test_assigning(layer: Any) -> None:
    made = layer(0.0, seed=1, name="a")
    x = np.ones((3, 4, 5), "float32")
    np.testing.assert_array_equal(array(made(x, training=True)), x)
    made.rate.assign(1.0)
    np.testing.assert_array_equal(array(made(x, training=True)), 0 * x)
    made.rate = np.float32(0.25)
    assert made.rate == 0.25
    assert made.get_config()["rate"] == 0.25
    for value in (0.75, keras.Variable(0.75), ops.convert_to_tensor(0.75)):
        made.rate.assign(0.1)
        made.rate.assign(value)
        assert made.rate == 0.75


def test_assigning_nonsense_changes_nothing() -> None:
    layer = dk.Dropout(0.5)
    for value in (1.5, -0.1, float("nan")):
        with pytest.raises(DropkitValueError, match="Invalid value received for argument `rate`"):
            layer.rate.assign(value)
        with pytest.raises(DropkitValueError, match="Invalid value received for argument `rate`"):
            layer.rate = value
    with pytest.raises(DropkitTypeError, match="Invalid value received for argument `rate`"):
        layer.rate = "0.5"
    assert layer.rate == 0.5


def test_a_state_written_from_elsewhere_is_what_is_read() -> None:
    a, b = dk.Dropout(0.5), dk.Dropout(0.125)
    for mine, other in zip(a.variables, b.variables, strict=True):
        mine.assign(other.value)
    assert a.rate == 0.125


@trains
@pytest.mark.parametrize("batch_size", [4, None])
def test_a_rate_moves_after_compile_without_a_new_trace(batch_size: int | None) -> None:
    drop = dk.Dropout(0.25, seed=3, name="d")
    model, tap = network(drop, batch_size=batch_size)
    runs = 0
    for step, rate in enumerate([0.25, 0.25, 0.6, 0.0, 1.0]):
        drop.rate.assign(rate)
        model.fit(X, Y, batch_size=4, verbose=0)
        np.testing.assert_array_equal(array(tap.seen) != 0, keep((4, 16), rate, Key(3, "d", step)))
        if COMPILES and step:
            assert tap.runs == runs
        runs = tap.runs


@trains
def test_schedule_moves_rates_in_fit() -> None:
    class Watch(keras.callbacks.Callback):
        rates: tuple[float, ...] = ()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if keras.config.backend() == "jax":
                with pytest.raises(DropkitError, match=r"ask for `self\.model` first"):
                    drop.rate.assign(0.9)
            _ = self.model  # JAX shows the state of a running epoch only then
            self.rates += (float(drop.rate),)
            masks.append(array(tap.seen) != 0)

    masks: list[np.ndarray] = []
    drop, still = dk.Dropout(0.3, seed=3, name="moving"), dk.Dropout(0.0, name="still")
    model, tap = network(drop, still)
    watch = Watch()
    schedule = dk.RateSchedule({"*": 0.0, "mov*": Step(start=0.5, drop=0.125, every=2, floor=0.25)})
    model.fit(np.tile(X, (3, 1)), np.tile(Y, (3, 1)), batch_size=4, epochs=2, verbose=0, callbacks=[schedule, watch])
    assert watch.rates == (0.5, 0.5, 0.375, 0.375, 0.25, 0.25)
    for step, (rate, mask) in enumerate(zip(watch.rates, masks, strict=True)):
        np.testing.assert_array_equal(mask, keep((4, 16), rate, Key(3, "moving", step)))
    again = dk.RateSchedule({"mov*": Step(start=1.0, drop=0.125, every=1, floor=0.0)})
    model.fit(X, Y, batch_size=4, verbose=0, callbacks=[again, watch])
    assert watch.rates[-1] == 1 - 6 * 0.125  # steps are the optimizer's, so a second fit goes on


@trains
def test_schedule_errors() -> None:
    with pytest.raises(DropkitTypeError, match="rates must map patterns to rates"):
        dk.RateSchedule([0.5])
    with pytest.raises(DropkitValueError, match="rates is empty"):
        dk.RateSchedule({})
    with pytest.raises(DropkitValueError, match="must lie in"):
        dk.RateSchedule({"*": 1.5})
    with pytest.raises(DropkitValueError, match="the rate of 'x' is a controller"):
        dk.RateSchedule({"x": Gap(0.1)})
    model, _ = network(dk.Dropout(0.5, name="d"))
    with pytest.raises(DropkitValueError, match="'encoder' matches no dropkit layer with a rate; the model has: d"):
        model.fit(X, Y, verbose=0, callbacks=[dk.RateSchedule({"encoder": 0.5})])


@pytest.mark.skipif(not COMPILES, reason="nothing is traced")
def test_a_traced_rate() -> None:
    layer = dk.Dropout(0.5, seed=3, name="d")
    x = ops.convert_to_tensor(np.ones((4, 16), "float32"))

    def step(rate: Any, state: Any) -> Any:
        with keras.StatelessScope([(layer.variables[0], state)]):
            layer.rate.assign(rate)
            return layer(x, training=True)

    if keras.config.backend() == "jax":
        import jax

        compiled = jax.jit(step)
    else:
        import tensorflow as tf

        compiled = tf.function(step, jit_compile=True)
    state = layer.variables[0].value * 1
    for rate in (0.5, 0.1, 0.875, 0.0, 1.0):
        y = array(compiled(ops.convert_to_tensor(np.float32(rate)), ops.convert_to_tensor(state)))
        np.testing.assert_array_equal(y != 0, keep((4, 16), rate, Key(3, "d")))
