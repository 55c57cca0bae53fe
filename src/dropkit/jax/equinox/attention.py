"""Attention of Equinox whose heads draw from one site."""

import warnings
from typing import Any

import equinox as eqx
import jax
import numpy as np

from ...axes.share import Refining
from ...errors import DropkitValueError
from ..attention import Weights, headed
from ..keys import AnyKey
from .layers import Dropout


class MultiheadAttention(eqx.nn.MultiheadAttention):
    """`eqx.nn.MultiheadAttention` with its signature, whose `dropout` is dropkit's: a site of `dropkit.jax.bind`.

    `out = W_o (keep * softmax(q k' / sqrt(d))) v / (1 - p)`. One mask is drawn for the weights (heads, queries, keys)
    of a sample; in a bound model it is the sample's slice of `dropkit.keep((batch, heads, queries, keys), p, key)`, and
    no key is handed on. Where the weights are many, none are kept for the backward pass, nor all made at once.

    Args:
        num_heads, query_size, ...: those of `eqx.nn.MultiheadAttention`.
        dropout_p: drop probability in [0, 1]; a Python number is a part of the program, an array is data.
        inference: whether to drop nothing.
        key: for the weights' first values.

    Raises:
        DropkitValueError, DropkitTypeError: p outside [0, 1], NaN or no number.

    Source: Vaswani et al. 2017 (arXiv:1706.03762).

    >>> layer = MultiheadAttention(2, 8, dropout_p=0.5, key=jax.random.key(0))
    >>> x = jax.numpy.ones((3, 8))
    >>> layer(x, x, x, key=jax.random.key(1)).shape
    (3, 8)
    """

    def __init__(self, *sizes: Any, dropout_p: Any = 0.0, inference: bool = False, **how: Any):
        drop = Dropout(dropout_p, inference)  # checks it
        super().__init__(*sizes, **how)
        self.dropout = drop

    def __call__(
        self,
        query: jax.Array,
        key_: jax.Array,
        value: jax.Array,
        mask: jax.Array | None = None,
        *,
        key: AnyKey | None = None,
        inference: bool | None = None,
        deterministic: bool | None = None,
        process_heads: Any = None,
    ) -> jax.Array:
        """As `eqx.nn.MultiheadAttention`; without a key in a bound model that has its step.

        Args:
            query, key_, value: (length, features).
            mask: bool, (queries, keys) or (heads, queries, keys), True where a query sees a key.
            key: any key that `dropkit.jax.dropout` takes.
            inference: overrides the constructor's.
            deterministic: deprecated name of inference.
            process_heads: a function of the heads of query, key and value.

        Raises:
            DropkitRuntimeError: neither a key nor a step.
            DropkitValueError: shapes that do not fit.
        """
        if deterministic is not None:
            warnings.warn("deterministic= is deprecated in favour of inference=", stacklevel=2)
            inference = deterministic
        drop: Any = self.dropout
        if not drop.active(inference) or (isinstance(drop.p, int | float) and drop.p == 0):
            out: jax.Array = super().__call__(query, key_, value, mask, inference=True, process_heads=process_heads)
            return out
        if key_.shape[0] != value.shape[0]:
            raise DropkitValueError(f"key and value must be as long, got {key_.shape[0]} and {value.shape[0]}")
        projections = (self.query_proj, query), (self.key_proj, key_), (self.value_proj, value)
        heads = tuple(jax.vmap(of)(x).reshape(len(x), self.num_heads, -1) for of, x in projections)
        if process_heads is not None:
            shapes, heads = [x.shape for x in heads], process_heads(*heads)
            if [x.shape for x in heads] != shapes:
                raise DropkitValueError(
                    f"process_heads must not change the shape of the heads, {shapes}; got {[x.shape for x in heads]}"
                )
        weights = (self.num_heads, query.shape[0], key_.shape[0])
        if mask is not None and mask.shape not in (weights, weights[1:]):
            raise DropkitValueError(f"mask must have shape {weights[1:]} or {weights}, got {tuple(mask.shape)}")
        attended = headed(heads[0], heads[1], heads[2], _Site(drop, key), mask=mask)
        return jax.vmap(self.output_proj)(attended.reshape(query.shape[0], -1))


class _Site:
    """The dropout of an attention, as what makes its weights noisy."""

    def __init__(self, drop: Dropout, key: AnyKey | None) -> None:
        self.drop, self.key = drop, key
        self.at_once = np.ndim(drop.p) > 0 or isinstance(drop.share, Refining)

    def __call__(self, weights: jax.Array, row: Any, where: Weights) -> jax.Array:
        noisy = self.drop.of_sample(weights[0], (0, row, 0), where.shape[1:], key=self.key)
        return noisy[None]
