"""dropkit's layers for flax.nnx under every transformation of nnx, and the streams they draw from."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import dropkit
from dropkit import Key
from dropkit.jax.binding import bind
from dropkit.jax.nnx import Dropout, KeyedStream

from .test_nnx import DROP, X, kept, traces


class Block(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.linear = nnx.Linear(32, 32, rngs=rngs)
        self.drop = Dropout(0.5, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.drop(self.linear(x))


def test_jit_equals_eager() -> None:
    eager, jitted = Dropout(0.3, rngs=nnx.Rngs(0)), Dropout(0.3, rngs=nnx.Rngs(0))
    call, seen = traces(lambda layer, x: layer(x))
    first = None
    for _ in range(3):
        y = call(jitted, X)
        np.testing.assert_array_equal(eager(X), y)
        assert first is None or (kept(first) != kept(y)).any()
        first = y
    assert len(seen) == 1
    assert jitted.rngs.count[...] == 3


def test_split_and_merge() -> None:
    layer = Dropout(0.3, rngs=nnx.Rngs(0))
    twin = nnx.clone(layer)
    graph, state = nnx.split(layer)

    @jax.jit
    def call(state: Any, x: jax.Array) -> Any:
        layer = nnx.merge(graph, state)
        y = layer(x)
        return y, nnx.state(layer)

    for _ in range(2):
        y, state = call(state, X)
        np.testing.assert_array_equal(y, twin(X))


def test_vmap_over_split_keys_and_over_one() -> None:
    layer = Dropout(0.5)
    each = jax.vmap(lambda x, key: layer(x, rngs=key))(X, jax.random.split(jax.random.key(0), 16))
    assert len({row.tobytes() for row in kept(each)}) == 16
    one = jax.vmap(lambda x: layer(x, rngs=jax.random.key(0)))(X)
    assert len({row.tobytes() for row in kept(one)}) == 1


@pytest.mark.parametrize("rngs", [nnx.Rngs(0), DROP], ids=["ambient", "keyed"])
def test_nnx_vmap_with_split_rngs(rngs: Any) -> None:
    layer = Dropout(0.5, rngs=rngs)
    axes = nnx.StateAxes({nnx.RngState: 0, ...: None})

    @nnx.split_rngs(splits=16)
    @nnx.vmap(in_axes=(axes, 0))
    def call(layer: Dropout, x: jax.Array) -> jax.Array:
        return layer(x)

    masks = [kept(call(layer, X)) for _ in range(2)]
    assert len({row.tobytes() for mask in masks for row in mask}) == 32
    assert layer.rngs.count[...] == 2
    assert isinstance(layer.rngs, KeyedStream) is isinstance(rngs, Key)


@pytest.mark.parametrize("keyed", [False, True])
def test_scan_over_a_stack_of_layers(keyed: bool) -> None:
    @nnx.split_rngs(splits=4)
    @nnx.vmap
    def make(rngs: nnx.Rngs) -> Block:
        return Block(rngs)

    blocks = make(nnx.Rngs(0))
    if keyed:
        bind(blocks, seed=3)

    @nnx.scan(in_axes=(0, nnx.Carry), out_axes=(nnx.Carry, 0))
    def through(block: Block, x: jax.Array) -> Any:
        return x, block.drop(x)

    for step in range(2):
        _, y = nnx.jit(through)(blocks, X)
        assert len({mask.tobytes() for mask in kept(y)}) == 4
        for i, mask in enumerate(kept(y) if keyed else []):
            np.testing.assert_array_equal(mask, dropkit.keep(X.shape, 0.5, Key(3, f"drop.{i}", step)))
        blocks.drop.rate = 0.5  # to all of the stack
    blocks.drop.rate = 0.0
    np.testing.assert_array_equal(nnx.jit(through)(blocks, X)[1], np.broadcast_to(X, (4, *X.shape)))
    blocks.drop.rate = np.array([0, 1, 0, 1])  # to each its own
    y = nnx.jit(through)(blocks, X)[1]
    np.testing.assert_array_equal(y.any((1, 2)), [True, False, True, False])
    with pytest.raises(ValueError, match=r"rate of shape \(3,\) does not fit a stack of layers of shape \(4,\)"):
        blocks.drop.rate = np.ones(3)


@pytest.mark.parametrize("rngs", [nnx.Rngs(0), DROP], ids=["ambient", "keyed"])
def test_scan_with_a_carried_stream_differs_by_step(rngs: Any) -> None:
    layer = Dropout(0.5, rngs=rngs)

    @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=(nnx.Carry, 0))
    def over_time(layer: Dropout, x: jax.Array) -> Any:
        return layer, layer(x)

    _, y = over_time(layer, jnp.ones((6, 32)))
    assert len({row.tobytes() for row in kept(y)}) == 6
    assert layer.rngs.count[...] == 6


def test_scan_with_a_broadcast_stream_repeats() -> None:
    layer = Dropout(0.5)

    @nnx.scan(in_axes=(nnx.Carry, 0, 0), out_axes=(nnx.Carry, 0))
    def over_time(layer: Dropout, stream: nnx.RngStream, x: jax.Array) -> Any:
        return layer, layer(x, rngs=stream)

    for stream in (nnx.Rngs(dropout=0).dropout, KeyedStream(DROP)):
        _, y = over_time(layer, stream.broadcast(6), jnp.ones((6, 32)))
        assert len({row.tobytes() for row in kept(y)}) == 1


@pytest.mark.parametrize("rngs", [nnx.Rngs(0), DROP], ids=["ambient", "keyed"])
def test_remat_recomputes_the_same_mask(rngs: Any) -> None:
    plain, again = Dropout(0.5, rngs=rngs), Dropout(0.5, rngs=rngs)
    if not isinstance(rngs, Key):
        again.rngs = nnx.clone(plain.rngs)

    def cube(layer: Dropout, x: jax.Array) -> jax.Array:
        return (layer(x) ** 3).sum()

    def rematted(layer: Dropout, x: jax.Array) -> jax.Array:
        return nnx.remat(cube)(layer, x)

    x = jax.random.normal(jax.random.key(0), (16, 32))
    for _ in range(2):
        expected = nnx.grad(cube, argnums=1)(plain, x)
        np.testing.assert_array_equal(nnx.jit(nnx.grad(rematted, argnums=1))(again, x), expected)
    assert again.rngs.count[...] == 2


def test_jax_checkpoint_recomputes_the_same_mask() -> None:
    layer = Dropout(0.5)

    def cube(x: jax.Array) -> jax.Array:
        return (layer(x, rngs=jax.random.key(3)) ** 3).sum()

    x = jax.random.normal(jax.random.key(0), (16, 32))
    np.testing.assert_array_equal(jax.grad(jax.checkpoint(cube))(x), jax.grad(cube)(x))


def test_eval_shape_draws_nothing() -> None:
    layer = Dropout(0.5, rngs=DROP)
    out = nnx.eval_shape(lambda layer, x: layer(x), layer, X)
    assert (out.shape, out.dtype) == (X.shape, X.dtype)
    assert layer.rngs.count[...] == 0


def test_sharding_is_kept() -> None:
    mesh = jax.make_mesh((len(jax.devices()),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    y = nnx.jit(lambda layer, x: layer(x))(Dropout(0.5, rngs=DROP), jax.device_put(X, sharding))
    assert y.sharding.is_equivalent_to(sharding, 2)
    np.testing.assert_array_equal(kept(y), dropkit.keep(X.shape, 0.5, DROP))


def test_no_random_bits_of_jax_are_drawn() -> None:
    def program(layer: nnx.Dropout) -> str:
        graph, state = nnx.split(layer)
        return str(jax.make_jaxpr(lambda state, x: nnx.merge(graph, state)(x))(state, X))

    assert "random_bits" in program(nnx.Dropout(0.5, rngs=nnx.Rngs(0)))
    assert "random_bits" not in program(Dropout(0.5, rngs=nnx.Rngs(0)))
    assert "random_fold_in" not in program(Dropout(0.5, rngs=DROP))


# ---------------------------------------------------------------------------------------------------------------------
# the stream


def test_streams_count_below_two_to_the_32() -> None:
    stream = KeyedStream(Key(2**64 - 1, 2**63 + 5, 2**32 - 1))
    np.testing.assert_array_equal(stream.draw().words, Key(2**64 - 1, 2**63 + 5, 2**32 - 1).words)
    with pytest.raises(ValueError, match=r"step must lie in \[0, 2\*\*32\), since flax.nnx counts in 32 bits"):
        KeyedStream(Key(step=2**32))


def test_a_stack_of_streams_does_not_draw() -> None:
    with pytest.raises(ValueError, match="a stack of 4 streams, one for each layer of a stack"):
        KeyedStream(jax.random.split(jax.random.key(0), 4)).draw()


def test_reseed() -> None:
    layer = Dropout(0.5, rngs=DROP)
    nnx.reseed(layer, dropout=5)
    a = layer(X)
    nnx.reseed(layer, dropout=5)
    np.testing.assert_array_equal(layer(X), a)
    nnx.reseed(layer, dropout=6)
    assert (layer(X) != a).any()
