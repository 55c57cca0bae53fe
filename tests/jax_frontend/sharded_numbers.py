"""Uniform and normal numbers on eight virtual devices, printed as JSON: for each case whether they are the whole's, and
whether each device computes its own. Run by `test_continuous.py` in a process of its own."""

import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import dropkit.jax
from dropkit import Key
from dropkit.jax import key
from tests.jax_frontend.sharded import COLLECTIVE

KEY = Key(3, "sharded", 5)
SHAPE = (16, 40)
SPEC = PartitionSpec("a", "b")


def case(name: str, mesh: Mesh, function: Callable[..., Any], wanted: np.ndarray, *values: Any) -> dict[str, Any]:
    compiled = jax.jit(function).lower(*values).compile()
    y = compiled(*values)
    near = {"rtol": 1e-5, "atol": 3e-6}
    same = np.allclose(y, wanted, **near) if "normal" in name else np.array_equal(y, wanted)
    return {
        "name": f"{name} {tuple(mesh.shape.values())}",
        "same": bool(same),
        "collectives": len(COLLECTIVE.findall(compiled.as_text())),
        "cut": y.sharding.is_equivalent_to(NamedSharding(mesh, SPEC), y.ndim),
    }


def cases(kind: str, mesh: Mesh, numbers: Callable[..., Any], oracle: Callable[..., Any]) -> list[dict[str, Any]]:
    cut = NamedSharding(mesh, SPEC)
    x = jax.device_put(np.ones(SHAPE, np.float32), cut)
    rows = np.arange(16)[::-1] * 3
    by_rows = jax.device_put(rows, NamedSharding(mesh, PartitionSpec("a")))
    steps = jax.device_put(np.arange(16), NamedSharding(mesh, PartitionSpec("a")))

    def local(x: Any) -> Any:
        start = [jax.lax.axis_index(name) * size for name, size in zip("ab", x.shape, strict=True)]
        return x * numbers(x.shape, KEY, offset=start, global_shape=SHAPE)

    def each(x: Any, steps: Any) -> Any:
        return x * jax.vmap(lambda step: numbers(SHAPE[1:], key(3, "sharded", step)))(steps)

    by_step = np.stack([oracle(SHAPE[1:], Key(3, "sharded", step)) for step in range(16)])
    whole = oracle(SHAPE, KEY)
    shared = oracle(SHAPE, KEY, share=(1,))
    by_hand = jax.shard_map(local, mesh=mesh, in_specs=SPEC, out_specs=SPEC)
    return [
        case(f"{kind} times x", mesh, lambda x: x * numbers(x.shape, KEY), whole, x),
        case(
            f"{kind} by constraint",
            mesh,
            lambda x: jax.lax.with_sharding_constraint(numbers(x.shape, KEY), cut) * x,
            whole,
            x,
        ),
        case(f"{kind} shared", mesh, lambda x: x * numbers(x.shape, KEY, share=(1,)), shared, x),
        case(
            f"{kind} rows",
            mesh,
            lambda x, r: x * numbers(x.shape, KEY, rows=r),
            oracle(SHAPE, KEY, rows=rows),
            x,
            by_rows,
        ),
        case(f"{kind} vmap", mesh, each, by_step, x, steps),
        case(f"{kind} shard_map", mesh, by_hand, whole, x),
    ]


def main() -> None:
    found = []
    for shape, kinds in (((4, 2), ("uniform", "normal")), ((8, 1), ("uniform",))):
        mesh = jax.make_mesh(shape, ("a", "b"), axis_types=(AxisType.Auto, AxisType.Auto))
        for kind in kinds:
            found += cases(kind, mesh, getattr(dropkit.jax, kind), getattr(dropkit, kind))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
