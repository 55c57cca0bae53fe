"""Dropout for flax.nnx: its class and signature, a rate that is data, and masks that coordinates can key."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ...axes.noise import Alpha, Bernoulli, Gaussian, Hard, Noise
from ...axes.noise import Zoneout as Keeping
from ...axes.share import Block, Refining, Sharing
from ...axes.when import When
from ...counter import Key
from ...drop import Drop
from ...errors import DropkitTypeError, DropkitValueError
from ...threshold import ONE, threshold, thresholds
from ..keys import KeyWords
from ..ops import dropout, same
from ..place import sharing_too
from ..streams import KeyedStream as KeyedStream
from ..traces import Lanes, lanes


class Rate(nnx.Variable):
    """A drop probability that moves, as state: another value compiles nothing again.

    >>> layer = Dropout(0.5)
    >>> layer.rate = 0.25
    >>> type(layer.p).__name__, layer.rate
    ('Rate', 0.25)
    """


nnx.register_variable_name("dropkit_rate", Rate, overwrite=True)  # the collection that flax's Linen bridge puts it in


@dataclass(frozen=True)
class Rates:
    """Drop probabilities that are a part of the program; compared by value, as jit needs it.

    Args:
        shape: of the array.
        data: its bytes, as float32.

    >>> Rates((2,), np.float32([0.5, 0.25]).tobytes()).array
    array([0.5 , 0.25], dtype=float32)
    """

    shape: tuple[int, ...]
    data: bytes

    @property
    def array(self) -> np.ndarray:
        """The rates, float32."""
        return np.frombuffer(self.data, np.float32).reshape(self.shape)


class Drawn(NamedTuple):
    """What one call of a dropout draws with: the rate, as `dropout` takes it, and the key of the mask."""

    rate: Any
    key: jax.Array | Key | KeyWords


class Dropout(nnx.Dropout):
    """`nnx.Dropout` with its signature: `y = x * keep / (1 - rate)`, and x itself if deterministic.

    The mask's key comes from the layer's nnx stream, or, after `dropkit.jax.bind`, from (seed, path, step). The rate
    that the constructor gets is a part of the program, and the state that of `nnx.Dropout`. It may be assigned at any
    time, `layer.rate = 0.3`, and is then an nnx Variable, `layer.p`: from there on no value compiles anything.

    Args:
        rate: drop probability in [0, 1]; a number, an array that broadcasts to the inputs, traced or not, or an
            nnx.Variable of one, which layers may share. It gets no gradient.
        broadcast_dims, share: axes along which one draw is shared; two names of one thing. Or, as share, a value of
            `dropkit.axes.share`.
        deterministic: whether to drop nothing; None if the call says so.
        rng_collection: name of the collection that keys are asked of.
        rngs: nnx.Rngs or RngStream, which is forked; or a `dropkit.Key`: masks of its seed and site, from its step on.
        when: "train": unless deterministic; "always" or "never": whatever deterministic says.
        noise: what becomes of kept and dropped elements, a value of `dropkit.axes.noise`; by default the class'.

    Raises:
        DropkitValueError, DropkitTypeError: a rate outside [0, 1], NaN or no number; a bad share, when or noise.
        TypeError: rngs that are none of these.

    Source: Srivastava et al. 2014 (JMLR 15:1929).

    >>> layer = Dropout(0.5, rngs=Key(seed=1, site="drop"))
    >>> layer(jnp.ones((2, 8)))
    Array([[0., 0., 0., 0., 2., 2., 2., 0.],
           [0., 2., 2., 2., 0., 0., 2., 0.]], dtype=float32)
    >>> layer(jnp.ones(2), deterministic=True)
    Array([1., 1.], dtype=float32)
    """

    p: nnx.Variable  # the rate, once it moves
    noise: Noise = Bernoulli()
    spatial: tuple[int, ...] = ()  # what the presets share
    branch = False  # whether all axes but the first share

    def __init__(
        self,
        rate: Any,
        *,
        broadcast_dims: Sequence[int] = (),
        deterministic: bool | None = False,
        rng_collection: str = "dropout",
        rngs: nnx.Rngs | nnx.RngStream | Key | None = None,
        share: Sequence[int] | Sharing = (),
        when: When | str = "train",
        noise: Noise | None = None,
    ):
        self._lanes = Lanes(lanes())
        self._rate: float | Rates | None = None
        super().__init__(
            rate,
            broadcast_dims=broadcast_dims,
            deterministic=deterministic,
            rng_collection=rng_collection,
            rngs=None if isinstance(rngs, Key) else rngs,
        )
        if isinstance(rngs, Key):
            self.rngs = KeyedStream(rngs, tag=rng_collection)
        drop = Drop(0.0, sharing_too(share, self.spatial), when, self.noise if noise is None else noise)
        self.share = drop.share if isinstance(drop.share, Refining) else drop.axes
        self.when = When.of(drop.when)
        if noise is not None:
            self.noise = noise

    @property
    def rate(self) -> Any:
        """The drop probability: a float outside of traces, an array if traced or of several entries."""
        if "p" not in vars(self):
            return self._rate.array if isinstance(self._rate, Rates) else self._rate
        value = jnp.asarray(self.p[...])
        if isinstance(value, jax.core.Tracer) or value.ndim:
            return value
        return float(str(np.asarray(value)))  # 0.1 rather than the 0.10000000149 that float32 makes of it

    @rate.setter
    def rate(self, value: Any) -> None:
        if "rngs" not in vars(self):  # in the constructor
            self._begin(value)
            return
        new, stack = _rounded(value), self.stack
        if new.ndim and new.shape[: len(stack)] != stack:
            raise DropkitValueError(f"rate of shape {new.shape} does not fit a stack of layers of shape {stack}")
        if "p" in vars(self):
            new = jnp.broadcast_to(new, jnp.shape(self.p[...])) if new.ndim == 0 else new
            self.p.set_value(new)
        else:
            self.p = Rate(jnp.broadcast_to(new, stack) if new.ndim == 0 else new)
            self._rate = None
        self.rate_ndim = new.ndim - len(stack)

    def _begin(self, rate: Any) -> None:
        """The rate as the constructor gets it: a part of the program, unless it is traced or a Variable."""
        if isinstance(rate, nnx.Variable):
            _rounded(rate)  # checks it
            self.p = rate
        elif isinstance(rate, jax.core.Tracer):
            self.p = Rate(_rounded(rate))
        elif np.ndim(rate):
            near = _near(rate)
            self._rate = Rates(near.shape, near.tobytes())
        else:
            near = _near(rate)  # checks it
            self._rate = float(rate if isinstance(rate, int | float) else str(near))
        self.rate_ndim = np.ndim(rate[...] if isinstance(rate, nnx.Variable) else rate)  # of one layer's rate

    @property
    def stack(self) -> tuple[int, ...]:
        """Shape of the stack of layers that this one is, made by `nnx.vmap`; () for a single one."""
        if self.rngs is not None:
            return tuple(self.rngs.count.shape)
        if "p" in vars(self):
            shape = jnp.shape(self.p[...])
            return shape[: len(shape) - self.rate_ndim]
        return self._lanes.sizes[len(lanes()) :]

    def __call__(
        self,
        inputs: jax.Array,
        other: Any = None,
        *,
        deterministic: bool | None = None,
        rngs: nnx.Rngs | nnx.RngStream | jax.Array | Key | KeyWords | None = None,
        rows: Any = None,
    ) -> jax.Array:
        """The inputs with elements dropped, or the inputs themselves.

        Args:
            inputs: float16, bfloat16, float32 or float64, any shape.
            other: the second array of a noise that needs one.
            deterministic: overrides the constructor's.
            rngs: overrides the constructor's; besides a JAX PRNG key, any key that `dropkit.jax.dropout` takes.
            rows: row number in the whole of each entry of axis 0, such as the samples' numbers in the data set.

        Raises:
            DropkitValueError: neither the constructor nor the call said deterministic, or gave rngs.
            DropkitTypeError: rngs that are none of these; inputs of another dtype.
        """
        if not self._active(deterministic):
            if same(self.noise, other):
                return inputs
            return dropout(inputs, self._now(), training=False, noise=self.noise, other=other)
        rate, key = drawn(self, rngs)
        share = sharing_too(self.share, range(1, inputs.ndim) if self.branch else self.broadcast_dims)
        if same(self.noise, other) and not isinstance(rate, jax.core.Tracer) and np.ndim(rate) == 0 and rate == 0:
            return inputs  # of any dtype, as nnx.Dropout does
        return dropout(inputs, rate, training=True, key=key, share=share, rows=rows, noise=self.noise, other=other)

    def _now(self) -> Any:
        """The rate as `dropout` takes it."""
        if "p" in vars(self):
            return self.p[...]
        return self._rate.array if isinstance(self._rate, Rates) else self._rate

    def _graph_node_set_key(self, key: Any, value: Any) -> None:
        """What flax calls for state that the layer has none of: a checkpoint's rate does not override the code's."""
        if key != "p" or "p" in vars(self):
            super()._graph_node_set_key(key, value)

    def _active(self, deterministic: bool | None) -> bool:
        given = self.deterministic if deterministic is None else deterministic
        if given is None and self.when is When.TRAIN:
            raise DropkitValueError(
                "No `deterministic` argument was provided to Dropout. Pass it to the constructor, to the call, or with "
                "nnx.view(model, deterministic=...)"
            )
        return self.when.active(not given)

    def _certain(self) -> bool:
        """Whether the rate is known to need no random numbers: as in nnx.Dropout, no rngs are asked for then."""
        value, ends = self._now(), (0, 1) if isinstance(self.noise, Hard) else (0,)
        return not isinstance(value, jax.core.Tracer) and bool(np.isin(value, ends).all())


class AlphaDropout(Dropout):
    """Alpha dropout, which keeps mean 0 and variance 1, for networks of SELU units; arguments of `Dropout`.

    Source: Klambauer et al. 2017 (arXiv:1706.02515).

    >>> y = AlphaDropout(0.5, rngs=Key(seed=1, site="drop"))(jnp.ones(6))
    >>> [round(value, 3) for value in y.tolist()]
    [-0.779, -0.779, -0.779, -0.779, 1.666, 1.666]
    """

    noise = Alpha()


class SpatialDropout1D(Dropout):
    """Dropout of whole channels of (batch, time, channels); arguments of `Dropout` (Tompson et al. 2015).

    >>> y = SpatialDropout1D(0.5, rngs=Key(seed=1, site="drop"))(jnp.ones((2, 3, 4)))
    >>> bool((y == y[:, :1]).all())
    True
    """

    spatial = (-2,)


class SpatialDropout2D(Dropout):
    """Dropout of whole channels of (batch, height, width, channels); arguments of `Dropout` (Tompson et al. 2015).

    >>> y = SpatialDropout2D(0.5, rngs=Key(seed=1, site="drop"))(jnp.ones((2, 3, 3, 4)))
    >>> bool((y == y[:, :1, :1]).all())
    True
    """

    spatial = (-3, -2)


class SpatialDropout3D(Dropout):
    """Dropout of whole channels of (batch, depth, height, width, channels); arguments of `Dropout`.

    >>> y = SpatialDropout3D(0.5, rngs=Key(seed=1, site="drop"))(jnp.ones((2, 3, 3, 3, 4)))
    >>> bool((y == y[:, :1, :1, :1]).all())
    True
    """

    spatial = (-4, -3, -2)


class GaussianDropout(Dropout):
    """Multiplicative Gaussian noise: `y = x (1 + sqrt(rate / (1 - rate)) z)`; arguments of `Dropout`.

    Source: Srivastava et al. 2014 (JMLR 15:1929), section 10.

    >>> GaussianDropout(0.5, rngs=Key(seed=1, site="drop"))(jnp.ones(4)).shape
    (4,)
    """

    noise = Gaussian()


class DropPath(Dropout):
    """Drop a whole branch of each sample, stochastic depth: one draw for each entry of axis 0; arguments of `Dropout`.

    Stands on the output of a residual branch: `x + drop(branch(x))`.

    Source: Huang et al. 2016 (arXiv:1603.09382), inverted.

    >>> y = DropPath(0.5, rngs=Key(seed=1, site="drop"))(jnp.ones((8, 3, 4)))
    >>> bool((y == y[:, :1, :1]).all())
    True
    """

    branch = True


class DropBlock2D(Dropout):
    """Drop whole blocks of (batch, height, width, channels), each channel by itself, so that the mean rate is `rate`.

    Args:
        rate: drop probability in [0, 1].
        block_size: side of a block, or one for each axis; a block larger than the map is cut to it.
        deterministic, rng_collection, rngs, when: as those of `Dropout`.

    Raises:
        DropkitValueError, DropkitTypeError: as `Dropout`; a block size below 1.

    Source: Ghiasi, Lin and Le 2018 (arXiv:1810.12890).

    >>> DropBlock2D(0.3, 3, rngs=Key(seed=1, site="drop"))(jnp.ones((2, 9, 9, 4))).shape
    (2, 9, 9, 4)
    """

    def __init__(self, rate: Any, block_size: int | Sequence[int] = 7, **how: Any):
        size = tuple(block_size) if isinstance(block_size, list | tuple) else block_size
        super().__init__(rate, share=Block(size, (-3, -2)), **how)


class Zoneout(Dropout):
    """A dropped unit keeps its previous value: `layer(new, previous)`; `(1 - rate) new + rate previous` deterministic.

    Arguments of `Dropout`. Source: Krueger et al. 2017 (arXiv:1606.01305).

    >>> Zoneout(0.25, deterministic=True)(jnp.ones(2), jnp.zeros(2))
    Array([0.75, 0.75], dtype=float32)
    """

    noise = Keeping()


# Functions, since flax tabulates each public method of a module as if it were a layer's.
def drawn(drop: Dropout, rngs: Any = None) -> Drawn:
    """What a call of a dropout draws with, which is the next of its stream unless `rngs` say another."""
    given = drop.rngs if rngs is None else rngs
    key = Key() if given is None and drop._certain() else _drawn(given, drop.rng_collection)
    return Drawn(drop._now(), key)


def active(drop: Dropout, deterministic: bool | None = None) -> bool:
    """Whether noise is on in a call of a dropout that says `deterministic`, or nothing of it."""
    return drop._active(deterministic)


def _drawn(rngs: Any, collection: str) -> jax.Array | Key | KeyWords:
    """The key that is next in what was given."""
    if rngs is None:
        raise DropkitValueError(
            "`deterministic` is False, but no `rngs` argument was provided to Dropout as either a __call__ argument or "
            "class attribute; give rngs, or dropkit.jax.bind the model"
        )
    stream = rngs[collection] if isinstance(rngs, nnx.Rngs) else rngs
    if isinstance(stream, KeyedStream):
        return stream.draw()
    if isinstance(stream, nnx.RngStream):
        return stream()
    if isinstance(stream, jax.Array | Key | KeyWords):
        return stream
    raise DropkitTypeError(
        f"rngs must be a Rngs, RngStream or jax.Array, but got {type(rngs)}; a dropkit.Key is taken too"
    )


def _rounded(rate: Any) -> jax.Array:
    """A rate in float32 whose threshold is that of the number given; checked unless traced."""
    if isinstance(rate, nnx.Variable):
        rate = rate[...]
    if isinstance(rate, jax.core.Tracer):
        return rate.astype(jnp.float32)
    return jnp.asarray(_near(rate))


def _near(rate: Any) -> np.ndarray:
    """`_rounded` of a known rate, without JAX: under `jit` and `eval_shape` it stays known."""
    if np.ndim(rate) == 0:
        exact: Any = threshold(rate.item() if isinstance(rate, np.ndarray | jax.Array) else rate)
    else:
        exact = thresholds(np.asarray(rate))
    near = np.asarray(rate, np.float32)
    return np.asarray(np.where(thresholds(near) == exact, near, np.float32(1) - exact / np.float32(ONE)), np.float32)
