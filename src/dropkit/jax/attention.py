"""Attention with keyed dropout of its weights, in XLA's operations."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType

from ..attention import block_of
from ..axes.noise import Bernoulli
from ..axes.noise import Noise as Law
from ..axes.share import Axes, Refining, Sharing
from ..errors import DropkitTypeError, DropkitValueError
from ..place import WHOLE, Part
from .keys import AnyKey
from .ops import applied, dropout

ROWS = 128  # for how many queries at a time, of
MANY = 2**22  # weights and more


def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    rate: Any,
    training: bool,
    dropout_key: AnyKey | None = None,
    bias: jax.Array | None = None,
    mask: jax.Array | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    share: Sequence[int] = (),
    before_softmax: bool = False,
    offset: Sequence[Any] | None = None,
    global_shape: Sequence[int] | None = None,
    rows: Any = None,
    return_lse: bool = False,
) -> Any:
    """Attention with dropout of its weights, as `jax.nn.dot_product_attention`: `(keep * softmax(...) / (1 - rate)) v`.

    The mask is `dropkit.keep((batch, heads, queries, keys), rate, key)` on global coordinates: that of
    `dropkit.torch.attention`.

    Args:
        query, key, value: (batch, length, heads, features), of one dtype; query may have a multiple of the others'
            heads.
        rate: drop probability in [0, 1]; may be traced.
        training: whether to drop at all.
        dropout_key: the mask's coordinates, as the `key` of `dropkit.jax.dropout`.
        bias: added to the scores; broadcasts to (batch, heads, queries, keys), as does
        mask: bool, True where a query sees a key; -inf in bias hides one too. A query that sees no key gives 0, and no
            gradient.
        is_causal: query i sees keys up to i, in the coordinates of the whole.
        scale: of the scores; 1 / sqrt(features) by default.
        share, offset, global_shape, rows: of the weights (batch, heads, queries, keys); see `dropkit.jax.dropout`.
        before_softmax: drop keys before the softmax (DropKey): what is left sums to 1, and nothing is scaled.
        return_lse: also give the logarithm of each row's sum of exponentials, (batch, heads, queries).

    Returns:
        (batch, queries, heads, features of value), in the dtype of query; with `return_lse` a pair.

    Raises:
        DropkitValueError, DropkitTypeError: shapes that do not fit; and as `dropkit.jax.dropout`.

    Sources: Vaswani et al. 2017 (arXiv:1706.03762); DropKey: Li et al. 2023 (arXiv:2208.02646).

    >>> from dropkit import Key
    >>> x = jnp.eye(4)[None, :, None]
    >>> attention(x, x, x, rate=0.5, training=True, dropout_key=Key(seed=1, site="attention")).shape
    (1, 4, 1, 4)
    """
    shape = _checked(query, key, value)
    if bias is not None:
        bias = _fitting("bias", bias, shape)
    if mask is not None:
        if mask.dtype != bool:
            raise DropkitTypeError(f"mask must be bool, True where a query sees a key, got {mask.dtype}; give a bias")
        mask = _fitting("mask", mask, shape)
    where = Weights(shape, tuple(share), Part.of(offset, global_shape, rows))
    first = (0, 0) if offset is None else (offset[2], offset[3])

    def drop(weights: jax.Array, row: Any) -> jax.Array:
        place = {"share": where.share, **where.part_from(row, weights.shape[2])}
        return dropout(weights, rate, training=training, key=dropout_key, **place)

    pattern = Pattern(bias, mask, first if is_causal else None, scale)
    out, lse = weighted(query, key, value, drop, pattern, before_softmax=before_softmax)
    return (out, lse) if return_lse else out


class Weights(NamedTuple):
    """The weights of a call: their shape, which axes share a draw, and where they lie in the whole."""

    shape: tuple[int, int, int, int]
    share: tuple[int, ...] = ()
    part: Part = WHOLE

    def part_from(self, row: Any, rows: int) -> dict[str, Any]:
        """Where those of some queries, from `row` on, lie in the whole."""
        given = self.part
        if isinstance(row, int) and row == 0 and rows == self.shape[2]:
            return {"offset": given.offset, "global_shape": given.global_shape, "rows": given.rows}
        offset = given.offset or (0, 0, 0, 0)
        offset = (offset[0], offset[1], offset[2] + row, offset[3])
        return {"offset": offset, "global_shape": given.global_shape or self.shape, "rows": given.rows}


class Pattern(NamedTuple):
    """What else decides the scores: what is added, who sees whom, and the scale.

    Args:
        bias, mask: of the shape of the weights, or of sizes of 1.
        causal: where the first query and the first key lie, if a query sees keys up to its own place.
        scale: of the scores; 1 / sqrt(features) by default.
        hidden: the score of a key that a query does not see; of -inf a row that sees nothing gives 0.
        precision: of the products, as XLA's operations take it.
    """

    bias: jax.Array | None = None
    mask: jax.Array | None = None
    causal: tuple[Any, Any] | None = None
    scale: float | None = None
    hidden: float = -math.inf
    precision: Any = None


def weighted(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    drop: Callable[[jax.Array, Any], jax.Array],
    pattern: Pattern,
    *,
    before_softmax: bool = False,
    at_once: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Attention whose weights `drop(weights, row)` makes noisy, those of the queries from `row` on; and the rows' sums.

    Where the weights are many they are made for some queries at a time, in the backward pass again: none are kept.

    Args:
        query, key, value: checked, (batch, length, heads, features).
        drop: called with weights, or with ones before a softmax, (batch, heads, some queries, keys).
        pattern: what decides the scores.
        before_softmax: whether it drops keys before the softmax.
        at_once: whether drop needs all weights at once.

    Returns:
        (batch, queries, heads, features of value), and the logarithms of the sums, (batch, heads, queries).
    """
    if (groups := query.shape[2] // key.shape[2]) > 1:
        key, value = (jnp.repeat(x, groups, axis=2) for x in (key, value))
    queries, rows = query.shape[1], _rows_at_once(query, key)
    how: dict[str, Any] = {"drop": drop, "pattern": pattern, "before_softmax": before_softmax}
    if at_once or rows >= queries:
        return _rows(query, key, value, 0, **how)
    count = queries // rows

    @partial(jax.checkpoint, prevent_cse=False)
    def some(row: jax.Array) -> Any:
        part = lax.dynamic_slice_in_dim(query, row, rows, 1)
        return _rows(part, key, value, row, **how)

    outs, sums = lax.map(some, jnp.arange(count, dtype=jnp.int32) * rows)  # (blocks, batch, rows, ...)
    out = jnp.moveaxis(outs, 0, 1).reshape(query.shape[0], count * rows, *outs.shape[3:])
    lse = jnp.moveaxis(sums, 0, 2).reshape(*sums.shape[1:3], count * rows)
    if (rest := count * rows) < queries:
        last, its = jax.checkpoint(partial(_rows, row=rest, **how))(query[:, rest:], key, value)
        out, lse = jnp.concatenate([out, last], 1), jnp.concatenate([lse, its], 2)
    return out, lse


def _rows_at_once(query: jax.Array, key: jax.Array) -> int:
    """For how many queries weights are made at a time: for all, unless they are many."""
    batch, queries, heads, _ = query.shape
    explicit = any(kind == AxisType.Explicit for kind in jax.typeof(query).sharding.mesh.axis_types)
    many = batch * heads * queries * key.shape[1] >= MANY
    return ROWS if many and not explicit else queries  # an axis cut by name cannot be taken apart


def _rows(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    row: Any,
    *,
    drop: Callable[[jax.Array, Any], jax.Array],
    pattern: Pattern,
    before_softmax: bool,
) -> tuple[jax.Array, jax.Array]:
    """Attention of some queries, from `row` on, to all keys."""
    wide = jnp.promote_types(query.dtype, jnp.float32)
    batch, rows, heads, features = query.shape
    shape = (batch, heads, rows, key.shape[1])
    scale = 1 / math.sqrt(max(features, 1)) if pattern.scale is None else pattern.scale
    product = partial(jnp.einsum, precision=pattern.precision)
    scores = product("bqhd,bkhd->bhqk", query.astype(wide), key.astype(wide)) * scale
    seen = jnp.ones((), bool)
    if pattern.bias is not None:
        bias = _from(pattern.bias, row, rows)
        seen = bias != -jnp.inf  # hides as False does: a row of it alone would have a gradient that is no number
        scores = scores + jnp.where(seen, bias, 0)
    if pattern.mask is not None:
        seen = seen & _from(pattern.mask, row, rows)
    if pattern.causal is not None:
        first = pattern.causal[0] + row, pattern.causal[1]
        seen = seen & (jnp.arange(shape[3]) + first[1] <= (jnp.arange(rows) + first[0])[:, None])
    scores = jnp.where(seen, scores, jnp.asarray(pattern.hidden, wide))
    if before_softmax:
        scores = jnp.where(drop(jnp.ones(shape, wide), row) != 0, scores, -jnp.inf)
    top = lax.stop_gradient(scores.max(-1, initial=-jnp.inf))
    top = jnp.where(top == -jnp.inf, 0.0, top)  # a row that sees nothing gives 0
    weights = jnp.exp(scores - top[..., None])
    total = weights.sum(-1)
    some = total > 0
    total = jnp.where(some, total, 1.0)
    lse = jnp.where(some, jnp.log(total) + top, -jnp.inf)
    weights = weights / total[..., None]
    if not before_softmax:
        weights = drop(weights, row)
    return product("bhqk,bkhd->bqhd", weights, value.astype(wide)).astype(query.dtype), lse


def _from(x: jax.Array, row: Any, rows: int) -> jax.Array:
    """The rows of an array of weights' shape, which may be one for all."""
    if x.shape[2] in (1, rows):
        return x
    return lax.dynamic_slice_in_dim(x, row, rows, 2)


def _checked(query: jax.Array, key: jax.Array, value: jax.Array) -> tuple[int, int, int, int]:
    told = " and ".join(str(tuple(x.shape)) for x in (query, key, value))
    if any(x.ndim != 4 for x in (query, key, value)):
        raise DropkitValueError(f"query, key and value must be batch x length x heads x features, got {told}")
    if not query.dtype == key.dtype == value.dtype:
        raise DropkitTypeError(
            f"query, key and value must have one dtype, got {query.dtype}, {key.dtype} and {value.dtype}"
        )
    if key.shape[:3] != value.shape[:3] or key.shape[0] != query.shape[0] or key.shape[3] != query.shape[3]:
        raise DropkitValueError(f"query, key and value do not fit together: shapes {told}")
    batch, queries, heads, _ = query.shape
    if not key.shape[2] or heads % key.shape[2]:
        raise DropkitValueError(f"{heads} heads of query are no multiple of {key.shape[2]} heads of key and value")
    return batch, heads, queries, key.shape[1]


def _fitting(name: str, x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """An array of all the weights' axes that broadcasts to their shape; it is not made as large."""
    try:
        if jnp.broadcast_shapes(x.shape, shape) != shape:
            raise ValueError
        return jnp.reshape(x, (1,) * (len(shape) - x.ndim) + x.shape)
    except ValueError:
        raise DropkitValueError(
            f"{name} of shape {tuple(x.shape)} does not broadcast to (batch, heads, queries, keys) = {shape}"
        ) from None


def attention_mask_block(
    rate: Any,
    key: AnyKey,
    *,
    shape: Sequence[int],
    q: tuple[int, int] | None = None,
    k: tuple[int, int] | None = None,
) -> jax.Array:
    """`dropkit.attention_mask_block` as a JAX array: bool, (batch, heads, q1 - q0, k1 - k0), True is kept.

    Args:
        rate, key: as those of `dropkit.jax.dropout`; may be traced.
        shape, q, k: as there.

    Raises:
        DropkitValueError, DropkitTypeError: as there.

    >>> from dropkit import Key
    >>> attention_mask_block(0.5, Key(seed=1, site="attention"), shape=(1, 1, 2, 4), q=(1, 2)).shape
    (1, 1, 1, 4)
    """
    local, part = block_of(shape, q, k)
    ones = jnp.ones(local, jnp.float32)
    return dropout(ones, rate, training=True, key=key, offset=part.offset, global_shape=part.global_shape) != 0


class WeightNoise(NamedTuple):
    """What is drawn for the weights of a call: rate, key, axes of (batch, heads, queries, keys) that share, and law."""

    rate: Any
    key: AnyKey
    share: Sharing = Axes()
    law: Law = Bernoulli()

    @property
    def at_once(self) -> bool:
        """Whether all weights are needed at once."""
        return np.ndim(self.rate) > 0 or isinstance(self.share, Refining)

    def __call__(self, weights: jax.Array, row: Any, where: Weights) -> jax.Array:
        """The weights of the queries from `row` on, with noise."""
        part = Part.of(**where.part_from(row, weights.shape[2]))
        return applied(weights, self.rate, True, self.key, self.share, part, self.law)


class Noisy(Protocol):
    """What makes weights noisy: a `WeightNoise`, or a site that knows its own key and place."""

    @property
    def at_once(self) -> bool:
        """Whether all weights are needed at once."""

    def __call__(self, weights: jax.Array, row: Any, where: Weights) -> jax.Array:
        """The weights of the queries from `row` on, with noise."""


def headed(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    noise: Noisy,
    *,
    bias: jax.Array | None = None,
    mask: jax.Array | None = None,
    is_causal: bool = False,
    dtype: Any = None,
    precision: Any = None,
    look: Callable[[jax.Array], Any] | None = None,
) -> jax.Array:
    """Attention as flax and Equinox have it, with noise on its weights: any axes before (length, heads, features).

    The mask is that of (batch, heads, queries, keys), where batch counts through all axes before. A query that sees no
    key sees all alike, as there.

    Args:
        query, key, value: (..., length, heads, features).
        noise: what makes the weights noisy.
        bias, mask: broadcast to (..., heads, queries, keys); a mask of any dtype is True where it is not 0.
        dtype: what to compute in; by default that which the arrays promote to.
        precision: of the products.
        look: called with the weights before the noise, of all axes.

    Raises:
        DropkitValueError: shapes that do not fit.
    """
    dtype = jnp.result_type(query, key, value) if dtype is None else dtype
    before = query.shape[:-3]
    if any(x.ndim != query.ndim or x.shape[:-3] != before for x in (key, value)):
        told = ", ".join(str(tuple(x.shape)) for x in (query, key, value))
        raise DropkitValueError(f"query, key and value must have the same axes before (length, heads, ..), got {told}")
    query, key, value = (x.astype(dtype).reshape(-1, *x.shape[-3:]) for x in (query, key, value))
    shape = _checked(query, key, value)
    place = Weights(shape)
    at_once = look is not None or noise.at_once

    def drop(weights: jax.Array, row: Any) -> jax.Array:
        if look is not None:
            look(weights.astype(dtype).reshape(*before, *weights.shape[1:]))
        return noise(weights, row, place)

    bias = None if bias is None else _flat("bias", bias, before, shape)
    mask = None if mask is None else _flat("mask", mask, before, shape).astype(bool)
    pattern = Pattern(bias, mask, (0, 0) if is_causal else None, None, float(jnp.finfo(dtype).min), precision)
    out, _ = weighted(query, key, value, drop, pattern, at_once=at_once)
    return out.reshape(*before, *out.shape[1:])


def _flat(name: str, x: jax.Array, before: tuple[int, ...], shape: tuple[int, int, int, int]) -> jax.Array:
    """What broadcasts to weights of any axes, as (batch or 1, heads or 1, queries or 1, keys or 1)."""
    given = tuple(x.shape)
    x = jnp.reshape(x, (1,) * (3 + len(before) - x.ndim) + x.shape)
    wanted = (*before, *shape[1:])
    if x.ndim != len(wanted) or any(size not in (1, whole) for size, whole in zip(x.shape, wanted, strict=True)):
        raise DropkitValueError(
            f"{name} of shape {given} does not broadcast to (batch, heads, queries, keys) = {wanted}"
        )
    if any(size != 1 for size in x.shape[:-3]):
        x = jnp.broadcast_to(x, (*before, *x.shape[-3:]))
    return x.reshape(-1, *x.shape[-3:])
