"""Dropout on eight virtual devices, printed as JSON: for each case whether the mask is the whole one's, and what the
compiled module holds. Run by `test_sharding.py` in a process of its own, since a process has one number of devices."""

import json
import re
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from dropkit import Key, keep
from dropkit.jax import attention, dropout, key

KEY = Key(3, "sharded", 5)
SHAPE = (16, 64)
MESHES = ((1, 1), (8, 1), (4, 2), (1, 8))
SPEC = PartitionSpec("a", "b")
COLLECTIVE = re.compile(
    r"(?:all-gather|all-reduce|collective-permute|all-to-all|reduce-scatter|collective-broadcast)[\w-]*\("
)
Case = dict[str, Any]

drop = partial(dropout, training=True, key=KEY)


def case(
    name: str, mesh: Mesh, function: Callable[..., Any], wanted: np.ndarray, x: Any, rate: Any, *more: Any
) -> Case:
    """One compiled call, and another with half the rate."""
    compiled = jax.jit(lambda *args: function(*args))  # JAX counts compilations by function
    y = compiled(x, rate, *more)
    compiled(x, rate / 2, *more)
    text = compiled.lower(x, rate, *more).compile().as_text()
    return {
        "name": name,
        "mesh": list(mesh.shape.values()),
        "same": bool(((np.asarray(y) != 0) == wanted).all()),
        "collectives": len(COLLECTIVE.findall(text)),
        "kernel": "dropkit_dropout" in text,
        "devices": len(y.sharding.device_set),
        "kept_sharding": y.sharding.is_equivalent_to(x.sharding, y.ndim),
        "compilations": compiled._cache_size(),
    }


def ones(mesh: Mesh, *shape: int) -> jax.Array:
    return jax.device_put(np.ones(shape, np.float32), NamedSharding(mesh, SPEC))


def by_hand(mesh: Mesh) -> Callable[..., Any]:
    """Dropout under shard_map, each device saying where its slice starts."""

    def local(x: Any, rate: Any) -> Any:
        start = [jax.lax.axis_index(name) * size for name, size in zip("ab", x.shape, strict=True)]
        return drop(x, rate, offset=start, global_shape=SHAPE)

    return jax.shard_map(local, mesh=mesh, in_specs=(SPEC, PartitionSpec()), out_specs=SPEC)


def slope(function: Callable[..., Any]) -> Callable[..., Any]:
    return jax.grad(lambda x, p: (function(x, p) ** 2).sum())


def usual(kind: str, mesh: Mesh) -> list[Case]:
    x, odd = ones(mesh, *SHAPE), (16, 8 * 5)
    whole = keep(SHAPE, 0.3, KEY)
    shared = np.broadcast_to(keep(SHAPE, 0.3, KEY, share=(1,)), SHAPE)
    return [
        case(f"{kind}", mesh, drop, whole, x, 0.3),
        case(f"{kind} odd", mesh, drop, keep(odd, 0.3, KEY), ones(mesh, *odd), 0.3),
        case(f"{kind} grad", mesh, slope(drop), whole, x, 0.3),
        case(f"{kind} shared", mesh, partial(drop, share=(1,)), shared, x, 0.3),
        case(f"{kind} shard_map", mesh, by_hand(mesh), whole, x, 0.3),
    ]


def unusual(mesh: Mesh) -> list[Case]:
    x, whole = ones(mesh, *SHAPE), keep(SHAPE, 0.3, KEY)
    rates = np.linspace(0, 1, 64, dtype=np.float32)
    rows = np.arange(16)[::-1] * 3
    by_step = np.stack([keep((64,), 0.3, Key(3, "sharded", step)) for step in range(16)])
    steps = jax.vmap(lambda x, p, step: dropout(x, p, training=True, key=key(3, "sharded", step)), (0, None, 0))
    partly = jax.shard_map(
        lambda x, p: drop(x, p, offset=(jax.lax.axis_index("a") * x.shape[0], 0), global_shape=SHAPE),
        mesh=mesh,
        in_specs=(PartitionSpec("a"), PartitionSpec()),
        out_specs=PartitionSpec("a"),
        axis_names={"a"},
    )
    return [
        case("rates", mesh, drop, keep(SHAPE, rates, KEY), x, rates),
        case("rows", mesh, lambda x, p, rows: drop(x, p, rows=rows), keep((64, 64), 0.3, KEY)[rows], x, 0.3, rows),
        case("vmap", mesh, steps, by_step, x, 0.3, jnp.arange(16)),
        case("shard_map grad", mesh, slope(by_hand(mesh)), whole, x, 0.3),
        case("shard_map over one axis of two", mesh, partly, whole, x, 0.3),
        summed_gradient(mesh),
        *attended(mesh),
    ]


def summed_gradient(mesh: Mesh) -> Case:
    """x is the same on all devices and what they make of it is not: the gradient sums over them."""
    tall = (16 * mesh.shape["a"], 64)
    spread = jax.shard_map(
        lambda x: drop(x, 0.3, offset=(jax.lax.axis_index("a") * 16, 0), global_shape=tall),
        mesh=mesh,
        in_specs=PartitionSpec(),
        out_specs=PartitionSpec("a"),
    )
    total = keep(tall, 0.3, KEY).reshape(-1, *SHAPE).sum(0) * np.float32(65536 / 45875)
    found = jax.grad(lambda x: spread(x).sum())(jnp.ones(SHAPE))
    return {"name": "summed gradient", "same": bool(np.allclose(found, total))}


def attended(mesh: Mesh) -> list[Case]:
    """Attention to every key alike, of values that tell the keys: what comes out is the mask of the weights."""
    spec = PartitionSpec("a", None, "b")  # samples and heads are cut
    zeros = np.zeros((8, 20, 8, 4), np.float32)
    told = np.broadcast_to(np.eye(20, dtype=np.float32)[None, :, None], (8, 20, 8, 20))
    wanted = keep((8, 8, 20, 20), 0.5, KEY).transpose(0, 2, 1, 3)

    def whole(x: Any, v: Any) -> Any:
        return attention(x, x, v, rate=0.5, training=True, dropout_key=KEY)

    def part(x: Any, v: Any) -> Any:
        start = (jax.lax.axis_index("a") * x.shape[0], jax.lax.axis_index("b") * x.shape[2], 0, 0)
        return attention(x, x, v, rate=0.5, training=True, dropout_key=KEY, offset=start, global_shape=(8, 8, 20, 20))

    here = [jax.device_put(x, NamedSharding(mesh, spec)) for x in (zeros, told)]
    by_parts = jax.shard_map(part, mesh=mesh, in_specs=spec, out_specs=spec)
    found = {"attention": jax.jit(whole)(*here), "attention under shard_map": jax.jit(by_parts)(zeros, told)}
    return [{"name": name, "same": bool(((np.asarray(y) != 0) == wanted).all())} for name, y in found.items()]


def main(few: bool) -> None:
    cases = []
    for shape in MESHES:
        mesh = jax.make_mesh(shape, ("a", "b"), axis_types=(AxisType.Auto, AxisType.Auto))
        cases += usual("auto", mesh)
        if few:
            continue
        cases += unusual(mesh)
        mesh = jax.make_mesh(shape, ("a", "b"), axis_types=(AxisType.Explicit, AxisType.Explicit))
        with jax.set_mesh(mesh):
            cases += usual("explicit", mesh)
    print(json.dumps(cases))


if __name__ == "__main__":
    main("few" in sys.argv)
