"""Attention, recurrent layers and cells with keyed dropout, made by hand and taken over in finished models."""

import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import dropkit.keras as dk
from dropkit import Key, keep
from dropkit.axes.rate import Linear
from dropkit.errors import DropkitRuntimeError, DropkitTypeError, DropkitValueError

from .test_layers import gradient
from .tools import BACKEND, array, compiles, trains

# NumPy's backend infers shapes on memory that nobody has written
pytestmark = pytest.mark.filterwarnings("ignore:Exception encountered:RuntimeWarning", "ignore:.*encountered in")
L: Any = keras.layers
X = np.random.Generator(np.random.Philox(1)).normal(size=(3, 5, 8)).astype("float32")
IMAGES = np.random.Generator(np.random.Philox(2)).normal(size=(2, 3, 6, 6, 6, 1)).astype("float32")
BOTH = {"dropout": 0.3, "recurrent_dropout": 0.2}
RECURRENT: dict[str, tuple[Any, dict[str, Any]]] = {
    "LSTM": (4, BOTH),
    "GRU": (4, BOTH),
    "SimpleRNN": (4, BOTH),
    "ConvLSTM2D": (2, {"kernel_size": 3, **BOTH}),
}
ATTENTION: dict[str, tuple[Any, dict[str, Any]]] = {
    "MultiHeadAttention": ((2, 4), {"dropout": 0.3}),
    "GroupQueryAttention": ((4, 4, 2), {"dropout": 0.3}),
    "Attention": ((), {"dropout": 0.3}),
    "AdditiveAttention": ((), {"dropout": 0.3}),
}
CELLS = ("LSTMCell", "GRUCell", "SimpleRNNCell")
HOLDERS = {*RECURRENT, *ATTENTION, *CELLS, "ConvLSTM1D", "ConvLSTM3D"}  # which have one base
every_recurrent = pytest.mark.parametrize("name", RECURRENT)
every_attention = pytest.mark.parametrize("name", ATTENTION)
every_layer = pytest.mark.parametrize("name", [*RECURRENT, *ATTENTION])


def made(home: Any, name: str, **more: Any) -> tuple[keras.Model, Any]:
    """A model of one such layer, and its input; the same weights whatever the home."""
    keras.utils.set_random_seed(3)
    given, kwargs = {**RECURRENT, **ATTENTION}[name]
    given = given if isinstance(given, tuple) else (given,)
    x = X
    if name.startswith("Conv"):
        rank = int(name[-2])
        x = IMAGES[(slice(None), slice(None), *[slice(None)] * rank, *[0] * (3 - rank))]
    inputs = keras.Input(x.shape[1:])
    layer = getattr(home, name)(*given, name="layer", **{**kwargs, **more})
    two = [[inputs, inputs]] if name in ("Attention", "AdditiveAttention") else [inputs, inputs]
    output = layer(*two) if name in ATTENTION else layer(inputs)
    return keras.Model(inputs, output), x


def same(one: Any, other: Any) -> None:
    """But for the rounding of products, which lie elsewhere in memory each time."""
    np.testing.assert_allclose(one, other, atol=2e-6)


def differ(one: Any, other: Any) -> None:
    assert np.abs(np.asarray(one) - np.asarray(other)).max() > 1e-4


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def lstm(x: np.ndarray, weights: Any, masks: Any, states: Any) -> np.ndarray:
    """An LSTM in NumPy, with a mask for each of i, f, c, o: the slow reference."""
    kernel, recurrent, bias = (np.split(w, 4, axis=-1) for w in weights)
    h = c = np.zeros((len(x), kernel[0].shape[1]))
    for t in range(x.shape[1]):
        i, f, g, o = ((x[:, t] * masks[n]) @ kernel[n] + (h * states[n]) @ recurrent[n] + bias[n] for n in range(4))
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
    return h


def factors(shape: tuple[int, ...], p: float, key: Key) -> np.ndarray:
    t = round((1 - p) * 65536)
    return keep(shape, p, key) * 65536 / t


def test_lstm_equals_numpy_with_the_masks_of_keep() -> None:
    for recurrent in (0.25, 0.0):
        model = keras.Sequential(
            [keras.Input((5, 8)), dk.LSTM(4, dropout=0.5, recurrent_dropout=recurrent, name="read")]
        )
        dk.bind(model, seed=7)
        weights = [array(w) for w in model.get_layer("read").weights]
        for step in range(2):
            gates = 4 if recurrent else 1
            read = factors((3, gates * 8), 0.5, Key(7, "read/lstm_cell/dropout", step))
            masks = np.split(read, gates, axis=-1) * (4 // gates)
            states = [1.0] * 4
            if recurrent:
                states = np.split(factors((3, 16), recurrent, Key(7, "read/lstm_cell/recurrent_dropout", step)), 4, -1)
            np.testing.assert_allclose(array(model(X, training=True)), lstm(X, weights, masks, states), atol=2e-6)


@every_attention
def test_attention_equals_numpy_with_the_masks_of_keep(name: str) -> None:
    model, x = made(dk, name)
    layer = model.get_layer("layer")
    dk.bind(model, seed=7)
    q = [x, x] if name.endswith("HeadAttention") or name.startswith("Group") else [[x, x]]
    _, weights = layer(*q, return_attention_scores=True)
    _, dropped = layer(*q, return_attention_scores=True, training=True)
    scale = factors(tuple(weights.shape), 0.3, Key(7, "layer/dropout", 0))
    if name in ("Attention", "AdditiveAttention"):  # which give what they dropped
        np.testing.assert_allclose(array(dropped), array(weights) * scale, atol=1e-6)
        scale = factors(tuple(weights.shape), 0.3, Key(7, "layer/dropout", 1))
        np.testing.assert_allclose(array(layer(*q, training=True)), array(weights) * scale @ x, atol=1e-5)
        return
    repeats = getattr(layer, "num_repeats", 1)
    value = np.repeat(array(layer._value_dense(x)), repeats, axis=2)
    for step, more in (
        (1, {}),
        (2, {"use_causal_mask": True}),
        (3, {"attention_mask": np.tril(np.ones((3, 5, 5), bool), 1)}),
    ):
        _, weights = layer(x, x, return_attention_scores=True, **more)
        scale = factors(tuple(weights.shape), 0.3, Key(7, "layer/dropout", step))
        heads = np.einsum("bnts,bsnh->btnh", array(weights) * scale, value)
        expected = array(layer._output_dense(heads.astype("float32")))
        np.testing.assert_allclose(array(layer(x, x, training=True, **more)), expected, atol=1e-5)


@trains
@every_attention
def test_a_query_that_sees_no_key_has_finite_gradients(name: str) -> None:
    given, how = ATTENTION[name]
    layer = getattr(dk, name)(*given, **how, seed=1)
    heads = name in ("MultiHeadAttention", "GroupQueryAttention")
    seen = np.ones((3, 5, 5), bool)
    seen[:, 2] = False
    what: dict[str, Any] = {"attention_mask": seen} if heads else {"mask": [None, np.arange(15).reshape(3, 5) > 4]}

    def run(x: Any) -> Any:
        y = layer(x, x, training=True, **what) if heads else layer([x, x], training=True, **what)
        return keras.ops.sum(y * y)

    run(X)
    assert np.isfinite(gradient(run, X)).all()


@every_layer
def test_without_training_and_at_rate_0_it_is_keras_own(name: str) -> None:
    theirs, x = made(keras.layers, name)
    ours, _ = made(dk, name)
    ours.set_weights(theirs.get_weights())
    same(array(ours(x)), array(theirs(x)))
    dk.set_rate(ours, "*", 0.0)
    np.testing.assert_allclose(array(ours(x, training=True)), array(theirs(x)), atol=1e-6)
    dk.set_rate(ours, "*", 1.0)
    assert np.isfinite(array(ours(x, training=True))).all()


@every_layer
def test_swapped_it_is_as_if_made_by_hand(name: str) -> None:
    model, x = made(keras.layers, name, seed=5)
    before, config = [array(w) for w in model.weights], model.get_layer("layer").get_config()
    count, evaluated = len(model.variables), array(model(x))
    receipt = dk.swap(model)
    hand, _ = made(dk, name, seed=5)
    layer = model.get_layer("layer")
    assert type(layer) is getattr(dk, name)
    assert {k: v for k, v in layer.get_config().items() if k != "drops"} == config
    same(array(model(x)), evaluated)
    hand.set_weights(model.get_weights())
    if name in RECURRENT:
        assert [d.site for d in layer.drops.values()] == ["layer/dropout", "layer/recurrent_dropout"]
        same(array(model(x, training=True)), array(hand(x, training=True)))
    for each in (model, hand):
        dk.bind(each, seed=7)
    assert list(dk.sites(model)) == list(dk.sites(hand))
    first, second = (array(model(x, training=True)) for _ in range(2))
    same(array(hand(x, training=True)), first)
    differ(first, second)
    with dk.at(step=0):
        same(array(model(x, training=True)), first)
    receipt.restore()
    assert type(layer) is getattr(keras.layers, name)
    assert layer.get_config() == config
    assert len(model.variables) == count
    for old, new in zip(before, model.weights, strict=True):
        same(old, array(new))
    same(array(model(x)), evaluated)
    differ(array(model(x, training=True)), array(model(x, training=True)))


@every_layer
def test_saved_it_goes_on_with_the_next_mask(name: str, tmp_path: Path) -> None:
    model, x = made(keras.layers, name)
    dk.swap(model)
    dk.bind(model, seed=7)
    model(x, training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert list(dk.sites(loaded)) == list(dk.sites(model))
    same(array(loaded(x, training=True)), array(model(x, training=True)))
    with dk.unswap(model):
        model.save(tmp_path / "plain.keras")
    with zipfile.ZipFile(tmp_path / "plain.keras") as file:
        assert b"dropkit" not in file.read("config.json")
    assert type(keras.models.load_model(tmp_path / "plain.keras").get_layer("layer")) is getattr(keras.layers, name)
    assert type(model.get_layer("layer")) is getattr(dk, name)


def stacked() -> keras.Model:
    inputs = keras.Input((None, 8))
    x = L.Bidirectional(L.LSTM(4, **BOTH, return_sequences=True), name="both")(inputs)
    x = L.RNN([L.GRUCell(4, dropout=0.3), L.SimpleRNNCell(4, recurrent_dropout=0.3)], return_sequences=True)(x)
    x = L.GRU(4, dropout=0.3, return_sequences=True, name="up")(x)
    x = L.TimeDistributed(L.Dense(4))(x)
    return keras.Model(inputs, L.LSTM(2, recurrent_dropout=0.3, name="last")(x))


def test_wrappers_and_stacks_and_lengths_are_taken_over() -> None:
    model = stacked()
    dk.swap(model)
    dk.bind(model, seed=1)
    cells = {site.rpartition("/")[0] for site in dk.sites(model)}
    assert cells == {
        "both/forward_lstm/lstm_cell", "both/backward_lstm/lstm_cell", "rnn/stacked_rnn_cells/gru_cell",
        "rnn/stacked_rnn_cells/simple_rnn_cell", "up/gru_cell", "last/lstm_cell",
    }  # fmt: skip
    for x in (X, X[:2, :3]):
        y = array(model(x, training=True))
        with dk.at(step=int(array(next(iter(dk.sites(model).values())).seed_generator.state)[1]) - 1):
            same(array(model(x, training=True)), y)
    assert {int(array(drop.seed_generator.state)[1]) for drop in dk.sites(model).values()} == {2}


@trains
def test_compiled_training_has_the_masks_of_eager_training_and_the_last_batch_is_smaller() -> None:
    results = []
    for eager in (True, False):
        keras.utils.set_random_seed(5)
        model = keras.Sequential([keras.Input((None, 8)), L.LSTM(2, **BOTH)])
        dk.swap(model)
        dk.bind(model, seed=1)
        model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=eager, jit_compile="auto")
        model.fit(np.concatenate([X, X]), np.ones((6, 2)), batch_size=4, shuffle=False, verbose=0)
        assert {int(array(drop.seed_generator.state)[1]) for drop in dk.sites(model).values()} == {2}
        results.append([array(w) for w in model.weights])
    for eagerly, compiled in zip(*results, strict=True):
        np.testing.assert_allclose(eagerly, compiled, atol=1e-5)


def test_layers_gates_directions_and_members_draw_differently() -> None:
    inputs = keras.Input((5, 8))
    both = L.Bidirectional(dk.LSTM(8, **BOTH, seed=1))
    model = keras.Model(inputs, [both(inputs), dk.LSTM(8, **BOTH, seed=1)(inputs)])
    drops = [drop for drop in dk.sites(model).values() if drop.name == "dropout"]
    assert len({drop.site for drop in drops}) == 3  # of one seed, unbound
    dk.bind(model, seed=1)
    masks = []
    for seed in (1, 2):
        dk.bind(model, seed=seed)
        for drop in dk.sites(model).values():
            masks += np.split(array(drop(np.ones((4, 256), "float32"), training=True)) != 0, 4, axis=-1)
    assert len(masks) == 2 * 6 * 4
    assert len({mask.tobytes() for mask in masks}) == len(masks)


@pytest.mark.parametrize("home", [keras.layers, dk])
def test_enabled_disabled_and_when(home: Any) -> None:
    model, x = made(home, "LSTM")
    if home is keras.layers:
        dk.swap(model)
    plain = array(model(x))
    with dk.disabled(model):
        same(array(model(x, training=True)), plain)
    with dk.enabled(model):
        differ(model.predict(x, verbose=0), model.predict(x, verbose=0))
    with dk.enabled(model, "*/recurrent_dropout"), dk.at(step=0, seed=1):
        alone = model.predict(x, verbose=0)
    with dk.enabled(model), dk.at(step=0, seed=1):
        differ(alone, model.predict(x, verbose=0))
    same(model.predict(x, verbose=0), plain)
    always, _ = made(dk, "GRU", when="always")
    differ(array(always(x)), array(always(x)))
    with pytest.raises(DropkitValueError, match="Keras has no counterpart of layer/gru_cell/dropout"):
        dk.unswap(always)


def test_inference_counts_no_step_and_a_failed_call_leaves_no_mask() -> None:
    model, x = made(dk, "SimpleRNN")
    dk.bind(model, seed=1)
    model(x)
    cell = model.get_layer("layer").cell
    first = array(model(x, training=True))
    failing = keras.layers.RNN(cell, name="failing")
    with pytest.raises(Exception):  # noqa: B017 - each backend has its own
        failing(x, initial_state=[np.zeros((3, 9), "float32")], training=True)
    with dk.at(step=0):
        same(array(model(x, training=True)), first)


@pytest.mark.skipif(BACKEND == "numpy", reason="it does not train")
@compiles
@pytest.mark.filterwarnings("ignore:The model does not have any trainable weights")
@pytest.mark.parametrize("name", ["GRU", "MultiHeadAttention"])
def test_a_rate_that_begins_at_0_moves_in_a_compiled_program(name: str) -> None:
    model, x = made(dk, name)
    dk.bind(model, seed=1)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    y = np.zeros(model.output_shape[1:])[None].repeat(len(x), 0) if None not in model.output_shape[1:] else x
    schedule = dk.RateSchedule({"*": Linear(0.0, 0.9, steps=3)})
    history = model.fit(x, y, epochs=4, batch_size=len(x), verbose=0, callbacks=[schedule]).history["loss"]
    assert len(set(history)) == 4


def test_padding_and_state() -> None:
    inputs = keras.Input((5,))
    x = L.Embedding(9, 8, mask_zero=True)(inputs)
    model = keras.Model(inputs, L.LSTM(4, dropout=0.3)(x))
    dk.swap(model)
    dk.bind(model, seed=1)
    ids = np.array([[1, 2, 3, 0, 0], [4, 5, 6, 7, 8]])
    long = array(model(ids, training=True))
    with dk.at(step=0):
        short = array(model(np.pad(ids[:, :3], [(0, 0), (0, 2)]), training=True))
    np.testing.assert_allclose(long[0], short[0], atol=1e-6)
    kept = keras.Sequential([keras.Input(batch_shape=(3, 5, 8)), dk.GRU(4, dropout=0.3, stateful=True)])
    dk.bind(kept, seed=1)
    first = array(kept(X, training=True))
    kept.layers[0].reset_state()
    with dk.at(step=0):
        same(array(kept(X, training=True)), first)
        differ(array(kept(X, training=True)), first)  # which went on from the state


@pytest.mark.skipif(BACKEND != "torch", reason="Keras rematerialises no layer with `training` elsewhere")
@pytest.mark.parametrize("name", ["LSTM", "MultiHeadAttention", "Attention"])
def test_rematerialised_it_trains_the_same(name: str) -> None:
    grads = []
    for remat in (False, True):
        with keras.RematScope(mode="full" if remat else None):
            model, x = made(dk, name)
        dk.bind(model, seed=1)
        given = keras.ops.convert_to_tensor(x).requires_grad_(True)
        keras.ops.sum(model(given, training=True) ** 2).backward()
        grads.append(array(given.grad))
        assert {int(array(drop.seed_generator.state)[1]) for drop in dk.sites(model).values()} == {1}
    np.testing.assert_allclose(*grads, atol=1e-5)


def test_unbuilt_attention_is_taken_over_and_given_back() -> None:
    class Block(keras.Model):
        def __init__(self) -> None:
            super().__init__(name="block")
            self.attend = L.MultiHeadAttention(2, 4, dropout=0.3, name="attend")

        def call(self, x: Any, training: bool = False) -> Any:
            return self.attend(x, x, training=training)

    model = Block()
    receipt = dk.swap(model)
    dk.bind(model, seed=1)
    assert list(dk.sites(model)) == ["attend/dropout"]
    first = array(model(X, training=True))
    with dk.at(step=0):
        same(array(model(X, training=True)), first)
    receipt.restore()
    assert type(model.attend) is L.MultiHeadAttention
    assert type(model.attend._dropout_layer) is L.Dropout
    differ(array(model(X, training=True)), array(model(X, training=True)))


def test_what_is_refused() -> None:
    for make in (
        lambda: dk.LSTM(4, dropout=1.5), lambda: dk.GRUCell(4, recurrent_dropout=-0.1),
        lambda: dk.MultiHeadAttention(2, 4, dropout=float("nan")), lambda: dk.Attention(dropout=2.0),
    ):  # fmt: skip
        with pytest.raises(DropkitValueError, match="Expected a float value between 0 and 1"):
            make()
    with pytest.raises(DropkitTypeError, match="Expected a float value"):
        dk.LSTM(4, dropout="much")
    with pytest.raises(DropkitTypeError, match=r"site must be a name or a number, got 0\.5"):
        dk.LSTM(4, dropout=0.5, site=0.5)  # type: ignore[arg-type]
    with pytest.raises(DropkitValueError, match="Argument `seed` must be an integer"):
        dk.LSTM(4, dropout=0.5, seed=0.5)  # type: ignore[arg-type]
    cell = dk.LSTMCell(4, dropout=0.5)
    with pytest.raises(DropkitRuntimeError, match=r"recurrent_dropout of 'lstm_cell.*' was 0 when it was made"):
        cell.recurrent_dropout = 0.2
