"""Masks in XLA's operations, for any device. Equal to the kernels' bit for bit.

JAX computes without 64-bit integers unless told otherwise, so an index is a pair of words, low and high. A product has
64 bits all the same: it is a few operations instead of two dozen, and what a program costs to compile goes with them.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..counter import MASK32, MASK_ROUNDS
from ..counter import philox4x32 as counter_philox
from ..mask import BERNOULLI, WORD
from ..place import Place
from ..threshold import ONE

Pair = tuple[Any, Any]  # low and high word of a 64-bit number
INVALID = MASK32  # t of a traced rate that is no probability: the result is NaN throughout
Levels = Callable[[Any], tuple[jax.Array, ...]]  # of a group's number: its four level words
GROUPS = 4  # of four levels each, which 16-bit thresholds can reach


def philox4x32(counter: tuple[Any, Any, Any, Any], key: Pair, rounds: int) -> tuple[Any, Any, Any, Any]:
    """`dropkit.counter.philox4x32` on uint32 arrays, or NumPy scalars, that broadcast against each other.

    >>> words = philox4x32((0, 0, 0, 0), (jnp.uint32(0), jnp.uint32(0)), rounds=10)
    >>> [hex(word) for word in words]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    c0, c1, c2, c3 = (jnp.asarray(word, jnp.uint32) for word in counter)
    return counter_philox((c0, c1, c2, c3), key, rounds, _high_low, _plus_constant)


def _high_low(word: jax.Array, factor: int) -> Pair:
    low, high = product(word, factor)
    return high, low


def _plus_constant(word: Any, number: int) -> Any:
    return word + jnp.uint32(number)  # JAX takes no Python integer past 2**31 beside a uint32


def keep_mask(
    shape: tuple[int, ...],
    t: jax.Array,
    key: jax.Array,
    base: jax.Array,
    rows: jax.Array | None,
    strides: tuple[int, ...],
    batch: int,
    aligned: bool,
    early: bool,
) -> jax.Array:
    """The mask of `dropkit.keep`; bool, a shape that broadcasts to `shape`. Arguments as those of `primitive.bind`."""
    noise = tuple(size if stride else 1 for size, stride in zip(shape[batch:], strides, strict=True))
    outer, run = Place(noise, strides, rows=rows).runs()
    aligned = aligned and all(stride % WORD == 0 for stride in strides[:outer])
    count = -(-run // WORD)

    def words_at(base: jax.Array, rows: jax.Array | None) -> Pair:
        low, high = shifted(starts(noise[:outer], strides, base, rows), 5)
        number = lax.iota(jnp.uint32, count if aligned else count + 1)
        return plus((low[..., None], high[..., None]), (number, jnp.uint32(0)))

    def levels(group: Any) -> tuple[jax.Array, ...]:
        # Else XLA would compute before the loop what does not depend on the group, with a kernel for each number.
        g, k, start, where = lax.optimization_barrier((group, key, base, rows))
        return philox4x32((*words_at(start, where), g, BERNOULLI), pair_of(k, [1] * (outer + 1)), MASK_ROUNDS)

    lead = None if aligned else (starts(noise[:outer], strides, base, rows)[0] & (WORD - 1))[..., None]
    word, k0 = words_at(base, rows), pair_of(key, [1] * (outer + 1))[0]  # for their shapes

    def elements(words: jax.Array) -> jax.Array:
        bits = _bits(words, lead, run)
        return bits.reshape(*bits.shape[:batch], *noise)

    words = jnp.broadcast_shapes(word[0].shape, k0.shape)
    if t.ndim > batch:
        return _random16(levels, elements, _zeros(words, word[0])) < t
    each = t.reshape(*t.shape, *[1] * (outer + 1))
    words = jnp.broadcast_shapes(words, each.shape)
    return elements(_keep_words(levels, each, _zeros(words, word[0]), early)) != 0


def _keep_words(levels: Levels, t: jax.Array, zeros: jax.Array, early: bool) -> jax.Array:
    """`dropkit.mask.keep_words` with t as data: its bits, as masks, choose what is done at each level."""

    # A loop, not a formula: XLA would merge a formula into what uses it, and compute each word for each of its bits.
    # Its two words of state are one of 64 bits, so that one kernel computes both from the random words.
    def group(carry: tuple[Any, Any]) -> tuple[Any, Any]:
        g, state = carry
        less, equal = _low_high(state)
        for j, random in enumerate(levels(g)):
            bit = jnp.uint32(0) - ((t >> (jnp.uint32(15 - j) - 4 * g)) & 1)  # all ones or all zeros
            less = less | (equal & ~random & bit)
            equal = equal & (random ^ ~bit)
        return g + 1, _wide(less, equal)

    groups: Any = jnp.uint32(GROUPS)
    if early:
        groups = sum(((t << (4 * g)) & (ONE - 1)).any().astype(jnp.uint32) for g in range(GROUPS))
    start = _wide(jnp.where(t >= ONE, ~zeros, zeros), ~zeros)
    return _low_high(lax.while_loop(lambda carry: carry[0] < groups, group, (jnp.uint32(0), start))[1])[0]


def _wide(low: jax.Array, high: jax.Array) -> jax.Array:
    with jax.enable_x64(True):
        low, high = (lax.convert_element_type(word, np.uint64) for word in (low, high))
        return lax.bitwise_or(low, lax.shift_left(high, lax.full_like(high, WORD)))


def _low_high(wide: jax.Array) -> Pair:
    with jax.enable_x64(True):
        high = lax.shift_right_logical(wide, lax.full_like(wide, WORD))
        return lax.convert_element_type(wide, np.uint32), lax.convert_element_type(high, np.uint32)


def _random16(levels: Levels, elements: Callable[[jax.Array], jax.Array], zeros: jax.Array) -> jax.Array:
    """`dropkit.mask.random16`: the top 16 bits of R, for thresholds that differ by element."""

    def group(g: Any, random: jax.Array) -> jax.Array:
        for words in levels(g):
            random = (random << 1) | elements(words)
        return random

    return lax.fori_loop(jnp.uint32(0), jnp.uint32(GROUPS), group, elements(zeros))


def _bits(words: jax.Array, lead: jax.Array | None, run: int) -> jax.Array:
    """The bits of each run of words from its `lead` on, `run` of them: uint32, 0 or 1."""
    if lead is not None:  # a shift by 32 gives 0 in XLA
        words = (words[..., :-1] >> lead) | (words[..., 1:] << (WORD - lead))
    bits = (words[..., None] >> lax.iota(jnp.uint32, WORD)) & 1
    return bits.reshape(*words.shape[:-1], -1)[..., :run]


def _zeros(shape: tuple[int, ...], like: jax.Array) -> jax.Array:
    """Zeros that vary over the mesh axes that `like` varies over, as the carry of a loop must."""
    return jnp.broadcast_to(like ^ like, shape)


# ---------------------------------------------------------------------------------------------------------------------
# indices as pairs of words


def starts(noise: tuple[int, ...], strides: tuple[int, ...], base: jax.Array, rows: jax.Array | None) -> Pair:
    """The index at each position of some leading axes, at coordinate 0 of the rest.

    Args:
        noise: the sizes of these axes; all of them, for the index of each element.
        strides: by how many indices each moves.
        base: the index at the origin, low and high word.
        rows: where given, the number in the whole of each entry of axis 0, shape (noise[0], 2).
    """
    ones = [1] * len(noise)
    start = pair_of(base, ones)
    for axis, size in enumerate(noise):
        after = ones[axis + 1 :]
        if axis == 0 and rows is not None:
            coordinate = pair_of(rows, after)
        else:
            coordinate = lax.iota(jnp.uint32, size).reshape(size, *after), jnp.uint32(0)
        start = plus(start, times(coordinate, strides[axis]))
    return start


def pair_of(words: jax.Array, after: list[int]) -> Pair:
    """The two words along the last axis, with axes of size 1 in its place."""
    shape = (*words.shape[:-1], *after)
    return words[..., 0].reshape(shape), words[..., 1].reshape(shape)


def shifted(a: Pair, bits: int) -> Pair:
    """a // 2**bits, for 0 < bits < 32."""
    return (a[0] >> bits) | (a[1] << (WORD - bits)), a[1] >> bits


def plus(a: Pair, b: Pair) -> Pair:
    """a + b modulo 2**64."""
    low = a[0] + b[0]
    return low, a[1] + b[1] + (low < b[0]).astype(jnp.uint32)


def times(a: Pair, factor: int) -> Pair:
    """a * factor modulo 2**64."""
    low, high = product(a[0], factor & MASK32)
    return low, high + a[0] * jnp.uint32(factor >> 32) + a[1] * jnp.uint32(factor & MASK32)


def product(word: Any, factor: int) -> Pair:
    """word * factor, both below 2**32, in 64 bits: `jax.lax.mulhi` of JAX 0.10 does not compile for several devices."""
    with jax.enable_x64(True):
        wide = lax.convert_element_type(word, np.uint64)
        wide = lax.mul(wide, lax.full_like(wide, factor))
        high = lax.shift_right_logical(wide, lax.full_like(wide, 32))
        return lax.convert_element_type(wide, np.uint32), lax.convert_element_type(high, np.uint32)
