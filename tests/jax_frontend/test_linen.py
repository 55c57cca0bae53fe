"""dropkit's layers for flax.linen against Linen's own, ambient and keyed."""

from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import dropkit
from dropkit import Key
from dropkit.jax.linen import AlphaDropout, Dropout, DropPath, Zoneout, stream

X = jnp.ones((16, 32))
RNGS = {"dropout": jax.random.key(1)}


def kept(y: Any) -> np.ndarray:
    return np.asarray(y) != 0


class Block(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return Dropout(0.5, deterministic=False, name="drop")(x)


class Net(nn.Module):
    lift: Any = staticmethod(lambda module: module)

    @nn.compact
    def __call__(self, x: jax.Array) -> Any:
        return self.lift(Block)(name="first")(x), self.lift(Block)(name="second")(x)


def test_ambient_masks_come_from_the_collection() -> None:
    y = Dropout(0.5, deterministic=False).apply({}, X, rngs=RNGS)
    assert 0.4 < kept(y).mean() < 0.6
    assert set(np.unique(y)) == {0.0, 2.0}
    first, second = Net().apply({}, X, rngs=RNGS)
    assert (kept(first) != kept(second)).any()
    again, _ = Net().apply({}, X, rngs=RNGS)
    np.testing.assert_array_equal(first, again)
    other = Dropout(0.5, deterministic=False, rng_collection="noise").apply({}, X, rngs={"noise": jax.random.key(1)})
    assert (kept(other) != kept(y)).any() or (other == y).all()


def test_a_missing_rng_is_linens_error() -> None:
    for make in (nn.Dropout, Dropout):
        with pytest.raises(flax.errors.InvalidRngError):
            make(0.5, deterministic=False).apply({}, X)
        with pytest.raises(ValueError, match="deterministic"):
            make(0.5).apply({}, X, rngs=RNGS)
        with pytest.raises(ValueError, match="deterministic"):
            make(0.5, deterministic=True).apply({}, X, deterministic=False, rngs=RNGS)


def test_an_explicit_rng_wins() -> None:
    layer = Dropout(0.5, deterministic=False)
    for rng in (jax.random.key(7), jax.random.PRNGKey(7), Key(7), dropkit.jax.key(7)):
        np.testing.assert_array_equal(kept(layer.apply({}, X, rng=rng)), dropkit.keep(X.shape, 0.5, Key(7)))
    with pytest.raises(TypeError, match=r"key must be a dropkit\.Key"):
        layer.apply({}, X, rng=7)


@pytest.mark.parametrize("lift", [lambda module: module, nn.remat], ids=["plain", "remat"])
def test_keyed_masks_are_those_of_numpy(lift: Any) -> None:
    seen = []

    @jax.jit
    def run(step: jax.Array) -> Any:
        seen.append(1)
        return Net(lift).apply({}, X, rngs={"dropkit": stream(2**40 + 3, step)})

    for step in range(3):
        for y, site in zip(run(jnp.asarray(step)), ("first.drop", "second.drop"), strict=True):
            np.testing.assert_array_equal(kept(y), dropkit.keep(X.shape, 0.5, Key(2**40 + 3, site, step)))
    assert len(seen) == 1


def test_layers_under_linens_jit_differ() -> None:
    masks = [Net(nn.jit).apply({}, X, rngs={"dropkit": stream(3, step)}) for step in (0, 1, 0)]
    assert len({mask.tobytes() for forward in masks[:2] for mask in forward}) == 4
    np.testing.assert_array_equal(masks[0], masks[2])


def test_layers_of_a_lifted_stack_differ() -> None:
    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, _: Any) -> Any:
            return x, Dropout(0.5, deterministic=False)(x)

    scanned = nn.scan(Layer, variable_axes={"params": 0}, split_rngs={"dropkit": True}, length=4)()
    _, masks = scanned.apply({}, X, None, rngs={"dropkit": stream(3, 0)})
    assert len({mask.tobytes() for mask in kept(masks)}) == 4


def test_tables_show_what_they_show_of_linens() -> None:
    def table(kind: Any) -> str:
        model = nn.Sequential([nn.Dense(32), kind(0.5, deterministic=False)])
        return nn.tabulate(model, {"params": jax.random.key(0), **RNGS})(X)

    assert table(Dropout) == table(nn.Dropout)


def test_a_python_int_in_a_trace_is_told_of() -> None:
    with pytest.warns(UserWarning, match=r"the Python int 5 as step while a function is traced.*jnp\.asarray\(step\)"):
        jax.jit(lambda x: Net().apply({}, x, rngs={"dropkit": stream(0, 5)}))(X)


def test_another_key_in_the_collection_is_refused() -> None:
    with pytest.raises(TypeError, match=r"rngs\['dropkit'\] must be what dropkit\.jax\.linen\.stream\(seed, step\)"):
        Net().apply({}, X, rngs={"dropkit": jax.random.key(0)})


def test_rates() -> None:
    assert Dropout(0.0, deterministic=False).apply({}, X) is X
    assert Dropout(0.5, deterministic=True).apply({}, X) is X
    zeros = Dropout(1.0, deterministic=False)
    assert not zeros.apply({}, X).any()
    assert not jax.grad(lambda x: zeros.apply({}, x).sum())(X).any()
    for bad in (1.5, -0.5, float("nan"), np.array([0.5, 2])):
        with pytest.raises(ValueError, match="dropout probability has to be between 0 and 1, but got"):
            Dropout(bad)
    with pytest.raises(TypeError, match="dropout probability must be a number"):
        Dropout("0.5")  # type: ignore[arg-type]
    made = jax.jit(lambda rate: Dropout(rate, deterministic=False).apply({}, X, rng=Key(1)))
    np.testing.assert_array_equal(kept(made(0.25)), dropkit.keep(X.shape, 0.25, Key(1)))


def test_axes_noise_and_when() -> None:
    for arguments in ({"broadcast_dims": (0,)}, {"share": (0,)}):
        y = Dropout(0.5, deterministic=False, **arguments).apply({}, X, rng=Key(1))
        np.testing.assert_array_equal(kept(y), np.broadcast_to(dropkit.keep(X.shape, 0.5, Key(1), share=(0,)), X.shape))
    assert not kept(Dropout(0.5, when="always").apply({}, X, rngs=RNGS)).all()
    assert Dropout(0.5, when="never").apply({}, X) is X
    with pytest.raises(ValueError, match="when must be one of"):
        Dropout(0.5, when="often")
    y = AlphaDropout(0.2, deterministic=False).apply({}, jax.random.normal(jax.random.key(0), (100_000,)), rngs=RNGS)
    assert abs(float(y.mean())) < 0.03
    assert abs(float(y.std()) - 1) < 0.03
    assert isinstance(AlphaDropout(0.2), nn.Dropout)


def test_published_presets_are_keyed_as_a_dropout_is() -> None:
    x = jax.random.normal(jax.random.key(0), (8, 3, 4))
    rngs = {"dropkit": stream(1, step=2)}
    y = DropPath(0.5, deterministic=False).apply({}, x, rngs=rngs)
    mask = dropkit.keep(x.shape, 0.5, Key(1, "", 2), share=(1, 2))
    np.testing.assert_array_equal(y, np.where(mask, 2 * x, 0))
    z = Zoneout(0.25, deterministic=False).apply({}, x, other=3 * x, rngs=rngs)
    np.testing.assert_array_equal(z, np.where(dropkit.keep(x.shape, 0.25, Key(1, "", 2)), x, 3 * x))
    assert DropPath(0.5, deterministic=True).apply({}, x) is x
