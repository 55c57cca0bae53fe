"""`enabled` and `disabled`: every form of dropout in a Keras model, on or off for a while, compiled or not."""

from typing import Any

import keras
import numpy as np
import pytest

import dropkit.keras as dk
from dropkit import Key, keep
from dropkit.errors import DropkitTypeError, DropkitValueError

from .tools import array, trains

X = np.random.Generator(np.random.Philox(1)).normal(size=(8, 5, 16)).astype("float32")


class DropPath(keras.layers.Layer):
    """Draws by hand, as KerasHub's and KerasCV's do."""

    def __init__(self, rate: float = 0.5, **kwargs: Any):
        super().__init__(**kwargs)
        self.rate = rate
        self.seed_generator = keras.random.SeedGenerator(1)

    def call(self, x: Any, training: bool = False) -> Any:
        if not training:
            return x
        shape = (keras.ops.shape(x)[0], *[1] * (len(x.shape) - 1))
        kept = keras.random.uniform(shape, seed=self.seed_generator) >= self.rate
        return x * keras.ops.cast(kept, x.dtype) / (1 - self.rate)


class Block(keras.layers.Layer):
    """Calls the function, beside a layer that has a mode too."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.norm = keras.layers.BatchNormalization()
        self.seed_generator = keras.random.SeedGenerator(1)

    def build(self, shape: Any) -> None:
        self.norm.build(shape)

    def call(self, x: Any, training: bool = False) -> Any:
        x = self.norm(x, training=training)
        return keras.random.dropout(x, 0.5, seed=self.seed_generator) if training else x


class Attends(keras.layers.Layer):
    def __init__(self, inside: Any, **kwargs: Any):
        super().__init__(**kwargs)
        self.inside = inside

    def build(self, shape: Any) -> None:
        if isinstance(self.inside, keras.layers.MultiHeadAttention):
            self.inside.build(shape, shape)

    def call(self, x: Any) -> Any:
        return self.inside(*([[x, x]] if isinstance(self.inside, keras.layers.Attention) else [x, x]))


FORMS = {
    "ours": lambda: dk.Dropout(0.5),
    "always": lambda: dk.Dropout(0.5, when="always"),
    "concrete": lambda: dk.ConcreteDropout(keras.layers.Dense(4)),
    "Dropout": lambda: keras.layers.Dropout(0.5),
    "SpatialDropout1D": lambda: keras.layers.SpatialDropout1D(0.5),
    "AlphaDropout": lambda: keras.layers.AlphaDropout(0.5),
    "GaussianDropout": lambda: keras.layers.GaussianDropout(0.5),
    "GaussianNoise": lambda: keras.layers.GaussianNoise(0.5),
    "MultiHeadAttention": lambda: Attends(keras.layers.MultiHeadAttention(2, 4, dropout=0.5)),
    "Attention": lambda: Attends(keras.layers.Attention(dropout=0.5)),
    "LSTM": lambda: keras.layers.LSTM(4, dropout=0.5),
    "GRU": lambda: keras.layers.GRU(4, recurrent_dropout=0.5),
    "Bidirectional": lambda: keras.layers.Bidirectional(keras.layers.SimpleRNN(4, dropout=0.5)),
    "RNN": lambda: keras.layers.RNN([keras.layers.LSTMCell(4, dropout=0.5), keras.layers.GRUCell(3)]),
    "DropPath": lambda: DropPath(),
    "nested": lambda: keras.Sequential([keras.layers.Dropout(0.5)]),
}
# NumPy's backend infers shapes on memory that nobody has written
pytestmark = pytest.mark.filterwarnings("ignore:Exception encountered:RuntimeWarning", "ignore:.*encountered in")
every_form = pytest.mark.parametrize("form", FORMS)


def network(form: str) -> keras.Model:
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input((5, 16)), keras.layers.BatchNormalization(), FORMS[form]()])


@every_form
def test_enabled_draws_in_predict_and_leaves_batchnorm(form: str) -> None:
    model = network(form)
    plain = model.predict(X, verbose=0)
    with dk.enabled(model):
        first, second = (model.predict(X, verbose=0) for _ in range(2))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(array(model.layers[0].moving_mean), np.zeros(16))
    after = model.predict(X, verbose=0)
    assert np.array_equal(after, plain) == (form not in ("always", "concrete"))


@every_form
def test_disabled_is_evaluation_for_dropout_alone(form: str) -> None:
    model = network(form)
    with dk.disabled(model):
        first, second = (array(model(X, training=True)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert array(model.layers[0].moving_mean).any()
    assert not np.array_equal(array(model(X, training=True)), array(model(X, training=True)))


@trains
@pytest.mark.parametrize("form", ["ours", "always", "Dropout", "LSTM"])
def test_fit_follows_what_was_compiled_before(form: str) -> None:
    model = network(form)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    y = np.zeros(model.output_shape[1:] if None not in model.output_shape[1:] else (), "float32")
    y = np.zeros((8, *y.shape), "float32")

    def losses() -> set[float]:
        return {model.fit(X, y, batch_size=8, shuffle=False, verbose=0).history["loss"][0] for _ in range(2)}

    assert len(losses()) == 2
    with dk.disabled(model):
        assert len(losses()) == 1
    assert len(losses()) == 2


def test_disabled_reaches_functions_and_enabled_names_them() -> None:
    model = keras.Sequential([keras.Input((5, 16)), Block(name="block"), keras.layers.Dropout(0.5, name="drop")])
    with dk.disabled(model):
        first, second = (array(model(X, training=True)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    with pytest.warns(UserWarning, match=r"enabled: block \(Block: function\) draw by a function"), dk.enabled(model):
        pass


def test_patterns_and_nesting() -> None:
    layers = [keras.Input((8,)), dk.Dropout(0.5, name="a"), keras.layers.Dropout(0.5, name="b")]
    model = keras.Sequential(layers)
    ones = np.ones((64, 8), "float32")

    def values() -> list[float]:
        return sorted({float(each) for each in np.unique(array(model(ones)))})

    with dk.enabled(model, "a"):
        assert values() == [0, 2]
        with dk.enabled(model, ["b"]):
            assert values() == [0, 4]
            with dk.disabled(model, "b"):
                assert values() == [0, 2]
            with dk.disabled(model):
                assert values() == [1]
        assert values() == [0, 2]
    assert values() == [1]
    assert "call" not in model.layers[1].__dict__


def test_enabled_with_at_repeats_a_step() -> None:
    model = dk.bind(keras.Sequential([keras.Input((16,)), dk.Dropout(0.5, name="drop")]), seed=3)
    ones = np.ones((8, 16), "float32")
    with dk.enabled(model):
        for step in range(2):
            np.testing.assert_array_equal(model.predict(ones, verbose=0) != 0, keep((8, 16), 0.5, Key(3, "drop", step)))
        with dk.at(step=0):
            np.testing.assert_array_equal(model.predict(ones, verbose=0) != 0, keep((8, 16), 0.5, Key(3, "drop", 0)))


def test_other_models_are_left_alone() -> None:
    model, other = network("ours"), network("ours")
    with dk.disabled(model):
        assert not np.array_equal(array(other(X, training=True)), array(other(X, training=True)))


def test_an_error_inside_leaves_nothing_behind() -> None:
    model = network("Dropout")
    before = keras.src.backend.random.dropout
    with pytest.raises(RuntimeError, match="inside"), dk.disabled(model):
        raise RuntimeError("inside")
    assert keras.src.backend.random.dropout is before
    assert "call" not in model.layers[1].__dict__


def test_what_is_refused() -> None:
    for block in (dk.enabled, dk.disabled):
        with pytest.raises(DropkitTypeError, match="needs a Keras model or layer, got int"), block(7):
            pass
        plain = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)], name="plain")
        with pytest.raises(DropkitValueError, match="no dropout to be found in 'plain'"), block(plain):
            pass
        message = r"site pattern 'x\*' matches no dropout of .*; it has dropout"
        with pytest.raises(DropkitValueError, match=message), block(network("Dropout"), "x*"):
            pass
        with pytest.raises(DropkitTypeError, match="sites must be a pattern"), block(network("Dropout"), [1]):
            pass
    never = keras.Sequential([keras.Input((3,)), dk.Dropout(0.5, when="never")])
    with pytest.raises(DropkitValueError, match="can be turned on"), dk.enabled(never):
        pass
