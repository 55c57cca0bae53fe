"""`when`: layers that draw in prediction too, or never, in eager calls and in compiled functions."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import dropkit.keras as dk
from dropkit import Key, keep
from dropkit.errors import DropkitError, DropkitValueError

from .test_held import HOLDERS
from .test_layers import LAYERS, PUBLISHED, every_layer, make
from .tools import array, trains

X = np.ones((64, 8), "float32")


@every_layer
def test_always_draws_in_every_pass(name: str) -> None:
    layer, x = make(name, when="always", seed=1)
    outputs = [array(layer(x, **kwargs)) for kwargs in ({}, {"training": False}, {"training": True})]
    for number, y in enumerate(outputs):
        assert not np.array_equal(y, x)
        assert all(not np.array_equal(y, other) for other in outputs[number + 1 :])


@every_layer
def test_never_draws_in_none(name: str) -> None:
    layer, x = make(name, when="never")
    for kwargs in ({}, {"training": False}, {"training": True}):
        np.testing.assert_array_equal(array(layer(x, **kwargs)), x)


@every_layer
@pytest.mark.parametrize("when", ["train", "always", "never"])
def test_it_is_part_of_the_config(name: str, when: str) -> None:
    layer, _ = make(name, when=when)
    assert layer.when == when
    assert ("when" in layer.get_config()) == (when != "train")  # a layer as Keras has it has Keras' config
    assert type(layer).from_config(layer.get_config()).when == when
    with pytest.raises(DropkitError, match="when is fixed when a layer is made, got 'other'"):
        layer.when = "other"


@every_layer
def test_an_unknown_when(name: str) -> None:
    with pytest.raises(DropkitValueError, match="when must be one of train, always, never; got 'sometimes'"):
        make(name, when="sometimes")


def test_predict_draws_anew_and_says_which_masks() -> None:
    """F5: Monte Carlo dropout by predict, which `training=True` in a functional model does not give in Keras."""
    inputs = keras.Input((8,))
    model = dk.bind(keras.Model(inputs, dk.Dropout(0.5, when="always", name="drop")(inputs)), seed=3)
    for step in range(3):
        y = model.predict(X, batch_size=64, verbose=0)
        np.testing.assert_array_equal(y != 0, keep(X.shape, 0.5, Key(3, "drop", step)))


@pytest.mark.parametrize("bound", [False, True])
def test_saved_models_predict_at_random_too(tmp_path: Path, bound: bool) -> None:
    inputs = keras.Input((8,))
    model = keras.Model(inputs, dk.GaussianDropout(0.5, when="always")(inputs))
    if bound:
        dk.bind(model)
    model.save(tmp_path / "model.keras")
    for loaded in (keras.saving.load_model(tmp_path / "model.keras"), keras.models.clone_model(model)):
        assert loaded.layers[1].when == "always"
        first, second = (loaded.predict(X, verbose=0) for _ in range(2))
        assert not np.array_equal(first, second)


@trains
def test_evaluate_draws_and_batchnorm_rests() -> None:
    layers: list[Any] = [keras.Input((8,)), keras.layers.BatchNormalization(), dk.Dropout(0.5, when="always")]
    model = keras.Sequential(layers)
    model.compile("sgd", "mse")
    losses = {float(model.evaluate(X, X, verbose=0)) for _ in range(3)}
    assert len(losses) == 3
    np.testing.assert_array_equal(array(model.layers[0].moving_mean), np.zeros(8))


def test_concrete_dropout_says_it_in_two_ways() -> None:
    for kwargs, when in (
        ({}, "always"), ({"is_mc_dropout": False}, "train"), ({"when": "train"}, "train"), ({"when": "never"}, "never"),
    ):  # fmt: skip
        layer = dk.ConcreteDropout(keras.layers.Dense(3), **kwargs)
        assert layer.when == when
        assert layer.is_mc_dropout == (when == "always")
        twin = type(layer).from_config(layer.get_config())
        assert twin.when == when
        assert isinstance(twin.layer, keras.layers.Dense)


def test_every_layer_is_tried() -> None:
    own = {
        name for name in dir(dk) if isinstance(getattr(dk, name), type) and issubclass(getattr(dk, name), keras.Layer)
    }
    assert own == {*LAYERS, *PUBLISHED, "Zoneout", "ConcreteDropout", *HOLDERS}
