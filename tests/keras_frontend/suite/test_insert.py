"""`insert` and `set_rate`: dropouts behind layers of a model that is there already, and other rates."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import dropkit.keras as dk
from dropkit import Key, keep
from dropkit.errors import DropkitRuntimeError, DropkitTypeError, DropkitValueError

from .test_contexts import DropPath
from .tools import COMPILES, array, compiles, trains

pytestmark = pytest.mark.filterwarnings("ignore:Exception encountered:RuntimeWarning", "ignore:.*encountered in")
X = np.random.Generator(np.random.Philox(1)).normal(size=(4, 8)).astype("float32")
Y = np.zeros((4, 2), "float32")
WHERE = "encoder/hidden"


def block(name: str) -> keras.Sequential:
    return keras.Sequential([keras.Input((8,)), keras.layers.Dense(8, activation="relu", name="hidden")], name=name)


def sequential() -> keras.Model:
    return keras.Sequential([keras.Input((8,)), block("encoder"), keras.layers.Dense(2, name="head")])


def functional() -> keras.Model:
    inputs = keras.Input((8,))
    x = block("encoder")(inputs)
    return keras.Model(inputs, keras.layers.Dense(2, name="head")(x + inputs))


class Net(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = block("encoder"), keras.layers.Dense(2, name="head")

    def call(self, x: Any, training: Any = None) -> Any:
        # On JAX, `fit` tells the layers of a model of one's own that it trains only where `call` hands it on.
        return self.head(self.encoder(x, training=training) + x)


class Untold(Net):
    def call(self, x: Any) -> Any:  # type: ignore[override]
        return self.head(self.encoder(x) + x)


# On JAX and TensorFlow each fit compiles anew; one kind of model shows there what all have in common.
every_kind = pytest.mark.parametrize("make", [Net] if COMPILES else [sequential, functional, Net])
not_twice = pytest.mark.skipif(COMPILES, reason="a Python number is one on every backend, and operations compile there")


@every_kind
@pytest.mark.parametrize("built", [False, True])
def test_a_dropout_stands_behind_and_weights_and_paths_stay(make: Callable[[], keras.Model], built: bool) -> None:
    keras.utils.set_random_seed(1)
    model = make()
    if built:
        model(X)
    before = array(model.get_layer("encoder")(X))
    receipt = dk.insert(model, WHERE, dk.Dropout(0.5))
    assert str(receipt) == f"{WHERE}: dropkit Dropout(0.5) behind Dense"
    dk.bind(model, seed=3)
    assert list(dk.sites(model)) == [f"{WHERE}/dropkit_drop"]
    weights, plain = array(model(X)), array(model.get_layer("encoder")(X))
    np.testing.assert_array_equal(plain, before)
    model(X, training=True)
    hidden = array(model.get_layer("encoder")(X, training=True))
    np.testing.assert_allclose(hidden, before * keep((4, 8), 0.5, Key(3, f"{WHERE}/dropkit_drop", 1)) * 2, rtol=1e-6)
    receipt.restore()
    assert dk.sites(model) == {} and type(model.get_layer("encoder").layers[0]) is keras.layers.Dense
    np.testing.assert_array_equal(array(model(X, training=True)), weights)
    with pytest.raises(DropkitRuntimeError, match="restored already"):
        receipt.restore()


@trains
@every_kind
def test_fit_goes_on_where_it_was(make: Callable[[], keras.Model]) -> None:
    model = make()
    model.compile("adam", "mse")
    model.fit(X, Y, verbose=0)
    paths, moments = [each.path for each in model.weights], [array(each) for each in model.optimizer.variables]
    receipt = dk.insert(model, WHERE, dk.Dropout(0.5))
    dk.bind(model, seed=1)
    assert [each.path for each in model.weights] == paths
    for old, new in zip(moments, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(old, array(new))
    model.fit(X, Y, verbose=0)
    (layer,) = dk.sites(model).values()
    assert int(array(layer.seed_generator.state)[1]) == 1
    head = array(model.get_layer("head").kernel)
    with receipt:
        pass
    model.fit(X, Y, verbose=0)
    assert not np.array_equal(array(model.get_layer("head").kernel), head)


def test_a_model_that_fit_does_not_tell_is_named() -> None:
    with pytest.warns(
        UserWarning, match=r"fit does not tell 'untold.*' that it trains, since its call has no argument"
    ):
        dk.insert(Untold(), WHERE, dk.Dropout(0.5))


@trains
def test_a_program_that_was_compiled_is_compiled_anew() -> None:
    ones = np.ones((4, 8), "float32")
    inputs = keras.Input((8,))
    model = keras.Model(inputs, keras.layers.Activation("linear", name="same")(inputs))
    model.compile("sgd", "mse")
    model.predict(ones, verbose=0)
    dk.insert(model, "same", dk.Dropout(0.5, when="always"))
    dk.bind(model, seed=3)
    found = model.predict(ones, verbose=0)
    np.testing.assert_array_equal(found != 0, keep((4, 8), 0.5, Key(3, "same/dropkit_drop", 0)))


@pytest.mark.parametrize("make", [sequential, functional])
def test_saved_with_what_was_inserted(make: Callable[[], keras.Model], tmp_path: Path) -> None:
    model = make()
    dk.insert(model, WHERE, dk.Dropout(0.5, share=(-1,)))
    dk.bind(model, seed=3)
    model(X, training=True)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "with.weights.h5")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert list(dk.sites(loaded)) == [f"{WHERE}/dropkit_drop"]
    hidden = loaded.get_layer("encoder").layers[0]
    assert isinstance(hidden, keras.layers.Dense) and hidden.units == 8
    np.testing.assert_array_equal(array(loaded(X, training=True)), array(model(X, training=True)))
    plain = make()  # files of weights are exchanged both ways
    plain.load_weights(tmp_path / "with.weights.h5")
    np.testing.assert_array_equal(array(plain(X)), array(model(X)))
    plain.save_weights(tmp_path / "without.weights.h5")
    model.load_weights(tmp_path / "without.weights.h5")
    assert list(dk.sites(keras.models.clone_model(model))) == [f"{WHERE}/dropkit_drop"]


def test_swap_and_unswap_reach_what_was_inserted(tmp_path: Path) -> None:
    model = sequential()
    dk.insert(model, WHERE, keras.layers.Dropout(0.5))
    dk.swap(model)
    assert isinstance(dk.sites(model)[f"{WHERE}/dropkit_drop"], dk.Dropout)
    with pytest.warns(UserWarning, match=f"unswap takes out what was inserted: {WHERE}"):
        receipt = dk.unswap(model)
    assert receipt.lines == (f"{WHERE}: dropkit Dropout(0.5) behind Dense -> none",)
    model.save(tmp_path / "plain.keras")
    with zipfile.ZipFile(tmp_path / "plain.keras") as file:
        assert "dropkit" not in file.read("config.json").decode()
    receipt.restore()
    assert list(dk.sites(model)) == [f"{WHERE}/dropkit_drop"]


def test_places_are_named_by_pattern_class_or_function() -> None:
    for after in (
        "*/hidden",
        keras.layers.Dense,
        (keras.layers.Dense, keras.layers.Conv2D),
        lambda path, _: "i" in path,
    ):
        model = sequential()
        if not isinstance(after, str):
            dk.insert(model.get_layer("encoder"), after, dk.Dropout(0.1))
            assert list(dk.sites(model)) == [f"{WHERE}/dropkit_drop"]
        else:
            dk.insert(model, after, lambda: dk.Dropout(0.1, name="mine"))
            assert list(dk.sites(model)) == [f"{WHERE}/mine"]


def test_behind_a_block_means_behind_its_last_layer() -> None:
    model = sequential()
    assert str(dk.insert(model, "encoder", dk.Dropout(0.1))).startswith(f"{WHERE}: ")
    inputs = keras.Input((8,))
    x = keras.layers.Dense(8, name="last")(inputs)
    twice = keras.Model(inputs, keras.layers.Dense(8, name="first")(x), name="graph")
    model = keras.Sequential([keras.Input((8,)), twice])
    assert str(dk.insert(model, "graph", dk.Dropout(0.1))).startswith("graph/first: ")
    used = keras.Model(inputs, [x, keras.layers.Dense(8, name="first")(x)], name="graph")
    added = keras.Model(inputs, x + inputs, name="graph")
    for inner in (used, added):
        outer = keras.Input((8,))
        model = keras.Model(outer, inner(outer), name="outer")
        with pytest.raises(DropkitValueError, match=r"cannot insert behind graph: its output is no layer's alone"):
            dk.insert(model, "graph", dk.Dropout(0.1))


def test_the_first_entry_of_a_tuple_is_dropped() -> None:
    inputs = keras.Input((4, 8))
    read = keras.layers.LSTM(3, return_state=True, return_sequences=True, name="read")
    model = keras.Model(inputs, read(inputs))
    x = np.random.default_rng(0).normal(size=(2, 4, 8)).astype("float32")
    plain = [array(each) for each in model(x)]
    dk.insert(model, "read", dk.Dropout(0.5))
    dk.bind(model, seed=3)
    found = [array(each) for each in model(x, training=True)]
    kept = keep((2, 4, 3), 0.5, Key(3, "read/dropkit_drop", 0))
    np.testing.assert_allclose(found[0], plain[0] * kept * 2, rtol=1e-5)
    np.testing.assert_allclose(found[1], plain[1], rtol=1e-5)


class Pair(keras.layers.Layer):
    def call(self, x: Any) -> Any:
        return {"a": x}


def test_copies_differ_and_compute_in_the_layers_own_dtype() -> None:
    model = keras.Sequential([keras.Input((8,)), *(keras.layers.Activation("linear", name=name) for name in "ab")])
    dk.insert(model, keras.layers.Activation, dk.Dropout(0.5, seed=3))
    assert [layer.site for layer in dk.sites(model).values()] == ["a/dropkit_drop", "b/dropkit_drop"]
    kept = keep((4, 8), 0.5, Key(3, "a/dropkit_drop")) & keep((4, 8), 0.5, Key(3, "b/dropkit_drop"))
    np.testing.assert_array_equal(array(model(np.ones((4, 8), "float32"), training=True)) != 0, kept)
    half = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, dtype="mixed_bfloat16", name="half")])
    dk.insert(half, "half", dk.Dropout(0.5))
    assert keras.backend.standardize_dtype(half(X, training=True).dtype) == "bfloat16"


def test_errors_come_before_any_change() -> None:
    model = sequential()
    for bad, kind, text in (
        (("head", dk.Dropout(0.1), 7), DropkitTypeError, "insert needs a Keras model or layer, got int"),
        (("decoder*", dk.Dropout(0.1)), DropkitValueError, r"after='decoder\*' matches nothing in .*it has encoder "
         r"\(Sequential\), encoder/hidden \(Dense\), head \(Dense\)"),
        ((7, dk.Dropout(0.1)), DropkitTypeError, "after must be a pattern of layer paths"),
        ((int, dk.Dropout(0.1)), DropkitTypeError, "after must be a pattern of layer paths"),
        (("head", 0.1), DropkitTypeError, r"drop must be a layer such as dropkit.keras.Dropout\(0.1\), got 0.1"),
        (("head", lambda: 0.1), DropkitTypeError, r"drop\(\) must return a Keras layer, got 0.1"),
    ):  # fmt: skip
        with pytest.raises(kind, match=text):
            dk.insert(bad[2] if len(bad) == 3 else model, *bad[:2])  # type: ignore[arg-type]
    bound = keras.Sequential([keras.Input((8,)), dk.Dropout(0.1)])
    with pytest.raises(DropkitValueError, match="drop is bound to a model; pass a fresh one"):
        dk.insert(model, "head", dk.bind(bound).layers[0])
    with pytest.raises(DropkitValueError, match="cannot insert behind dropout: it is a dropout itself"):
        dk.insert(bound, "*", dk.Dropout(0.1))
    dk.insert(model, "head", dk.Dropout(0.1))
    with pytest.raises(DropkitValueError, match="head has an inserted dropout already"):
        dk.insert(model, "head", dk.Dropout(0.1))
    assert list(dk.sites(model)) == ["head/dropkit_drop"]
    with pytest.warns(UserWarning, match=r"the model is bound and these are not: encoder/hidden/dropkit_drop"):
        dk.insert(dk.bind(model), WHERE, dk.Dropout(0.1))
    wrong = keras.Sequential([Pair(name="pair")])
    dk.insert(wrong, "pair", dk.Dropout(0.1))
    with pytest.raises(Exception, match=r"behind 'pair' .Pair., which returns a dict"):
        wrong(X, training=True)


def test_what_is_never_called_is_left_alone_or_refused() -> None:
    inputs = keras.Input((4, 8), name="given")
    model = keras.Model(inputs, keras.layers.LSTM(3, name="read")(inputs))
    for after, text in (("given", "an Input is no call"), ("*/lstm_cell", "read runs its cell by itself")):
        with pytest.raises(DropkitValueError, match=f"cannot insert behind {after.replace('*', 'read')}: {text}"):
            dk.insert(model, after, dk.Dropout(0.1))
    receipt = dk.insert(model, "*", dk.Dropout(0.1))
    assert receipt.lines[1:] == ("read/lstm_cell: left alone, read runs its cell by itself",)


def rated() -> keras.Model:
    inputs = keras.Input((4, 8))
    x = dk.Dropout(0.5, name="ours")(keras.layers.Dropout(0.0, name="theirs")(inputs))
    x = keras.layers.MultiHeadAttention(2, 4, name="attend")(x, x)
    x = keras.layers.GroupQueryAttention(4, 2, 1, dropout=0.25, name="group")(x, x)
    x = DropPath(0.25, name="path")(x)
    return keras.Model(inputs, keras.layers.LSTM(3, dropout=0.125, name="read")(x), name="net")


NAMES = {
    "theirs": 0.0,
    "ours": 0.5,
    "attend/dropout": 0.0,
    "group/dropout": 0.25,
    "path/rate": 0.25,
    "read/lstm_cell/dropout": 0.125,
    "read/lstm_cell/recurrent_dropout": 0.0,
}


@not_twice
@pytest.mark.parametrize("name", [*NAMES, "read", "attend"])
def test_a_rate_acts_and_comes_back(name: str) -> None:
    model = rated()
    with dk.set_rate(model, "*", 0):
        x = np.random.default_rng(0).normal(size=(4, 4, 8)).astype("float32")
        off = array(model(x))
        np.testing.assert_allclose(array(model(x, training=True)), off, rtol=1e-5, atol=1e-6)
        with dk.set_rate(model, name, 0.5) as receipt:
            assert all("-> 0.5" in line for line in receipt.lines)
            assert abs(array(model(x, training=True)) - off).max() > 1e-3
        np.testing.assert_allclose(array(model(x, training=True)), off, rtol=1e-5, atol=1e-6)
    with pytest.raises(DropkitValueError) as caught:
        dk.set_rate(model, "decoder/*", 0.1)
    known = ", ".join(f"{path} ({value:g})" for path, value in NAMES.items())
    assert str(caught.value) == f"pattern 'decoder/*' matches no rate in 'net'; it has {known}"


@trains
@compiles
def test_a_rate_of_ours_compiles_nothing_again() -> None:
    from .tools import Tap

    model = keras.Sequential([keras.Input((8,)), Tap((4, 8), name="tap"), dk.Dropout(0.5), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    model.fit(X, Y, verbose=0)
    runs = model.get_layer("tap").runs
    dk.set_rate(model, "dropout", 0.25)
    model.fit(X, Y, verbose=0)
    assert model.get_layer("tap").runs == runs


@trains
def test_a_rate_of_keras_own_acts_in_fit() -> None:
    ones = np.ones((4, 8), "float32")
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8, name="same"), keras.layers.Dropout(0.0)])
    model.get_layer("same").set_weights([np.eye(8), np.zeros(8)])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    assert model.fit(ones, ones, verbose=0).history["loss"] == [0.0]
    with dk.set_rate(model, "dropout", 0.9):
        assert model.fit(ones, ones, verbose=0).history["loss"][0] > 0.5
    assert model.fit(ones, ones, verbose=0).history["loss"] == [0.0]


def test_learned_rates_and_wrong_ones_are_named() -> None:
    model = keras.Sequential([keras.Input((8,)), dk.ConcreteDropout(keras.layers.Dense(2), name="learned")])
    with pytest.raises(DropkitValueError, match=r"it has none; the rate of learned is learned"):
        dk.set_rate(model, "*", 0.1)
    for rate in (1.5, float("nan")):
        with pytest.raises(DropkitValueError, match=str(rate)):
            dk.set_rate(rated(), "*", rate)
    with pytest.raises(DropkitTypeError, match="set_rate needs a Keras model or layer, got NoneType"):
        dk.set_rate(None, "*", 0.1)  # type: ignore[arg-type]
    with pytest.raises(DropkitTypeError, match="pattern must be a str"):
        dk.set_rate(model, 7, 0.1)  # type: ignore[arg-type]
