"""Attention of flax.nnx whose dropout is a site: a class for new models, and what `swap` makes of finished ones."""

from types import new_class
from typing import Any

import jax
import numpy as np
from flax import nnx
from flax.nnx.nn import dtypes
from flax.nnx.nn.attention import dot_product_attention as flax_attention

from ...axes.share import Axes
from ...errors import DropkitTypeError, DropkitValueError
from ..attention import WeightNoise, headed
from ..keys import AnyKey
from ..place import sharing_too
from .layers import Drawn, Dropout, active, drawn

_KINDS: dict[type, type] = {}


def dot_product_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    bias: jax.Array | None = None,
    mask: jax.Array | None = None,
    broadcast_dropout: bool = True,
    dropout_rng: AnyKey | None = None,
    dropout_rate: Any = 0.0,
    deterministic: bool = False,
    dtype: Any = None,
    precision: Any = None,
    module: nnx.Module | None = None,
    promote_dtype: Any = dtypes.promote_dtype,
    is_causal: bool = False,
) -> jax.Array:
    """`nnx.dot_product_attention` with its signature: `(keep * softmax(q k' / sqrt(d))) v / (1 - rate)`.

    The mask is `dropkit.keep((batch, heads, queries, keys), rate, key)`, and where the weights are many they are never
    all in memory. Without dropout it is flax' own function. Pass it to `nnx.MultiHeadAttention(attention_fn=...)`, of
    which the stream gives the key; `MultiHeadAttention` here has a site of its own besides.

    Args:
        query, key, value: (..., length, heads, features); query may have a multiple of the others' heads.
        bias: added to the scores; broadcasts to (..., heads, queries, keys), as does
        mask: not 0 where a query sees a key. A query that sees none sees all alike, as in flax.
        broadcast_dropout: whether one mask is drawn for all samples and heads, as is flax' default.
        dropout_rng: a JAX PRNG key, or any key that `dropkit.jax.dropout` takes.
        dropout_rate: drop probability in [0, 1]; may be traced.
        deterministic: whether to drop nothing.
        dtype, precision, promote_dtype: of the computation, as in flax; sums are in float32 at least.
        module: gets the weights before dropout, as `attention_weights`.
        is_causal: query i sees keys up to i.

    Returns:
        (..., queries, heads, features of value).

    Raises:
        DropkitValueError, DropkitTypeError: a rate outside [0, 1], NaN or no number; no key; shapes that do not fit.

    Source: Vaswani et al. 2017 (arXiv:1706.03762).

    >>> x = jax.numpy.ones((2, 4, 2, 8))
    >>> dot_product_attention(x, x, x, dropout_rate=0.5, dropout_rng=jax.random.key(0)).shape
    (2, 4, 2, 8)
    """
    if deterministic or _is(dropout_rate, 0):
        return flax_attention(
            query, key, value, bias, mask, deterministic=True, dropout_rate=0.0 if _is(dropout_rate, 0) else 1.0,
            dtype=dtype, precision=precision, module=module, promote_dtype=promote_dtype, is_causal=is_causal,
        )  # fmt: skip
    query, key, value = promote_dtype((query, key, value), dtype=dtype)
    if dropout_rng is None:
        raise DropkitValueError("attention drops, but got no key: pass dropout_rng, or deterministic=True")
    noise = WeightNoise(dropout_rate, dropout_rng, Axes((0, 1) if broadcast_dropout else ()))
    look = None if module is None else _sower(module)
    how: dict[str, Any] = {"bias": bias, "mask": mask, "is_causal": is_causal, "precision": precision, "look": look}
    return headed(query, key, value, noise, **how)


class _Off:
    """A dropout that is off."""

    rate = 0.0


_OFF = _Off()


class _Attention:
    """What flax' call of a module calls, in place of its `attention_fn`."""

    def __init__(self, module: Any, drawn: Drawn | None) -> None:
        self.module, self.drawn = module, drawn

    def __call__(self, query: jax.Array, key: jax.Array, value: jax.Array, **how: Any) -> jax.Array:
        own, drop = self.module, self.module.dropout
        module = None if how.get("module") is None else own
        if self.drawn is None:
            given = {**how, "module": module, "dropout_rate": 0.0 if _is(own.dropout_rate, 0) else 1.0}
            out: jax.Array = own.attention_fn(query, key, value, **given)  # flax has another path at rate 0
            return out
        share = sharing_too(drop.share, (0, 1) if own.broadcast_dropout else ())
        noise = WeightNoise(self.drawn.rate, self.drawn.key, share, drop.noise)
        taken = {name: how.get(name) for name in ("bias", "mask", "dtype", "precision")}
        look = None if module is None else _sower(module)
        return headed(query, key, value, noise, is_causal=bool(how.get("is_causal")), look=look, **taken)


class MultiHeadAttention(nnx.MultiHeadAttention):
    """`nnx.MultiHeadAttention` with its signature, whose dropout is a module `dropout`: a site of `dropkit.jax.bind`.

    `out = W_o (keep * softmax(q k' / sqrt(d))) v / (1 - rate)`, with the mask
    `dropkit.keep((batch, heads, queries, keys), rate, key)`. Where the weights are many, none are kept for the backward
    pass, nor all made at once.

    Args:
        num_heads, in_features, ...: those of `nnx.MultiHeadAttention`, grouped heads, normalisation and decoding too.
        dropout_rate: drop probability in [0, 1]; a number, an array, traced or not, or an nnx.Variable. It may be
            assigned at any time, and is then state.
        broadcast_dropout: whether one mask is drawn for all samples and heads. False here, so that each has its own; in
            flax it is True, and `swap` leaves it as it is.
        keep_rngs: whether to fork `rngs` for dropout. A model that is bound needs none.

    Raises:
        DropkitValueError, DropkitTypeError: a rate outside [0, 1], NaN or no number; an attention_fn.

    Source: Vaswani et al. 2017 (arXiv:1706.03762).

    >>> from dropkit.jax import bind, sites
    >>> layer = MultiHeadAttention(2, 8, dropout_rate=0.1, decode=False, rngs=nnx.Rngs(0), deterministic=False)
    >>> list(sites(bind(layer, seed=1))), layer(jax.numpy.ones((4, 3, 8))).shape
    (['dropout'], (4, 3, 8))
    """

    dropout: Dropout

    def __init__(
        self,
        num_heads: int,
        in_features: int,
        *features: Any,
        dropout_rate: Any = 0.0,
        broadcast_dropout: bool = False,
        deterministic: bool | None = None,
        keep_rngs: bool = True,
        rngs: nnx.Rngs,
        **how: Any,
    ):
        if how.get("attention_fn", flax_attention) is not flax_attention:
            raise DropkitTypeError(
                f"this MultiHeadAttention has an attention of its own and takes no attention_fn, got "
                f"{how['attention_fn']!r}; pass it to nnx.MultiHeadAttention"
            )
        drop = Dropout(dropout_rate, deterministic=None)
        super().__init__(
            num_heads, in_features, *features, deterministic=deterministic, broadcast_dropout=broadcast_dropout,
            keep_rngs=False, rngs=rngs, **how,
        )  # fmt: skip
        if keep_rngs and not _is(drop.rate, 0):
            drop.rngs = rngs.dropout.fork()
        self.dropout = drop

    @property
    def dropout_rate(self) -> Any:
        """The drop probability of `dropout`; assigned, it is state."""
        return vars(self)["dropout"].rate if "dropout" in vars(self) else 0.0

    @dropout_rate.setter
    def dropout_rate(self, value: Any) -> None:
        if "dropout" in vars(self):  # not yet while flax constructs it
            self.dropout.rate = value

    def __call__(
        self, inputs_q: jax.Array, *inputs: Any, deterministic: bool | None = None, rngs: Any = None, **how: Any
    ) -> jax.Array:
        """As `nnx.MultiHeadAttention`; `rngs` may be any key that `dropkit.jax.dropout` takes besides."""
        inside = object.__new__(type(self))  # flax' own call, of a module that is this one but for its dropout
        vars(inside).update(vars(self))
        vars(inside).update(attention_fn=_Attention(self, self._drawn(deterministic, rngs)), dropout=_OFF)
        out: jax.Array = nnx.MultiHeadAttention.__call__(inside, inputs_q, *inputs, deterministic=True, **how)
        return out

    def _drawn(self, deterministic: bool | None, rngs: Any) -> Drawn | None:
        """What a call draws with; None if it drops nothing."""
        given = self.deterministic if deterministic is None else deterministic
        nothing = _is(self.dropout_rate, 0)
        if nothing and given is None and self.dropout.deterministic is None:
            return None  # as in flax, nobody has to say it then
        if not active(self.dropout, given):
            return None
        found = drawn(self.dropout, rngs)
        return None if nothing else found


def attends(module: Any) -> bool:
    """Whether it is an attention whose dropout is a module in it."""
    return getattr(type(module), "dropout_rate", None) is MultiHeadAttention.dropout_rate


def kind_of(own: type) -> type:
    """The class that an attention of this one becomes."""
    if own is nnx.MultiHeadAttention:
        return MultiHeadAttention
    if own not in _KINDS:
        names = {name: getattr(own, name) for name in ("__module__", "__qualname__", "__doc__")}
        names |= {name: vars(MultiHeadAttention)[name] for name in ("__call__", "dropout_rate", "_drawn")}
        pytree = getattr(own, "_pytree__is_pytree", True)
        _KINDS[own] = new_class(own.__name__, (own,), {"pytree": pytree}, lambda space: space.update(names))
    return _KINDS[own]


def why_not(module: nnx.MultiHeadAttention) -> str | None:
    """Why an attention of flax' cannot become one of ours; None if it can."""
    if type(module).__call__ is not nnx.MultiHeadAttention.__call__:
        return "has a call of its own"
    if module.attention_fn not in (flax_attention, dot_product_attention):
        return f"has an attention_fn of its own, {getattr(module.attention_fn, '__name__', module.attention_fn)}"
    return None


def _sower(module: nnx.Module) -> Any:
    return lambda weights: module.sow(nnx.Intermediate, "attention_weights", weights)


def _is(rate: Any, number: float) -> bool:
    """Whether a rate is known to be this number."""
    return not isinstance(rate, jax.core.Tracer) and np.ndim(rate) == 0 and bool(rate == number)
