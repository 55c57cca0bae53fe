"""`swap` and `unswap`: finished models get dropkit's layers, and Keras' own ones back."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import dropkit.keras as dk
from dropkit import Key, keep
from dropkit.errors import DropkitRuntimeError, DropkitTypeError, DropkitValueError
from dropkit.keras.binding import sites

from .test_contexts import Block, DropPath
from .tools import BACKEND, array, trains

# NumPy's backend infers shapes on memory that nobody has written
pytestmark = pytest.mark.filterwarnings("ignore:Exception encountered:RuntimeWarning", "ignore:.*encountered in")
PAIRS = {
    "Dropout": (0.5, {"noise_shape": (None, 1, None), "seed": 3}),
    "AlphaDropout": (0.5, {"seed": 3}),
    "GaussianDropout": (0.5, {}),
    "GaussianNoise": (0.5, {"seed": 3}),
    "SpatialDropout1D": (0.5, {}),
    "SpatialDropout2D": (0.5, {"data_format": "channels_first"}),
    "SpatialDropout3D": (0.5, {}),
}
RANK = {"SpatialDropout2D": 4, "SpatialDropout3D": 5}
every_pair = pytest.mark.parametrize("name", PAIRS)


def plain(name: str) -> tuple[Any, np.ndarray]:
    value, kwargs = PAIRS[name]
    x = np.ones((3, 2, 4, 2, 2)[: RANK.get(name, 3)], "float32")
    return getattr(keras.layers, name)(value, name="drop", **kwargs), x


def functional() -> keras.Model:
    """A functional model with one dropout shared by two calls, one in a block, and one in attention."""
    inputs = keras.Input((4, 8))
    shared = keras.layers.Dropout(0.5, name="shared")
    x = keras.layers.MultiHeadAttention(2, 4, dropout=0.25, name="attend")(inputs, inputs)
    x = shared(keras.layers.Dense(8, name="dense")(shared(x)))
    block = keras.Sequential([keras.Input((4, 8)), keras.layers.Dropout(0.25), keras.layers.Dense(8)], name="block")
    return keras.Model(inputs, keras.layers.Dense(2, name="head")(block(x)))


SITES = ["attend/dropout", "shared", "block/dropout"]
X = np.random.Generator(np.random.Philox(1)).normal(size=(4, 4, 8)).astype("float32")
Y = np.zeros((4, 4, 2), "float32")


@every_pair
def test_each_layer_becomes_ours_and_again_keras_own(name: str) -> None:
    layer, x = plain(name)
    before = layer.get_config()
    model = keras.Sequential([keras.Input(x.shape[1:]), layer])
    dk.swap(model)
    assert type(layer) is getattr(dk, name)
    made = getattr(dk, name)(PAIRS[name][0], name="drop", **PAIRS[name][1])
    assert layer.get_config() == made.get_config()
    assert type(layer).from_config(layer.get_config()).get_config() == made.get_config()
    assert len(layer.variables) == 1
    dk.bind(model, seed=1)
    first = array(model(x, training=True))
    with dk.at(step=0):
        np.testing.assert_array_equal(array(model(x, training=True)), first)
    assert not np.array_equal(first, x)
    dk.unswap(model)
    assert type(layer) is getattr(keras.layers, name)
    assert {**layer.get_config(), "seed": before["seed"]} == before
    assert not np.array_equal(array(model(x, training=True)), array(model(x, training=True)))


@trains
def test_a_finished_functional_model_trains_on_with_masks_that_numpy_knows() -> None:
    model = functional()
    model.get_layer("dense").trainable = False
    model.compile("adam", "mse")
    model.fit(X, Y, batch_size=4, verbose=0)
    weights, iterations = [array(w) for w in model.weights], int(model.optimizer.iterations)
    moments = [array(v) for v in model.optimizer.variables]
    receipt = dk.swap(model)
    assert [line.split(":")[0] for line in receipt.lines] == SITES
    assert list(sites(dk.bind(model, seed=5))) == SITES
    for old, new in zip(weights, model.weights, strict=True):
        np.testing.assert_array_equal(old, array(new))
    for old, new in zip(moments, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(old, array(new))
    assert not model.get_layer("dense").trainable
    model.fit(X, Y, batch_size=4, verbose=0)
    assert int(model.optimizer.iterations) == iterations + 1
    for layer in sites(model).values():
        assert int(array(layer.seed_generator.state)[1]) == 1


def test_masks_of_a_swapped_model() -> None:
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dropout(0.5, name="a")])
    model(np.ones((4, 8), "float32"), training=True)
    dk.swap(model)
    dk.bind(model, seed=3)
    y = array(model(np.ones((4, 8), "float32"), training=True))
    np.testing.assert_array_equal(y != 0, keep((4, 8), 0.5, Key(3, "a", 0)))


@trains
@pytest.mark.filterwarnings("ignore:The model does not have any trainable weights")
@pytest.mark.parametrize("when", ["before", "after"])
def test_compiled_steps_are_compiled_anew(when: str) -> None:
    ones = np.ones((4, 8), "float32")
    inputs = keras.Input((8,))
    drop = keras.layers.Dropout(0.5, name="drop")
    model = keras.Model(inputs, drop(inputs))
    model.compile("sgd", "mse")
    if when == "before":
        model.evaluate(ones, ones, verbose=0)
        model.fit(ones, ones, verbose=0)
    dk.swap(model)
    dk.bind(model, seed=3)
    with dk.enabled(model):
        np.testing.assert_array_equal(model.predict(ones, verbose=0) != 0, keep((4, 8), 0.5, Key(3, "drop", 0)))
    drop.rate.assign(0.0)
    assert model.fit(ones, ones, verbose=0).history["loss"] == [0.0]
    dk.unswap(model)
    assert model.fit(ones, ones, verbose=0).history["loss"] == [0.0]


class Encoder(keras.layers.Layer):
    """As KerasHub builds its blocks: dropouts in attributes, lists and dicts."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self._dropout = keras.layers.Dropout(0.5)
        self._more = [keras.layers.Dropout(0.5), {"last": keras.layers.GaussianNoise(0.5)}]

    def call(self, x: Any) -> Any:
        return self._more[1]["last"](self._more[0](self._dropout(x)))


def test_subclassed_models_and_blocks_in_lists() -> None:
    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = [Encoder(name="a"), Encoder(name="b")]

        def call(self, x: Any) -> Any:
            for block in self.blocks:
                x = block(x)
            return x

    net = Net()
    receipt = dk.swap(net)
    kinds = [type(layer) for layer in sites(net).values()]
    assert kinds == [dk.Dropout, dk.Dropout, dk.GaussianNoise] * 2 or len(kinds) == 6
    dk.bind(net, seed=1)
    first = array(net(X, training=True))
    with dk.at(step=0):
        np.testing.assert_array_equal(array(net(X, training=True)), first)
    receipt.restore()
    assert list(sites(net)) == []


def test_unswapped_models_load_without_dropkit(tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4, 8))
    x = dk.SpatialDropout1D(0.25)(dk.Dropout(0.5, seed=2**63, noise_shape=(None, 1, None))(inputs))
    x = dk.GaussianNoise(0.1)(dk.AlphaDropout(0.1)(keras.layers.Dense(3)(x)))
    model = dk.bind(keras.Model(inputs, dk.GaussianDropout(0.0)(x)), seed=2**64 - 1)
    model(X, training=True)
    with dk.unswap(model):
        model.save(tmp_path / "model.keras")
        model.save_weights(tmp_path / "model.weights.h5")
        before = array(model(X))
    with zipfile.ZipFile(tmp_path / "model.keras") as file:
        assert "dropkit" not in file.read("config.json").decode()
    np.save(tmp_path / "x.npy", X)
    code = (
        "import sys, json, keras, numpy\n"
        f"model = keras.saving.load_model({str(tmp_path / 'model.keras')!r})\n"
        f"model.load_weights({str(tmp_path / 'model.weights.h5')!r})\n"
        f"x = numpy.load({str(tmp_path / 'x.npy')!r})\n"
        "y = keras.ops.convert_to_numpy(model(x))\n"
        "model(x, training=True)\n"
        "print(json.dumps([y.tolist(), [name for name in sys.modules if 'dropkit' in name]]))\n"
    )
    env = os.environ | {"KERAS_BACKEND": BACKEND, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    y, modules = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_allclose(y, before, rtol=1e-5, atol=1e-6)
    assert [name for name in modules if not name.startswith(("__editable__", "_editable_"))] == []
    y = array(model(X, training=True))  # dropkit's layers are back, and go on with step 1
    with dk.at(step=1):
        np.testing.assert_array_equal(array(model(X, training=True)), y)


def test_restore_gives_the_very_state_back() -> None:
    layer = keras.layers.Dropout(0.5, seed=1, name="drop")
    model = keras.Sequential([keras.Input((8,)), layer])
    ones = np.ones((4, 8), "float32")
    first, second = (array(model(ones, training=True)) for _ in range(2))
    twin = keras.Sequential([keras.Input((8,)), keras.layers.Dropout(0.5, seed=1, name="drop")])
    np.testing.assert_array_equal(array(twin(ones, training=True)), first)
    receipt = dk.swap(twin)
    assert "in force" in repr(receipt)
    twin(ones, training=True)
    twin.layers[0].trainable = False
    receipt.restore()
    np.testing.assert_array_equal(array(twin(ones, training=True)), second)
    assert not twin.layers[0].trainable
    with pytest.raises(DropkitRuntimeError, match="restored already"):
        receipt.restore()
    receipt = dk.swap(twin)
    dk.unswap(twin)
    with pytest.raises(DropkitRuntimeError, match=r"something else stands where this surgery was done \(drop:"):
        receipt.restore()


def test_errors_come_before_any_change() -> None:
    for verb in (dk.swap, dk.unswap):
        with pytest.raises(DropkitTypeError, match="needs a Keras model or layer, got int"):
            verb(7)
    mine = keras.Sequential([keras.Input((8,)), dk.Dropout(0.5, name="mine")], name="net")
    with pytest.raises(DropkitValueError, match=r"no dropout of Keras' own to swap in 'net'; it has mine \(Dropout\)"):
        dk.swap(mine)
    theirs = keras.Sequential([keras.Input((8,)), keras.layers.Dropout(0.5)])
    with pytest.raises(DropkitValueError, match=r"no dropkit layer in .*; it has dropout \(Dropout\)"):
        dk.unswap(theirs)
    for odd, text in (
        (dk.Dropout(0.5, when="always", name="odd"), r"odd \(Dropout, when='always'\)"),
        (dk.ConcreteDropout(keras.layers.Dense(2), is_mc_dropout=False, name="odd"), r"odd \(ConcreteDropout\)"),
    ):
        model = keras.Sequential([keras.Input((8,)), dk.Dropout(0.5), odd])
        with pytest.raises(DropkitValueError, match=rf"Keras has no counterpart of {text}"):
            dk.unswap(model)
        assert type(model.layers[0]) is dk.Dropout


FOREIGN = {
    "lstm": (
        lambda: keras.layers.RNN(OwnCell(3, dropout=0.1, recurrent_dropout=0.2)),
        "own_cell (OwnCell: dropout, recurrent",
    ),
    "attention": (lambda: Wrapped(OwnAttention(dropout=0.1)), "own_attention (OwnAttention: dropout)"),
    "path": (lambda: DropPath(0.1, name="path"), "path (DropPath: function)"),
    "block": (lambda: Block(name="block"), "block (Block: function)"),
    "mine": (lambda: Mine(0.5, name="mine"), "mine (Mine)"),
}


class OwnCell(keras.layers.LSTMCell):
    """A subclass of what holds dropouts."""


class OwnAttention(keras.layers.Attention):
    """Another."""


class Mine(keras.layers.Dropout):
    """A subclass, which is left alone."""


class Wrapped(keras.layers.Layer):
    def __init__(self, inside: Any, **kwargs: Any):
        super().__init__(**kwargs)
        self.inside = inside

    def build(self, shape: Any) -> None:
        self.inside.build([shape, shape])

    def call(self, x: Any) -> Any:
        return self.inside([x, x])

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


@pytest.mark.parametrize("name", FOREIGN)
def test_bind_and_swap_name_what_stays_on_keras_generators(name: str) -> None:
    make, text = FOREIGN[name]
    model = keras.Sequential([keras.Input((4, 8)), dk.Dropout(0.5), keras.layers.Dropout(0.5, name="theirs"), make()])
    with pytest.warns(UserWarning, match="bind: what drops here in .* stays on Keras' generators") as caught:
        dk.bind(model)
    assert len(caught) == 1
    message = str(caught[0].message)
    assert text in message
    assert "theirs (Dropout)" in message
    assert "dropkit.keras.swap(model)" in message
    with pytest.warns(UserWarning) as caught:
        dk.swap(model)
    texts = [str(each.message) for each in caught]
    assert len(texts) == 2
    assert text in texts[0] and "theirs" not in texts[0].split(". Use")[0]
    assert texts[1] == "the model is bound and these are not: theirs; dropkit.keras.bind it again"


def test_augmentation_and_dropouts_at_rate_0_are_none_of_it() -> None:
    layers = [keras.layers.RandomFlip(), dk.Dropout(0.5), keras.layers.Dropout(0.0), keras.layers.RandomRotation(0.1)]
    dk.bind(keras.Sequential([keras.Input((4, 4, 3)), *layers]))
