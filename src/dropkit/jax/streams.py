"""Streams of flax.nnx whose draws have the keys of coordinates."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ..counter import FOLD_ROUNDS, MASK32, Key, site_id
from ..errors import DropkitValueError
from ..turns import in_pass
from .formula import philox4x32
from .keys import KeyWords, names_in_stack

_WORDS = 4  # of a key: seed and site, high words first


class KeyedStream(nnx.RngStream):
    """An nnx stream whose draw number n has the key of (seed, site, n): what `bind` gives a layer.

    Its state is that of every stream, and what flax.nnx does with streams works: `key` holds seed and site, `count` the
    step. `split_rngs` and `fork` make streams of other seeds and sites, and restore this one; `reseed` another seed.

    Args:
        key: a `dropkit.Key`, whose step is the first to be drawn, below 2**32; or a JAX PRNG key (or an array of them).
        tag: name of the collection.
        site, stack: of a JAX PRNG key that `bind` made, the name in it and the shape of the stack of layers.

    >>> stream = KeyedStream(Key(seed=1, site="drop", step=7))
    >>> stream.draw().words.tolist() == list(Key(1, "drop", 7).words), int(stream.count[...])
    (True, 8)
    """

    def __init__(
        self,
        key: Key | jax.Array,
        *,
        tag: str = "dropout",
        site: int | str | None = None,
        stack: tuple[int, ...] = (),
    ):
        self.site = key.site if isinstance(key, Key) else site
        self.layers = "x".join(map(str, stack))  # plain text: a part of the program
        if not isinstance(key, Key):
            super().__init__(key, tag=tag)
            return
        super().__init__(keyed([site_id(key.site)], key.seed)[0], tag=tag)
        self.count.set_value(jnp.uint32(first_step(key.step)))

    def draw(self) -> KeyWords:
        """The key of the next mask; the step moves on."""
        key, step = self.key[...], self.count[...]
        if key.ndim:
            raise DropkitValueError(
                f"this layer's stream is a stack of {'x'.join(map(str, key.shape))} streams, one for each layer of a "
                "stack; call the layer inside nnx.scan or nnx.vmap over the stack"
            )
        self.count[...] = step + 1
        return KeyWords(_fold(jax.random.key_data(key), step))

    def key_in(self, turn: int, key: jax.Array) -> jax.Array:
        """This key as it is in one of several passes: that of the site `name@turn`, or in pass 0 itself."""
        stack = tuple(map(int, self.layers.split("x"))) if self.layers else ()
        words = jax.random.key_data(key)
        if words.shape[-1] != _WORDS:
            raise DropkitValueError(
                f"the stream of site {self.site!r} was reseeded and has no name any more: call dropkit.jax.bind again"
            )
        if key.ndim < len(stack) or key.shape[key.ndim - len(stack) :] != stack:
            raise DropkitValueError(
                f"passes inside of what goes over a stack of {self.layers} layers, where nobody knows which one of "
                f"{self.site!r} runs: open the block around the nnx.scan or nnx.vmap"
            )
        if not turn:
            return key
        names = names_in_stack(self.site, stack) if isinstance(self.site, str) else [self.site or 0]
        numbers = [site_id(in_pass(name, turn)) for name in names]
        high, low = (np.array(half, np.uint32).reshape(stack) for half in zip(*map(_halves, numbers), strict=True))
        return jax.random.wrap_key_data(words.at[..., 2].set(high).at[..., 3].set(low), impl="rbg")


def _halves(number: int) -> tuple[int, int]:
    return number >> 32, number & MASK32


def keyed(sites: Sequence[int], seed: int) -> jax.Array:
    """Seed and sites as JAX PRNG keys of four words, high words first; shape (len(sites),)."""
    words = [(seed >> 32, seed & MASK32, site >> 32, site & MASK32) for site in sites]
    return jax.random.wrap_key_data(jnp.array(words, jnp.uint32), impl="rbg")


def first_step(step: int) -> int:
    """A step that a stream can count from."""
    if step > MASK32:
        raise DropkitValueError(f"step must lie in [0, 2**32), since flax.nnx counts in 32 bits; got {step}")
    return step


@jax.jit
def _fold(words: jax.Array, step: jax.Array) -> jax.Array:
    if words.shape == (2,):  # after nnx.reseed: a seed alone
        words = jnp.concatenate([words, jnp.zeros(2, jnp.uint32)])
    counter = words[3], words[2], step, jnp.uint32(0)
    return jnp.stack(philox4x32(counter, (words[1], words[0]), FOLD_ROUNDS)[:2])
