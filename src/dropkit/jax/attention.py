"""Attention with keyed dropout of its weights, in XLA's operations."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..attention import block_of
from ..errors import DropkitTypeError, DropkitValueError
from .keys import AnyKey
from .ops import dropout


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
    wide = jnp.promote_types(query.dtype, jnp.float32)
    if (groups := shape[1] // key.shape[2]) > 1:
        key, value = (jnp.repeat(x, groups, axis=2) for x in (key, value))
    scale = 1 / math.sqrt(max(query.shape[-1], 1)) if scale is None else scale
    scores = jnp.einsum("bqhd,bkhd->bhqk", query.astype(wide), key.astype(wide)) * scale
    seen = jnp.ones((), bool)
    if bias is not None:
        bias = _fitting("bias", bias, shape)
        seen = bias != -jnp.inf  # hides as False does: a row of it alone would have a gradient that is no number
        scores = scores + jnp.where(seen, bias, 0)
    place: dict[str, Any] = {"share": share, "offset": offset, "global_shape": global_shape, "rows": rows}
    how = {"training": training, "key": dropout_key, **place}
    if mask is not None:
        if mask.dtype != bool:
            raise DropkitTypeError(f"mask must be bool, True where a query sees a key, got {mask.dtype}; give a bias")
        seen = seen & _fitting("mask", mask, shape)
    if is_causal:
        first = (0, 0) if offset is None else offset[2:]
        seen = seen & (jnp.arange(shape[3]) + first[1] <= (jnp.arange(shape[2]) + first[0])[:, None])
    if before_softmax:
        seen = seen & (dropout(jnp.ones(shape, wide), rate, **how) != 0)
    scores = jnp.where(seen, scores, -jnp.inf)
    lse = jax.nn.logsumexp(scores, axis=-1)
    weights = jnp.exp(scores - jnp.where(lse == -jnp.inf, 0.0, lse)[..., None])  # a row that sees nothing gives 0
    if not before_softmax:
        weights = dropout(weights, rate, **how)
    out = jnp.einsum("bhqk,bkhd->bqhd", weights, value.astype(wide)).astype(query.dtype)
    return (out, lse) if return_lse else out


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
    try:
        return jnp.broadcast_to(x, shape)
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
