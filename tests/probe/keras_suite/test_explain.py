"""What is said of Keras models whose answers can be told by hand."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L

import dropkit.keras as dk
from dropkit import Key
from dropkit.probe.explanation import Explanation, Layer
from dropkit.probe.keras import explain_keras

BACKEND = keras.config.backend()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    keras.utils.set_random_seed(1)


def gradients(*names: str) -> tuple[str, ...]:
    """Names whose gradients change, on a backend that has any."""
    return () if BACKEND == "numpy" else names


def word(expected: str) -> str:
    return "unused" if BACKEND == "numpy" and expected in ("changed", "unchanged") else expected


def consistent(found: Explanation) -> Explanation:
    """The two sides of each relation agree, and each layer comes behind its block."""
    names = [layer.name for layer in found.layers]
    assert names[0] == "" and len(set(names)) == len(names)
    assert len({site.name for site in found.sites}) == len(found.sites)
    for n, layer in enumerate(found.layers):
        assert layer.parent is None or layer.parent in names[:n]
        assert set(layer.inputs) <= set(names)
        for site in found.sites:
            assert (site.name in layer.zeroed_by) == (layer.name in site.zeroes)
            assert (site.name in layer.changed_by) == (layer.name in site.changes)
            assert (site.name in layer.gradient_by) == (layer.name in site.gradients)
    return found


def explain(model: keras.Layer, *inputs: Any) -> Explanation:
    return consistent(explain_keras(model, *inputs))


def test_a_plain_stack() -> None:
    model = keras.Sequential(
        [keras.Input((8,)), L.Dense(6, "relu", name="a"), L.Flatten(), L.Dropout(0.5), L.Dense(2, name="b")]
    )
    found = explain(model)
    assert (found.framework, found.model, found.inputs) == ("keras", "Sequential", ((4, 8),))
    assert [layer.name for layer in found.layers] == ["", "a", "flatten", "dropout", "b"]
    (site,) = found.sites
    assert (site.name, site.kind, site.layer, site.p, site.mask_shape) == ("dropout", "Dropout", "dropout", 0.5, (4, 6))
    assert (site.train, site.eval, site.now, site.target) == (True, False, None, "output")
    assert site.zeroes == ("a",)
    assert site.changes == ("", "b")
    assert site.gradients == gradients("a", "b")
    assert (site.input_rank, site.follows, site.on_prediction, site.twins) == (2, "relu", False, ())
    a, b = found.layer("a"), found.layer("b")
    assert (a.output_shape, a.parameters, a.trainable, a.activation, a.calls) == ((4, 6), 54, 54, "relu", 1)
    assert (a.gradient, b.gradient, found.layer("dropout").gradient) == (word("changed"), word("changed"), "none")
    assert (b.inputs, found.layer("flatten").inputs, a.inputs) == (("dropout",), ("a",), ())
    assert a.variance_ratio is None and b.variance_ratio is not None and b.variance_ratio > 0
    assert found.layers[0].parameters == 68


def test_variances_are_those_of_inverted_dropout() -> None:
    model = keras.Sequential([keras.Input((4000,)), L.Dropout(0.5), L.BatchNormalization()])
    found = explain(model, np.random.default_rng(0).normal(size=(64, 4000)).astype("float32"))
    # Of inputs of mean zero 1 / (1 - p), to about four standard errors.
    assert found.layer("dropout").variance_ratio == pytest.approx(2.0, rel=0.02)
    assert found.layer("batch_normalization").input_variance_ratio == pytest.approx(2.0, rel=0.02)
    assert found.sites[0].target == "input" and found.sites[0].zeroes == ()


def test_a_residual_path_and_two_outputs() -> None:
    x = keras.Input((8,))
    a = L.Dense(8, name="a")(x)
    b = L.Dense(8, name="b")(L.Dropout(0.3)(a))
    normed = L.BatchNormalization(name="norm")(a + b)
    model = keras.Model(x, [L.Dense(2, name="first")(normed), L.Dense(2, name="second")(a)])
    found = explain(model)
    (site,) = found.sites
    assert site.zeroes == ("a",)
    assert set(site.changes) == {"", "b", "norm", "first"}
    assert set(site.gradients) == set(gradients("a", "b", "norm", "first"))
    assert found.layer("second").gradient == word("unchanged")
    assert set(found.layer("norm").inputs) == {"a", "b"}
    assert found.layer("second").inputs == ("a",)


def test_a_shared_layer_called_twice() -> None:
    x = keras.Input((8,))
    dense, drop = L.Dense(8, name="shared"), L.Dropout(0.3, name="drop")
    model = keras.Model(x, L.Dense(2, name="head")(drop(dense(drop(dense(x))))))
    found = explain(model)
    assert [layer.calls for layer in found.layers] == [1, 2, 2, 1]
    (site,) = found.sites
    assert (site.zeroes, site.changes) == (("shared",), ("", "shared", "head"))
    assert "2 masks, one for each call" in site.note
    assert found.layer("shared").inputs == ("drop",)


def test_branches_of_which_one_drops_behind_concatenation() -> None:
    x = keras.Input((8,))
    left, right = L.Dense(3, "tanh", name="left")(x), L.Dense(4, name="right")(x)
    both = L.Dropout(0.4, name="both")(L.Concatenate()([left, right]))
    model = keras.Model(x, [L.Dense(2, name="head")(both), L.Dropout(0.2, name="last")(right)])
    found = explain(model)
    assert set(found.site("both").zeroes) == {"left", "right"}
    assert found.site("both").follows is None
    assert (found.site("last").zeroes, found.site("last").changes) == (("right",), ("",))
    assert found.site("last").on_prediction and not found.site("both").on_prediction
    assert set(found.site("last").gradients) == set(gradients("right"))
    assert set(found.site("both").gradients) == set(gradients("left", "right", "head"))


def test_recurrent_layers() -> None:
    model = keras.Sequential(
        [
            keras.Input((5,)),
            L.Embedding(30, 8),
            L.LSTM(6, dropout=0.2, recurrent_dropout=0.1, return_sequences=True),
            L.SimpleRNN(3, dropout=0.25),
            L.Dense(2),
        ]
    )
    found = explain(model)
    assert [layer.name for layer in found.layers] == ["", "embedding", "lstm", "simple_rnn", "dense"]
    assert found.layer("lstm").parameters == 4 * (8 + 6 + 1) * 6
    rows = [(site.name, site.kind, site.p, site.mask_shape, site.target, site.zeroes) for site in found.sites]
    assert rows == [
        ("lstm:dropout", "LSTM", 0.2, (4, 1, 8), "output", ("embedding",)),
        ("lstm:recurrent_dropout", "LSTM", 0.1, (4, 6), "state", ()),
        ("simple_rnn:dropout", "SimpleRNN", 0.25, (4, 1, 6), "output", ("lstm",)),
    ]
    assert all((site.train, site.eval) == (True, False) for site in found.sites)
    assert found.sites[1].changes == ("", "lstm", "simple_rnn", "dense")
    assert found.sites[2].changes == ("", "simple_rnn", "dense")
    assert found.sites[2].gradients == gradients("embedding", "lstm", "simple_rnn", "dense")


def test_recurrent_dropout_of_the_model_s_input_and_of_stacked_cells() -> None:
    cells = [keras.layers.GRUCell(3, dropout=0.2, name="low"), keras.layers.GRUCell(3, dropout=0.3, name="high")]
    found = explain(keras.Sequential([keras.Input((4, 2)), L.RNN(cells, name="rnn")]))
    assert [(site.name, site.layer, site.target) for site in found.sites] == [
        ("rnn/stacked_rnn_cells/low:dropout", "rnn", "input"),
        ("rnn/stacked_rnn_cells/high:dropout", "rnn", "hidden states"),
    ]
    assert all(site.changes == ("", "rnn") for site in found.sites)


def test_attention() -> None:
    x = keras.Input((5, 8))
    y = L.MultiHeadAttention(2, 4, dropout=0.2, name="heads")(x, x)
    y = L.LayerNormalization(name="norm")(x + y)
    y = L.Attention(dropout=0.1, name="plain")([y, y])
    y = L.MultiHeadAttention(2, 4, name="without")(y, y)
    found = explain(keras.Model(x, y))
    assert [(site.name, site.kind, site.target, site.zeroes) for site in found.sites] == [
        ("heads/dropout", "Dropout", "attention weights", ()),
        ("plain:dropout", "Attention", "attention weights", ()),
    ]
    assert found.sites[0].mask_shape == (4, 2, 5, 5)
    assert found.sites[0].changes[:3] == ("", "heads", "heads/attention_output")
    assert "heads/query" not in found.sites[0].changes
    assert found.layer("heads/softmax").inputs == ("heads/query", "heads/key")
    assert found.layer("heads/attention_output").inputs == ("heads/value", "heads/dropout")
    assert not found.sites[1].on_prediction


@keras.saving.register_keras_serializable(package="dropkit_tests")
class Functional(keras.layers.Layer):
    """Drops by functions: one that follows the mode, one that always drops, one of dropkit's."""

    def __init__(self) -> None:
        super().__init__(name="own")
        self.dense = L.Dense(20, "tanh", name="dense")
        self.key = Key(seed=1, site="own")

    def build(self, shape: Any) -> None:
        self.dense.build(shape)

    def compute_output_shape(self, shape: Any) -> Any:
        return (*shape[:-1], 20)

    def call(self, x: Any, training: bool = False) -> Any:
        h = self.dense(x)
        if training:
            h = keras.random.dropout(h, 0.3)
        h = keras.random.dropout(h, 0.1, seed=3)
        return dk.dropout(h, 0.2, training=bool(training), key=self.key)


def test_functions_inside_a_layer() -> None:
    model = keras.Sequential([keras.Input((8,)), Functional(), L.Dense(2, name="head")])
    found = explain(model)
    assert [(site.name, site.kind, site.p, site.eval) for site in found.sites] == [
        ("own:dropout", "keras.random.dropout", 0.3, False),
        ("own:dropout#1", "keras.random.dropout", 0.1, True),
        ("own:dropout#2", "dropkit.keras.dropout", pytest.approx(0.2, abs=1e-5), False),
    ]
    assert all(site.zeroes == ("own/dense",) and site.train and site.follows == "tanh" for site in found.sites)
    assert all(site.changes == ("", "own", "head") for site in found.sites)
    lines = [int(site.source.rpartition(":")[2]) for site in found.sites]
    assert all(site.source.startswith(f"{__file__}:") for site in found.sites) and lines == sorted(set(lines))


def test_noise_layers_in_a_nested_model() -> None:
    block = keras.Sequential(
        [keras.Input((8,)), L.Dense(6, "selu"), L.AlphaDropout(0.2), L.GaussianNoise(0.1), L.GaussianDropout(0.3)],
        name="block",
    )
    found = explain(keras.Sequential([keras.Input((8,)), block, L.Dense(2)]))
    assert [(site.name, site.kind, site.p) for site in found.sites] == [
        ("block/alpha_dropout", "AlphaDropout", 0.2),
        ("block/gaussian_noise", "GaussianNoise", None),
        ("block/gaussian_dropout", "GaussianDropout", 0.3),
    ]
    assert all(site.follows == "selu" and site.zeroes == ("block/dense",) for site in found.sites)
    assert found.sites[1].changes == ("", "block", "block/gaussian_dropout", "dense")
    assert [layer.parent for layer in found.layers] == [None, "", "block", "block", "block", "block", ""]
    assert found.layer("dense").inputs == ("block/gaussian_dropout",)


def test_names_are_those_of_the_frontend_and_its_layers_are_found() -> None:
    model = keras.Sequential(
        [
            keras.Input((6, 8)),
            dk.Dropout(0.2),
            dk.SpatialDropout1D(0.3),
            keras.Sequential([dk.ConcreteDropout(L.Dense(20), init_min=0.2, init_max=0.2)], name="inner"),
            dk.AlphaDropout(0.1, noise_shape=(None, 1, None)),
            dk.GaussianDropout(0.1),
            dk.GaussianNoise(0.1),
        ]
    )
    dk.bind(model, seed=3)
    found = explain(model)
    assert [site.name for site in found.sites] == list(dk.binding.sites(model))
    assert [site.mask_shape for site in found.sites] == [
        (4, 6, 8), (4, 1, 8), (4, 6, 8), (4, 1, 20), (4, 6, 20), (4, 6, 20)
    ]  # fmt: skip
    learned = found.site("inner/concrete_dropout")
    assert (learned.p, learned.eval, learned.deliberate) == (pytest.approx(0.2), True, True)
    assert "inner/concrete_dropout" in found.site("dropout").changes
    assert "inner/concrete_dropout" not in learned.changes and "inner/concrete_dropout/dense" in learned.changes
    assert learned.gradients == gradients("inner/concrete_dropout", "inner/concrete_dropout/dense")
    assert found.layer("inner/concrete_dropout").parameters == 8 * 20 + 20 + 1


def test_a_frozen_part() -> None:
    trunk = keras.Sequential(
        [keras.Input((8,)), L.Dense(8, name="a"), L.BatchNormalization(name="norm"), L.Dropout(0.2)], name="trunk"
    )
    trunk.trainable = False
    model = keras.Sequential([keras.Input((8,)), trunk, L.Dense(4, name="b"), L.BatchNormalization(name="last")])
    found = explain(model)
    assert [found.layer(name).gradient for name in ("trunk/a", "trunk/norm", "b", "last")] == [
        "frozen", "frozen", word("changed"), word("changed")
    ]  # fmt: skip
    assert found.layer("trunk").frozen and not found.layers[0].frozen
    assert [found.layer(name).training for name in ("trunk/a", "trunk/norm", "last")] == [True, False, True]
    assert found.sites[0].gradients == gradients("b", "last")
    assert found.layer("trunk/norm").input_variance_ratio == 1.0
    assert found.layer("last").input_variance_ratio != 1.0


class Subclassed(keras.Model):
    """A residual block by hand, a layer that is never called, and one that is always in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = [L.Dense(8, "relu"), L.Dense(8)]
        self.drop, self.dead, self.unused = L.Dropout(0.3), L.Dropout(0.4, name="dead"), L.Dropout(0.2, name="unused")
        self.head = L.Dense(2, name="head")

    def call(self, x: Any) -> Any:
        h = self.drop(self.inner[0](x))
        return self.head(self.dead(x + self.inner[1](h), training=False))


def test_a_subclassed_model() -> None:
    model = Subclassed()
    model(np.ones((2, 8), "float32"))
    found = explain(model)
    assert found.model == "Subclassed" and any("guessed" in note for note in found.notes)
    site = found.site("dropout")
    assert (site.zeroes, site.follows) == (("dense",), "relu")
    assert set(site.changes) == {"", "dense_1", "dead", "head"}
    assert set(site.gradients) == set(gradients("dense", "dense_1", "head"))
    dead, unused = found.site("dead"), found.site("unused")
    assert (dead.train, dead.eval, dead.changes) == (False, False, ())
    assert (unused.train, unused.eval, unused.mask_shape, found.layer("unused").calls) == (None, None, None, 0)


def test_a_rate_of_zero_is_idle_and_attention_without_dropout_no_site() -> None:
    model = keras.Sequential([keras.Input((8,)), L.Dropout(0.0), L.GaussianNoise(0.0), L.Dense(2)])
    found = explain(model)
    assert [(site.train, site.idle) for site in found.sites] == [
        (False, "its rate is 0"), (False, "its standard deviation is 0")
    ]  # fmt: skip
    assert found.layer("dense").gradient == word("unchanged") and not any(layer.touched for layer in found.layers)


class Augmented(keras.layers.Layer):
    """Noise that is no dropout."""

    def __init__(self) -> None:
        super().__init__(name="augmented")
        self.generator = keras.random.SeedGenerator(1)

    def call(self, x: Any) -> Any:
        return x + keras.random.normal(keras.ops.shape(x), seed=self.generator)

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


def test_other_randomness_is_told_and_does_not_blur_what_dropout_does() -> None:
    x = keras.Input((8,))
    first = L.Dense(2, name="first")(Augmented()(x))
    second = L.Dense(2, name="second")(L.Dropout(0.5)(x))
    found = explain(keras.Model(x, [first, second]))
    assert {layer.name for layer in found.layers if layer.random} == {"", "augmented", "first"}
    assert found.sites[0].changes == ("", "second") and found.sites[0].gradients == gradients("second")


def test_equal_seeds_are_twins() -> None:
    drops = [L.Dropout(0.5, seed=seed) for seed in (1, 1, 2)] + [dk.Dropout(0.5, seed=1), dk.Dropout(0.5, seed=1)]
    model = keras.Sequential([keras.Input((32,)), *[part for drop in drops for part in (L.Dense(32), drop)]])
    found = explain(model)
    assert [site.twins for site in found.sites] == [("dropout_1",), ("dropout",), (), (), ()]


def test_many_sites_are_told_by_the_graph() -> None:
    x = keras.Input((6,))
    trunk = L.Dense(6, name="trunk")(x)
    heads = []
    for branch in ("left", "right"):
        y = trunk
        for n in range(9):
            drop = L.Dropout(0.1, noise_shape=(None, 1), name=f"{branch}_drop{n}")
            y = y + drop(L.Dense(6, name=f"{branch}{n}")(y))
        heads.append(y)
    found = explain(keras.Model(x, heads))
    assert len(found.sites) == 18 and any("18 sites" in note for note in found.notes)
    assert found.forwards <= 8 and found.backwards == (0 if BACKEND == "numpy" else 2)
    site = found.site("left_drop6")
    assert site.mask_shape == (4, 1) and site.zeroes == ("left6",)
    assert set(site.changes) == {"", "left7", "left8", "left_drop7", "left_drop8"}
    assert set(site.gradients) == set(gradients("trunk", *(f"left{n}" for n in range(9))))


def test_the_function_and_the_layer_of_a_time_step() -> None:
    model = keras.Sequential([keras.Input((3, 8)), L.TimeDistributed(L.Dense(4), name="each"), L.Dense(2)])
    model.add(L.TimeDistributed(L.Dropout(0.5), name="steps"))
    found = explain(model)
    assert [layer.name for layer in found.layers] == ["", "each", "dense", "steps"]
    (site,) = found.sites
    assert (site.name, site.layer, site.zeroes, site.changes) == ("steps/dropout", "steps", ("dense",), ("",))
    assert site.on_prediction and found.layer("each").parameters == 36


def test_a_layer_by_itself() -> None:
    layer = L.Dense(3)
    layer.build((None, 5))
    found = explain(layer)
    assert [layer.name for layer in found.layers] == [""] and found.sites == ()
    assert isinstance(found.layers[0], Layer) and found.layers[0].output_shape == (4, 3)


def test_a_layer_called_twice_draws_twice() -> None:
    x = keras.Input((8,))
    drop = L.Dropout(0.5, name="drop")
    found = explain(keras.Model(x, L.Dense(2)(drop(L.Dense(16)(drop(L.Dense(6)(x)))))))
    (site,) = found.sites
    assert (site.calls, site.all_draws) == (2, 22)
    assert any("one of 2^22 sub-networks" in sentence for sentence in found.sentences)


def test_a_mask_of_one_s_own_is_said_where_no_site_is_known() -> None:
    class Masking(L.Layer):
        def call(self, x: Any, training: bool | None = None) -> Any:
            return x * keras.ops.cast(keras.random.uniform(keras.ops.shape(x)) < 0.5, x.dtype) if training else x

    found = explain(keras.Sequential([keras.Input((8,)), L.Dense(6), Masking(name="mask"), L.Dense(2)]))
    assert found.sentences[0] == "No dropout that is known was found in this model, but it is random in training."
    assert "mask" in found.sentences[1] and "No dropout was found in this model." not in found.sentences
