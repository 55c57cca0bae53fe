"""Dropout as one primitive of JAX: linear in x, with the key, the rate and the place as further operands.

Being linear it is its own derivative, both ways: what is kept for backward is key, rate and place, and the mask is
computed again. How it is computed is decided when a module is lowered, by the platform and by the sharding.
"""

import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from .. import choice
from ..errors import DropkitRuntimeError
from . import formula, sharded

TARGET = "dropkit_dropout"

dropout_p = Primitive("dropkit_dropout")


def bind(
    x: jax.Array,
    t: Any,
    key: Any,
    base: Any,
    rows: Any = None,
    factors: Sequence[Any] = (),
    *,
    strides: tuple[int, ...],
    aligned: bool = False,
    alone: str | None = None,
) -> jax.Array:
    """`x * scale where kept, 0 elsewhere`, or what the factors say.

    Args:
        x: float16, bfloat16, float32 or float64.
        t: kept of 65536, uint32: a scalar, or of as many axes as x and broadcasting to it; above 65536: result NaN.
        key: two words, uint32.
        base: index of x's first element, uint32, low and high word.
        rows: the number in the whole of each entry of axis 0, uint32, shape (x.shape[0], 2), low and high words.
        factors: none (scale is 2**16 / t), a gain (kept x times it), or alpha dropout's scale, shift and dropped;
            of t's shape, float64 if x is, else float32.
        strides: by how many indices the noise moves along each axis of x, 0 where it is shared.
        aligned: whether base and the starts of all runs are known to be multiples of 32.
        alone: the site that is refused under a `vmap` which maps x and neither key nor place; None where none is.
    """
    x, *operands = _varying_alike([x, t, key, base, *([] if rows is None else [rows]), *factors])
    law = {0: "drop", 1: "gain", 3: "line"}[len(factors)]
    return dropout_p.bind(
        x, *operands, strides=strides, batch=0, aligned=aligned, with_rows=rows is not None, law=law, alone=alone
    )


def _varying_alike(values: list[Any]) -> list[Any]:
    """Under shard_map: all operands as varying over the mesh axes over which one varies."""
    values = [jnp.asarray(value) for value in values]
    over = [jax.typeof(value).manual_axis_type.varying for value in values]
    whole = frozenset().union(*over)
    return [
        jax.lax.pcast(value, tuple(whole - axes), to="varying") if whole - axes else value
        for value, axes in zip(values, over, strict=True)
    ]


# ---------------------------------------------------------------------------------------------------------------------
# what JAX needs to know


def _run(*operands: Any, **params: Any) -> Any:
    return _compiled(tuple(params.items()))(*operands)


@lru_cache(maxsize=1024)
def _compiled(params: tuple[tuple[str, Any], ...]) -> Callable[..., Any]:
    return jax.jit(partial(dropout_p.bind, **dict(params)))


def _like_x(x: Any, *operands: Any, **params: Any) -> Any:
    return x.update(weak_type=False)


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], **params: Any) -> tuple[Any, Any]:
    y = dropout_p.bind(*primals, **params)
    dx, operands = tangents[0], primals[1:]
    params = params | {"alone": None}  # derivatives in many directions share a mask
    if type(dx) is ad.Zero:
        return y, dx
    if params["law"] == "line":  # its slope is the first of three factors
        params = params | {"law": "gain"}
        operands = operands[:-2]
    return y, dropout_p.bind(dx, *operands, **params)


def _transpose(grad: Any, x: Any, *operands: Any, **params: Any) -> list[Any]:
    assert params["law"] != "line", "alpha dropout is not linear; its derivative is"
    dx = grad if type(grad) is ad.Zero else dropout_p.bind(grad, *operands, **params)
    return [dx, *[None] * len(operands)]


def _batched(values: Sequence[Any], axes: Sequence[int | None], **params: Any) -> tuple[Any, int]:
    """One more leading axis, of size 1 for what is not mapped: all entries share it."""
    placed = axes[2 : 5 if params["with_rows"] else 4]
    if params.get("alone") is not None and axes[0] is not None and all(axis is None for axis in placed):
        raise DropkitRuntimeError(
            f"dropout {params['alone']!r} is called under a jax.vmap that its model was not bound for, so all lanes "
            "would get one mask: name the axis, jax.vmap(..., axis_name='lane'), and give bind all names from the "
            "outside in, axis_name=('batch', 'lane'); for layers in a stack bind the stack itself; or pass key=..."
        )
    size = next(value.shape[axis] for value, axis in zip(values, axes, strict=True) if axis is not None)
    values = [
        jnp.expand_dims(value, 0) if axis is None else jnp.moveaxis(value, axis, 0)
        for value, axis in zip(values, axes, strict=True)
    ]
    values[0] = jnp.broadcast_to(values[0], (size, *values[0].shape[1:]))
    return dropout_p.bind(*values, **params | {"batch": params["batch"] + 1}), 0


dropout_p.def_impl(_run)
dropout_p.def_abstract_eval(_like_x)
ad.primitive_jvps[dropout_p] = _jvp
ad.primitive_transposes[dropout_p] = _transpose
batching.primitive_batchers[dropout_p] = _batched


# ---------------------------------------------------------------------------------------------------------------------
# how it is computed


def _lower(ctx: mlir.LoweringRuleContext, *operands: Any, **params: Any) -> Any:
    """XLA's operations; on arrays cut over a mesh, whatever each device does with its slice."""
    params.pop("alone", None)
    way = partial(formula.scale_kept, **params)
    if not sharded.whole(ctx) and sharded.partitionable(ctx):
        way = partial(sharded.dropout, dropout_p, **params)
    return mlir.lower_fun(way, multiple_results=False)(ctx, *operands)


def _lower_cpu(ctx: mlir.LoweringRuleContext, *operands: Any, **params: Any) -> Any:
    """The kernels' custom call where they take it."""
    if not sharded.whole(ctx):
        return _lower(ctx, *operands, **params)
    params.pop("alone", None)
    x, t = (len(aval.shape) for aval in ctx.avals_in[:2])  # type: ignore[attr-defined]
    kernels = None if t > params["batch"] else _kernels()
    if kernels is None or x > kernels.MOST_AXES:
        way = partial(formula.scale_kept, early=True, **params)
        return mlir.lower_fun(way, multiple_results=False)(ctx, *operands)
    return jax.ffi.ffi_lowering(TARGET)(
        ctx,
        *operands,
        noise=np.array(params["strides"], np.int64),
        batch=np.int64(params["batch"]),
        with_rows=np.int64(params["with_rows"]),
        law=np.int64(kernels.LAWS[params["law"]]),
    )


@lru_cache(maxsize=1)
def _kernels() -> ModuleType | None:
    """Register the kernels' custom call with JAX: its module, or None where there is none."""
    library = choice.xla()
    if library is None:
        return None
    try:
        jax.ffi.register_ffi_target(TARGET, jax.ffi.pycapsule(library.handler()), platform="cpu")
    except Exception as error:  # whatever JAX raises for a library built for another version of its interface
        warnings.warn(
            f"XLA's own operations take the place of the CPU kernels, with the same results: {error}", stacklevel=2
        )
        return None
    return library


mlir.register_lowering(dropout_p, _lower)
mlir.register_lowering(dropout_p, _lower_cpu, platform="cpu")
sharded.needs_devices(dropout_p)
