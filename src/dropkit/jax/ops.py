"""Dropout as a function on JAX arrays."""

import operator
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..axes.noise import Bernoulli, Noise, Soft
from ..axes.share import Axes, Refining, Sharing, share_of
from ..drop import Lowered, checked_noise, checked_other, lower, settled
from ..errors import DropkitTypeError, DropkitValueError
from ..place import WHOLE, Part, Place, Unknown
from ..threshold import ONE, threshold, thresholds
from . import continuous, primitive
from .arithmetic import Arrays, Refined, Way, cut_as, wide_type
from .formula import INVALID
from .keys import AnyKey, words_of
from .place import located, told

_OWN = Axes()  # each element has a draw of its own
FLOATING = (jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64)


def dropout(
    x: jax.Array,
    rate: Any,
    *,
    training: bool,
    key: AnyKey | None = None,
    share: Sequence[int] | Sharing = (),
    offset: Sequence[Any] | None = None,
    global_shape: Sequence[int] | None = None,
    rows: Any = None,
    noise: Noise = Bernoulli(),  # noqa: B008  a frozen value
    other: Any = None,
) -> jax.Array:
    """Zero elements with probability `rate` and scale the rest: `y = x * keep / (1 - rate)`; or another law.

    It is linear in x, and so is its derivative: nothing is kept for backward but key, rate and place, and the mask is
    computed again. It composes with `jit`, `grad`, `jvp`, `vmap` (one key: one mask for all; mapped keys: a mask each),
    `scan`, `checkpoint` and `shard_map`; under `jit` each device of a mesh computes its own slice of the one mask.

    Args:
        x: array of float16, bfloat16, float32 or float64, any shape.
        rate: drop probability in [0, 1], rounded to 1/65536 (the scale is exact for the rounded value); a number, or an
            array that broadcasts to x. It may be traced, and gets no gradient: a hard mask has none.
        training: whether noise is on; without a default on purpose.
        key: the mask's coordinates: a `dropkit.Key`; `dropkit.jax.key(seed, site, step)` with traced ones; or a JAX
            PRNG key, typed or raw, which serves as the seed, with site and step 0: `jax.random.key(7)` is `Key(7)`.
        share: axes along which one draw is shared, or a value of `dropkit.axes.share`.
        offset, global_shape: where x starts in a larger array, and that array's shape; offsets may be traced, such as
            `jax.lax.axis_index("x") * x.shape[0]` under `shard_map`.
        rows: row number in the whole of each entry of axis 0.
        noise: what becomes of kept and dropped elements, a value of `dropkit.axes.noise`.
        other: the second array of a law that needs one; it broadcasts to x, and gets its gradient.

    Returns:
        An array like x: kept values are exactly `x * scale` (in float32 arithmetic for half types, rounded once),
        dropped ones 0 even where x is NaN or infinite. x itself if it is known that nothing is dropped. A traced rate
        that is no probability makes every value it is meant for NaN, since nothing can be raised then. Of other laws
        the mask is exact and the values are to the last place or two: XLA may round a product and a sum at once.

    Raises:
        DropkitValueError, DropkitTypeError: a rate outside [0, 1], NaN or no number; no key, or one that is none; a
            dtype other than the four, in training, at any rate; a share axis that does not exist; an offset outside the
            global shape; a noise that is none, or without its other.

    Source: Srivastava et al. 2014 (JMLR 15:1929); mask specification v1 (docs/mask.md).

    >>> from dropkit import Key
    >>> dropout(jnp.ones((2, 8)), 0.5, training=True, key=Key(seed=1, site="drop"))
    Array([[0., 0., 0., 0., 2., 2., 2., 0.],
           [0., 2., 2., 2., 0., 0., 2., 0.]], dtype=float32)
    >>> step = jax.jit(lambda x, rate, k: dropout(x, rate, training=True, key=k))
    >>> step(jnp.ones(8), 0.25, jax.random.key(7)).shape
    (8,)
    """
    part = Part.of(offset, global_shape, rows)
    return applied(x, rate, training, key, share, part, noise, other)


def applied(
    x: jax.Array,
    rate: Any,
    training: bool,
    key: AnyKey | None,
    share: Sequence[int] | Sharing = (),
    part: Part = WHOLE,
    noise: Noise = Bernoulli(),  # noqa: B008  a frozen value
    other: Any = None,
    alone: str | None = None,
) -> jax.Array:
    """`dropout`; of a site, `alone`, whose call is refused under a `vmap` that gives all lanes of x one mask."""
    law = checked_noise(noise)
    checked_other(law, other)
    t = _kept_of(x, rate, training)
    if training:
        _check_dtype(x)
    if t is None or (not training and law.off(1.0) is None):
        return x
    if not training:
        _check_dtype(x)
        return _off(x, t, law, other)
    sharing = _OWN if type(share) is tuple and not share else share_of(share)
    return of_kept(x, t, words_of(key), sharing, part, law, other, alone)


def same(law: Noise, other: Any = None) -> bool:
    """Whether y = x where no noise is on, whatever the rate."""
    return other is None and not law.needs_other and law.off(1.0) is None


def of_kept(
    x: jax.Array,
    t: Any,
    words: Any,
    share: Sharing = Axes(),  # noqa: B008  a frozen value
    part: Part = WHOLE,
    law: Noise = Bernoulli(),  # noqa: B008  a frozen value
    other: Any = None,
    alone: str | None = None,
) -> jax.Array:
    """`applied` in training where the rate is known as t, kept of 65536 (an int, or uint32, a scalar or of x's rank),
    and the key as words.
    """
    if isinstance(t, int) and t in (0, ONE) and isinstance(share, Refining):
        share = Axes()  # nothing is random
    lowered = _lowered(law, t, x.dtype, plain=not isinstance(share, Refining))
    source: Refined | Soft | None = law if isinstance(law, Soft) else None
    if isinstance(share, Refining):
        part = told(part)
        lowered = _nan_where_no_rate(settled(lowered, share, x.shape, part, Arrays), x.dtype)
        source, where = _refined(share, part, x.shape)
    else:
        axes = tuple(share.axes)
        where = _whole(x.shape, axes) if part is WHOLE else _strided(x.shape, axes, told(part))
    way, numbers = primitive.packed(lowered, x.dtype, "one" if other is None else "given", source)
    t = np.uint32(t) if isinstance(t, int) else t
    return _dropout(jnp.asarray(x), t, words, where.base, where.rows, other, numbers, alone=alone, way=way, **where.how)


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
    part = Part.of(offset, global_shape, rows)
    return _numbers(continuous.uniform, shape, key, share, part)


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
    part = Part.of(offset, global_shape, rows)
    return _numbers(continuous.normal, shape, key, share, part)


def _numbers(source: Any, shape: Any, key: AnyKey, share: Sequence[int], part: Part) -> jax.Array:
    shape = _sizes(shape)
    words = words_of(key)
    place, base, _ = located(shape, share, told(part))
    return _drawn(source, words, base, place.rows, shape=shape, noise=place.shape, strides=place.strides)


@partial(jax.jit, static_argnums=0, static_argnames=("shape", "noise", "strides"))
def _drawn(source: Any, words: Any, base: Any, rows: Any, *, shape: Any, noise: Any, strides: Any) -> jax.Array:
    return jnp.broadcast_to(source(words, Place(noise, strides, rows=rows), base), shape)


def _sizes(shape: Any) -> tuple[int, ...]:
    try:
        sizes = tuple(operator.index(size) for size in shape)
    except TypeError:
        raise DropkitTypeError(f"shape must be a sequence of sizes such as (2, 3), got {shape!r}") from None
    if any(size < 0 for size in sizes):
        raise DropkitValueError(f"shape must hold no negative sizes, got {sizes}")
    return sizes


@partial(jax.jit, static_argnames=("strides", "aligned", "alone", "way"), inline=True)
def _dropout(
    x: jax.Array, t: Any, key: Any, base: Any, rows: Any, other: Any, numbers: Any, *, strides: Any, aligned: bool,
    alone: Any, way: Way
) -> jax.Array:  # fmt: skip
    how: dict[str, Any] = {"strides": strides, "aligned": aligned, "alone": alone, "way": way}
    if other is None:
        return primitive.bind(x, t, key, base, rows, None, numbers, **how)
    other = _like(other, x)
    if other.dtype == x.dtype:
        return primitive.bind(x, t, key, base, rows, other, numbers, **how)
    wide = wide_type(x.dtype)  # of two types; rounded once, to that of x
    return primitive.bind(x.astype(wide), t, key, base, rows, other.astype(wide), numbers, **how).astype(x.dtype)


def _like(other: Any, x: jax.Array) -> jax.Array:
    """The other of the shape of x, and cut as x."""
    other = jnp.asarray(other)
    if jnp.issubdtype(other.dtype, jnp.complexfloating):
        raise DropkitTypeError(f"other must be a real array, got {other.dtype}; pass other.real")
    try:
        other = jnp.broadcast_to(other, x.shape)
    except ValueError:
        raise DropkitValueError(f"other of shape {other.shape} does not broadcast to shape {x.shape}") from None
    return cut_as(other, x)


# ---------------------------------------------------------------------------------------------------------------------
# the rate and its law


def _kept_of(x: Any, rate: Any, training: bool) -> Any:
    """The rate as kept of 65536: an int, or uint32, a scalar or of x's rank; None where it is known that y = x."""
    if not isinstance(training, bool):
        raise DropkitTypeError(f"training must be True or False, got {training!r}")
    t = _thresholds(rate)
    if isinstance(t, int):
        return None if t == ONE or x.size == 0 else t
    try:
        shape: tuple[int, ...] | None = np.broadcast_shapes(t.shape, x.shape)
    except ValueError:
        shape = None
    if shape != x.shape:
        raise DropkitValueError(f"p of shape {t.shape} does not broadcast to shape {x.shape}")
    if x.size == 0:
        return None
    if t.size == 1:
        return t.reshape(()) if isinstance(t, jax.Array) else int(t.item())
    return t.reshape((1,) * (x.ndim - t.ndim) + t.shape)


def _check_dtype(x: Any) -> None:
    if x.dtype not in FLOATING:
        raise DropkitTypeError(
            f"dropout in training needs float16, bfloat16, float32 or float64, but x is {x.dtype}; convert with "
            "x.astype(jnp.float32)"
        )


def _thresholds(rate: Any) -> Any:
    """`dropkit.threshold`, of traced rates as well; an int or NumPy's, and checked, where the values are known."""
    if not isinstance(rate, jax.Array | np.ndarray):
        return threshold(rate)
    if not isinstance(rate, jax.core.Tracer):
        known = np.asarray(rate)
        if known.ndim == 0:
            return threshold(known.item())
        return thresholds(known if known.dtype.kind in "fiub" else known.astype(np.float32)).astype(np.uint32)
    if jnp.issubdtype(rate.dtype, jnp.complexfloating):
        raise DropkitTypeError(f"dropout probability must be a real number, but got an array of {rate.dtype}")
    wide = jnp.asarray(jax.lax.stop_gradient(rate), jnp.float64 if rate.dtype == jnp.float64 else jnp.float32)
    inside = (wide >= 0) & (wide <= 1)  # False for NaN
    dropped = jnp.round(jnp.where(inside, wide, 0) * ONE).astype(jnp.uint32)
    return jnp.where(inside, ONE - dropped, jnp.uint32(INVALID))


def _lowered(law: Noise, t: Any, dtype: Any, plain: bool) -> Lowered:
    """The law at t in numbers; of plain dropout without: its scale is found where it is used."""
    if plain and type(law) is Bernoulli:
        return Lowered(t, law)
    if isinstance(t, int):
        return lower(law, t) or Lowered(t, law, 1.0, 0.0, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):  # where all is kept, nothing asks for c
        lowered = lower(law, t, True, _fraction(t, dtype), jnp if isinstance(t, jax.Array) else np)
    assert lowered is not None
    return _nan_where_no_rate(lowered, dtype)


def _fraction(t: Any, dtype: Any) -> Any:
    """q of an array t, in the type that arrays of a dtype are computed in."""
    return (t.astype(wide_type(dtype)) if isinstance(t, jax.Array) else t.astype(np.float64)) / ONE


def _nan_where_no_rate(lowered: Lowered, dtype: Any) -> Lowered:
    """The same with a NaN where t is traced and no rate."""
    t = lowered.t
    if not isinstance(t, jax.Array) or lowered.soft:
        return lowered
    return lowered._replace(a=jnp.where(t > ONE, jnp.nan, jnp.asarray(lowered.a, wide_type(dtype))))


def _off(x: jax.Array, t: Any, law: Noise, other: Any) -> jax.Array:
    """`u x + v o` where no noise is on."""
    q = t / ONE if isinstance(t, int) else _fraction(t, x.dtype)
    off = law.off(q)
    assert off is not None
    u, v = off
    wide = wide_type(x.dtype)
    o = 1 if other is None else _like(other, x).astype(wide)
    y = jnp.asarray(x).astype(wide) * jnp.asarray(u, wide) + jnp.asarray(v, wide) * o
    if isinstance(t, jax.Array):
        y = jnp.where(t > ONE, jnp.nan, jnp.where(t == ONE, x.astype(wide), y))
    return y.astype(x.dtype)


# ---------------------------------------------------------------------------------------------------------------------
# the place


class Where(NamedTuple):
    """Operands and parameters of the primitive that say which part of the noise an array gets."""

    base: Any
    rows: Any
    how: dict[str, Any]


def _strided(shape: tuple[int, ...], axes: Sequence[int], part: Part) -> Where:
    place, base, aligned = located(shape, axes, part)
    strides = tuple(
        0 if size == 1 and not (axis == 0 and place.rows is not None) else stride
        for axis, (size, stride) in enumerate(zip(shape, place.strides, strict=True))
    )
    return Where(base, place.rows, {"strides": strides, "aligned": aligned})


@lru_cache(maxsize=4096)
def _whole(shape: tuple[int, ...], axes: tuple[int, ...]) -> Where:
    """`_strided` of a whole array, remembered: a training step asks for the same few again and again."""
    return _strided(shape, axes, WHOLE)


def _refined(share: Refining, part: Part, shape: tuple[int, ...]) -> tuple[Refined, Where]:
    place, _, _ = located(shape, (), part)  # checks it
    given = part.offset or ()
    offset = tuple(None if isinstance(entry, Unknown) else entry for entry in given)
    unknown = [jnp.stack(entry.value) for entry in given if isinstance(entry, Unknown)]
    base = jnp.stack(unknown) if unknown else np.zeros((0, 2), np.uint32)
    source = Refined(share, None if part.offset is None else offset, part.global_shape)
    return source, Where(base, place.rows, {"strides": (), "aligned": False})
