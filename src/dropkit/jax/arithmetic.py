"""What a lowered dropout makes of an array, in XLA's operations, for any device.

hard:  y = a x + b o where kept, c o elsewhere        soft:  y = m x + s, of a random number an element
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..axes.noise import Soft
from ..axes.share import Refining
from ..place import Part, Unknown
from ..threshold import ONE
from . import continuous
from .formula import keep_mask, pair_of, starts
from .place import Rows, located


class Arrays:
    """JAX as laws and shares know a library of arrays."""

    where, sqrt, log, exp, clip = jnp.where, jnp.sqrt, jnp.log, jnp.exp, jnp.clip
    sort, cumsum, moveaxis, reshape, pad = jnp.sort, jnp.cumsum, jnp.moveaxis, jnp.reshape, jnp.pad

    @staticmethod
    def take(table: np.ndarray, t: jax.Array) -> jax.Array:
        """Entries of a NumPy table."""
        return jnp.take(jnp.asarray(table), t.astype(jnp.int32))


class Refined(NamedTuple):
    """A mask that a share makes itself, of uniform numbers.

    Args:
        share: which.
        offset, global_shape: as those of a `Part`; offsets that are known when the program runs are None.
    """

    share: Refining
    offset: tuple[int | None, ...] | None
    global_shape: tuple[int, ...] | None


class Way(NamedTuple):
    """What a program does, apart from its numbers.

    Args:
        numbers: which numbers it is given, of "a", "b" and "c" those that are not known to be 0; "t" of plain dropout,
            whose a is 2**16 / t. Of a soft law "ms", or "m" alone: its derivative.
        other: what o is: "one", "given", or "x" itself, as in a derivative.
        source: what is drawn: None for the mask of `dropkit.keep`; a share that makes it; or a soft law.
    """

    numbers: str
    other: str = "one"
    source: Refined | Soft | None = None


def applied(
    x: jax.Array,
    t: jax.Array,
    key: jax.Array,
    base: jax.Array,
    *rest: jax.Array,
    strides: tuple[int, ...],
    batch: int,
    aligned: bool,
    with_rows: bool,
    way: Way,
    early: bool = False,
) -> jax.Array:
    """What `primitive.bind` computes; its operands there, in their order.

    Args:
        early: stop at the last group of levels that t needs. Which one that is, is data: a device that cannot decide
            by itself how often to loop had better do all four.
    """
    rows, rest = (rest[0], rest[1:]) if with_rows else (None, rest)
    if isinstance(way.source, Soft):
        return _softly(x, t, key, base, rows, strides, batch, way)
    if way.source is None:
        kept = keep_mask(x.shape, t, key, base, rows, strides, batch, aligned, early)
    else:
        kept = _refined(way.source, x.shape[batch:], batch, t, key, base, rows)
    given, rest = (rest[0], rest[1:]) if way.other == "given" else (None, rest)
    wide = wide_type(x.dtype)
    t, *numbers = (_along(each, x.ndim) for each in (t, *rest))
    law = dict(zip(way.numbers, numbers, strict=True)) if numbers else {}
    if way.numbers == "t":
        gain = jnp.where(t == 0, 0, ONE / t.astype(wide))
        law = {"a": jnp.where(t > ONE, jnp.nan, gain).astype(wide)}
    # Half types are computed in float32 and rounded once. A choice, not a product: a dropped NaN is dropped.
    z = x.astype(wide)
    o = None if way.other == "one" else z if given is None else given.astype(wide)
    y: Any = z * law["a"] if "a" in law else jnp.zeros_like(z)
    if "b" in law:
        y = y + (law["b"] if o is None else law["b"] * o)
    dropped: Any = 0
    if "c" in law:
        dropped = law["c"] if o is None else law["c"] * o
    return jnp.where(cut_as(kept, y), y, dropped).astype(x.dtype)


def cut_as(array: jax.Array, x: jax.Array) -> jax.Array:
    """An array of x's shape as x is cut over a mesh of explicit axes; any other as it is."""
    cut = jax.typeof(x).sharding
    if array.shape != x.shape or not any(cut.spec) or jax.typeof(array).sharding == cut:
        return array
    return jax.sharding.reshard(array, cut)


def wide_type(dtype: Any) -> Any:
    """The type that arrays of a dtype are computed in."""
    return jnp.float64 if dtype == jnp.float64 else jnp.float32


def _along(each: jax.Array, rank: int) -> jax.Array:
    return each.reshape(*each.shape, *[1] * (rank - each.ndim))


def _softly(
    x: jax.Array,
    t: jax.Array,
    key: jax.Array,
    base: jax.Array,
    rows: jax.Array | None,
    strides: tuple[int, ...],
    batch: int,
    way: Way,
) -> jax.Array:
    """`m x + s`."""
    law: Any = way.source
    noise = tuple(size if stride else 1 for size, stride in zip(x.shape[batch:], strides, strict=True))
    wide = wide_type(x.dtype)
    n = continuous.SOURCES[law.source](starts(noise, strides, base, rows), pair_of(key, [1] * len(noise)))
    t = _along(t, x.ndim)
    m, s = law.factors(n.astype(wide), t.astype(wide) / ONE, Arrays)
    y = x.astype(wide) * m
    if s is not None and "s" in way.numbers:
        y = y + s
    return jnp.where(t > ONE, jnp.nan, y).astype(x.dtype)


def _refined(
    source: Refined,
    shape: tuple[int, ...],
    batch: int,
    t: jax.Array,
    key: jax.Array,
    offsets: jax.Array,
    rows: jax.Array | None,
) -> jax.Array:
    """The mask that a share makes; a shape that broadcasts to that of x. All is kept where t is no rate."""

    def mask(t: jax.Array, key: jax.Array, offsets: jax.Array, *rows: jax.Array) -> jax.Array:
        unknown = iter(offsets)
        offset: Any = source.offset and tuple(
            Unknown(pair_of(next(unknown), [])) if entry is None else entry for entry in source.offset
        )
        part = Part(offset, source.global_shape, Rows(rows[0]) if rows else None)

        def uniform(shape: tuple[int, ...], part: Part, axes: Sequence[int]) -> jax.Array:
            place, base, _ = located(shape, axes, part)
            return continuous.uniform(key, place, base)

        kept = source.share.kept(t, shape, part, uniform, Arrays)
        return jnp.broadcast_to(kept, (1,) * (len(shape) - kept.ndim) + kept.shape) | (t > ONE)

    return _mapped(mask, batch, t, key, offsets, *(() if rows is None else (rows,)))


def _mapped(function: Callable[..., jax.Array], batch: int, *operands: jax.Array) -> jax.Array:
    """The function over leading axes of its operands, which are shared where their size is 1."""
    if batch == 0:
        return function(*operands)
    shared = [operand.shape[0] == 1 for operand in operands]
    rest = [operand[0] if one else operand for operand, one in zip(operands, shared, strict=True)]
    if all(shared):
        return _mapped(function, batch - 1, *rest)[None]
    axes = [None if one else 0 for one in shared]
    return jax.vmap(lambda *operands: _mapped(function, batch - 1, *operands), in_axes=axes)(*rest)
