"""The layers by themselves: masks, values, shapes, errors, and what Keras' own tests ask of them."""

import json
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import dropkit
import dropkit.keras as dk
from dropkit import Key, keep
from dropkit.axes.share import Block
from dropkit.errors import DropkitError

from .tools import BACKEND, array, trains

ONES = np.ones((20, 5, 10), "float32")
LAYERS = {
    "Dropout": (lambda **kw: dk.Dropout(0.3, **kw), (4, 6)),
    "AlphaDropout": (lambda **kw: dk.AlphaDropout(0.3, **kw), (4, 6)),
    "GaussianDropout": (lambda **kw: dk.GaussianDropout(0.3, **kw), (4, 6)),
    "GaussianNoise": (lambda **kw: dk.GaussianNoise(0.3, **kw), (4, 6)),
    "SpatialDropout1D": (lambda **kw: dk.SpatialDropout1D(0.3, **kw), (4, 3, 6)),
    "SpatialDropout2D": (lambda **kw: dk.SpatialDropout2D(0.3, **kw), (4, 3, 2, 6)),
    "SpatialDropout3D": (lambda **kw: dk.SpatialDropout3D(0.3, **kw), (4, 3, 2, 2, 6)),
}
PUBLISHED = {
    "StochasticDepth": (lambda **kw: dk.StochasticDepth(0.3, "batch", **kw), (4, 3, 6), (0, 1, 2)),
    "DropPath": (lambda **kw: dk.DropPath(0.3, **kw), (4, 3, 6), (1, 2)),
    "DropBlock1D": (lambda **kw: dk.DropBlock1D(0.3, 3, **kw), (4, 9, 6), Block(3, (-2,))),
    "DropBlock2D": (lambda **kw: dk.DropBlock2D(0.3, 3, **kw), (4, 7, 9, 6), Block(3, (-3, -2))),
    "DropBlock3D": (
        lambda **kw: dk.DropBlock3D(0.3, (1, 2, 2), "channels_first", **kw),
        (2, 3, 4, 5, 6),
        Block((1, 2, 2), (-3, -2, -1)),
    ),
}  # fmt: skip
every_layer = pytest.mark.parametrize("name", LAYERS)


def make(kind: str, **kwargs: Any) -> tuple[Any, np.ndarray]:
    build, shape = LAYERS[kind]
    return build(**kwargs), np.random.Generator(np.random.Philox(1)).normal(size=shape).astype("float32")


@every_layer
def test_is_keras_own_class(name: str) -> None:
    layer, _ = make(name)
    assert isinstance(layer, getattr(keras.layers, name))
    assert layer.supports_masking
    assert layer.built


@every_layer
def test_identity_where_it_is_not_training(name: str) -> None:
    layer, x = make(name)
    x = ops.convert_to_tensor(x)
    for kwargs in ({}, {"training": False}, {"training": None}):
        np.testing.assert_array_equal(array(layer(x, **kwargs)), array(x))
    assert layer.call(x, training=False) is x


@every_layer
def test_state_is_one_variable_and_no_weight(name: str) -> None:
    layer, _ = make(name)
    assert len(layer.variables) == len(layer.non_trainable_variables) == 1
    assert layer.weights == layer.trainable_variables == layer.losses == []


@every_layer
def test_symbolic_shapes(name: str) -> None:
    layer, x = make(name)
    inputs = keras.Input(x.shape[1:])
    assert layer(inputs, training=True).shape == (None, *x.shape[1:])
    assert layer.compute_output_shape((None, *x.shape[1:])) == (None, *x.shape[1:])


@every_layer
def test_calls_differ_and_repeat_with_the_seed(name: str) -> None:
    layer, x = make(name, seed=5, name="a")
    first, second = array(layer(x, training=True)), array(layer(x, training=True))
    assert not np.array_equal(first, second)
    again, _ = make(name, seed=5, name="a")
    np.testing.assert_array_equal(array(again(x, training=True)), first)
    np.testing.assert_array_equal(array(again(x, training=True)), second)


@every_layer
def test_one_seed_in_two_layers_gives_two_noises(name: str) -> None:
    a, x = make(name, seed=5)
    b, _ = make(name, seed=5)
    assert a.site != b.site
    assert not np.array_equal(array(a(x, training=True)), array(b(x, training=True)))


@every_layer
def test_set_random_seed_governs_layers_without_seed(name: str) -> None:
    results = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        layer, x = make(name)
        results.append(array(layer(x, training=True)))
    np.testing.assert_array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])


@every_layer
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "mixed_float16", "mixed_bfloat16"])
def test_dtype_policies(name: str, dtype: str) -> None:
    if BACKEND == "jax" and dtype == "float64":
        pytest.skip("JAX without 64-bit types")
    layer, x = make(name, dtype=dtype)
    y = layer(x, training=True)
    assert keras.backend.standardize_dtype(y.dtype) == layer.compute_dtype == dtype.removeprefix("mixed_")
    assert np.isfinite(array(y)).all()


@every_layer
def test_integers_become_the_compute_type(name: str) -> None:
    layer, x = make(name)
    y = layer(np.ones(x.shape, "int32"), training=True)
    assert keras.backend.standardize_dtype(y.dtype) == "float32"


@every_layer
def test_a_layer_that_computes_in_integers_is_refused(name: str) -> None:
    layer, x = make(name, dtype="int32")
    for value in (0.3, 0.0):  # at every rate
        setattr(layer, "stddev" if name == "GaussianNoise" else "rate", value)
        with pytest.raises(DropkitError, match=r"floating type, got dtype='int32' for .* make it with dtype='float32'"):
            layer(np.ones(x.shape, "int32"), training=True)


@every_layer
def test_config_round_trip(name: str) -> None:
    layer, x = make(name, seed=3, name="a", dtype="mixed_bfloat16")
    twin = type(layer).from_config(layer.get_config())
    assert twin.get_config() == layer.get_config()
    assert twin.compute_dtype == "bfloat16"
    np.testing.assert_array_equal(array(twin(x, training=True)), array(layer(x, training=True)))


@every_layer
def test_masks_pass_through(name: str) -> None:
    layer, x = make(name)
    mask = ops.convert_to_tensor(np.array([True, False, True, True]))
    assert layer.compute_mask(x, mask) is mask


@pytest.mark.parametrize("shape", [(), (1,), (7, 13), (3, 4, 5), (2, 3, 4, 5)])
@pytest.mark.parametrize("rate", [0.5, 0.1, 0.25, 1e-4, 0.999, 1.0])
def test_the_mask_is_that_of_keep(shape: tuple[int, ...], rate: float) -> None:
    x = np.full(shape, 3.0, "float32")
    layer = dk.Dropout(rate, seed=2**63 + 7, name="drop")
    for step in range(3):
        kept = keep(shape, rate, Key(2**63 + 7, "drop", step))
        scaled = np.float32(3.0) * np.float32(dropkit.mask.scale(dropkit.mask.threshold(rate)))
        np.testing.assert_array_equal(array(layer(x, training=True)), np.where(kept, scaled, np.float32(0)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_are_rounded_once(dtype: str) -> None:
    x = ops.cast(np.linspace(1, 2, 300, dtype="float32"), dtype)
    y = dk.Dropout(0.1, seed=1, name="a", dtype=dtype)(x, training=True)
    kept = keep((300,), 0.1, Key(1, "a"))
    scaled = ops.cast(ops.cast(x, "float32") * dropkit.mask.scale(dropkit.mask.threshold(0.1)), dtype)
    np.testing.assert_array_equal(array(y), np.where(kept, array(scaled), 0))


def test_an_explicit_site() -> None:
    y = dk.Dropout(0.5, seed=1, site="elsewhere", name="a")(np.ones((4, 9), "float32"), training=True)
    np.testing.assert_array_equal(array(y) != 0, keep((4, 9), 0.5, Key(1, "elsewhere")))


def test_rescaling() -> None:
    y = array(dk.Dropout(0.5, seed=1337)(np.ones((20, 500)), training=True))
    assert abs(y.mean() - 1) < 5 * 1e-2  # 5 standard errors of 10,000 elements
    assert set(np.unique(y)) == {0.0, 2.0}


@pytest.mark.parametrize("layer", [dk.Dropout, dk.AlphaDropout])
@pytest.mark.parametrize("noise_shape", [(None, 1, None), (20, 1, 10), [20, 1, 10], (np.int64(20), 1, None)])
def test_noise_shape_shares_a_draw(layer: Any, noise_shape: Any) -> None:
    made = layer(0.5, noise_shape=noise_shape, seed=1, name="a")
    assert isinstance(made.noise_shape, tuple)
    y = array(made(ONES, training=True))
    np.testing.assert_array_equal(y[:, 0], y[:, 1])
    kept = keep((20, 1, 10), 0.5, Key(1, "a"))
    np.testing.assert_array_equal(y > 0, np.broadcast_to(kept, y.shape))


@pytest.mark.parametrize(
    ("noise_shape", "noise"),
    [((10,), (1, 1, 10)), ((1, 5, 1), (1, 5, 1)), ((5, 1), (1, 5, 1)), ((1, 1, 1), (1, 1, 1)), ((), (1, 1, 1))],
)
def test_noise_shape_of_fewer_axes_or_shared_batch(noise_shape: Any, noise: Any) -> None:
    y = array(dk.Dropout(0.5, noise_shape=noise_shape, seed=1, name="a")(ONES, training=True))
    np.testing.assert_array_equal(y != 0, np.broadcast_to(keep(noise, 0.5, Key(1, "a")), y.shape))


@pytest.mark.parametrize("layer", [dk.Dropout, dk.AlphaDropout])
@pytest.mark.parametrize(
    ("noise_shape", "message"),
    [
        ("Invalid", "Expected a tuple or list of integers"),
        (5, "Expected an iterable of integers"),
        ((20, 1.5, 10), r"Expected all elements to be integers or None. Received element at index 1: 1.5"),
        ((20, -1, 10), r"Expected all dimensions to be positive integers or None"),
        ((20, 0, 10), r"Received negative or zero value at index 1: 0"),
    ],
)
def test_a_bad_noise_shape(layer: Any, noise_shape: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layer(0.5, noise_shape=noise_shape)


@pytest.mark.parametrize(
    ("noise_shape", "message"),
    [((1, 20, 5, 10), "has more axes than the input"), ((20, 5, 3), "does not broadcast to the input's shape")],
)
def test_a_noise_shape_that_does_not_fit(noise_shape: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dk.Dropout(0.5, noise_shape=noise_shape)(ONES, training=True)


@pytest.mark.parametrize("layer", [dk.Dropout, dk.AlphaDropout, dk.GaussianDropout, dk.SpatialDropout1D])
@pytest.mark.parametrize("rate", [-0.5, 1.5, float("nan"), float("inf")])
def test_a_bad_rate(layer: Any, rate: float) -> None:
    message = "Invalid value received for argument `rate`. Expected a float value between 0 and 1. Received: rate="
    with pytest.raises(ValueError, match=message) as caught:
        layer(rate)
    assert isinstance(caught.value, DropkitError)


def test_a_rate_that_is_no_number() -> None:
    for rate in ("0.5", None, [0.5]):
        with pytest.raises(TypeError, match="Invalid value received for argument `rate`"):
            dk.Dropout(rate)
    assert dk.Dropout(True).rate == 1


def test_a_bad_stddev() -> None:
    for stddev in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="Invalid value received for argument `stddev`"):
            dk.GaussianNoise(stddev)


def test_a_bad_seed() -> None:
    for seed in (1.5, keras.random.SeedGenerator(1), "1"):
        with pytest.raises(ValueError, match=r"Argument `seed` must be an integer\. Received"):
            dk.Dropout(0.5, seed=seed)
    with pytest.raises(ValueError, match=r"must lie in \[0, 2\*\*64\)"):
        dk.Dropout(0.5, seed=-1)


def test_spatial_layers_check_the_rank() -> None:
    with pytest.raises(ValueError, match="expected ndim=4, found ndim=3"):
        dk.SpatialDropout2D(0.5)(ONES, training=True)
    with pytest.raises(ValueError, match="`data_format` argument must be one of"):
        dk.SpatialDropout2D(0.5, data_format="sideways")


@pytest.mark.parametrize(("layer", "axes"), [(dk.SpatialDropout2D, 2), (dk.SpatialDropout3D, 3)])
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_spatial_dropout_drops_feature_maps(layer: Any, axes: int, data_format: str) -> None:
    first, space = data_format == "channels_first", (3, 4, 2)[:axes]
    shape = (10, 12, *space) if first else (10, *space, 12)
    noise = (10, 12, *[1] * axes) if first else (10, *[1] * axes, 12)
    y = array(layer(0.5, data_format=data_format, seed=1, name="a")(np.ones(shape, "float32"), training=True))
    np.testing.assert_array_equal(y != 0, np.broadcast_to(keep(noise, 0.5, Key(1, "a")), shape))


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_dropped_nan_is_dropped(rate: float) -> None:
    x = np.full((4, 40), np.nan, "float32")
    kept = keep(x.shape, rate, Key(1, "a"))
    np.testing.assert_array_equal(
        array(dk.Dropout(rate, seed=1, name="a")(x, training=True)), np.where(kept, np.nan, 0)
    )


@pytest.mark.parametrize("layer", [dk.Dropout, dk.AlphaDropout, dk.GaussianDropout])
def test_rate_one_gives_zeros(layer: Any) -> None:
    np.testing.assert_array_equal(array(layer(1.0)(ONES, training=True)), np.zeros(ONES.shape))


def test_alpha_dropout_values() -> None:
    x = np.random.Generator(np.random.Philox(1)).normal(size=(50, 40)).astype("float32")
    y = array(dk.AlphaDropout(0.3, seed=1, name="a")(x, training=True))
    a, b, dropped = dropkit.mask.alpha_factors(dropkit.mask.threshold(0.3))
    expected = np.where(keep(x.shape, 0.3, Key(1, "a")), x * a + b, dropped)
    np.testing.assert_allclose(y, expected, rtol=2e-6, atol=1e-6)
    assert abs(y.mean()) < 0.1
    assert abs(y.std() - 1) < 0.1


def test_gaussian_dropout_values() -> None:
    x = np.linspace(1, 2, 10_000, dtype="float32").reshape(20, 500)
    y = array(dk.GaussianDropout(0.3, seed=1, name="a")(x, training=True))
    t = dropkit.mask.threshold(0.3)
    s = np.sqrt((65536 - t) / t)
    np.testing.assert_allclose(y, x * (1 + s * dropkit.normal(x.shape, Key(1, "a"))), rtol=1e-5, atol=1e-5)
    assert abs((y / x).std() - np.sqrt(0.3 / 0.7)) < 0.02


def test_gaussian_noise_values() -> None:
    x = np.ones((20, 500), "float32")
    layer = dk.GaussianNoise(0.3, seed=1, name="a")
    y = array(layer(x, training=True))
    np.testing.assert_allclose(y, x + 0.3 * dropkit.normal(x.shape, Key(1, "a")), rtol=1e-5, atol=1e-5)
    layer.stddev = 0.0
    np.testing.assert_array_equal(array(layer(x, training=True)), x)


def test_empty_inputs() -> None:
    for name in LAYERS:
        layer, x = make(name)
        assert tuple(layer(x[:0], training=True).shape) == (0, *x.shape[1:])


@trains
@every_layer
def test_gradient_has_the_mask_of_the_forward(name: str) -> None:
    layer, x = make(name, seed=1, name="a")
    y = array(layer(x, training=True))
    layer, _ = make(name, seed=1, name="a")
    grad = gradient(lambda x: ops.sum(layer(x, training=True)), x)
    if name == "GaussianNoise":
        expected = np.ones(x.shape)
    elif name == "AlphaDropout":
        a, _, _ = dropkit.mask.alpha_factors(dropkit.mask.threshold(0.3))
        expected = np.where(keep(x.shape, 0.3, Key(1, "a")), a, 0)
    else:
        expected = y / x
    np.testing.assert_allclose(grad, expected, rtol=1e-4, atol=1e-6)


def gradient(function: Any, x: Any) -> np.ndarray:
    if BACKEND == "torch":
        import torch

        leaf = torch.as_tensor(x).clone().requires_grad_()
        function(leaf).backward()
        return array(leaf.grad)
    if BACKEND == "jax":
        import jax

        return array(jax.grad(function)(ops.convert_to_tensor(x)))
    import tensorflow as tf

    leaf = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(leaf)
        loss = function(leaf)
    return array(tape.gradient(loss, leaf))


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_dropout_is_a_dropout_of_its_share(name: str) -> None:
    """Of the same seed, site and rate; through its config; while its rate moves; and not in evaluation."""
    build, shape, share = PUBLISHED[name]
    layer, plain = build(seed=3, name="drop"), dk.Dropout(0.3, seed=3, name="drop", share=share)
    x = np.random.Generator(np.random.Philox(1)).normal(size=shape).astype("float32")
    again = type(layer).from_config(json.loads(json.dumps(layer.get_config())))
    for rate in (0.3, 0.5):
        for one in (layer, plain, again):
            one.rate = rate
        expected = array(plain(x, training=True))
        np.testing.assert_array_equal(array(layer(x, training=True)), expected)
        np.testing.assert_array_equal(array(again(x, training=True)), expected)
        assert (expected == 0).any() or name == "StochasticDepth"
    np.testing.assert_array_equal(array(layer(x)), x)


def test_zoneout_keeps_the_previous_state() -> None:
    new, old = np.full((40, 8), 2, "float32"), np.full((40, 8), -1, "float32")
    layer = dk.Zoneout(0.25, seed=3, name="drop")
    y = array(layer(new, old, training=True))
    plain = array(dk.Dropout(0.25, seed=3, name="drop")(np.ones((40, 8), "float32"), training=True))
    np.testing.assert_array_equal(y, np.where(plain > 0, 2, -1))
    np.testing.assert_allclose(array(layer(new, old)), 0.75 * new + 0.25 * old)
    again = type(layer).from_config(layer.get_config())
    np.testing.assert_array_equal(array(again(new, old, training=True)), y)
    with pytest.raises(DropkitError, match="needs a second tensor"):
        layer(new, training=True)
    with pytest.raises(DropkitError, match="mode has to be either 'batch' or 'row', but got 'rows'"):
        dk.StochasticDepth(0.5, "rows")
