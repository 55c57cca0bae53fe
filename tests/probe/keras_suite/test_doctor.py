"""The findings on Keras models that run: one that shows each, the nearest that does not, and healthy ones."""

from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import layers

import dropkit
import dropkit.keras
from dropkit.probe.findings import Finding

Made = tuple[keras.Model, np.ndarray]


def batch(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def sequential(*between: keras.Layer) -> Made:
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((12,)), layers.Dense(24), *between, layers.Dense(3)]), batch(64, 12)


def functional(between: Callable[[keras.KerasTensor], keras.KerasTensor]) -> Made:
    keras.utils.set_random_seed(0)
    x = keras.Input((12,))
    return keras.Model(x, layers.Dense(3, name="head")(between(layers.Dense(24)(x)))), batch(64, 12)


def dropped(rate: float = 0.25, **rest: object) -> keras.Layer:
    return layers.Dropout(rate, name="drop", **rest)


def ours(**rest: str) -> keras.Layer:
    return dropkit.keras.Dropout(0.25, name="drop", **rest)


def noise() -> keras.Layer:
    return layers.GaussianNoise(0.25, name="drop")


FOLLOW = "follow"  # the mode of the model: the call says nothing


class Told(keras.Layer):
    """Calls a layer in a mode of its own. In a functional model that takes a layer: there an argument does nothing."""

    def __init__(self, inside: keras.Layer, training: bool | str | None):
        super().__init__(name="told")
        self.inside, self.mode = inside, {} if training == FOLLOW else {"training": training}

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        twice = isinstance(self.inside, layers.MultiHeadAttention)
        return self.inside(*([x, x] if twice else [x]), **self.mode)


class Views(keras.Layer):
    """Two views of a batch, as SimCSE has them."""

    def __init__(self, on_purpose: bool, apart: float):
        super().__init__(name="views")
        self.drop, self.on_purpose, self.apart = ours(), on_purpose, apart

    def call(self, x: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        if self.on_purpose:
            with dropkit.keras.passes(self, 2) as each:
                first, second = [self.drop(x, training=training) for _ in each]
        else:
            with dropkit.keras.at(site="drop"):  # which is that of every call
                first, second = (self.drop(x + apart, training=training) for apart in (0, self.apart))
        return first + second * second


def views(on_purpose: bool = False, apart: float = 0.0) -> Made:
    return sequential(Views(on_purpose, apart))


def told(training: bool | str | None) -> Made:
    return sequential(Told(dropped(), training))


def attention(training: bool | str) -> Made:
    keras.utils.set_random_seed(0)
    attend = layers.MultiHeadAttention(2, 8, dropout=0.25, name="attend")
    return keras.Sequential([keras.Input((5, 16)), Told(attend, training), layers.Dense(3)]), batch(8, 5, 16)


def trunk(drops: bool, training: bool | str) -> Made:
    """A frozen body, called in the mode of the model or in evaluation."""
    keras.utils.set_random_seed(0)
    inside = layers.Dropout(0.25, name="drop") if drops else layers.BatchNormalization()
    body = keras.Sequential([keras.Input((12,)), layers.Dense(24), inside, layers.Dense(8)], name="body")
    body.trainable = False
    return keras.Sequential([keras.Input((12,)), Told(body, training), layers.Dense(3)]), batch(64, 12)


def normalised(together: bool) -> Made:
    """A body whose weights are frozen, all at once or one layer after another; its BatchNormalization has none."""
    keras.utils.set_random_seed(0)
    norm = layers.BatchNormalization(center=False, scale=False, name="norm")
    body = keras.Sequential([keras.Input((12,)), layers.Dense(24), norm, layers.Dense(8)], name="body")
    for frozen in [body] if together else [body.layers[0], body.layers[2]]:
        frozen.trainable = False
    return keras.Sequential([keras.Input((12,)), body, layers.Dense(3)]), batch(64, 12)


def always(layer: keras.Layer, **call: bool) -> Made:
    """A layer called in a functional model by itself, which says what the call is told."""
    return functional(lambda x: layer(x, **call))


def nested(**call: bool) -> Made:
    inside = keras.Sequential([keras.Input((24,)), dropped(), layers.Dense(8)], name="inside")
    return functional(lambda x: inside(x, **call))


def twice(*seeds: int | None) -> Made:
    """Dropouts on inputs of one shape."""
    first, second = (
        layers.Dropout(0.25, seed=seed, name=name) for seed, name in zip(seeds, ("drop", "b"), strict=True)
    )
    return sequential(first, layers.Dense(24, activation="relu"), second)


class Scaled(keras.Layer):
    """Inverted dropout by hand, with evaluation scaled."""

    def __init__(self, factor: float):
        super().__init__(name="scaled")
        self.factor = factor

    def call(self, x: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        return keras.random.dropout(x, 0.25) if training else x * self.factor


class ScaledDropout(layers.Dropout):
    def call(self, x: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        return super().call(x, training=training) if training else x * (1 - self.rate)


PAIRS: list[tuple[str, str, Callable[[], Made], Callable[[], Made]]] = [
    ("DK101", "told/drop", lambda: told(training=True), lambda: told(FOLLOW)),
    ("DK102", "told/drop", lambda: told(training=False), lambda: told(FOLLOW)),
    ("DK102", "told/drop", lambda: told(training=None), lambda: told(FOLLOW)),
    ("DK103", "told", lambda: trunk(drops=True, training=FOLLOW), lambda: trunk(drops=True, training=False)),
    ("DK103", "body", lambda: normalised(together=False), lambda: normalised(together=True)),
    ("DK105", "told/attend/dropout", lambda: attention(training=True), lambda: attention(FOLLOW)),
    (
        "DK108",
        "drop",
        lambda: (keras.Sequential([keras.Input((12,)), layers.Dense(3), dropped()]), batch(64, 12)),
        lambda: (keras.Sequential([keras.Input((12,)), dropped(), layers.Dense(3)]), batch(64, 12)),
    ),
    (
        "DK109",
        "drop",
        lambda: sequential(layers.ReLU(), dropped(), layers.BatchNormalization()),
        lambda: sequential(layers.ReLU(), layers.BatchNormalization(), dropped()),
    ),
    (
        "DK110",
        "drop",
        lambda: sequential(layers.Activation("relu"), layers.AlphaDropout(0.25, name="drop")),
        lambda: sequential(layers.Activation("selu"), layers.AlphaDropout(0.25, name="drop")),
    ),
    (
        "DK110",
        "drop",
        lambda: functional(lambda x: layers.AlphaDropout(0.25, name="drop")(layers.Dense(24)(x))),
        lambda: functional(lambda x: layers.AlphaDropout(0.25, name="drop")(layers.Dense(24, activation="selu")(x))),
    ),
    (
        "DK111",
        "drop",
        lambda: functional(lambda x: dropped()(layers.Dense(24, activation="selu")(x))),
        lambda: functional(lambda x: dropped()(layers.Dense(24, activation="elu")(x))),
    ),
    ("DK113", "drop", lambda: twice(7, 7), lambda: twice(7, 8)),
    ("DK115", "drop", lambda: sequential(dropped(0.8)), lambda: sequential(dropped(0.2))),
    # F5: Monte Carlo dropout the well-known way, which Keras 3 overrides in predict
    ("DK117", "drop", lambda: always(dropped(), training=True), lambda: always(dropped(), training=False)),
    ("DK117", "drop", lambda: always(ours(), training=True), lambda: always(ours(when="always"), training=True)),
    ("DK117", "drop", lambda: always(noise(), training=True), lambda: always(noise(), training=False)),
    ("DK117", "inside/drop", lambda: nested(training=True), nested),
    ("DK118", "scaled:dropout", lambda: sequential(Scaled(0.75)), lambda: sequential(Scaled(1.0))),
    ("DK118", "drop", lambda: sequential(ScaledDropout(0.25, name="drop")), lambda: sequential(dropped())),
    (
        "DK119",
        "drop",
        lambda: sequential(dropped(), layers.Activation("sigmoid"), layers.Dense(8)),
        lambda: sequential(layers.Activation("sigmoid"), dropped(), layers.Dense(8)),
    ),
    (
        "DK119",
        "drop",
        lambda: functional(lambda x: layers.Dense(8)(keras.ops.softplus(ours()(layers.Dense(24)(x))))),
        lambda: functional(lambda x: layers.Dense(8)(keras.ops.relu(ours()(layers.Dense(24)(x))))),
    ),
    ("DK120", "views/drop", views, lambda: views(on_purpose=True)),
    ("DK120", "views/drop", views, lambda: views(apart=1.0)),
]


def found(made: Made) -> tuple[Finding, ...]:
    return dropkit.doctor(*made)


@pytest.mark.parametrize(("code", "site", "shows", "neighbour"), PAIRS)
def test_a_model_shows_a_finding_and_its_neighbour_none(
    code: str, site: str, shows: Callable[[], Made], neighbour: Callable[[], Made]
) -> None:
    findings = found(shows())
    assert {finding.code for finding in findings} == {code}, findings
    assert site in {finding.site for finding in findings}
    assert found(neighbour()) == ()


def convolutions() -> Made:
    keras.utils.set_random_seed(0)
    stack = [keras.Input((12, 12, 3))]
    for width in (8, 16):
        stack += [layers.Conv2D(width, 3, use_bias=False), layers.BatchNormalization(), layers.ReLU()]
        stack += [layers.MaxPooling2D()] if width == 8 else []
    head = [layers.SpatialDropout2D(0.1), layers.Flatten(), layers.Dropout(0.5), layers.Dense(10, activation="softmax")]
    return keras.Sequential([*stack, *head]), batch(8, 12, 12, 3)


def transformer() -> Made:
    keras.utils.set_random_seed(0)
    ids = keras.Input((7,), dtype="int32")
    x = layers.Dropout(0.1)(layers.Embedding(20, 16)(ids))
    for _ in range(2):
        y = layers.LayerNormalization()(x)
        x = x + layers.Dropout(0.1)(layers.MultiHeadAttention(2, 8, dropout=0.1)(y, y))
        y = layers.Dense(32, activation="gelu")(layers.LayerNormalization()(x))
        x = x + layers.Dropout(0.1)(layers.Dense(16)(y))
    model = keras.Model(ids, layers.Dense(20)(layers.LayerNormalization()(x)))
    return model, np.random.default_rng(0).integers(0, 20, (4, 7)).astype(np.int32)


def self_normalising() -> Made:
    dense = [layers.Dense(32, activation="selu", kernel_initializer="lecun_normal") for _ in range(2)]
    return sequential(dense[0], layers.AlphaDropout(0.1), dense[1], layers.AlphaDropout(0.1))


def recurrent() -> Made:
    keras.utils.set_random_seed(0)
    lstm = [layers.LSTM(8, dropout=0.2, return_sequences=True), layers.GRU(8, dropout=0.2, recurrent_dropout=0.2)]
    return keras.Sequential([keras.Input((5, 12)), *lstm, layers.Dropout(0.3), layers.Dense(3)]), batch(8, 5, 12)


def bound() -> Made:
    model, x = sequential(dropkit.keras.Dropout(0.3), layers.Dense(24, activation="relu"), dropkit.keras.Dropout(0.3))
    return dropkit.keras.bind(model, seed=1), x


HEALTHY = {
    "convolutions": convolutions,
    "transformer": transformer,
    "self-normalising": self_normalising,
    "recurrent": recurrent,
    "bound": bound,
    "frozen trunk": lambda: trunk(drops=False, training=FOLLOW),
    "equal without seeds": lambda: twice(None, None),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_nothing_is_found(name: str) -> None:
    assert found(HEALTHY[name]()) == ()


def test_the_shift_before_a_function_is_measured() -> None:
    (finding,) = found(sequential(dropped(), layers.Activation("softplus"), layers.Dense(8)))
    assert "goes into softplus, which makes 0.693 of a dropped 0; the mean of its output moves by +" in finding.measured


def test_rate_1_leaves_no_gradient() -> None:
    model, x = sequential(layers.Dense(24), layers.Dropout(1.0), layers.Dense(8))
    explained = dropkit.explain(model, x)
    gradients = [layer.gradient for layer in explained.layers if layer.kind == "Dense"]
    assert gradients == ["zero", "zero", "changed", "changed"]
    assert any("zero: nothing is learned there." in told for told in explained.sentences)


def test_a_layer_called_twice_names_each_call() -> None:
    drop = layers.Dropout(0.25, name="drop")
    stack = [layers.Dense(24, "relu", name="a"), drop, layers.Dense(8, "relu", name="b"), drop, layers.Dense(2)]
    told = dropkit.explain(keras.Sequential([keras.Input((12,)), *stack]), batch(16, 12)).sentences
    assert (
        "drop is called 2 times in a forward, each with a mask of its own and all with one rate: on a (24) and b (8)."
        in told
    )
    assert "Active on average: 24 of 32 units in 2 calls at drop." in told


def test_of_batch_time_features_it_says_what_to_write_for_neurons() -> None:
    model = keras.Sequential([keras.Input((5, 12)), layers.Dense(8), dropped(), layers.Dense(2)])
    told = " ".join(dropkit.explain(model, batch(4, 5, 12)).sentences)
    assert "drop drops single elements, not neurons" in told
    assert "dropkit.keras.Dropout(0.25, noise_shape=(None, 1, None))." in told


def test_explain_tells_passes_on_purpose_and_equal_views() -> None:
    made = views(on_purpose=True)
    (site,) = dropkit.explain(*made).sites
    assert (site.passes, site.views, site.calls) == (2, 0, 2)
    words = "in 2 passes on purpose, each a draw of the same step by its name: views/drop and views/drop@1."
    assert words in str(dropkit.explain(*made))
    (site,) = dropkit.explain(*views()).sites
    assert (site.passes, site.views) == (0, 2)
