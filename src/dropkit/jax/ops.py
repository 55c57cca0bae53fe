"""Dropout as a function on JAX arrays."""

import operator
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..axes.noise import Alpha, Bernoulli, Noise
from ..errors import DropkitTypeError, DropkitValueError
from ..layout import Layout, layout
from ..mask import ALPHA_PRIME, ONE, WORD, alpha_factors, place_of, threshold, thresholds
from . import continuous, primitive
from .formula import INVALID, Pair, plus, times
from .keys import AnyKey, words_of

FLOATING = (jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64)


def dropout(
    x: jax.Array,
    rate: Any,
    *,
    training: bool,
    key: AnyKey | None = None,
    share: Sequence[int] = (),
    offset: Sequence[Any] | None = None,
    global_shape: Sequence[int] | None = None,
    rows: Any = None,
    noise: Noise = Bernoulli(),  # noqa: B008  a frozen value
) -> jax.Array:
    """Zero elements with probability `rate` and scale the rest: `y = x * keep / (1 - rate)`.

    It is linear in x and its own derivative: nothing is kept for backward but key, rate and place, and the mask is
    computed again. It composes with `jit`, `grad`, `jvp`, `vmap` (one key: one mask for all; mapped keys: a mask each),
    `scan`, `checkpoint` and `shard_map`; under `jit` each device of a mesh computes its own slice of the one mask.

    Args:
        x: array of float16, bfloat16, float32 or float64, any shape.
        rate: drop probability in [0, 1], rounded to 1/65536 (the scale is exact for the rounded value); a number, or an
            array that broadcasts to x. It may be traced, and gets no gradient: a hard mask has none.
        training: whether to drop at all; without a default on purpose.
        key: the mask's coordinates: a `dropkit.Key`; `dropkit.jax.key(seed, site, step)` with traced ones; or a JAX
            PRNG key, typed or raw, which serves as the seed, with site and step 0: `jax.random.key(7)` is `Key(7)`.
        share: axes along which one draw is shared.
        offset, global_shape: where x starts in a larger array, and that array's shape; offsets may be traced, such as
            `jax.lax.axis_index("x") * x.shape[0]` under `shard_map`.
        rows: row number in the whole of each entry of axis 0.
        noise: `Bernoulli()`, or `Alpha()` for SELU networks.

    Returns:
        An array like x: kept values are exactly `x * scale` (in float32 arithmetic for half types, rounded once),
        dropped ones 0 even where x is NaN or infinite. x itself if it is known that nothing is dropped. A traced rate
        that is no probability makes every value it is meant for NaN, since nothing can be raised then. With `Alpha()`
        XLA may round a product and a sum at once: the mask is exact, the values are to the last place or two.

    Raises:
        DropkitValueError, DropkitTypeError: a rate outside [0, 1], NaN or no number; no key, or one that is none; a
            dtype other than the four, in training; a share axis that does not exist; an offset outside the global
            shape.

    Source: Srivastava et al. 2014 (JMLR 15:1929); mask specification v1 (docs/mask.md).

    >>> from dropkit import Key
    >>> dropout(jnp.ones((2, 8)), 0.5, training=True, key=Key(seed=1, site="drop"))
    Array([[0., 0., 0., 0., 2., 2., 2., 0.],
           [0., 2., 2., 2., 0., 0., 2., 0.]], dtype=float32)
    >>> step = jax.jit(lambda x, rate, k: dropout(x, rate, training=True, key=k))
    >>> step(jnp.ones(8), 0.25, jax.random.key(7)).shape
    (8,)
    """
    return applied(x, rate, training, key, share, offset, global_shape, rows, noise)


def applied(
    x: jax.Array,
    rate: Any,
    training: bool,
    key: AnyKey | None,
    share: Sequence[int] = (),
    offset: Sequence[Any] | None = None,
    global_shape: Sequence[int] | None = None,
    rows: Any = None,
    noise: Noise = Bernoulli(),  # noqa: B008  a frozen value
    alone: str | None = None,
) -> jax.Array:
    """`dropout`; of a site, `alone`, whose call is refused under a `vmap` that gives all lanes of x one mask."""
    if not isinstance(noise, Noise):
        raise DropkitTypeError(
            f"noise must be a value of dropkit.axes.noise, got {noise!r}; such as Bernoulli() or Alpha()"
        )
    t = _lowered(x, rate, training)
    return x if t is None else of_kept(x, t, words_of(key), share, offset, global_shape, rows, noise, alone)


def of_kept(
    x: jax.Array,
    t: Any,
    words: Any,
    share: Sequence[int] = (),
    offset: Sequence[Any] | None = None,
    global_shape: Sequence[int] | None = None,
    rows: Any = None,
    noise: Noise = Bernoulli(),  # noqa: B008  a frozen value
    alone: str | None = None,
) -> jax.Array:
    """`applied` where the rate is known as t, kept of 65536 (uint32, a scalar or of x's rank), and the key as words."""
    place, base, aligned = _placed(x.shape, share, offset, global_shape, rows)
    strides = tuple(
        0 if size == 1 and not (axis == 0 and place.rows is not None) else stride
        for axis, (size, stride) in enumerate(zip(x.shape, place.strides, strict=True))
    )
    factors = _factors(t, x.dtype) if isinstance(noise, Alpha) else ()
    return _dropout(jnp.asarray(x), t, words, base, place.rows, factors, strides=strides, aligned=aligned, alone=alone)


def uniform(
    shape: Sequence[int],
    key: AnyKey,
    *,
    share: Sequence[int] = (),
    offset: Sequence[Any] | None = None,
    global_shape: Sequence[int] | None = None,
    rows: Any = None,
) -> jax.Array:
    """Uniform numbers `u(i) = (n(i) + 0.5) * 2**-23` with a 23-bit n(i): those of `dropkit.uniform`, bit for bit.

    They are the same under `jit`, `vmap` (mapped keys: numbers for each), `scan` and `shard_map`; of a result that is
    cut over a mesh each device computes its own.

    Args:
        shape: of the result, ints.
        key: the coordinates, in any form that `dropout` takes.
        share: axes along which one draw is shared.
        offset, global_shape: where the result starts in a larger array, and that array's shape; offsets may be traced.
        rows: row number in the whole of each entry of axis 0.

    Returns:
        float32 array of `shape`, never 0 or 1.

    Raises:
        DropkitValueError, DropkitTypeError: no shape, or one with a negative size; no key, or one that is none; a share
            axis that does not exist; an offset outside the global shape; rows that are negative, too large or of the
            wrong shape.

    Source: mask specification v1 (docs/mask.md).

    >>> from dropkit import Key
    >>> (uniform((3,), Key(seed=1, site="u")) * 2**23 - 0.5).astype(int).tolist()
    [2878323, 2065413, 7642049]
    """
    return _numbers(continuous.uniform, shape, key, share, offset, global_shape, rows)


def normal(
    shape: Sequence[int],
    key: AnyKey,
    *,
    share: Sequence[int] = (),
    offset: Sequence[Any] | None = None,
    global_shape: Sequence[int] | None = None,
    rows: Any = None,
) -> jax.Array:
    """Standard normal numbers in pairs: `z(i) = sqrt(-2 ln u2(j)) * (cos if i is even else sin)(2 pi u3(j))`.

    Here j = i // 2. They are those of `dropkit.normal` to float rounding: the uniforms are the same bits, and log, sqrt
    and cos are XLA's. Arguments, result and errors are those of `uniform`.

    Source: Box and Muller, 1958; mask specification v1 (docs/mask.md).

    >>> from dropkit import Key
    >>> normal((4,), Key(seed=1, site="z")).shape
    (4,)
    """
    return _numbers(continuous.normal, shape, key, share, offset, global_shape, rows)


def _numbers(
    source: Any, shape: Any, key: AnyKey, share: Sequence[int], offset: Sequence[Any] | None, whole: Any, rows: Any
) -> jax.Array:
    shape = _sizes(shape)
    words = words_of(key)
    place, base, _ = _placed(shape, share, offset, whole, rows)
    return _drawn(source, words, base, place.rows, shape=shape, noise=place.shape, strides=place.strides)


@partial(jax.jit, static_argnums=0, static_argnames=("shape", "noise", "strides"))
def _drawn(source: Any, words: Any, base: Any, rows: Any, *, shape: Any, noise: Any, strides: Any) -> jax.Array:
    return jnp.broadcast_to(source(words, Layout(noise, strides, rows=rows), base), shape)


def _sizes(shape: Any) -> tuple[int, ...]:
    try:
        sizes = tuple(operator.index(size) for size in shape)
    except TypeError:
        raise DropkitTypeError(f"shape must be a sequence of sizes such as (2, 3), got {shape!r}") from None
    if any(size < 0 for size in sizes):
        raise DropkitValueError(f"shape must hold no negative sizes, got {sizes}")
    return sizes


@partial(jax.jit, static_argnames=("strides", "aligned", "alone"), inline=True)
def _dropout(
    x: jax.Array, t: Any, key: Any, base: Any, rows: Any, factors: Any, *, strides: Any, aligned: bool, alone: Any
) -> jax.Array:
    return primitive.bind(x, t, key, base, rows, factors, strides=strides, aligned=aligned, alone=alone)


# ---------------------------------------------------------------------------------------------------------------------
# the rate


def _lowered(x: Any, rate: Any, training: bool) -> Any:
    """The rate as kept of 65536, uint32, a scalar or of x's rank; None where nothing is to be dropped."""
    if not isinstance(training, bool):
        raise DropkitTypeError(f"training must be True or False, got {training!r}")
    t = _thresholds(rate)
    try:
        shape: tuple[int, ...] | None = np.broadcast_shapes(t.shape, x.shape)
    except ValueError:
        shape = None
    if shape != x.shape:
        raise DropkitValueError(f"p of shape {t.shape} does not broadcast to shape {x.shape}")
    if not training or x.size == 0 or (isinstance(t, np.ndarray | np.generic) and t.ndim == 0 and t == ONE):
        return None
    if x.dtype not in FLOATING:
        raise DropkitTypeError(
            f"dropout in training needs float16, bfloat16, float32 or float64, but x is {x.dtype}; convert with "
            "x.astype(jnp.float32)"
        )
    if t.size == 1:
        return t.reshape(())
    return t.reshape((1,) * (x.ndim - t.ndim) + t.shape)


def _thresholds(rate: Any) -> Any:
    """`dropkit.mask.thresholds`, of traced rates as well; NumPy's, and checked, where the values are known."""
    if not isinstance(rate, jax.Array | np.ndarray):
        return np.uint32(threshold(rate))
    if not isinstance(rate, jax.core.Tracer):
        known = np.asarray(rate)
        if known.ndim == 0:
            return np.uint32(threshold(known.item()))
        return thresholds(known if known.dtype.kind in "fiub" else known.astype(np.float32)).astype(np.uint32)
    if jnp.issubdtype(rate.dtype, jnp.complexfloating):
        raise DropkitTypeError(f"dropout probability must be a real number, but got an array of {rate.dtype}")
    wide = jnp.asarray(jax.lax.stop_gradient(rate), jnp.float64 if rate.dtype == jnp.float64 else jnp.float32)
    inside = (wide >= 0) & (wide <= 1)  # False for NaN
    dropped = jnp.round(jnp.where(inside, wide, 0) * ONE).astype(jnp.uint32)
    return jnp.where(inside, ONE - dropped, jnp.uint32(INVALID))


def _factors(t: Any, dtype: Any) -> tuple[Any, Any, Any]:
    """`dropkit.mask.alpha_factors` of every t, in the type that x is computed in."""
    wide = jnp.float64 if dtype == jnp.float64 else jnp.float32
    if not isinstance(t, jax.Array):
        values, where = np.unique(t, return_inverse=True)
        table = np.array([alpha_factors(int(value)) for value in values], wide)
        a, b, c = table.T[:, where.reshape(np.shape(t))]
        return a, b, c
    q = t.astype(wide) / ONE
    p = 1 - q
    scale = jnp.where(t == 0, 0, jax.lax.rsqrt(jnp.where(t == 0, 1, q * (1 + p * (ALPHA_PRIME * ALPHA_PRIME)))))
    scale = jnp.where(t > ONE, jnp.nan, scale)
    shift = -scale * p * ALPHA_PRIME
    return scale, shift, jnp.where(t == ONE, 0, scale * ALPHA_PRIME + shift)


# ---------------------------------------------------------------------------------------------------------------------
# the place


def _placed(
    shape: tuple[int, ...], share: Sequence[int], offset: Sequence[Any] | None, global_shape: Any, rows: Any
) -> tuple[Layout, Any, bool]:
    """The layout, whose rows are pairs of words; the index of the first element; whether it is a multiple of 32."""
    traced: dict[int, jax.Array] = {}
    if offset is not None:
        traced = {axis: entry for axis, entry in enumerate(offset) if isinstance(entry, jax.core.Tracer)}
        offset = [0 if axis in traced else operator.index(entry) for axis, entry in enumerate(offset)]
    pairs = None
    if isinstance(rows, jax.core.Tracer):
        place = layout(shape, share, offset, global_shape, _whole_rows(rows))
        pairs = None if place.rows is None else _row_pairs(rows)
    else:
        place = place_of(shape, share, offset, global_shape, rows)
        if place.rows is not None:
            pairs = place.rows.astype("<u8").view("<u4").reshape(-1, 2)
    # Strides of axes of size 1 are those of the whole here, since the offset moves along them.
    start: Any = np.uint32(place.base & INVALID), np.uint32(place.base >> 32)
    aligned = place.base % WORD == 0
    for axis, entry in traced.items():
        start = plus(start, times(_coordinate(axis, entry), place.strides[axis]))
        aligned = aligned and place.strides[axis] % WORD == 0
    base = jnp.stack(start) if traced else np.array(start, np.uint32)
    return Layout(place.shape, place.strides, 0, pairs), base, aligned


def _coordinate(axis: int, entry: jax.Array) -> Pair:
    if not jnp.issubdtype(entry.dtype, jnp.integer) or entry.ndim:
        raise DropkitTypeError(f"offset[{axis}] must be an integer, got {entry.dtype} of shape {entry.shape}")
    return _words(entry)


def _whole_rows(rows: jax.Array) -> jax.Array:
    if not jnp.issubdtype(rows.dtype, jnp.integer):
        raise DropkitTypeError(f"rows must hold integers, got dtype {rows.dtype}")
    return rows


def _row_pairs(rows: jax.Array) -> jax.Array:
    return jnp.stack(_words(rows), axis=-1)


def _words(numbers: jax.Array) -> Pair:
    """Low and high words of integers of any width."""
    high = (numbers >> 32).astype(jnp.uint32) if numbers.dtype.itemsize == 8 else np.zeros(numbers.shape, np.uint32)
    return numbers.astype(jnp.uint32), high
