"""Keyed uniform and normal numbers on JAX are those of `dropkit.uniform` and `dropkit.normal`, however computed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropkit
from dropkit import DropkitError, Key
from dropkit.jax import key, normal, uniform

ROOT = Path(__file__).parents[2]
KEY = Key(3, "numbers", 5)
NEAR = {"rtol": 1e-5, "atol": 3e-6}  # two libraries' log, sqrt, cos and sin of the same float32

PLACES: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "one number": ((), {}),
    "a vector": ((13,), {}),
    "a matrix": ((5, 7), {}),
    "five axes": ((2, 3, 1, 2, 5), {}),
    "nothing": ((3, 0), {}),
    "a shared last axis": ((4, 6), {"share": (-1,)}),
    "a shared first axis": ((4, 6), {"share": (0,)}),
    "shared axes in the middle": ((2, 3, 4, 5), {"share": (1, 2)}),
    "all axes shared": ((2, 3), {"share": (0, 1)}),
    "a shard": ((3, 5), {"offset": (2, 1), "global_shape": (9, 11)}),
    "a shard of shared channels": ((3, 5, 4), {"share": (1,), "offset": (2, 0, 3), "global_shape": (9, 5, 11)}),
    "a shard past 2**33": ((3, 5), {"offset": (2**31 - 1, 4), "global_shape": (2**31 + 2, 10)}),
    "a shard across 2**32": ((1, 64), {"offset": (0, 2**32 - 31), "global_shape": (1, 2**33)}),
    "rows": ((4, 6), {"rows": np.array([7, 0, 7, 2**40])}),
    "rows of a shard": ((3, 5), {"rows": np.array([5, 1, 3]), "offset": (0, 2), "global_shape": (9, 9)}),
    "rows with a shared axis": ((3, 5, 2), {"rows": np.array([5, 1, 3]), "share": (2,)}),
    "rows of one draw": ((3, 5), {"rows": np.array([5, 1, 3]), "share": (0,)}),
}
places = pytest.mark.parametrize(("shape", "where"), PLACES.values(), ids=PLACES)


@places
def test_uniform_numbers_are_those_of_numpy(shape: tuple[int, ...], where: dict[str, Any]) -> None:
    found = uniform(shape, KEY, **where)
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, dropkit.uniform(shape, KEY, **where), strict=True)


@places
def test_normal_numbers_are_those_of_numpy_to_rounding(shape: tuple[int, ...], where: dict[str, Any]) -> None:
    found = normal(shape, KEY, **where)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, dropkit.normal(shape, KEY, **where), **NEAR)


def test_many_numbers() -> None:
    shape = (257, 1031)
    np.testing.assert_array_equal(uniform(shape, KEY), dropkit.uniform(shape, KEY))
    found = np.asarray(normal(shape, KEY))
    np.testing.assert_allclose(found, dropkit.normal(shape, KEY), **NEAR)
    error = 1 / np.sqrt(found.size)
    assert abs(found.mean(dtype=np.float64)) < 5 * error
    assert abs((found.astype(np.float64) ** 2).mean() - 1) < 5 * np.sqrt(2) * error


def test_numbers_do_not_depend_on_x64() -> None:
    shape, where = PLACES["a shard past 2**33"]
    with jax.enable_x64(True):
        numbers = uniform(shape, KEY, **where), normal(shape, KEY, **where)
    assert [each.dtype for each in numbers] == [jnp.float32] * 2
    np.testing.assert_array_equal(numbers[0], dropkit.uniform(shape, KEY, **where))
    np.testing.assert_array_equal(numbers[1], normal(shape, KEY, **where))


@pytest.mark.parametrize("strict", [False, True])
def test_a_traced_step_offset_and_rows_compile_once(strict: bool) -> None:
    def call(step: Any, offset: Any, rows: Any) -> Any:
        own = key(3, "numbers", step)
        shard = uniform((3, 5), own, offset=(offset, 1), global_shape=(9, 11))
        return shard, uniform((3, 5), own, rows=rows), normal((3, 5), own, offset=(0, offset), global_shape=(3, 11))

    with jax.numpy_dtype_promotion("strict" if strict else "standard"):
        compiled = jax.jit(call)
        for step, offset, rows in ((5, 2, [4, 0, 4]), (6, 6, [1, 2, 3])):
            shard, by_rows, z = compiled(jnp.int32(step), jnp.int32(offset), jnp.array(rows))
            own = Key(3, "numbers", step)
            wanted = dropkit.uniform((3, 5), own, offset=(offset, 1), global_shape=(9, 11))
            np.testing.assert_array_equal(shard, wanted)
            np.testing.assert_array_equal(by_rows, dropkit.uniform((3, 5), own, rows=rows))
            wanted = dropkit.normal((3, 5), own, offset=(0, offset), global_shape=(3, 11))
            np.testing.assert_allclose(z, wanted, **NEAR)
    assert compiled._cache_size() == 1


@pytest.mark.parametrize("large", [2**32 - 1, 2**32 + 3, 2**40])
def test_traced_offsets_past_2_to_the_32(large: int) -> None:
    """Which only 64-bit integers can hold."""
    where = {"offset": (large,), "global_shape": (2**41,)}
    with jax.enable_x64(True):
        call = jax.jit(lambda offset: uniform((9,), KEY, offset=(offset,), global_shape=(2**41,)))
        dropped = jax.jit(
            lambda offset: dropkit.jax.dropout(
                jnp.ones(99), 0.5, training=True, key=KEY, offset=(offset,), global_shape=(2**41,)
            )
        )
        np.testing.assert_array_equal(call(jnp.int64(large)), dropkit.uniform((9,), KEY, **where))
        np.testing.assert_array_equal(dropped(jnp.int64(large)) != 0, dropkit.keep((99,), 0.5, KEY, **where))


def test_vmap_over_keys_offsets_and_rows() -> None:
    steps = jnp.arange(4)
    by_key = jax.vmap(lambda step: uniform((3, 5), key(3, "numbers", step)))(steps)
    by_offset = jax.vmap(lambda i: uniform((3, 5), KEY, offset=(3 * i, 0), global_shape=(12, 5)))(steps)
    by_row = jax.vmap(lambda i: normal((1, 5), KEY, rows=i[None]))(steps)
    both = jax.vmap(
        jax.vmap(lambda s, i: uniform((5,), key(3, "numbers", s), offset=(i,), global_shape=(9,)), (None, 0)), (0, None)
    )
    for i in range(4):
        np.testing.assert_array_equal(by_key[i], dropkit.uniform((3, 5), Key(3, "numbers", i)))
    np.testing.assert_array_equal(by_offset.reshape(12, 5), dropkit.uniform((12, 5), KEY))
    np.testing.assert_allclose(by_row[:, 0], dropkit.normal((4, 5), KEY), **NEAR)
    found = both(steps, steps)
    for step in range(4):
        whole = dropkit.uniform((9,), Key(3, "numbers", step))
        np.testing.assert_array_equal(found[step], [whole[i : i + 5] for i in range(4)])


def test_loops_checkpoints_and_shapes_alone() -> None:
    def body(carry: Any, step: Any) -> tuple[Any, Any]:
        return carry, uniform((5,), key(3, "numbers", step))

    _, scanned = jax.lax.scan(body, 0, jnp.arange(3))
    np.testing.assert_array_equal(scanned, [dropkit.uniform((5,), Key(3, "numbers", i)) for i in range(3)])
    slope = jax.grad(jax.checkpoint(lambda x: (x * normal((5,), KEY)).sum()))(jnp.ones(5))
    np.testing.assert_array_equal(slope, normal((5,), KEY))
    shape = jax.eval_shape(lambda: normal((2, 3), KEY, share=(0,)))
    assert (shape.shape, shape.dtype) == ((2, 3), jnp.float32)


def test_any_key() -> None:
    wanted = dropkit.uniform((6,), Key(seed=7))
    for each in (Key(7), key(7), jax.random.key(7), jax.random.PRNGKey(7)):
        np.testing.assert_array_equal(uniform((6,), each), wanted)


@pytest.mark.parametrize("numbers", [uniform, normal])
@pytest.mark.parametrize(
    ("arguments", "where", "builtin", "message"),
    [
        ((KEY, (2, 3)), {}, TypeError, r"shape must be a sequence of sizes such as \(2, 3\), got Key\(seed=3"),
        ((5, KEY), {}, TypeError, r"shape must be a sequence of sizes such as \(2, 3\), got 5"),
        (((2, 2.5), KEY), {}, TypeError, r"shape must be a sequence of sizes such as \(2, 3\), got \(2, 2\.5\)"),
        (((2, -1), KEY), {}, ValueError, r"shape must hold no negative sizes, got \(2, -1\)"),
        (((2,), None), {}, ValueError, r"pass key=dropkit\.Key"),
        (((2,), 5), {}, TypeError, r"key must be a dropkit\.Key .*; got 5"),
        (((2,), KEY), {"share": (1,)}, ValueError, r"share axis 1 does not exist in a tensor of shape \(2,\)"),
        (((2,), KEY), {"offset": (1,)}, ValueError, r"offset \(1,\) needs global_shape"),
        (((2,), KEY), {"offset": (1,), "global_shape": (2,)}, ValueError, r"outside global_shape \(2,\)"),
        (((2,), KEY), {"rows": [1.5, 2]}, TypeError, r"rows must hold integers, got dtype float64"),
        (((2,), KEY), {"rows": [1]}, ValueError, r"rows must hold one row number for each entry of axis 0"),
        (((2,), KEY), {"rows": [-1, 1]}, ValueError, r"rows must lie in"),
    ],
)
def test_bad_arguments(numbers: Any, arguments: tuple, where: dict, builtin: type[Exception], message: str) -> None:
    with pytest.raises(DropkitError, match=message) as caught:
        numbers(*arguments, **where)
    assert isinstance(caught.value, builtin)


def test_steps_that_are_counted_by_programs_are_told_where_they_are_drawn() -> None:
    with pytest.warns(UserWarning, match="make the step an argument") as told:
        for step in range(4):
            jax.jit(lambda step=step: uniform((2,), Key(3, "counted numbers", step)))()
    assert [each.filename for each in told] == [__file__]


@pytest.fixture(scope="module")
def meshes() -> list[dict[str, Any]]:
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    command = [sys.executable, "-m", "tests.jax_frontend.sharded_numbers"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-4000:]
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_numbers_do_not_depend_on_the_mesh(meshes: list[dict[str, Any]]) -> None:
    assert len(meshes) == 3 * 6
    assert [one for one in meshes if not one["same"]] == []


@pytest.mark.slow
def test_each_device_computes_its_own_numbers(meshes: list[dict[str, Any]]) -> None:
    assert [one for one in meshes if one["collectives"] or not one["cut"]] == []
