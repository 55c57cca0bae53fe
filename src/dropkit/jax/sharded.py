"""Dropout of arrays that are cut over a mesh: each device computes its own slice, and none asks another.

XLA's partitioner is told how to cut the operation: the result as x; a row number or a rate that stands for an entry of
x as x is cut there; all else is whole on each device. A device finds its place in the whole from its place in the mesh.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.custom_partitioning import custom_partitioning
from jax.interpreters import mlir
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ..mask import WORD
from . import arithmetic, formula

Spec = tuple[Any, ...]  # mesh axes, a name or a tuple of them or None, for each axis of an array


def whole(ctx: mlir.LoweringRuleContext) -> bool:
    """Whether what is lowered here runs as it stands: on one device, or by hand on each (`shard_map`)."""
    context = ctx.module_context.axis_context
    if isinstance(context, mlir.ShardingContext):
        return context.num_devices == 1
    if isinstance(context, mlir.SPMDAxisContext):
        return context.mesh.size == 1 or set(context.manual_axes) == set(context.mesh.axis_names)
    return True


def partitionable(ctx: mlir.LoweringRuleContext) -> bool:
    """Whether the partitioner will ask how to cut the operation."""
    context = ctx.module_context.axis_context
    return isinstance(context, mlir.ShardingContext) and context.device_assignment is not None


def dropout(primitive: Any, *operands: jax.Array, **params: Any) -> jax.Array:
    """The primitive on each device's slice."""
    whole_call = custom_partitioning(lambda *operands: arithmetic.applied(*operands, **params))
    axes = _axes(operands, params["batch"], params["with_rows"])
    names = [" ".join(f"x{a}" if a is not None else f"o{k}d{d}" for d, a in enumerate(own)) for k, own in axes]
    whole_call.def_partition(
        partition=partial(_partition, primitive, params, [own for _, own in axes]),
        sharding_rule=f"{', '.join(names)} -> {names[0]}",
        need_replication_factors=tuple(name for one in names for name in one.split() if name[0] == "o"),
    )
    return whole_call(*operands)


def _axes(operands: tuple[jax.Array, ...], batch: int, with_rows: bool) -> list[tuple[int, list[int | None]]]:
    """For each operand its number and, for each of its axes, the axis of x that it goes along, or None."""
    x = operands[0]
    along = []
    for k, operand in enumerate(operands):
        last = operand.ndim
        if k in (2, 3) or (with_rows and k == 4):  # pairs of words
            last -= 1
        same = [operand.shape[d] == x.shape[d] and x.shape[d] > 1 for d in range(last)]
        own: list[int | None] = [d if k == 0 or same[d] else None for d in range(last)]
        along.append((k, own + [None] * (operand.ndim - last)))
    return along


def _partition(
    primitive: Any, params: dict[str, Any], axes: list[list[int | None]], mesh: Mesh, args: Any, result: Any
) -> tuple[Mesh, Any, Any, tuple[Any, ...]]:
    """What each device does, and how operands and result are cut."""
    x = args[0]
    spec: Spec = tuple(result.sharding.spec) if isinstance(result.sharding, NamedSharding) else ()
    spec += (None,) * (len(x.shape) - len(spec))
    cuts = [PartitionSpec(*(None if a is None else spec[a] for a in own)) for own in axes]
    shardings = tuple(NamedSharding(mesh, cut) for cut in cuts)
    batch, strides = params["batch"], params["strides"]

    def slice_of(x: jax.Array, t: jax.Array, key: jax.Array, base: jax.Array, *rest: jax.Array) -> jax.Array:
        start, aligned = (base[..., 0], base[..., 1]), params["aligned"]
        for axis in range(batch + params["with_rows"], x.ndim):  # rows say themselves where they are
            step = strides[axis - batch] * x.shape[axis]
            if spec[axis] is not None and step:
                position = lax.axis_index(spec[axis]).astype(jnp.uint32), jnp.uint32(0)
                start = formula.plus(start, formula.times(position, step))
                aligned = aligned and step % WORD == 0
        return primitive.bind(x, t, key, jnp.stack(start, axis=-1), *rest, **params | {"aligned": aligned})

    return mesh, slice_of, shardings[0], shardings


def needs_devices(primitive: Any) -> None:
    """Have JAX know the devices when it lowers the primitive; else XLA partitions its own operations instead."""
    try:
        from jax._src.dispatch import prim_requires_devices_during_lowering
    except ImportError:  # a private name, and the only way
        return
    prim_requires_devices_during_lowering.add(primitive)
