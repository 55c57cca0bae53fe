"""noise and share of the layers: second tensors, configs and files, and what is refused."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import dropkit.keras as dk
from dropkit import Key, keep
from dropkit.axes.noise import Alpha, Bernoulli, Hard, Numbers, Plain
from dropkit.axes.share import Axes, Exactly
from dropkit.errors import DropkitError, DropkitTypeError, DropkitValueError

from .tools import array, trains

X = np.linspace(1, 2, 32, dtype="float32").reshape(4, 8)
OTHER = -X


@keras.saving.register_keras_serializable(package="dropkit_tests")
@dataclass(frozen=True)
class Holding(Hard):
    """x where kept, `by` times the other elsewhere; the mean of both where no noise is on."""

    by: float = 1.0
    weights: tuple[float, ...] = (0.5, 0.5)

    needs_other = True

    def numbers(self, q: Any, xp: Any = Plain) -> Numbers:
        return 1.0, 0.0, self.by

    def off(self, q: Any) -> Any:
        return self.weights

    def get_config(self) -> dict[str, Any]:
        return {"by": self.by, "weights": self.weights}


@dataclass(frozen=True)
class Unregistered(Hard):
    """A law that Keras was not told of."""

    a: float = 3.0

    def numbers(self, q: Any, xp: Any = Plain) -> Numbers:
        return self.a, 0.0, 0.0


KEPT = keep((4, 8), 0.5, Key(1, "s", 0))


def holding(**more: Any) -> Any:
    return dk.Dropout(0.5, seed=1, site="s", noise=Holding(), **more)


def test_the_second_tensor_is_the_second_argument() -> None:
    np.testing.assert_allclose(array(holding()(X, OTHER, training=True)), np.where(KEPT, X, OTHER))
    np.testing.assert_allclose(array(holding()(X, other=OTHER, training=True)), np.where(KEPT, X, OTHER))


def test_without_noise_a_law_does_what_it_says() -> None:
    layer = holding()
    np.testing.assert_allclose(array(layer(X, 3 * OTHER)), (X + 3 * OTHER) / 2)
    # Evaluation was no step.
    np.testing.assert_allclose(array(layer(X, OTHER, training=True)), np.where(KEPT, X, OTHER))
    layer.rate = 0.0
    np.testing.assert_array_equal(array(layer(X, 3 * OTHER)), X)


def test_in_a_functional_model_it_has_two_inputs_and_is_saved(tmp_path: Path) -> None:
    a, b = keras.Input((8,)), keras.Input((8,))
    y = holding(when="always")(a, b)
    assert y.shape == (None, 8)
    model = keras.Model([a, b], y)
    model.save(tmp_path / "two.keras")
    again = keras.models.load_model(tmp_path / "two.keras")
    for each in (model, again):
        np.testing.assert_allclose(each.predict([X, OTHER], verbose=0), np.where(KEPT, X, OTHER))
    assert again.layers[-1].noise == Holding()


@trains  # NumPy's arrays carry no mask
def test_the_padding_mask_is_that_of_the_input() -> None:
    padded = keras.layers.Masking()(ops.convert_to_tensor(np.ones((2, 3, 4), "float32")))
    y = dk.Dropout(0.5, noise=Holding())(padded, ops.zeros((2, 3, 4)), training=True)
    assert y._keras_mask is padded._keras_mask


@trains
def test_the_other_gets_its_gradient_in_fit() -> None:
    """One step of gradient descent on a sum moves each weight by its gradient."""
    a = keras.Input((8,))
    state = keras.layers.Dense(8, use_bias=False, kernel_initializer="zeros")
    model = keras.Model(a, holding()(a, state(a)))
    model.compile(keras.optimizers.SGD(1.0), loss=lambda y, out: ops.sum(out, axis=-1))
    model.fit(X, X, batch_size=4, shuffle=False, verbose=0)
    wanted = -(X.T @ ~KEPT) / 4  # Keras takes the mean over the batch
    np.testing.assert_allclose(array(state.kernel.value), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: holding()(X, training=True), "needs a second tensor"),
        (lambda: holding()(X), "needs a second tensor"),
        (lambda: holding()([X, OTHER]), r"layer\(x, other\), not layer\(\[x, other\]\)"),
        (lambda: dk.Dropout(0.5)(X, OTHER), "takes no second tensor"),
        (lambda: dk.AlphaDropout(0.5)(X, OTHER), "takes no second tensor"),
        (lambda: holding()(keras.Input((8,))), "needs a second tensor"),
        (lambda: dk.Dropout(0.5)(keras.Input((8,)), keras.Input((8,))), "takes no second tensor"),
        (lambda: holding()(X, OTHER[:, :3], training=True), "does not broadcast"),
        (lambda: holding()(X, OTHER[:, :3]), "does not broadcast"),
    ],
)
def test_a_second_tensor_that_is_missing_or_too_many(call: Any, message: str) -> None:
    with pytest.raises(DropkitError, match=message):
        call()


def test_a_plain_bool_is_the_mode_as_in_keras_own_call() -> None:
    layer, x = dk.Dropout(0.5, seed=1), ops.convert_to_tensor(X)
    assert layer.call(x, False) is x
    assert (array(layer.call(x, True)) == 0).any()


@pytest.mark.parametrize("kind", [dk.Dropout, dk.AlphaDropout])
def test_share_names_axes_as_noise_shape_does(kind: Any) -> None:
    by_share = kind(0.5, seed=1, site="s", share=(0, -1))
    by_shape = kind(0.5, noise_shape=(1, None, 1), seed=1, site="s")
    x = np.ones((4, 9, 3), "float32")
    assert by_share.mask_shape(x) == by_shape.mask_shape(x) == (1, 9, 1)
    np.testing.assert_array_equal(array(by_share(x, training=True)), array(by_shape(x, training=True)))


@pytest.mark.parametrize("kind", [dk.Dropout, dk.AlphaDropout])
def test_a_share_may_refine(kind: Any) -> None:
    layer = kind(0.25, seed=1, share=Exactly((-1,)))
    y = array(layer(np.ones((6, 8), "float32"), training=True))
    dropped = y == y.min()
    assert (dropped.sum(axis=1) == 2).all()


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: dk.Dropout(0.5, (None, 1), share=(0,)), "noise_shape=.* and share=.* both say"),
        (lambda: dk.AlphaDropout(0.5, (None, 1), share=Exactly((1,))), "noise_shape=.* and share=.* both say"),
        (lambda: dk.Dropout(0.5, noise="gauss"), "noise must be a value of dropkit.axes.noise, got 'gauss'"),
        (lambda: dk.Dropout(0.5, share=2), "share must be a sequence of axis numbers"),
        (lambda: dk.Dropout(0.5, share=(1, 1)), "share names an axis twice"),
        (lambda: dk.Dropout(0.5, share=(5,))(X, training=True), "share axis 5 does not exist"),
    ],
)
def test_what_is_no_noise_or_share(made: Any, message: str) -> None:
    with pytest.raises(DropkitError, match=message):
        made()


def test_noise_and_share_are_fixed_when_a_layer_is_made() -> None:
    layer = dk.Dropout(0.5, name="a")
    for name, value in (("noise", Alpha()), ("share", (1,))):
        with pytest.raises(DropkitError, match=f"{name} is fixed when a layer is made, got .* for 'a'"):
            setattr(layer, name, value)


@pytest.mark.parametrize(
    ("layer", "noise", "share"),
    [
        (lambda: dk.Dropout(0.5), Bernoulli(), Axes()),
        (lambda: dk.Dropout(0.5, noise=Alpha(), share=(1, -1)), Alpha(), Axes((1, -1))),
        (lambda: dk.AlphaDropout(0.5, share=Exactly((-1, 1))), Alpha(), Exactly((-1, 1))),
        (lambda: dk.Dropout(0.5, noise=Holding(2.0, (0.25, 0.75))), Holding(2.0, (0.25, 0.75)), Axes()),
    ],
)
def test_the_config_holds_them_as_plain_values(layer: Any, noise: Any, share: Any) -> None:
    import json

    config = layer().get_config()
    again = type(layer()).from_config(json.loads(json.dumps(config)))
    assert (again.noise, again.share) == (noise, share)
    assert again.get_config() == config
    assert ("noise" in config, "share" in config) == (layer().noise is not type(layer())._noise, share != Axes())


def test_a_law_of_ones_own_by_custom_objects(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((8,)), dk.Dropout(0.5, noise=Unregistered(2.0), seed=1)])
    model.save(tmp_path / "own.keras")
    with pytest.raises(Exception, match="the saved noise is a 'Unregistered', which is not known here: register"):
        keras.models.load_model(tmp_path / "own.keras")
    again = keras.models.load_model(tmp_path / "own.keras", custom_objects={"Unregistered": Unregistered})
    assert again.layers[0].noise == Unregistered(2.0)


@pytest.mark.parametrize(
    ("noise", "error", "message"),
    [
        ({"class_name": "os>system", "config": {}}, DropkitValueError, "'os>system', which is not known here"),
        ({"class_name": "ONE", "config": {}}, DropkitValueError, "'ONE', which is not known here"),
        ({"class_name": "Exactly", "config": {"over": [1]}}, DropkitValueError, "'Exactly', which is not known"),
        ({"class_name": "dropkit>Dropout", "config": {"rate": 0.5}}, DropkitTypeError, "is no value of dropkit.axes"),
        ({"config": {}}, DropkitValueError, "None, which is not known here"),
        ({"class_name": "Alpha", "config": 3}, DropkitTypeError, "is no value of dropkit.axes.noise"),
    ],
)
def test_a_config_makes_laws_and_nothing_else(noise: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        dk.Dropout.from_config({**dk.Dropout(0.5).get_config(), "noise": noise})


def test_a_law_that_says_nothing_of_its_numbers_cannot_be_saved() -> None:
    class Silent(Unregistered.__base__):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.secret = 3

        def numbers(self, q: Any, xp: Any = Plain) -> Numbers:
            return 1.0, 0.0, 0.0

    with pytest.raises(DropkitTypeError, match="cannot be saved: make Silent a dataclass, or give it get_config"):
        dk.Dropout(0.5, noise=Silent()).get_config()


@pytest.mark.parametrize("axes", [{"noise": Alpha()}, {"share": (1,)}, {"share": Exactly((1,))}])
def test_keras_has_no_counterpart(axes: Any) -> None:
    model = keras.Sequential([keras.Input((8,)), dk.Dropout(0.5, name="drop", **axes)])
    with pytest.raises(DropkitValueError, match=f"Keras has no counterpart of drop .Dropout, {next(iter(axes))}="):
        dk.unswap(model)
