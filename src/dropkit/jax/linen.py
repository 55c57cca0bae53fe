"""Dropout for flax.linen: its class and signature, masks from its rng collections, or keyed by seed, path and step."""

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from ..axes.noise import Alpha, Bernoulli, Hard, Noise
from ..axes.noise import Zoneout as Keeping
from ..axes.share import Axes, Sharing
from ..axes.when import When
from ..counter import Key, site_id
from ..drop import Drop
from ..errors import DropkitTypeError, DropkitValueError
from ..threshold import threshold, thresholds
from ..turns import in_pass, passes_checked
from .attention import WeightNoise, headed
from .keys import AnyKey, KeyWords, folded, halves, pair
from .ops import dropout, same
from .place import sharing_too
from .traces import tracing

COLLECTION = "dropkit"  # of the rngs, that makes masks keyed


def stream(seed: int, step: Any) -> jax.Array:
    """What keys all of a model's masks by (seed, path, step): `model.apply(variables, x, rngs={"dropkit": ...})`.

    Inside a jitted function the step must be an array among its arguments: then it is data, and another one compiles
    nothing. Under `nn.scan` and `nn.vmap` with `split_rngs={"dropkit": True}`, and inside `nn.jit`, Linen makes other
    numbers of these, which differ by layer.

    Args:
        seed: an int in [0, 2**64).
        step: an int in [0, 2**64), or an integer scalar of JAX, traced or not.

    Returns:
        A JAX PRNG key that holds the numbers as they are.

    Raises:
        DropkitValueError, DropkitTypeError: a number out of range, or none.

    Warns:
        UserWarning: a Python int as step while a function is traced.

    >>> import dropkit
    >>> y = Dropout(0.5, deterministic=False).apply({}, jnp.ones(8), rngs={"dropkit": stream(1, step=7)})
    >>> bool(((y != 0) == dropkit.keep((8,), 0.5, Key(seed=1, site="", step=7))).all())
    True
    """
    return _stream("stream", seed, step)


def passes(seed: int, step: Any, n: int) -> tuple[dict[str, jax.Array], ...]:
    """The rngs of n passes at one step whose masks differ: `[model.apply(variables, x, rngs=each) for each in ...]`.

    Pass 0 has `{"dropkit": stream(seed, step)}`, the masks of the step; pass j > 0 the collection "dropkit@j", by which
    each module draws at the site `path@j`: the masks of `dropkit.torch.passes`. What lists its collections
    (`split_rngs` of `nn.scan` and `nn.vmap`) has to list these too.

    Args:
        seed, step: those of `stream`.
        n: how many, at least 1.

    Raises:
        DropkitValueError, DropkitTypeError: a number out of range, or none.

    Sources: Gao et al. 2021 (SimCSE, arXiv:2104.08821); Liang et al. 2021 (R-Drop, arXiv:2106.14448).

    >>> drop = Dropout(0.5, deterministic=False)
    >>> first, second = (drop.apply({}, jnp.ones(64), rngs=each) for each in passes(1, 7, n=2))
    >>> bool((first == second).all())
    False
    """
    n = passes_checked(n)
    key = _stream("passes", seed, step)
    return tuple({str(in_pass(COLLECTION, turn)): key} for turn in range(n))


def _stream(asked: str, seed: int, step: Any) -> jax.Array:
    if isinstance(step, int) and tracing():
        warnings.warn(
            f"{asked} got the Python int {step} as step while a function is traced: it becomes a part of the program, "
            "and every other step is traced and compiled anew; hand the function an array, jnp.asarray(step)",
            stacklevel=3,
        )
    (seed_low, seed_high), (low, high) = pair(Key(seed).seed), halves("step", step)
    words = [jnp.asarray(word, jnp.uint32) for word in (seed_high, seed_low, high, low)]
    return jax.random.wrap_key_data(jnp.stack(words), impl="rbg")


class Dropout(nn.Dropout):
    """`nn.Dropout` of Linen with its signature: `y = x * keep / (1 - rate)`, and x itself if deterministic.

    The mask's key is the call's `rng`; or, where the rngs have a collection "dropkit" (see `stream`), that of seed,
    step and the module's path, such as "blocks_0.drop"; or it is from the collection "dropout", as in Linen. A module
    that is called twice in one forward has the same keyed mask twice: give such calls an `rng`.

    Args:
        rate: drop probability in [0, 1]; a number, or an array that broadcasts to the inputs, traced or not.
        broadcast_dims, share: axes along which one draw is shared; two names of one thing. Or, as share, a value of
            `dropkit.axes.share`.
        deterministic: whether to drop nothing; None if the call says so.
        rng_collection: name of the collection that keys are asked of.
        when: "train": unless deterministic; "always" or "never": whatever deterministic says.
        noise: what becomes of kept and dropped elements, a value of `dropkit.axes.noise`.

    Raises:
        DropkitValueError, DropkitTypeError: a rate outside [0, 1], NaN or no number; a bad share, when or noise.

    Source: Srivastava et al. 2014 (JMLR 15:1929).

    >>> layer = Dropout(0.5, deterministic=False)
    >>> layer.apply({}, jnp.ones((2, 8)), rng=Key(seed=1, site="drop"))
    Array([[0., 0., 0., 0., 2., 2., 2., 0.],
           [0., 2., 2., 2., 0., 0., 2., 0.]], dtype=float32)
    """

    share: Sequence[int] | Sharing = ()
    when: When | str = "train"
    noise: Noise = Bernoulli()
    branch: ClassVar[bool] = False  # whether all axes but the first share

    def __post_init__(self) -> None:
        if not isinstance(self.rate, jax.core.Tracer):
            if np.ndim(self.rate):
                thresholds(np.asarray(self.rate))
            else:
                threshold(self.rate.item() if isinstance(self.rate, np.ndarray | jax.Array) else self.rate)
        Drop(0.0, sharing_too(self.share, self.broadcast_dims), self.when, self.noise)  # checks them
        super().__post_init__()

    @nn.compact
    def __call__(
        self, inputs: jax.Array, deterministic: bool | None = None, rng: AnyKey | None = None, other: Any = None
    ) -> jax.Array:
        """The inputs with elements dropped, or the inputs themselves.

        Args:
            inputs: float16, bfloat16, float32 or float64, any shape.
            deterministic: whether to drop nothing, if the constructor did not say it.
            rng: a JAX PRNG key, or any key that `dropkit.jax.dropout` takes.
            other: the second array of a noise that needs one.

        Raises:
            ValueError: deterministic given twice or not at all.
            flax.errors.InvalidRngError: no rng, and no collection to ask.
            DropkitTypeError: inputs of another dtype; an rng that is none.
        """
        passes = When.of(self.when)
        if passes is When.TRAIN:
            deterministic = nn.merge_param("deterministic", self.deterministic, deterministic)
        on = passes.active(not deterministic)
        ends = (0, 1) if isinstance(self.noise, Hard) else (0,)
        certain = not on or (isinstance(self.rate, int | float) and self.rate in ends)  # nothing is drawn
        if same(self.noise, other) and (not on or (certain and self.rate == 0)):
            return inputs
        key = Key() if certain else _asked(self) if rng is None else rng
        share = sharing_too(self.share, range(1, inputs.ndim) if self.branch else self.broadcast_dims)
        return dropout(inputs, self.rate, training=on, key=key, share=share, noise=self.noise, other=other)


class AlphaDropout(Dropout):
    """Alpha dropout, which keeps mean 0 and variance 1, for networks of SELU units; arguments of `Dropout`.

    Source: Klambauer et al. 2017 (arXiv:1706.02515).

    >>> y = AlphaDropout(0.5, deterministic=False).apply({}, jnp.ones(6), rng=Key(seed=1, site="drop"))
    >>> [round(value, 3) for value in y.tolist()]
    [-0.779, -0.779, -0.779, -0.779, 1.666, 1.666]
    """

    noise: Noise = Alpha()


class DropPath(Dropout):
    """Drop a whole branch of each sample, stochastic depth: one draw for each entry of axis 0; arguments of `Dropout`.

    Source: Huang et al. 2016 (arXiv:1603.09382), inverted.

    >>> y = DropPath(0.5, deterministic=False).apply({}, jnp.ones((8, 3, 4)), rng=Key(seed=1, site="drop"))
    >>> bool((y == y[:, :1, :1]).all())
    True
    """

    branch: ClassVar[bool] = True


class Zoneout(Dropout):
    """A dropped unit keeps its previous value: `layer(new, other=old)`; deterministic, `(1 - rate) new + rate old`.

    Arguments of `Dropout`. Source: Krueger et al. 2017 (arXiv:1606.01305).

    >>> Zoneout(0.25, deterministic=True).apply({}, jnp.ones(2), other=jnp.zeros(2))
    Array([0.75, 0.75], dtype=float32)
    """

    noise: Noise = Keeping()


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
    module: nn.Module | None = None,
    force_fp32_for_softmax: bool = False,
    einsum_dot_general: Any = None,
    qk_attn_weights_einsum: Any = None,
    attn_weights_value_einsum: Any = None,
) -> jax.Array:
    """`nn.dot_product_attention` of Linen with its signature, the mask that of `dropkit.keep`.

    Arguments, values and errors are those of `dropkit.jax.nnx.dot_product_attention`; sums are in float32 at least.
    Pass it to `nn.MultiHeadDotProductAttention(attention_fn=...)`, whose collection "dropout" gives the key.

    Raises:
        DropkitTypeError: products of one's own, where something is dropped.

    >>> x = jnp.ones((2, 4, 2, 8))
    >>> dot_product_attention(x, x, x, dropout_rate=0.5, dropout_rng=jax.random.key(0)).shape
    (2, 4, 2, 8)
    """
    products = {
        "einsum_dot_general": einsum_dot_general,
        "qk_attn_weights_einsum": qk_attn_weights_einsum,
        "attn_weights_value_einsum": attn_weights_value_einsum,
    }
    known = isinstance(dropout_rate, int | float)
    if deterministic or (known and dropout_rate == 0):
        return nn.dot_product_attention(
            query, key, value, bias, mask, deterministic=True, dropout_rate=dropout_rate if known else 1.0, dtype=dtype,
            precision=precision, module=module, force_fp32_for_softmax=force_fp32_for_softmax, **products,
        )  # fmt: skip
    if own := [name for name, given in products.items() if given is not None]:
        raise DropkitTypeError(f"attention that drops has products of its own and takes no {own[0]}; leave it out")
    if dropout_rng is None:
        raise DropkitValueError("attention drops, but got no key: pass dropout_rng, or deterministic=True")
    query, key, value = nn.dtypes.promote_dtype(query, key, value, dtype=dtype)
    noise = WeightNoise(dropout_rate, dropout_rng, Axes((0, 1) if broadcast_dropout else ()))
    look = None if module is None else lambda weights: module.sow("intermediates", "attention_weights", weights)
    return headed(query, key, value, noise, bias=bias, mask=mask, precision=precision, look=look)


class MultiHeadDotProductAttention(nn.MultiHeadDotProductAttention):
    """`nn.MultiHeadDotProductAttention` of Linen with its signature; its mask is keyed where the rngs say so.

    The key is the call's `dropout_rng`; or, where the rngs have a collection "dropkit" (see `stream`), that of seed,
    step and the module's path with `dropout` behind it, such as "blocks_0.attend.dropout"; or it is from the collection
    "dropout", as in Linen.

    Args:
        num_heads, dropout_rate, ...: those of Linen's.
        broadcast_dropout: whether one mask is drawn for all samples and heads. False here, so that each has its own.

    Raises:
        DropkitValueError, DropkitTypeError: a rate outside [0, 1], NaN or no number.

    Source: Vaswani et al. 2017 (arXiv:1706.03762).

    >>> layer = MultiHeadDotProductAttention(2, dropout_rate=0.5, deterministic=False)
    >>> y, _ = layer.init_with_output({"params": jax.random.key(0), "dropkit": stream(1, step=0)}, jnp.ones((2, 4, 8)))
    >>> y.shape
    (2, 4, 8)
    """

    broadcast_dropout: bool = False
    attention_fn: Any = dot_product_attention

    def __post_init__(self) -> None:
        threshold(self.dropout_rate)
        super().__post_init__()

    @nn.compact
    def __call__(self, *inputs: Any, dropout_rng: AnyKey | None = None, **how: Any) -> jax.Array:
        """As Linen's; `dropout_rng` may be any key that `dropkit.jax.dropout` takes."""
        if dropout_rng is None and self.has_rng(COLLECTION):
            assert self.scope is not None
            dropout_rng = _keyed(self.scope.rngs[COLLECTION].rng, ".".join((*self.path, "dropout")))
        how["dropout_rng"] = dropout_rng  # for Linen any JAX array; ours takes every key
        out: jax.Array = super().__call__(*inputs, **how)
        return out


class MultiHeadAttention(MultiHeadDotProductAttention):
    """Linen's other name for `MultiHeadDotProductAttention`.

    >>> MultiHeadAttention(2, dropout_rate=0.5).dropout_rate
    0.5
    """


def _asked(layer: Dropout) -> AnyKey:
    """The key that a layer's scope has for it. No method, since Linen records the calls of methods in its tables."""
    assert layer.scope is not None
    given = [name for name in layer.scope.rngs if name.partition("@")[0] == COLLECTION]
    if not given:
        drawn: jax.Array = layer.make_rng(layer.rng_collection)
        return drawn
    if len(given) > 1:
        raise DropkitTypeError(
            f"rngs hold {' and '.join(map(repr, sorted(given)))}: one forward is one pass, with rngs of its own"
        )
    turn = given[0].partition("@")[2]
    return _keyed(layer.scope.rngs[given[0]].rng, str(in_pass(".".join(layer.path), int(turn or 0))))


def _keyed(given: jax.Array, path: str) -> KeyWords:
    """The key of a path in a `stream`."""
    words = jax.random.key_data(given) if jnp.issubdtype(given.dtype, jax.dtypes.prng_key) else given
    if words.shape != (4,):
        raise DropkitTypeError(
            f"rngs[{COLLECTION!r}] must be what dropkit.jax.linen.stream(seed, step) returns, got {given!r}"
        )
    return folded((words[1], words[0]), pair(site_id(path)), (words[3], words[2]))
