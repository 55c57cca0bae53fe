"""JAX's transformations do not change a mask, and nothing but the key is kept for backward."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropkit import DropkitError, Key, keep
from dropkit.jax import dropout, key

KEY = Key(5, "transforms", 2)
drop = partial(dropout, training=True, key=KEY)
X = jax.random.normal(jax.random.key(0), (6, 50))


def mask(y: Any) -> np.ndarray:
    return np.asarray(y) != 0


def test_jit_equals_eager_and_compiles_once() -> None:
    call = jax.jit(lambda x, p, step: dropout(x, p, training=True, key=key(5, "transforms", step)))
    for step, p in enumerate((0.5, 0.1, 0.0, 1.0, 0.7)):
        np.testing.assert_array_equal(call(X, p, step), dropout(X, p, training=True, key=Key(5, "transforms", step)))
    assert call._cache_size() == 1


def test_gradients_take_the_forward_mask() -> None:
    scale = np.float32(65536 / 45875)
    kept = keep(X.shape, 0.3, KEY)
    wanted = np.where(kept, scale, 0)
    ones = jnp.ones_like(X)
    np.testing.assert_array_equal(jax.grad(lambda x: drop(x, 0.3).sum())(X), wanted)
    np.testing.assert_array_equal(jax.jvp(lambda x: drop(x, 0.3), (X,), (ones,))[1], wanted)
    np.testing.assert_array_equal(jax.linearize(lambda x: drop(x, 0.3), X)[1](ones), wanted)
    np.testing.assert_array_equal(jax.linear_transpose(lambda x: drop(x, 0.3), X)(ones)[0], wanted)

    def energy(x: jax.Array) -> jax.Array:
        return (drop(x, 0.3) ** 3).sum()

    second = jax.jvp(jax.grad(energy), (X,), (ones,))[1]
    y = drop(X, 0.3)
    np.testing.assert_allclose(second, 6 * y * wanted**2, rtol=1e-6)
    np.testing.assert_allclose(jax.grad(lambda x: (jax.grad(energy)(x)).sum())(X), second, rtol=1e-6)


def test_only_the_key_is_kept_for_backward() -> None:
    _, back = jax.vjp(jax.jit(lambda x: drop(x, 0.3)), X)
    kept = [leaf for leaf in jax.tree.leaves(back) if hasattr(leaf, "size")]
    assert kept
    assert sum(leaf.size for leaf in kept) <= 8
    _, back = jax.vjp(lambda x: jnp.sin(x) * jnp.where(x > 0, x, 0), X)  # the count can fail
    assert sum(leaf.size for leaf in jax.tree.leaves(back) if hasattr(leaf, "size")) >= X.size


def test_vmap_over_one_key_and_over_several() -> None:
    one = jax.vmap(lambda x: drop(x, 0.5))(X)
    np.testing.assert_array_equal(mask(one), np.broadcast_to(keep((50,), 0.5, KEY), (6, 50)))
    steps = jax.vmap(lambda x, step: dropout(x, 0.5, training=True, key=key(5, "transforms", step)))
    wanted = np.stack([keep((50,), 0.5, Key(5, "transforms", step)) for step in range(6)])
    np.testing.assert_array_equal(mask(steps(X, jnp.arange(6))), wanted)
    columns = jax.vmap(lambda x: drop(x, 0.5), in_axes=1, out_axes=1)(X)
    np.testing.assert_array_equal(mask(columns), np.broadcast_to(keep((6,), 0.5, KEY)[:, None], (6, 50)))
    same = jax.vmap(lambda step: dropout(X, 0.5, training=True, key=key(5, "transforms", step)))(jnp.arange(3))
    np.testing.assert_array_equal(mask(same), np.stack([keep((6, 50), 0.5, Key(5, "transforms", s)) for s in range(3)]))


def test_vmap_over_rates_offsets_and_rows() -> None:
    rates = np.linspace(0, 1, 6, dtype=np.float32)
    each = jax.vmap(lambda x, p: drop(x, p))(jnp.ones((6, 50)), rates)
    np.testing.assert_array_equal(mask(each), np.stack([keep((50,), p, KEY) for p in rates]))
    by_element = jax.vmap(lambda p: drop(jnp.ones((2, 50)), p))(np.stack([np.linspace(0, 1, 50), np.ones(50) / 2]))
    np.testing.assert_array_equal(mask(by_element[1]), keep((2, 50), 0.5, KEY))
    whole = keep((300,), 0.5, KEY)
    starts = jnp.array([0, 31, 64, 250])
    pieces = jax.vmap(lambda start: drop(jnp.ones(50), 0.5, offset=(start,), global_shape=(300,)))(starts)
    np.testing.assert_array_equal(mask(pieces), np.stack([whole[start : start + 50] for start in starts.tolist()]))
    numbers = np.array([[3, 1], [9, 9], [0, 7]])
    rows = jax.vmap(lambda rows: drop(jnp.ones((2, 50)), 0.5, rows=rows))(numbers)
    np.testing.assert_array_equal(mask(rows), keep((10, 50), 0.5, KEY)[numbers])


def test_nested_vmap_of_a_compiled_gradient() -> None:
    def slope(x: jax.Array, step: jax.Array, p: jax.Array) -> jax.Array:
        return jax.grad(lambda x: dropout(x, p, training=True, key=key(5, "nested", step)).sum())(x)

    inner = jax.vmap(jax.jit(slope), in_axes=(0, 0, None))
    x = jnp.ones((3, 4, 33))
    y = jax.jit(jax.vmap(inner, in_axes=(0, None, 0)))(x, jnp.arange(4), jnp.array([0.5, 0.25, 0.1]))
    for i, p in enumerate((0.5, 0.25, 0.1)):
        for step in range(4):
            np.testing.assert_array_equal(mask(y[i, step]), keep((33,), p, Key(5, "nested", step)))


def test_scan_with_a_moving_key_and_with_a_standing_one() -> None:
    def moving(step: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return step + 1, dropout(x, 0.5, training=True, key=key(5, "scan", step))

    _, y = jax.lax.scan(moving, jnp.int32(0), jnp.ones((4, 50)))
    np.testing.assert_array_equal(mask(y), np.stack([keep((50,), 0.5, Key(5, "scan", s)) for s in range(4)]))
    _, y = jax.lax.scan(lambda carry, x: (carry, drop(x, 0.5)), 0, jnp.ones((4, 50)))
    np.testing.assert_array_equal(mask(y), np.broadcast_to(keep((50,), 0.5, KEY), (4, 50)))


def test_checkpoint_recomputes_the_same_mask() -> None:
    def layer(x: jax.Array) -> jax.Array:
        return jnp.tanh(drop(jnp.sin(x), 0.3)).sum()

    np.testing.assert_array_equal(jax.grad(jax.checkpoint(layer))(X), jax.grad(layer)(X))
    np.testing.assert_array_equal(jax.jit(jax.grad(jax.checkpoint(layer)))(X), jax.jit(jax.grad(layer))(X))


def test_shapes_alone() -> None:
    out = jax.eval_shape(lambda x, p: drop(x, p, share=(1,)), jax.ShapeDtypeStruct((4, 5), jnp.bfloat16), 0.5)
    assert (out.shape, out.dtype) == ((4, 5), jnp.bfloat16)


def test_traced_rows_and_offsets() -> None:
    numbers = np.array([5, 0, 2**20])
    wanted = keep((3, 50), 0.3, KEY, rows=numbers)
    for dtype in (jnp.int32, jnp.uint32):
        call = jax.jit(lambda rows: drop(jnp.ones((3, 50)), 0.3, rows=rows))
        np.testing.assert_array_equal(mask(call(jnp.asarray(numbers, dtype))), wanted)
    with jax.enable_x64(True):
        far = np.array([5, 2**40, 2**33 + 1])
        y = jax.jit(lambda rows: drop(jnp.ones((3, 50), jnp.float32), 0.3, rows=rows))(far)
        np.testing.assert_array_equal(mask(y), keep((3, 50), 0.3, KEY, rows=far))
    call = jax.jit(lambda i, j: drop(jnp.ones((2, 50)), 0.3, offset=(i, j), global_shape=(9, 1000)))
    whole = keep((9, 1000), 0.3, KEY)
    for i, j in ((0, 0), (3, 64), (7, 949)):
        np.testing.assert_array_equal(mask(call(i, j)), whole[i : i + 2, j : j + 50])
    assert call._cache_size() == 1
    one = jax.jit(lambda i: drop(jnp.ones((1, 50)), 0.3, offset=(i, 0), global_shape=(9, 50)))  # an axis of size 1
    np.testing.assert_array_equal(mask(one(4)), keep((9, 50), 0.3, KEY)[4:5])


def test_refusals_of_traced_values() -> None:
    x = jnp.ones((3, 5))
    with pytest.raises(DropkitError, match="rows must hold integers, got dtype float32"):
        jax.jit(lambda rows: drop(x, 0.5, rows=rows))(jnp.ones(3))
    with pytest.raises(DropkitError, match="rows must hold one row number"):
        jax.jit(lambda rows: drop(x, 0.5, rows=rows))(jnp.arange(4))
    with pytest.raises(DropkitError, match=r"offset\[0\] must be an integer, got float32"):
        jax.jit(lambda i: drop(x, 0.5, offset=(i, 0), global_shape=(9, 5)))(1.0)
    with pytest.raises(DropkitError, match="must be a real number, but got an array of complex64"):
        jax.jit(lambda p: drop(x, p))(0.5j)
    with pytest.raises(DropkitError, match=r"training must be True or False, got .*Tracer"):
        jax.jit(lambda training: dropout(x, 0.5, training=training, key=KEY))(True)
