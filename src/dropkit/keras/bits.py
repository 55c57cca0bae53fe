"""The mask in `keras.ops`, for keys and rates that a compiler traces: `dropkit.mask` without 64-bit products.

torch has hardly any unsigned integers. So a word is a uint32 where there is one and an int64 elsewhere, and products go
by halves of 16 bits, which both hold exactly; but on TensorFlow and JAX, which can do better.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from ..counter import FOLD_ROUNDS, MASK32, MASK_ROUNDS
from ..counter import philox4x32 as counter_philox
from ..mask import BERNOULLI, NORMAL_ANGLE, NORMAL_RADIUS, UNIFORM, WORD
from ..place import Place
from ..threshold import ONE

BACKEND = keras.config.backend()
DTYPE = "int64" if BACKEND == "torch" else "uint32"

Words = Any  # a key: two words, which JAX has in one array
Blocks = Callable[[Any, Any], Any]  # (low, high) words of block numbers -> the values of each block, on a last axis


def word(value: Any) -> Any:
    """A number below 2**32 as the backend's words take it; tensors as they are."""
    if not isinstance(value, int):
        return value
    # JAX takes no Python integer past 2**31 beside a uint32.
    return value if DTYPE == "int64" else np.uint32(value)


def _product(a: Any, multiplier: int) -> tuple[Any, Any]:
    """High and low 32 bits of a product of two 32-bit numbers."""
    if BACKEND == "tensorflow":  # has both widths
        whole = ops.cast(a, "uint64") * np.uint64(multiplier)
        return ops.cast(ops.right_shift(whole, 32), DTYPE), a * word(multiplier)
    # By halves, none of whose products and sums reaches 2**32.
    low, high = a & word(0xFFFF), ops.right_shift(a, 16)
    m_low, m_high = word(multiplier & 0xFFFF), word(multiplier >> 16)
    lowest, cross, other = low * m_low, low * m_high, high * m_low
    middle = ops.right_shift(lowest, 16) + (cross & word(0xFFFF)) + (other & word(0xFFFF))
    top = high * m_high + ops.right_shift(cross, 16) + ops.right_shift(other, 16) + ops.right_shift(middle, 16)
    return top, ops.left_shift(middle & word(0xFFFF), 16) | (lowest & word(0xFFFF))


def _plus(a: Any, number: int) -> Any:
    """The low 32 bits of a sum of two 32-bit numbers."""
    return (a + word(number)) & word(MASK32)


def philox4x32(counter: Sequence[Any], key: Words, rounds: int) -> tuple[Any, Any, Any, Any]:
    """`dropkit.counter.philox4x32` on words."""
    if BACKEND == "jax":
        from . import jax_state

        return jax_state.philox(tuple(counter), tuple(map(word, key)) if isinstance(key, tuple) else key, rounds)
    c0, c1, c2, c3 = (ops.convert_to_tensor(c, DTYPE) for c in counter)
    k0, k1 = (ops.convert_to_tensor(k, DTYPE) for k in key)
    return counter_philox((c0, c1, c2, c3), (k0, k1), rounds, _product, _plus)


def fold(seed: Words, site: int, step: Words) -> Words:
    """The two key words, where seed and step are (low, high) words and the site is a number."""
    counter = (word(site & MASK32), word(site >> 32), *map(word, step))
    k0, k1, _, _ = philox4x32(counter, (word(seed[0]), word(seed[1])), FOLD_ROUNDS)
    return k0, k1


def keep(place: Place | Sequence[Any], t: Any, key: Words) -> Any:
    """The bool mask of a whole noise shape, or of a place in one, for one t (kept of 65536) that may be traced."""
    t = ops.convert_to_tensor(t, DTYPE)
    shifts, bits = np.arange(0, WORD, 8).astype(DTYPE), np.arange(8, dtype=np.uint8)

    def blocks(low: Any, high: Any) -> Any:
        # By way of bytes, which are a quarter of the memory of words.
        packed = ops.expand_dims(_keep_words(low, high, t, key), -1)
        octets = ops.cast(ops.right_shift(packed, ops.convert_to_tensor(shifts)) & word(0xFF), "uint8")
        lanes = ops.right_shift(ops.expand_dims(octets, -1), ops.convert_to_tensor(bits))
        return ops.not_equal(lanes & np.uint8(1), np.uint8(0))

    return elements(place, WORD, blocks)


def _keep_words(low: Any, high: Any, t: Any, key: Words) -> Any:
    """`dropkit.mask.keep_words` for a t that is data: every level runs, and bits of t select what it does."""

    # A loop, not a formula: XLA would merge a formula into what uses it, and compute each word for each of its bits.
    def group(number: Any, state: tuple[Any, Any]) -> tuple[Any, Any]:
        less, equal = state
        number = ops.cast(number, DTYPE)
        for level, random in enumerate(_levels(low, high, number, key)):
            wanted = _all_ones(t, word(15 - level) - number * word(4))
            less = less | (~random & equal & wanted)
            equal = ~(random ^ wanted) & equal
        return less, equal

    zeros = ops.zeros_like(low)
    # Up to the group of t's last bit: one for p = 0.5, four for most.
    rest = [ops.left_shift(t, 4 * number) & word(ONE - 1) for number in range(4)]
    groups = sum(ops.cast(ops.not_equal(bits, word(0)), "int32") for bits in rest)
    return ops.fori_loop(0, groups, group, (zeros | _all_ones(t, 16), zeros | word(MASK32)))[0]


def _all_ones(t: Any, bit: Any) -> Any:
    """A word of ones where this bit of t is set, of zeros elsewhere."""
    return (ops.right_shift(t, bit) & word(1)) * word(MASK32)


def _levels(low: Any, high: Any, group: Any, key: Words) -> tuple[Any, Any, Any, Any]:
    """The words of the four levels of a group."""
    return philox4x32((low, high, group, word(BERNOULLI)), key, MASK_ROUNDS)


def random16(place: Place | Sequence[Any], key: Words) -> Any:
    """Each element's 16 random bits, where the rate differs by element: `keep = random16 < t`."""
    lanes = ops.convert_to_tensor(np.arange(WORD, dtype=DTYPE))

    def blocks(low: Any, high: Any) -> Any:
        total = word(0)
        for group in range(4):
            for random in _levels(low, high, word(group), key):
                bit = ops.right_shift(ops.expand_dims(random, -1), lanes) & word(1)
                total = ops.left_shift(total, 1) | bit
        return total

    return elements(place, WORD, blocks)


def uniform(place: Place | Sequence[Any], key: Words) -> Any:
    """`dropkit.uniform` of a whole shape, or of a place in one, float32."""
    return elements(place, 4, lambda low, high: _uniforms(low, high, key, UNIFORM))


def normal(place: Place | Sequence[Any], key: Words) -> Any:
    """`dropkit.normal` of a whole shape, or of a place in one, float32."""

    def pairs(low: Any, high: Any) -> Any:
        radius = ops.sqrt(-2.0 * ops.log(_uniforms(low, high, key, NORMAL_RADIUS)))
        angle = _uniforms(low, high, key, NORMAL_ANGLE) * np.float32(2 * math.pi)
        both = ops.stack([radius * ops.cos(angle), radius * ops.sin(angle)], axis=-1)
        return ops.reshape(both, (-1, 8))

    return elements(place, 8, pairs)


def _uniforms(low: Any, high: Any, key: Words, domain: int) -> Any:
    numbers = philox4x32((low, high, word(0), word(domain)), key, MASK_ROUNDS)
    integers = ops.stack([ops.right_shift(number, 9) for number in numbers], axis=-1)
    return (ops.cast(integers, "float32") + 0.5) * 2.0**-23


def elements(place: Place | Sequence[Any], width: int, blocks: Blocks) -> Any:
    """Each element's value, where `blocks` computes the `width` values of the indices from `width * block` on.

    Args:
        place: a noise shape (whose sizes may be traced), or a place in one.
        width: a power of two.
    """
    if isinstance(place, Place) and (not place.flat or place.base):
        return _scattered(place, width, blocks)
    shape = place.shape if isinstance(place, Place) else place
    size: Any = 1
    for n in shape:
        size = size * n
    # TensorFlow has no unsigned ranges.
    low = ops.cast(ops.arange((size + width - 1) // width, dtype="int32"), DTYPE)
    # The high word stays 0: an array of 2**37 elements is none that is computed whole.
    return ops.reshape(ops.reshape(blocks(low, word(0)), (-1,))[:size], shape)


def _scattered(place: Place, width: int, blocks: Blocks) -> Any:
    """The same for runs of consecutive indices that begin anywhere below 2**63."""
    outer, run = place.runs()
    start = _starts(place, outer)
    if run == 0 or start.size == 0:
        return ops.reshape(blocks(ops.zeros((0,), DTYPE), word(0)), place.shape)
    lead = (start % np.uint64(width)).astype(np.int32)
    count = (int(lead.max()) + run - 1) // width + 1
    number = start[..., None] // np.uint64(width) + np.arange(count, dtype=np.uint64)
    low, high = (number & np.uint64(MASK32)).astype(DTYPE), (number >> np.uint64(32)).astype(DTYPE)
    flat = blocks(ops.convert_to_tensor(low.reshape(-1)), ops.convert_to_tensor(high.reshape(-1)))
    table = ops.reshape(flat, (*start.shape, count * width))
    at = np.broadcast_to(lead[..., None] + np.arange(run, dtype=np.int32), (*start.shape, run))
    return ops.reshape(ops.take_along_axis(table, ops.convert_to_tensor(np.ascontiguousarray(at)), -1), place.shape)


def _starts(place: Place, outer: int) -> Any:
    """The index of the first element of each run, over the `outer` leading axes, in NumPy."""
    start = np.full(place.shape[:outer], place.base, np.uint64)
    for axis in range(outer):
        by_rows = axis == 0 and place.rows is not None
        coordinate = place.rows if by_rows else np.arange(place.shape[axis], dtype=np.uint64)
        start += (coordinate * np.uint64(place.strides[axis])).reshape(-1, *[1] * (outer - axis - 1))
    return start


def thresholds(p: Any) -> Any:
    """t of every element of a floating tensor p that may be traced."""
    wide = p if keras.backend.standardize_dtype(p.dtype) == "float64" else ops.cast(p, "float32")
    return ops.cast(ONE - ops.round(wide * float(ONE)), "int32")
