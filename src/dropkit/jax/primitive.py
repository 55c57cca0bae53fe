"""Dropout as one primitive of JAX: linear in x and the other, with the key, the rate and the place as further operands.

Being linear it is its own derivative, both ways: what is kept for backward is key, rate and place, and the mask or the
numbers are computed again. How that is done is decided when a module is lowered, by the platform and by the sharding.
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
from ..axes.noise import Bernoulli, Soft
from ..drop import Lowered
from ..errors import DropkitRuntimeError
from . import arithmetic, sharded
from .arithmetic import Refined, Way, wide_type

TARGET = "dropkit_dropout"
LAWS = {"t": "drop", "a": "gain", "abc": "line"}  # the kernels' names, by the numbers that they are given

dropout_p = Primitive("dropkit_dropout")


def bind(
    x: jax.Array,
    t: Any,
    key: Any,
    base: Any,
    rows: Any = None,
    other: Any = None,
    numbers: Sequence[Any] = (),
    *,
    strides: tuple[int, ...],
    aligned: bool = False,
    alone: str | None = None,
    way: Way,
) -> jax.Array:
    """`a x + b o where kept, c o elsewhere`, or `m x + s`.

    Args:
        x: float16, bfloat16, float32 or float64.
        t: kept of 65536, uint32: a scalar, or of as many axes as x and broadcasting to it; above 65536: result NaN.
        key: two words, uint32.
        base: index of x's first element, uint32, low and high word; where a share makes the mask, the offsets that are
            traced, shape (offsets, 2).
        rows: the number in the whole of each entry of axis 0, uint32, shape (x.shape[0], 2), low and high words.
        other: o if the way is "given", of x's shape and dtype.
        numbers: those that the way names, scalars or of as many axes as x, float64 if x is, else float32.
        strides: by how many indices the noise moves along each axis of x, 0 where it is shared.
        aligned: whether base and the starts of all runs are known to be multiples of 32.
        alone: the site that is refused under a `vmap` which maps x and neither key nor place; None where none is.
        way: what is done with all that.
    """
    tensors = [given for given in (rows, other) if given is not None]
    x, *operands = _varying_alike([x, t, key, base, *tensors, *numbers])
    return dropout_p.bind(
        x, *operands, strides=strides, batch=0, aligned=aligned, with_rows=rows is not None, alone=alone, way=way
    )


def packed(lowered: Lowered, dtype: Any, other: str, source: Refined | Soft | None) -> tuple[Way, list[Any]]:
    """What a law does to an array of a dtype, and the numbers that it is given."""
    if isinstance(source, Soft):
        return Way("ms" if lowered.b is None else "m", other, source), []
    if lowered.inverted and source is None and lowered.a is None:
        return Way("t", other, source), []
    abc = dict(zip("abc", lowered[2:5], strict=True))
    given = {name: number for name, number in abc.items() if name == "a" or not _nothing(number)}
    if other == "one" and len(given) > 1:  # as the kernels take it; adding -0 changes nothing
        given = abc | ({} if "b" in given else {"b": -0.0})
    elif other == "x":
        given = {name: number for name, number in given.items() if not _nothing(number)}
        other = other if "c" in given else "one"
    wide = wide_type(dtype)
    numbers = [
        number.astype(wide) if isinstance(number, jax.Array) else np.asarray(number, wide) for number in given.values()
    ]
    return Way("".join(given), other, source), numbers


def _nothing(number: Any) -> bool:
    return isinstance(number, float | int) and number == 0


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


class Operands:
    """The operands of the primitive, and what its derivatives do with them."""

    def __init__(self, operands: Sequence[Any], params: dict[str, Any]):
        way, after = params["way"], 4 + params["with_rows"]
        self.params, self.way = params, way
        self.x, self.place = operands[0], list(operands[1:after])
        self.other = operands[after] if way.other == "given" else None
        self.numbers = list(operands[after + (way.other == "given") :])

    def slope(self, dx: Any) -> Any:
        """The derivative in x: `a dx` where kept, 0 elsewhere, or `m dx`; at o = x the primitive is its own."""
        if self.way.numbers in ("t", "m") or self.way.other == "x":
            return self._bound(dx, self.way, self.numbers)
        return self._bound(dx, *packed(self._lowered().slope(), self._dtype(), "one", self.way.source))

    def slope_in_other(self, do: Any) -> Any:
        """The derivative in the other: `b do` where kept, `c do` elsewhere."""
        return self._bound(do, *packed(self._lowered().slope_in_other(), self._dtype(), "x", self.way.source))

    def _lowered(self) -> Lowered:
        if isinstance(self.way.source, Soft):
            return Lowered(self.place[0], self.way.source)
        given = dict(zip(self.way.numbers, self.numbers, strict=True))
        return Lowered(self.place[0], Bernoulli(), *(given.get(name, 0.0) for name in "abc"))

    def _dtype(self) -> Any:
        wide = {number.dtype for number in self.numbers}
        return np.dtype(np.float64) if np.dtype(np.float64) in wide else np.dtype(np.float32)

    def _bound(self, x: Any, way: Way, numbers: Sequence[Any]) -> Any:
        # Derivatives in many directions share a mask, so none is refused.
        return dropout_p.bind(x, *self.place, *numbers, **self.params | {"alone": None, "way": way})


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], **params: Any) -> tuple[Any, Any]:
    y = dropout_p.bind(*primals, **params)
    operands = Operands(primals, params)
    dy = tangents[0]
    if type(dy) is not ad.Zero:
        dy = operands.slope(dy)
    if operands.other is not None and type(do := tangents[4 + params["with_rows"]]) is not ad.Zero:
        dy = ad.add_tangents(dy, operands.slope_in_other(do))
    return y, dy


def _transpose(grad: Any, x: Any, *rest: Any, **params: Any) -> list[Any]:
    operands = Operands((x, *rest), params)
    assert "b" not in params["way"].numbers or params["way"].other != "one", "not linear; its derivative is"
    back: list[Any] = [None] * (1 + len(rest))
    if type(grad) is ad.Zero:
        return back
    if ad.is_undefined_primal(x):
        back[0] = operands.slope(grad)
    if operands.other is not None and ad.is_undefined_primal(operands.other):
        back[4 + params["with_rows"]] = operands.slope_in_other(grad)
    return back


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
    tensors = (0, 4 + params["with_rows"]) if params["way"].other == "given" else (0,)
    for k in tensors:
        values[k] = jnp.broadcast_to(values[k], (size, *values[k].shape[1:]))
    return dropout_p.bind(*values, **params | {"batch": params["batch"] + 1}), 0


dropout_p.def_impl(_run)
dropout_p.def_abstract_eval(_like_x)
ad.primitive_jvps[dropout_p] = _jvp
ad.primitive_transposes[dropout_p] = _transpose
batching.primitive_batchers[dropout_p] = _batched


# ---------------------------------------------------------------------------------------------------------------------
# how it is computed


def _lower(ctx: mlir.LoweringRuleContext, *operands: Any, **params: Any) -> Any:
    """XLA's operations; on arrays cut over a mesh, whatever each device does with its slice.

    A share that makes the mask may look past a slice, so XLA's partitioner is left to cut its operations.
    """
    params.pop("alone", None)
    run = partial(arithmetic.applied, **params)
    if not isinstance(params["way"].source, Refined) and not sharded.whole(ctx) and sharded.partitionable(ctx):
        run = partial(sharded.dropout, dropout_p, **params)
    return mlir.lower_fun(run, multiple_results=False)(ctx, *operands)


def _lower_cpu(ctx: mlir.LoweringRuleContext, *operands: Any, **params: Any) -> Any:
    """The kernels' custom call where they take it."""
    if not sharded.whole(ctx):
        return _lower(ctx, *operands, **params)
    params.pop("alone", None)
    x, t = (len(aval.shape) for aval in ctx.avals_in[:2])  # type: ignore[attr-defined]
    kernels = None if t > params["batch"] or not _known(params["way"]) else _kernels()
    if kernels is None or x > kernels.MOST_AXES:
        run = partial(arithmetic.applied, early=True, **params)
        return mlir.lower_fun(run, multiple_results=False)(ctx, *operands)
    return jax.ffi.ffi_lowering(TARGET)(
        ctx,
        *operands,
        noise=np.array(params["strides"], np.int64),
        batch=np.int64(params["batch"]),
        with_rows=np.int64(params["with_rows"]),
        law=np.int64(kernels.LAWS[LAWS[params["way"].numbers]]),
    )


def _known(way: Way) -> bool:
    """Whether the kernels know a way."""
    return way.source is None and way.other == "one" and way.numbers in LAWS


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
