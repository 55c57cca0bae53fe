"""dropkit's layers for Equinox against Equinox's own, and models bound to a seed."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropkit
from dropkit import Key
from dropkit.jax.equinox import AlphaDropout, Dropout, bind, sites, with_step

NAN, INF = float("nan"), float("inf")
X = jnp.ones((16, 32))
KEY = jax.random.key(0)


def kept(y: jax.Array) -> np.ndarray:
    return np.asarray(y) != 0


# ---------------------------------------------------------------------------------------------------------------------
# the layer


def test_outputs_are_0_or_x_over_keep() -> None:
    x = jax.random.normal(KEY, (3, 4, 5))
    y = Dropout()(x, key=jax.random.key(1))
    assert ((y == 0) | (y == x / 0.5)).all()
    assert (y == 0).any()
    np.testing.assert_array_equal(kept(y), dropkit.keep(x.shape, 0.5, Key(1)))


def test_inference_flag() -> None:
    assert Dropout()(X, key=KEY, inference=True) is X
    assert Dropout(inference=True)(X) is X
    assert not kept(Dropout(inference=True)(X, key=KEY, inference=False)).all()
    off = Dropout(inference=True)
    on = eqx.tree_at(lambda layer: layer.inference, off, replace=False)
    assert not kept(on(X, key=KEY)).all()
    model = eqx.nn.Sequential([eqx.nn.Linear(32, 32, key=KEY), Dropout(0.5)])
    quiet = eqx.nn.inference_mode(model)
    assert quiet[1].inference
    assert not eqx.nn.inference_mode(quiet, value=False)[1].inference
    assert isinstance(model[1], eqx.nn.Dropout)


def test_deterministic_is_deprecated_as_in_equinox() -> None:
    with pytest.warns(UserWarning, match=r"Dropout\(deterministic=\.\.\.\) is deprecated"):
        layer = Dropout(deterministic=True)
    assert layer.inference
    assert layer.deterministic
    with pytest.warns(UserWarning, match=r"Dropout\(\)\(deterministic=\.\.\.\) is deprecated"):
        assert Dropout()(X, deterministic=True) is X


def test_a_missing_key_raises() -> None:
    text = r"Dropout requires a key when running in non-deterministic mode\."
    for layer in (eqx.nn.Dropout(), Dropout()):
        with pytest.raises(RuntimeError, match=text):
            layer(X)
    with pytest.raises(RuntimeError, match=text + r" pass key=\.\.\., or dropkit\.jax\.bind the model"):
        Dropout()(X)
    assert Dropout(0)(X) is X  # as there


@pytest.mark.parametrize("bad", [1.5, -0.5, NAN, jnp.float32(2), np.array([0.5, 1.5])])
def test_rates_are_checked(bad: Any) -> None:
    eqx.nn.Dropout(bad)
    with pytest.raises(ValueError, match="dropout probability has to be between 0 and 1, but got"):
        Dropout(bad)
    layer = eqx.tree_at(lambda layer: layer.p, Dropout(), replace=bad)
    with pytest.raises(ValueError, match="dropout probability has to be between 0 and 1, but got"):
        layer(X[:, :2], key=KEY)


def test_rates_of_another_type() -> None:
    for bad in ("0.5", None):
        with pytest.raises(TypeError, match="dropout probability must be a number, but got"):
            Dropout(bad)


def test_integers_are_refused() -> None:
    x = jnp.ones((3, 4), jnp.int32)
    assert eqx.nn.Dropout()(x, key=KEY).dtype == jnp.float32
    with pytest.raises(TypeError, match="but x is int32"):
        Dropout()(x, key=KEY)


@pytest.mark.parametrize("p", [1.0, jnp.float32(1)], ids=["number", "array"])
@pytest.mark.parametrize("jitted", [False, True])
def test_rate_1_gives_zeros_and_a_zero_gradient(p: Any, jitted: bool) -> None:
    def slope(layer: eqx.nn.Dropout) -> jax.Array:
        gradient = eqx.filter_grad(lambda x, layer: layer(x, key=KEY).sum())
        return (eqx.filter_jit(gradient) if jitted else gradient)(X, layer)

    assert not Dropout(p)(X, key=KEY).any()
    assert not slope(Dropout(p)).any()
    assert np.isnan(slope(eqx.nn.Dropout(p))).all()


def test_dropped_nan_is_zero_and_so_is_its_gradient() -> None:
    x = jnp.array([NAN, INF, -INF, 1.0] * 64)
    y, pull = jax.vjp(lambda x: Dropout()(x, key=KEY), x)
    mask = dropkit.keep(x.shape, 0.5, Key(0))
    assert (np.asarray(y)[~mask] == 0).all()
    assert (np.asarray(pull(x)[0])[~mask] == 0).all()


def test_an_array_as_rate_is_data() -> None:
    seen = []

    @eqx.filter_jit
    def call(layer: Dropout, x: jax.Array) -> jax.Array:
        seen.append(1)
        return layer(x, key=jax.random.key(3))

    for p in (0.1, 0.5, 0.0, 1.0):
        np.testing.assert_array_equal(kept(call(Dropout(jnp.float32(p)), X)), dropkit.keep(X.shape, p, Key(3)))
    assert len(seen) == 1
    call(Dropout(0.1), X), call(Dropout(0.5), X)  # a Python number is a part of the program, as in Equinox
    assert len(seen) == 3


def test_rate_gets_a_zero_gradient() -> None:
    gradient = eqx.filter_grad(lambda layer: layer(X, key=KEY).sum())(Dropout(jnp.float32(0.5)))
    assert gradient.p == 0


def test_any_key() -> None:
    layer = Dropout(0.5)
    np.testing.assert_array_equal(layer(X, key=jax.random.PRNGKey(7)), layer(X, key=jax.random.key(7)))
    np.testing.assert_array_equal(layer(X, key=Key(7)), layer(X, key=jax.random.key(7)))
    np.testing.assert_array_equal(layer(X, key=dropkit.jax.key(7)), layer(X, key=Key(7)))
    with pytest.raises(TypeError, match=r"key must be a dropkit\.Key"):
        layer(X, key=7)


def test_vmap_over_split_keys_and_over_one() -> None:
    each = eqx.filter_vmap(lambda x, key: Dropout()(x, key=key))(X, jax.random.split(KEY, 16))
    assert len({row.tobytes() for row in kept(each)}) == 16
    one = eqx.filter_vmap(lambda x: Dropout()(x, key=KEY))(X)
    assert len({row.tobytes() for row in kept(one)}) == 1


def test_scan_and_checkpoint() -> None:
    layer = Dropout(0.5)
    _, y = jax.lax.scan(lambda _, key: (None, layer(X, key=key)), None, jax.random.split(KEY, 6))
    assert len({mask.tobytes() for mask in kept(y)}) == 6
    x = jax.random.normal(KEY, X.shape)

    def cube(x: jax.Array) -> jax.Array:
        return (layer(x, key=KEY) ** 3).sum()

    np.testing.assert_array_equal(jax.grad(eqx.filter_checkpoint(cube))(x), jax.grad(cube)(x))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_keeps_dtype(dtype: Any) -> None:
    assert Dropout()(X.astype(dtype), key=KEY).dtype == dtype


def test_share_and_when() -> None:
    y = Dropout(0.5, share=(0,))(X, key=Key(1))
    np.testing.assert_array_equal(kept(y), np.broadcast_to(dropkit.keep(X.shape, 0.5, Key(1), share=(0,)), X.shape))
    assert not kept(Dropout(0.5, when="always")(X, key=KEY, inference=True)).all()
    assert Dropout(0.5, when="never")(X) is X
    with pytest.raises(ValueError, match="when must be one of"):
        Dropout(0.5, when="often")


def test_alpha() -> None:
    y = AlphaDropout(0.2)(jax.random.normal(KEY, (1_000_000,)), key=KEY)
    assert abs(float(y.mean())) < 0.01
    assert abs(float(y.std()) - 1) < 0.01


# ---------------------------------------------------------------------------------------------------------------------
# bound models


def mlp() -> eqx.nn.Sequential:
    keys = jax.random.split(jax.random.key(1), 2)
    return eqx.nn.Sequential(
        [eqx.nn.Linear(32, 32, key=keys[0]), Dropout(0.5), eqx.nn.Lambda(jax.nn.relu), Dropout(0.1)]
    )


def test_bind_names_every_dropout() -> None:
    model = bind(mlp(), seed=5)
    assert list(sites(model)) == ["layers.1", "layers.3"]
    assert [(drop.site.seed, drop.site.name) for drop in sites(model).values()] == [(5, "layers.1"), (5, "layers.3")]
    assert not any(drop.site for drop in sites(mlp()).values())


def test_bound_masks_are_those_of_numpy() -> None:
    layer = bind(Dropout(0.3, share=(0,)), seed=5)
    x = jnp.ones((6, 8, 4))
    for step in (0, 7, 2**40):
        y = jax.vmap(with_step(layer, step), axis_name="batch")(x)
        expected = dropkit.keep(x.shape, 0.3, Key(5, "", step), share=(1,))
        np.testing.assert_array_equal(kept(y), np.broadcast_to(expected, x.shape))
    whole = with_step(bind(Dropout(0.3), seed=5, axis_name=None), 7)
    np.testing.assert_array_equal(kept(whole(x)), dropkit.keep(x.shape, 0.3, Key(5, "", 7)))


def test_vmap_inside_the_model() -> None:
    layer = with_step(bind(Dropout(0.5), seed=5, axis_name=("batch", "token")), 3)
    x = jnp.ones((4, 6, 8))
    expected = dropkit.keep(x.shape, 0.5, Key(5, "", 3))
    y = jax.vmap(jax.vmap(layer, axis_name="token"), axis_name="batch")(x)
    np.testing.assert_array_equal(kept(y), expected)
    np.testing.assert_array_equal(kept(jax.vmap(layer, axis_name="batch")(x)), expected)


def test_training_without_keys_and_without_retracing() -> None:
    model, seen = bind(mlp(), seed=5), []

    @eqx.filter_jit
    def train(model: Any, x: jax.Array, step: Any) -> Any:
        seen.append(1)

        @eqx.filter_value_and_grad
        def loss(model: Any) -> jax.Array:
            return (jax.vmap(with_step(model, step), axis_name="batch")(x) ** 2).mean()

        value, gradient = loss(model)
        assert jax.tree.structure(gradient) == jax.tree.structure(eqx.filter(model, eqx.is_inexact_array))
        return eqx.apply_updates(model, jax.tree.map(lambda g: -0.1 * g, gradient)), value

    first, losses = model, []
    for step in range(4):
        model, value = train(model, X, jnp.uint32(step))
        losses.append(float(value))
    assert len(seen) == 1
    assert losses[-1] < losses[0]
    assert train(first, X, jnp.uint32(0))[1] == losses[0]
    assert train(first, X, jnp.uint32(1))[1] != losses[0]


def test_bound_models_add_no_leaves() -> None:
    """What is_array finds goes into optimizers, so seed and site must not be arrays."""
    plain, bound = mlp(), bind(mlp(), seed=5)
    assert len(jax.tree.leaves(eqx.filter(plain, eqx.is_array))) == len(
        jax.tree.leaves(eqx.filter(bound, eqx.is_array))
    )


def test_explicit_keys_win() -> None:
    layer = bind(Dropout(0.5), seed=5)
    for one in (layer, with_step(layer, 3)):
        np.testing.assert_array_equal(kept(one(X, key=jax.random.key(7))), dropkit.keep(X.shape, 0.5, Key(7)))


def test_inference_needs_no_step() -> None:
    model = eqx.nn.inference_mode(bind(mlp(), seed=5))
    assert model(X[0]).shape == (32,)


def test_what_bound_models_ask_for() -> None:
    layer = bind(Dropout(0.5), seed=5)
    with pytest.raises(RuntimeError, match=r"Dropout requires a key .* is bound: set .*with_step\(model, step\)"):
        layer(X)
    with pytest.raises(RuntimeError, match=r"bound to the batch axis 'batch', which is not there: call jax\.vmap"):
        with_step(layer, 0)(X)
    with pytest.raises(ValueError, match="no dropkit dropout to bind in Linear"):
        bind(eqx.nn.Linear(2, 2, key=KEY))
    with pytest.raises(ValueError, match=r"this Sequential is not bound; dropkit\.jax\.bind"):
        with_step(mlp(), 0)
    with pytest.raises(ValueError, match=r"seed must lie in"):
        bind(mlp(), seed=-1)
    with pytest.raises(TypeError, match="axis_name must hold names of vmap axes, got"):
        bind(mlp(), axis_name=("batch", 3))
    for bad in (0.5, True, jnp.float32(1)):
        with pytest.raises(TypeError, match="step must be an integer"):
            with_step(layer, bad)
    assert with_step(with_step(layer, 3), None).step is None


def test_rebinding_gives_another_seed() -> None:
    once = bind(mlp(), seed=5)
    assert [drop.site.seed for drop in sites(bind(once, seed=6)).values()] == [6, 6]
    assert [drop.site.seed for drop in sites(once).values()] == [5, 5]


def test_a_model_of_one_layer_twice_has_two_sites() -> None:
    drop = Dropout(0.5)
    assert list(sites(bind(eqx.nn.Sequential([drop, drop]), seed=1))) == ["layers.0", "layers.1"]
