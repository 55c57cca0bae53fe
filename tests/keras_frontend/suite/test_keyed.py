"""Keyed models: bind, saving, resuming, stateless calls, and noise in training that NumPy knows beforehand."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import dropkit.keras as dk
from dropkit import Key, keep
from dropkit.errors import DropkitError, DropkitTypeError, DropkitValueError
from dropkit.keras.binding import sites

from .tools import BACKEND, COMPILES, Tap, array, compiles, trains

X, Y = np.ones((4, 16), "float32"), np.zeros((4, 2), "float32")


def two_drops() -> keras.Model:
    inputs = keras.Input((16,), batch_size=4)
    x = dk.Dropout(0.5, name="first")(inputs)
    x = Tap((4, 16), name="tap")(x)
    x = dk.Dropout(0.25)(x)
    x = Tap((4, 16), name="tap2")(x)
    return keras.Model(inputs, keras.layers.Dense(2)(x))


def masks(model: keras.Model) -> tuple[np.ndarray, np.ndarray]:
    return array(model.get_layer("tap").seen) != 0, array(model.get_layer("tap2").seen) != 0


def expected(seed: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    first = keep((4, 16), 0.5, Key(seed, "first", step))
    return first, first & keep((4, 16), 0.25, Key(seed, "dropout", step))


def test_bound_masks_are_functions_of_seed_path_and_step() -> None:
    model = dk.bind(two_drops(), seed=2**64 - 3)
    for step in range(3):
        model(X, training=True)
        np.testing.assert_array_equal(masks(model), expected(2**64 - 3, step))
        model(X, training=False)  # counts no step
    model = dk.bind(two_drops(), seed=2**64 - 3, step=2**32 - 1)  # the low word of the step overflows
    for step in range(2**32 - 1, 2**32 + 2):
        model(X, training=True)
        np.testing.assert_array_equal(masks(model), expected(2**64 - 3, step))


@trains
def test_fit_draws_the_masks_that_numpy_knows() -> None:
    model = dk.bind(two_drops(), seed=7)
    model.compile("sgd", "mse", jit_compile=COMPILES)
    for step in range(3):
        model.fit(X, Y, batch_size=4, verbose=0)
        np.testing.assert_array_equal(masks(model), expected(7, step))
    model.evaluate(X, Y, batch_size=4, verbose=0)
    model.predict(X, batch_size=4, verbose=0)
    model.fit(X, Y, batch_size=4, verbose=0)
    np.testing.assert_array_equal(masks(model), expected(7, 3))


@trains
def test_a_resumed_run_goes_on_with_the_next_mask(tmp_path: Path) -> None:
    model = dk.bind(two_drops(), seed=7)
    model.compile("sgd", "mse", jit_compile=False)
    model.fit(X, Y, batch_size=4, verbose=0)
    model.layers[1].rate = 0.75
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    fresh = dk.bind(two_drops(), seed=0)
    fresh.load_weights(tmp_path / "model.weights.h5")
    fresh.compile("sgd", "mse", jit_compile=False)
    for resumed in (loaded, fresh):
        assert resumed.layers[1].rate == 0.75
        resumed.fit(X, Y, batch_size=4, verbose=0)
        first = keep((4, 16), 0.75, Key(7, "first", 1))
        np.testing.assert_array_equal(masks(resumed)[0], first)
        np.testing.assert_array_equal(masks(resumed)[1], first & keep((4, 16), 0.25, Key(7, "dropout", 1)))


def test_weights_are_exchanged_with_keras_own_layers(tmp_path: Path) -> None:
    def network(layer: Any) -> keras.Model:
        return keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), layer(0.5), keras.layers.Dense(2)])

    theirs, ours = network(keras.layers.Dropout), network(dk.Dropout)
    theirs.save_weights(tmp_path / "theirs.weights.h5")
    ours.load_weights(tmp_path / "theirs.weights.h5")
    x = np.ones((2, 3), "float32")
    np.testing.assert_allclose(array(ours(x)), array(theirs(x)), rtol=1e-5)
    ours.save_weights(tmp_path / "ours.weights.h5")
    theirs.load_weights(tmp_path / "ours.weights.h5")
    dk.bind(ours).load_weights(tmp_path / "theirs.weights.h5")
    theirs.set_weights(ours.get_weights())


def small(layer: Any) -> keras.Model:
    return keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="h"), layer(0.5, name="drop")])


def test_weights_of_a_bound_model_load_into_keras_own_layers_and_back(tmp_path: Path) -> None:
    """F11: deployment without dropkit, and training that goes on from a plain file."""
    bound, plain = dk.bind(small(dk.Dropout), seed=1), small(keras.layers.Dropout)
    bound(np.ones((2, 8), "float32"), training=True)
    bound.save_weights(tmp_path / "bound.weights.h5")
    plain.load_weights(tmp_path / "bound.weights.h5")
    np.testing.assert_array_equal(array(plain.layers[0].kernel), array(bound.layers[0].kernel))
    plain = small(keras.layers.Dropout)
    plain.save_weights(tmp_path / "plain.weights.h5")
    bound.load_weights(tmp_path / "plain.weights.h5")
    np.testing.assert_array_equal(array(plain.layers[0].kernel), array(bound.layers[0].kernel))
    y = array(bound(np.ones((2, 8), "float32"), training=True))  # and its own clock went on
    np.testing.assert_array_equal(y != 0, keep((2, 4), 0.5, Key(1, "drop", 1)))
    fresh = dk.bind(small(dk.Dropout), seed=5)
    fresh.load_weights(tmp_path / "bound.weights.h5")
    y = array(fresh(np.ones((2, 8), "float32"), training=True))
    np.testing.assert_array_equal(y != 0, keep((2, 4), 0.5, Key(1, "drop", 1)))


def test_weights_in_a_model_file_of_a_bound_model_load_into_keras_own_layers(tmp_path: Path) -> None:
    """F11, for `.keras` files: the weights in them, and sharded ones."""
    import zipfile

    bound = dk.bind(small(dk.Dropout), seed=1)
    bound.save(tmp_path / "bound.keras")
    with zipfile.ZipFile(tmp_path / "bound.keras") as file:
        file.extract("model.weights.h5", tmp_path)
    plain = small(keras.layers.Dropout)
    plain.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(array(plain.layers[0].kernel), array(bound.layers[0].kernel))
    bound.save_weights(tmp_path / "shards.weights.json", max_shard_size=1)
    plain = small(keras.layers.Dropout)
    plain.load_weights(tmp_path / "shards.weights.json")
    np.testing.assert_array_equal(array(plain.layers[0].kernel), array(bound.layers[0].kernel))


def test_weights_that_an_older_dropkit_saved_load(tmp_path: Path) -> None:
    import h5py

    bound = dk.bind(small(dk.Dropout), seed=1)
    bound.save_weights(tmp_path / "new.weights.h5")
    with h5py.File(tmp_path / "new.weights.h5", "a") as file:
        state = np.array([9, 4, 0, 0, 1 << 30])
        file["layers/dropout/vars/draws"] = state
        del file["layers/dropout/seed_generator"]
    bound.load_weights(tmp_path / "new.weights.h5")
    np.testing.assert_array_equal(array(bound.layers[1].seed_generator.state), state)


def test_a_site_that_was_given_stays_when_the_model_is_bound() -> None:
    """F14: one mask in several branches; the seed and the step are the model's."""
    inputs = [keras.Input((8,)), keras.Input((8,))]
    outputs = [dk.Dropout(0.5, seed=1, site="s")(x) for x in inputs]
    outputs.append(dk.Dropout(0.5, seed=1, name="own")(inputs[0]))
    model = dk.bind(keras.Model(inputs, outputs), seed=0)
    x = np.ones((4, 8), "float32")
    for step in range(2):
        a, b, c = (array(y) != 0 for y in model([x, x], training=True))
        np.testing.assert_array_equal(a, keep((4, 8), 0.5, Key(0, "s", step)))
        np.testing.assert_array_equal(b, a)
        np.testing.assert_array_equal(c, keep((4, 8), 0.5, Key(0, "own", step)))


def test_a_site_that_bind_gave_changes_with_the_next_one(tmp_path: Path) -> None:
    part = dk.bind(small(dk.Dropout), seed=1)
    part.save(tmp_path / "part.keras")
    loaded = [keras.saving.load_model(tmp_path / "part.keras") for _ in range(2)]
    assert loaded[0].layers[1].get_config() == part.layers[1].get_config()
    assert loaded[0].layers[1].site == "drop"
    inputs = keras.Input((8,))
    for number, each in enumerate(loaded):
        each.name = f"part{number}"
    whole = dk.bind(keras.Model(inputs, [each(inputs) for each in loaded]), seed=2)
    assert [layer.site for layer in sites(whole).values()] == ["part0/drop", "part1/drop"]


def test_sites_do_not_depend_on_what_was_made_before() -> None:
    def network() -> keras.Model:
        block = keras.Sequential([dk.Dropout(0.5), dk.Dropout(0.5, name="named"), dk.GaussianNoise(0.1)])
        return keras.Sequential([keras.Input((3,)), dk.Dropout(0.5), block, dk.Dropout(0.5)])

    names = ["dropout", "sequential/dropout", "sequential/named", "sequential/gaussian_noise", "dropout_1"]
    for _ in range(2):
        model = dk.bind(network(), seed=1)
        assert [layer.site for layer in sites(model).values()] == list(sites(model)) == names


def test_subclassed_models_and_wrapped_layers() -> None:
    class Block(keras.layers.Layer):
        def __init__(self, **kwargs: Any):
            super().__init__(**kwargs)
            self.drop = dk.Dropout(0.5)
            self.tap = Tap((4, 16))

        def call(self, x: Any, training: bool = False) -> Any:
            return self.tap(self.drop(x, training=training))

    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = [Block(name="a"), Block(name="b")]

        def call(self, x: Any) -> Any:
            for block in self.blocks:
                x = block(x)
            return x

    net = dk.bind(Net(), seed=3)
    assert list(sites(net)) == ["a/dropout", "b/dropout"]
    for step in range(2):
        net(X, training=True)
        first = keep((4, 16), 0.5, Key(3, "a/dropout", step))
        np.testing.assert_array_equal(array(net.blocks[0].tap.seen) != 0, first)
        both = first & keep((4, 16), 0.5, Key(3, "b/dropout", step))
        np.testing.assert_array_equal(array(net.blocks[1].tap.seen) != 0, both)


def test_a_layer_called_again_in_one_call_is_another_site() -> None:
    drop, taps = dk.Dropout(0.5, name="drop"), (Tap((4, 16)), Tap((4, 16)))
    inputs = keras.Input((16,), batch_size=4)
    model = dk.bind(keras.Model(inputs, taps[1](drop(taps[0](drop(inputs))))), seed=1)
    for step in range(2):
        model(X, training=True)
        first, again = (keep((4, 16), 0.5, Key(1, site, step)) for site in ("drop", "drop#1"))
        np.testing.assert_array_equal(array(taps[0].seen) != 0, first)
        np.testing.assert_array_equal(array(taps[1].seen) != 0, first & again)


def test_binding_again_starts_over() -> None:
    model = dk.bind(two_drops(), seed=1)
    model(X, training=True)
    dk.bind(model, seed=2)
    model(X, training=True)
    np.testing.assert_array_equal(masks(model), expected(2, 0))


def test_bind_errors() -> None:
    with pytest.raises(DropkitTypeError, match="bind needs a Keras model or layer, got int"):
        dk.bind(7)
    with pytest.raises(DropkitValueError, match="no dropkit layer to bind in"):
        dk.bind(keras.Sequential([keras.Input((3,)), keras.layers.Dropout(0.5)]))
    with pytest.raises(DropkitValueError, match=r"seed must lie in \[0, 2\*\*64\)"):
        dk.bind(two_drops(), seed=-1)

    class Twins(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = dk.Dropout(0.5, name="same"), dk.Dropout(0.5, name="same")

    with pytest.raises(DropkitValueError, match="two dropkit layers have the path 'same'"):
        dk.bind(Twins())


def test_stateless_calls_advance_the_state_that_is_passed() -> None:
    model = dk.bind(two_drops(), seed=5)
    variables = [v.value * 1 if BACKEND != "torch" else v.value.clone() for v in model.non_trainable_variables]
    for step in range(3):
        _, variables = model.stateless_call(model.trainable_variables, variables, X, training=True)
        taps = dict(zip((v.path for v in model.non_trainable_variables), variables, strict=True))
        seen = [array(value) != 0 for path, value in taps.items() if path.endswith("seen")]
        np.testing.assert_array_equal(seen, expected(5, step))
    model(X, training=True)  # its own state stood still
    np.testing.assert_array_equal(masks(model), expected(5, 0))


@pytest.mark.skipif(BACKEND != "jax", reason="jax.jit")
def test_jit_with_the_state_outside_is_refused() -> None:
    import jax

    layer = dk.Dropout(0.5)
    with pytest.raises(DropkitError, match="every call would repeat one mask: use fit, or pass the state in"):
        jax.jit(lambda x: layer(x, training=True))(X)
    step = jax.jit(lambda state, x: layer.stateless_call([], state, x, training=True))
    y, state = step([v.value for v in layer.non_trainable_variables], X)
    z, _ = step(state, X)
    assert not np.array_equal(array(y), array(z))


@trains
def test_saved_models_and_clones() -> None:
    model = two_drops()
    clone = keras.models.clone_model(model)
    assert [type(layer) for layer in clone.layers] == [type(layer) for layer in model.layers]
    for mine, other in zip(clone.layers[1:], model.layers[1:], strict=True):
        assert mine.get_config() == other.get_config()


def test_keras_files(tmp_path: Path) -> None:
    inputs = keras.Input((4, 6))
    x = dk.SpatialDropout1D(0.2, seed=3, name="space")(inputs)
    x = dk.AlphaDropout(0.1, noise_shape=(None, 1, None))(x)
    x = dk.GaussianNoise(0.3)(dk.GaussianDropout(0.4)(x))
    x = dk.ConcreteDropout(keras.layers.Dense(5), is_mc_dropout=False)(x)
    model = keras.Model(inputs, dk.Dropout(0.6, noise_shape=(None, 4, 1))(x))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for mine, other in zip(loaded.layers, model.layers, strict=True):
        assert type(mine) is type(other)
        configs = mine.get_config(), other.get_config()
        for config in configs:
            config.pop("layer", None)  # it tells how the wrapped layer was built, as a list or as a tuple
        assert configs[0] == configs[1]
    x = np.random.Generator(np.random.Philox(1)).normal(size=(2, 4, 6)).astype("float32")
    np.testing.assert_allclose(array(loaded(x)), array(model(x)), rtol=1e-6)


def test_masking_reaches_what_comes_after() -> None:
    inputs = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(7, 3, mask_zero=True)(inputs)
    x = dk.SpatialDropout1D(0.5)(dk.Dropout(0.5)(x))
    model = keras.Model(inputs, keras.layers.LSTM(2)(x))
    full, cut = np.array([[3, 4, 0, 0, 0]]), np.array([[3, 4]])
    np.testing.assert_allclose(array(model(full)), array(model(cut)), rtol=1e-5)


def test_predict_is_the_identity() -> None:
    x = np.random.Generator(np.random.Philox(1)).normal(size=(6, 16)).astype("float32")
    inputs = keras.Input((16,))
    model = keras.Model(inputs, dk.GaussianNoise(0.5)(dk.Dropout(0.5)(inputs)))
    np.testing.assert_array_equal(model.predict(x, verbose=0), x)


@trains
def test_unknown_batch_size_in_training() -> None:
    model = keras.Sequential([keras.Input((None, 6)), dk.SpatialDropout1D(0.5), dk.Dropout(0.2), keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=False)
    for shape in ((4, 3, 6), (2, 5, 6)):
        model.fit(np.ones(shape, "float32"), np.zeros((*shape[:2], 1)), batch_size=shape[0], verbose=0)


@compiles
def test_several_steps_in_one_execution() -> None:
    model = dk.bind(two_drops(), seed=7)
    model.compile("sgd", "mse", steps_per_execution=2, jit_compile=False)
    model.fit(np.tile(X, (4, 1)), np.tile(Y, (4, 1)), batch_size=4, verbose=0)
    np.testing.assert_array_equal(masks(model), expected(7, 3))


@trains
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_training(policy: str) -> None:
    model = keras.Sequential(
        [
            keras.Input((16,)),
            keras.layers.Dense(8, dtype=policy),
            dk.Dropout(0.5, dtype=policy),
            dk.AlphaDropout(0.5, dtype=policy),
            dk.GaussianDropout(0.5, dtype=policy),
            keras.layers.Dense(2),
        ]
    )
    model.compile("sgd", "mse", jit_compile=False)
    history = model.fit(X, Y, batch_size=4, epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


@pytest.mark.skipif(BACKEND != "torch", reason="elsewhere Keras cannot rematerialise a layer with a training argument")
def test_rematerialised_layers_repeat_their_mask() -> None:
    drop = dk.Dropout(0.5, seed=1, name="d")

    class Scale(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            self.scale = self.add_weight(shape=(16,), initializer="ones")

        def call(self, x: Any, training: bool = False) -> Any:
            return drop(x * self.scale, training=training) ** 2

    with keras.RematScope(mode="full"):
        layer = Scale()
        model = keras.Sequential([keras.Input((16,), batch_size=4), layer])
    model.compile(keras.optimizers.SGD(1.0), lambda y, z: ops.sum(z), jit_compile=False)
    for step in range(2):
        before = array(layer.scale)
        model.fit(X, np.zeros((4, 16)), batch_size=4, verbose=0)
        kept = keep((4, 16), 0.5, Key(1, "d", step))
        np.testing.assert_allclose(before - array(layer.scale), (8 * before * kept).sum(0), rtol=1e-5)
