"""Keyed uniform and normal numbers in XLA's operations: `dropkit.uniform` and `dropkit.normal` on any device.

    u(i) = (n(i) + 1/2) 2**-23                      n(i): 23 bits of Philox, index i
    z(i) = sqrt(-2 ln u2(j)) (cos | sin)(2 pi u3(j))  j = i // 2, cos for even i, sin for odd i

Each element computes its own block of the generator and takes one word of four. That is more arithmetic than sharing a
block and, measured on a CPU, no slower: XLA fuses all of it with what uses the numbers, where shared blocks have to be
written and interleaved. And it is cut over a mesh as its result is, since no element asks another.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..counter import MASK_ROUNDS
from ..mask import NORMAL_ANGLE, NORMAL_RADIUS, UNIFORM
from ..place import Place
from .formula import Pair, philox4x32, shifted, starts


def uniform(words: Any, place: Place, base: Any) -> jax.Array:
    """Uniform numbers, never 0 or 1: the values of `dropkit.uniform` for the same key and place, bit for bit.

    Args:
        words: the two words of the key, uint32, shape (2,).
        place: where the noise tensor lies in the whole; its rows are pairs of words, shape (rows, 2), and its own base
            is of no account.
        base: index of the first element, uint32, low and high word.

    Returns:
        float32 array of `place.shape`.

    Source: mask specification v1 (docs/mask.md).

    >>> from dropkit import Key
    >>> from dropkit.place import place_of
    >>> three = jax.jit(lambda words, base: uniform(words, place_of((3,)), base))
    >>> u = three(jnp.array(Key(seed=1, site="u").words, jnp.uint32), jnp.zeros(2, jnp.uint32))
    >>> (u * 2**23 - 0.5).astype(int).tolist()
    [2878323, 2065413, 7642049]
    """
    return uniforms(starts(place.shape, place.strides, base, place.rows), (words[0], words[1]))


def normal(words: Any, place: Place, base: Any) -> jax.Array:
    """Standard normal numbers: the values of `dropkit.normal` for the same key and place, to float rounding.

    Arguments and result are those of `uniform`.

    Source: Box and Muller, 1958; mask specification v1 (docs/mask.md).

    >>> from dropkit.place import place_of
    >>> six = jax.jit(lambda words, base: normal(words, place_of((2, 3)), base))
    >>> six(jnp.array([7, 9], jnp.uint32), jnp.zeros(2, jnp.uint32)).shape
    (2, 3)
    """
    return normals(starts(place.shape, place.strides, base, place.rows), (words[0], words[1]))


def uniforms(index: Pair, key: Pair) -> jax.Array:
    """The uniform number of each index."""
    return _uniforms(index, key, UNIFORM)


def normals(index: Pair, key: Pair) -> jax.Array:
    """The normal number of each index."""
    both = shifted(index, 1)
    radius = jnp.sqrt(-2 * jnp.log(_uniforms(both, key, NORMAL_RADIUS)))
    angle = np.float32(2 * math.pi) * _uniforms(both, key, NORMAL_ANGLE)
    return radius * jnp.where(index[0] & 1 == 0, jnp.cos(angle), jnp.sin(angle))


SOURCES = {"uniform": uniforms, "normal": normals}  # of soft laws


def _uniforms(index: Pair, key: Pair, domain: int) -> jax.Array:
    """The uniform number of each index, in a domain of the generator's counter."""
    words = philox4x32((*shifted(index, 2), 0, domain), key, MASK_ROUNDS)
    lane = (index[0] & 3).astype(jnp.int32)
    integers = lax.select_n(*jnp.broadcast_arrays(lane, *words)) >> 9
    return (integers.astype(jnp.float32) + 0.5) * 2.0**-23
