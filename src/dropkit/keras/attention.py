"""Keras' attention layers whose weights are dropped by keyed masks."""

from collections.abc import Mapping
from functools import wraps
from typing import Any

import keras
from keras import ops

from ..axes.noise import Bernoulli
from . import engine
from .draw import LEVEL_ONE
from .held import Holder, Rate, check_rates, telling
from .layers import Dropout
from .rated import NOBODY

_register = keras.saving.register_keras_serializable(package="dropkit")


class _Heads(Holder):
    """Attention with heads, whose dropout is a layer in Keras' own too."""

    _always_held = True
    _gate = "_dropout"  # under which name Keras' code reads the rate

    def __setattr__(self, name: str, value: Any) -> None:
        """Ours stays where Keras' `build` puts a dropout of its own."""
        theirs = name == "_dropout_layer" and type(value) is keras.layers.Dropout
        if not (theirs and isinstance(getattr(self, name, None), Dropout)):
            super().__setattr__(name, value)

    def _drops_unseen(self, query: Any, training: Any) -> bool:
        """Whether a call drops weights that nobody looks at, by a mask that torch's kernel on the CPU makes itself."""
        drop = self.drops["dropout"]
        law = isinstance(drop, Dropout) and (drop.noise, drop.share) == (Bernoulli(), NOBODY)
        if engine.backend() != "torch" or len(query.shape) != 4 or engine.overheard() or not law:
            return False
        return engine.eagerly_on_cpu(query) and drop.active(training)

    def _attend(self, query: Any, key: Any, value: Any, mask: Any, causal: bool, scale: float) -> Any:
        """Dropped weights times values, (batch, length, heads, features) in and out, by dropkit's torch frontend."""
        attention: Any = engine.frontend().attention  # type: ignore[union-attr]
        draw = engine.recorded(self.drops["dropout"].seed_generator.draw)
        if mask is not None:
            seen = ops.greater(mask, 0.5) if keras.backend.standardize_dtype(mask.dtype) != "bool" else mask
            mask = ops.expand_dims(seen, -3) if len(seen.shape) == 3 else seen
        heads = (ops.transpose(each, (0, 2, 1, 3)) for each in (query, key, value))
        out = attention(
            *heads, p=draw.level / LEVEL_ONE, training=True, key=draw.key, mask=mask, is_causal=causal, scale=scale,
            rows=draw.rows,
        )  # fmt: skip
        return ops.transpose(out, (0, 2, 1, 3))


def _telling(call: Any) -> Any:
    """A call of Keras' own, which asks for the rate when it is traced: whether it drops was settled at the start."""

    @wraps(call)
    def told(self: Any, *args: Any, **kwargs: Any) -> Any:
        made = self.__dict__.get(self._gate, 0.0)
        with telling(self, {self._gate: made or float(self.drops["dropout"].rate)}):
            return call(self, *args, **kwargs)

    return told


@_register
class MultiHeadAttention(_Heads, keras.layers.MultiHeadAttention):
    """`keras.layers.MultiHeadAttention` whose weights are dropped by keyed masks: `(keep * softmax(q k') / (1 - p)) v`.

    Args:
        num_heads, key_dim, value_dim: as Keras has them.
        dropout: drop probability of the weights in [0, 1]; made with 0, it drops never, and runs without weights.
        seed: an int in [0, 2**64); None draws one that `keras.utils.set_random_seed` governs.
        site: name or number before "/dropout"; the layer's name if left out. `bind` leaves a site that is given here.
        when: "train", "always" or "never", as in `Dropout`.
        **kwargs: Keras' own.

    Shapes, dtypes and masks are Keras'. The mask has the shape of the weights: (batch, heads, queries, keys).

    On torch, a call that nobody asks for its weights runs by `dropkit.torch.attention`, which keeps neither weights nor
    mask; elsewhere the weights are there, as in Keras.

    Raises:
        ValueError, TypeError: a rate outside [0, 1], NaN or no number; a bad seed; Keras' own.

    Source: Vaswani et al. 2017 (arXiv:1706.03762).

    >>> layer = MultiHeadAttention(2, 4, dropout=0.5, seed=1, name="attend")
    >>> y = layer(ops.ones((1, 3, 8)), ops.ones((1, 3, 8)), training=True)
    >>> y.shape == (1, 3, 8), layer.drops["dropout"].site
    (True, 'attend/dropout')
    """

    held_as: Mapping[str, str] = {"_dropout": "_dropout_layer"}
    _dropout = Rate("_dropout", "_dropout_layer")

    def __init__(
        self,
        num_heads: int,
        key_dim: int,
        value_dim: int | None = None,
        dropout: float = 0.0,
        *args: Any,
        seed: int | None = None,
        site: int | str | None = None,
        when: str = "train",
        **kwargs: Any,
    ):
        check_rates(dropout=dropout)
        super().__init__(num_heads, key_dim, value_dim, dropout, *args, **kwargs)
        self.take_over(seed, site, when)

    call = _telling(keras.layers.MultiHeadAttention.call)

    def _compute_attention(
        self,
        query: Any,
        key: Any,
        value: Any,
        attention_mask: Any = None,
        training: Any = None,
        return_attention_scores: bool = False,
        use_causal_mask: bool = False,
    ) -> Any:
        asked, one = return_attention_scores, len(self._attention_axes) == 1
        if self._dropout and not asked and one and self._drops_unseen(query, training):
            scale = self._inverse_sqrt_key_dim
            return self._attend(query, key, value, attention_mask, use_causal_mask, scale), None
        return super()._compute_attention(query, key, value, attention_mask, training, asked, use_causal_mask)


@_register
class GroupQueryAttention(_Heads, keras.layers.GroupQueryAttention):
    """`keras.layers.GroupQueryAttention` whose weights are dropped by keyed masks, (batch, query heads, queries, keys).

    Args:
        head_dim, num_query_heads, num_key_value_heads: as Keras has them.
        dropout, seed, site, when: as `MultiHeadAttention` has them.
        **kwargs: Keras' own.

    Raises:
        ValueError, TypeError: as `MultiHeadAttention`.

    Source: Ainslie et al. 2023 (arXiv:2305.13245).

    >>> layer = GroupQueryAttention(4, 4, 2, dropout=0.5, seed=1)
    >>> layer(ops.ones((1, 3, 8)), ops.ones((1, 3, 8)), training=True).shape == (1, 3, 8)
    True
    """

    _gate = "dropout"
    dropout = Rate("dropout", "_dropout_layer")

    def __init__(
        self,
        head_dim: int,
        num_query_heads: int,
        num_key_value_heads: int,
        dropout: float = 0.0,
        *args: Any,
        seed: int | None = None,
        site: int | str | None = None,
        when: str = "train",
        **kwargs: Any,
    ):
        check_rates(dropout=dropout)
        super().__init__(head_dim, num_query_heads, num_key_value_heads, dropout, *args, **kwargs)
        self.take_over(seed, site, when)

    call = _telling(keras.layers.GroupQueryAttention.call)

    def _compute_attention(
        self,
        query: Any,
        key: Any,
        value: Any,
        attention_mask: Any = None,
        training: Any = None,
        use_causal_mask: bool = False,
    ) -> Any:
        if self.dropout and not self._return_attention_scores and self._drops_unseen(query, training):
            scale = self._inverse_sqrt_head_dim
            return self._attend(query, key, value, attention_mask, use_causal_mask, scale), None
        return super()._compute_attention(query, key, value, attention_mask, training, use_causal_mask)


class _Scored(Holder):
    """Attention of one head, which drops by a function in Keras' own."""

    dropout = Rate("dropout", "_dropout_layer")

    def _apply_scores(self, scores: Any, value: Any, scores_mask: Any = None, training: bool = False) -> Any:
        """Keras' weights, dropped, times the values."""
        drop = self.drops.get("dropout")
        if drop is None or not drop.active(training):
            return super()._apply_scores(scores, value, scores_mask, False)  # type: ignore[misc]
        # Its weights by themselves: values without features cost nothing.
        _, weights = super()._apply_scores(scores, value[..., :0], scores_mask, False)  # type: ignore[misc]
        weights = drop(weights, training=training)
        return ops.matmul(weights, value), weights


@_register
class Attention(_Scored, keras.layers.Attention):
    """`keras.layers.Attention` whose weights are dropped by keyed masks, of shape (batch, queries, keys).

    Args:
        use_scale, score_mode: as Keras has them.
        dropout, seed, site, when: as `MultiHeadAttention` has them.
        **kwargs: Keras' own.

    Raises:
        ValueError, TypeError: as `MultiHeadAttention`.

    Source: Luong et al. 2015 (arXiv:1508.04025).

    >>> layer = Attention(dropout=0.5, seed=1)
    >>> layer([ops.ones((1, 3, 8)), ops.ones((1, 5, 8))], training=True).shape == (1, 3, 8)
    True
    """

    def __init__(
        self,
        use_scale: bool = False,
        score_mode: str = "dot",
        dropout: float = 0.0,
        seed: int | None = None,
        *,
        site: int | str | None = None,
        when: str = "train",
        **kwargs: Any,
    ):
        check_rates(dropout=dropout)
        super().__init__(use_scale=use_scale, score_mode=score_mode, dropout=dropout, **kwargs)
        self.take_over(seed, site, when)


@_register
class AdditiveAttention(_Scored, keras.layers.AdditiveAttention):
    """`keras.layers.AdditiveAttention` whose weights are dropped by keyed masks, of shape (batch, queries, keys).

    Args:
        use_scale: as Keras has it.
        dropout, seed, site, when: as `MultiHeadAttention` has them.
        **kwargs: Keras' own.

    Raises:
        ValueError, TypeError: as `MultiHeadAttention`.

    Source: Bahdanau et al. 2014 (arXiv:1409.0473).

    >>> layer = AdditiveAttention(dropout=0.5, seed=1)
    >>> layer([ops.ones((1, 3, 8)), ops.ones((1, 5, 8))], training=True).shape == (1, 3, 8)
    True
    """

    def __init__(
        self,
        use_scale: bool = True,
        dropout: float = 0.0,
        seed: int | None = None,
        *,
        site: int | str | None = None,
        when: str = "train",
        **kwargs: Any,
    ):
        check_rates(dropout=dropout)
        super().__init__(use_scale=use_scale, dropout=dropout, **kwargs)
        self.take_over(seed, site, when)
