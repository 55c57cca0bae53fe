"""ConcreteDropout against its formula in NumPy, and learning."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import dropkit
import dropkit.keras as dk
from dropkit import Key
from dropkit.errors import DropkitValueError

from .test_layers import gradient
from .tools import array, trains

X = np.random.Generator(np.random.Philox(1)).normal(size=(6, 4)).astype("float32")


def formula(x: np.ndarray, u: np.ndarray, logit: float, temperature: float) -> np.ndarray:
    z = 1 / (1 + np.exp((logit + np.log(u) - np.log1p(-u)) / temperature))
    return x * z * (1 + np.exp(logit))


@pytest.mark.parametrize("training", [True, False])
def test_values_with_noise_in_evaluation_too(training: bool) -> None:
    layer = dk.ConcreteDropout(keras.layers.Dense(3), init_min=0.3, init_max=0.3, seed=1, name="c")
    for step in range(2):
        y = array(layer(X, training=training))
        u = dropkit.uniform(X.shape, Key(1, "c", step)).astype(float)
        dropped = formula(X, u, np.log(0.3 / 0.7), 0.1)
        np.testing.assert_allclose(
            y, dropped @ array(layer.layer.kernel) + array(layer.layer.bias), rtol=1e-4, atol=1e-5
        )


def test_no_noise_in_evaluation_where_it_is_not_wanted() -> None:
    layer = dk.ConcreteDropout(keras.layers.Dense(3), is_mc_dropout=False)
    y = array(layer(X))
    np.testing.assert_allclose(y, X @ array(layer.layer.kernel), rtol=1e-4, atol=1e-5)


def test_the_spatial_form_drops_channels() -> None:
    x = np.ones((2, 5, 5, 3), "float32")
    conv = keras.layers.Conv2D(1, 1, use_bias=False, kernel_initializer="ones", data_format="channels_last")
    layer = dk.ConcreteDropout(conv, seed=1, name="c")
    y = array(layer(x))
    u = np.broadcast_to(dropkit.uniform((2, 1, 1, 3), Key(1, "c")), x.shape).astype(float)
    expected = formula(x, u, np.log(0.1 / 0.9), 2 / 3).sum(-1, keepdims=True)
    np.testing.assert_allclose(y, expected, rtol=1e-4)
    assert layer.input_size == 3


def test_three_weights_and_one_loss_for_each_layer() -> None:
    model = keras.Sequential(
        [
            keras.Input((4,)),
            dk.ConcreteDropout(keras.layers.Dense(5), weight_regularizer=0.5, dropout_regularizer=0.25),
            dk.ConcreteDropout(keras.layers.Dense(3)),
        ]
    )
    model(X)
    assert [len(layer.trainable_weights) for layer in model.layers] == [3, 3]
    assert len(model.losses) == 2
    p, kernel = 0.1, array(model.layers[0].layer.kernel)
    entropy = p * np.log(p) + (1 - p) * np.log(1 - p)
    expected = 0.5 * (kernel**2).sum() / (1 - p) + 0.25 * 4 * entropy
    np.testing.assert_allclose(array(model.losses[0]), expected, rtol=1e-5)


@trains
def test_the_gradient_in_the_rate() -> None:
    layer = dk.ConcreteDropout(
        keras.layers.Dense(1, use_bias=False, kernel_initializer="ones"), temperature=0.5, seed=1, name="c"
    )
    layer.build(X.shape)
    u = dropkit.uniform(X.shape, Key(1, "c")).astype(float)

    def loss(logit: Any) -> Any:
        with keras.StatelessScope([(layer.p_logit, logit)]):
            return ops.sum(layer(X))

    logit = np.array([0.2], "float32")
    step = 1e-4
    high, low = (formula(X, u, 0.2 + sign * step, 0.5).sum() for sign in (1, -1))
    np.testing.assert_allclose(gradient(loss, logit), [(high - low) / (2 * step)], rtol=1e-2)


@trains
def test_the_rate_learns() -> None:
    rng = np.random.Generator(np.random.Philox(3))
    x = rng.normal(size=(256, 4)).astype("float32")
    y = x @ np.array([[1.0], [-2.0], [3.0], [0.5]], "float32")
    model = keras.Sequential(
        [keras.Input((4,)), dk.ConcreteDropout(keras.layers.Dense(1), init_min=0.5, init_max=0.5, seed=1, name="c")]
    )
    model.compile(keras.optimizers.Adam(0.05), "mse", jit_compile=False)
    model.fit(x, y, batch_size=64, epochs=25, verbose=0)
    assert array(model.layers[0].p)[0] < 0.2


def test_configs() -> None:
    layer = dk.ConcreteDropout(keras.layers.Dense(3), 1e-3, 1e-2, 0.2, 0.4, False, 0.3, 5, name="c")
    twin = dk.ConcreteDropout.from_config(layer.get_config())
    assert twin.get_config() == layer.get_config()
    assert isinstance(twin.layer, keras.layers.Dense)
    twin.build((None, 4))
    assert 0.2 <= array(twin.p)[0] <= 0.4


def test_errors() -> None:
    for bounds in ((0.0, 0.5), (0.5, 0.1), (0.5, 1.0)):
        with pytest.raises(DropkitValueError, match="init_min and init_max must satisfy"):
            dk.ConcreteDropout(keras.layers.Dense(3), init_min=bounds[0], init_max=bounds[1])
    with pytest.raises(DropkitValueError, match="temperature must be above 0, got 0"):
        dk.ConcreteDropout(keras.layers.Dense(3), temperature=0)
    with pytest.raises(ValueError, match="needs a layer with a kernel, such as Dense or Conv2D"):
        dk.ConcreteDropout(keras.layers.ReLU()).build((None, 4))
    with pytest.raises(ValueError, match="give the model an Input with known sizes"):
        dk.ConcreteDropout(keras.layers.Dense(3)).build((None, None, 4))
