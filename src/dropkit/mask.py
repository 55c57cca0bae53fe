"""The mask: `keep(seed, site, step, p, index) -> bool`, the one definition that every other implementation must equal.

One 32-bit word decides 32 elements. Level l of the generator gives bit l of 32 random numbers at once, so comparing
32 random numbers R with the threshold T takes a handful of operations on whole words, and stops at T's last set bit.

    keep(i) = R(i) < t * 2**16                  R(i): bit i % 32 of the level words of word number i // 32

t is what `dropkit.threshold` makes of p. Where an element lies in the *global* noise tensor is its index; `Place` says
so for a whole tensor, a shard, or rows.
The functions on words (`keep_words`, `random16`, `uniform_block`) work on NumPy uint64 and torch int64 arrays alike.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .axes.noise import ALPHA_PRIME, alpha_factors
from .counter import MASK32, MASK_ROUNDS, Key, philox4x32
from .errors import DropkitTypeError, DropkitValueError
from .place import MAX_INDEX, WHOLE, Part, Place, axis_numbers, check_last_row, place_of
from .threshold import ONE, rate_type, scale, threshold, thresholds

# What has moved to `threshold` and `axes.noise` stays importable from here.
__all__ = ["ALPHA_PRIME", "ONE", "alpha_factors", "keep", "normal", "rate_type", "scale", "threshold", "thresholds", "uniform", "words"]  # fmt: skip  # noqa: E501

WORD = 32  # elements that one keep-word decides
BERNOULLI, UNIFORM, NORMAL_RADIUS, NORMAL_ANGLE = range(4)  # the domains of the counter's last word

Words = tuple[Any, Any]


# ---------------------------------------------------------------------------------------------------------------------
# words: the arithmetic of the definition, on the unsigned 64-bit arrays of any library


def keep_words(word: Any, t: int, key: Words) -> Any:
    """Keep-words for word numbers: bit b of the result belongs to index `32 * word + b`.

    Args:
        word: word numbers, NumPy uint64 or torch int64, any shape.
        t: kept of 65536, in (0, 65536): the ends need no random numbers.
        key: the two words of `Key.words`.

    Returns:
        Values below 2**32, of the shape and kind of `word`.
    """
    less: Any = 0
    equal: Any = MASK32
    for level in range(16 - _trailing_zeros(t)):
        if level % 4 == 0:
            group = philox4x32((word & MASK32, (word >> 32) & MASK32, level // 4, BERNOULLI), key, MASK_ROUNDS)
        random = group[level % 4]
        if t >> (15 - level) & 1:
            less = less | (equal & ~random)
            equal = equal & random
        else:
            equal = equal & ~random
    return less


def random16(word: Any, lane: Any, key: Words) -> Any:
    """The top 16 bits of R for each of the 32 elements of each word: `keep = R16 < t`, whatever t is.

    Args:
        word: word numbers, any shape.
        lane: the numbers 0 to 31, of the same kind of array.
        key: the two words of `Key.words`.

    Returns:
        Values in [0, 65536), shape `(*word.shape, 32)`.
    """
    total: Any = 0
    for group in range(4):
        levels = philox4x32((word & MASK32, (word >> 32) & MASK32, group, BERNOULLI), key, MASK_ROUNDS)
        for random in levels:
            total = (total << 1) | ((random[..., None] >> lane) & 1)
    return total


def uniform_block(block: Any, key: Words, domain: int) -> tuple[Any, Any, Any, Any]:
    """The four 23-bit integers n of each block, where `u = (n + 0.5) * 2**-23` belongs to index `4 * block + lane`."""
    words = philox4x32((block & MASK32, (block >> 32) & MASK32, 0, domain), key, MASK_ROUNDS)
    return words[0] >> 9, words[1] >> 9, words[2] >> 9, words[3] >> 9


def _trailing_zeros(t: int) -> int:
    return (t & -t).bit_length() - 1


# ---------------------------------------------------------------------------------------------------------------------
# NumPy: elements from words


def keep(
    shape: Sequence[int], p: float | ArrayLike, key: Key,
    *, share: Sequence[int] = (), offset: Sequence[int] | None = None, global_shape: Sequence[int] | None = None,
    rows: ArrayLike | None = None, index: ArrayLike | None = None,
) -> NDArray[np.bool_]:  # fmt: skip
    """Which elements dropout keeps: `keep(i) = R(i) < T`, True with probability 1 - p.

    Args:
        shape: the activation's shape.
        p: drop probability in [0, 1], a number or an array that broadcasts to `shape`.
        key: the mask's coordinates.
        share: axes along which one draw is shared; negative ones count from the end.
        offset: where this tensor starts in the whole, one entry an axis; needs `global_shape`.
        global_shape: shape of the whole tensor of which this one is a shard.
        rows: row number in the whole of each entry of axis 0 (a sample's number in the data set, say), shape
            `(shape[0],)`; the mask of a row then does not depend on its batch.
        index: the global index of each element, given outright; broadcasts to `shape`, excludes the four above.

    Returns:
        Bool array of `shape`; along shared axes (scalar p) a read-only broadcast view.

    Raises:
        DropkitValueError, DropkitTypeError: p outside [0, 1], NaN or no number; a share axis that does not exist; an
            offset outside the global shape; rows or index that are negative, too large or of the wrong shape.

    Source: mask specification v1 (docs/mask.md).

    >>> keep((2, 8), 0.5, Key(seed=1, site="drop")).astype(int)
    array([[0, 0, 0, 0, 1, 1, 1, 0],
           [0, 1, 1, 1, 0, 0, 1, 0]])
    >>> keep((1, 4), 0.5, Key(seed=1, site="drop"), offset=(1, 1), global_shape=(2, 8)).astype(int)
    array([[1, 1, 1, 0]])
    """
    place = _where(shape, share, Part.of(offset, global_shape, rows), index)
    if np.ndim(p) == 0:
        t = threshold(p.item() if isinstance(p, np.ndarray) else p)  # type: ignore[arg-type]
        return np.broadcast_to(_keep_noise(place, t, key.words), shape)
    t_each = thresholds(np.asarray(p))
    lane = np.arange(WORD, dtype=np.uint64)
    random = _elements(place, WORD, lambda word: random16(word, lane, key.words))
    try:
        t_each = np.broadcast_to(t_each, shape)
    except ValueError:
        raise DropkitValueError(f"p of shape {np.shape(p)} does not broadcast to shape {tuple(shape)}") from None
    return random.astype(np.int64) < t_each


def words(
    shape: Sequence[int], p: float, key: Key,
    *, share: Sequence[int] = (), offset: Sequence[int] | None = None, global_shape: Sequence[int] | None = None,
    rows: ArrayLike | None = None, index: ArrayLike | None = None,
) -> NDArray[np.uint32]:  # fmt: skip
    """The mask packed, one bit an element of the noise tensor: bit b of word w belongs to element `32 * w + b`.

    Elements count in C order over the noise shape (shared axes count once); the bits past the last element are 0.
    Arguments and errors are those of `keep`, with a scalar p.

    Returns:
        uint32 array of `ceil(noise elements / 32)` words.

    >>> [hex(word) for word in words((2, 8), 0.5, Key(seed=1, site="drop"))]
    ['0x4e70']
    """
    place = _where(shape, share, Part.of(offset, global_shape, rows), index)
    bits = _keep_noise(place, threshold(p), key.words)
    packed = np.packbits(bits.reshape(-1), bitorder="little")
    return np.pad(packed, (0, -len(packed) % 4)).view("<u4").astype(np.uint32)


def uniform(
    shape: Sequence[int], key: Key,
    *, share: Sequence[int] = (), offset: Sequence[int] | None = None, global_shape: Sequence[int] | None = None,
    rows: ArrayLike | None = None, index: ArrayLike | None = None,
) -> NDArray[np.float32]:  # fmt: skip
    """Uniform numbers `u(i) = (n(i) + 0.5) * 2**-23` with a 23-bit n(i): exact in float32, never 0 or 1.

    Arguments and errors are those of `keep`.

    Returns:
        float32 array of `shape`; along shared axes a read-only broadcast view.

    >>> (uniform((3,), Key(seed=1, site="u")) * 2**23 - 0.5).astype(int)
    array([2878323, 2065413, 7642049])
    """
    place = _where(shape, share, Part.of(offset, global_shape, rows), index)
    return np.broadcast_to(_elements(place, 4, lambda block: _uniforms(block, key.words, UNIFORM)), shape)


def normal(
    shape: Sequence[int], key: Key,
    *, share: Sequence[int] = (), offset: Sequence[int] | None = None, global_shape: Sequence[int] | None = None,
    rows: ArrayLike | None = None, index: ArrayLike | None = None,
) -> NDArray[np.float32]:  # fmt: skip
    """Standard normal numbers in pairs: `z(i) = sqrt(-2 ln u2(j)) * (cos if i is even else sin)(2 pi u3(j))`.

    Here j = i // 2. Arguments and errors are those of `keep`. The uniforms are the same bits everywhere; log, sqrt
    and cos agree between libraries to float rounding.

    Returns:
        float32 array of `shape`; along shared axes a read-only broadcast view.

    Source: Box and Muller, 1958.

    >>> normal((4,), Key(seed=1, site="z")).shape
    (4,)
    """
    place = _where(shape, share, Part.of(offset, global_shape, rows), index)

    def pairs(block: NDArray[np.uint64]) -> NDArray[np.float32]:
        radius = np.sqrt(-2 * np.log(_uniforms(block, key.words, NORMAL_RADIUS)))
        angle = np.float32(2 * math.pi) * _uniforms(block, key.words, NORMAL_ANGLE)
        both = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
        return both.reshape(*block.shape, 8)

    return np.broadcast_to(_elements(place, 8, pairs), shape)


Where = Place | NDArray[np.uint64]  # computed indices, or indices given outright


def _where(shape: Sequence[int], share: Sequence[int], part: Part, index: ArrayLike | None) -> Where:
    if index is None:
        return known_place(shape, share, part)
    if not part.whole or axis_numbers("share", share):
        raise DropkitValueError("index gives every element's place outright; leave out share, offset and rows")
    numbers = _whole_numbers("index", index)
    try:
        return np.broadcast_to(numbers, shape)
    except ValueError:
        raise DropkitValueError(f"index of shape {numbers.shape} does not broadcast to shape {tuple(shape)}") from None


def known_place(shape: Sequence[int], share: Sequence[int] = (), part: Part = WHOLE) -> Place:
    """`place_of` with rows whose numbers are known: integers, not negative, none past index 2**63."""
    if part.rows is None:
        return place_of(shape, share, part)
    place = place_of(shape, share, part._replace(rows=_whole_numbers("rows", part.rows)))
    if place.rows is not None and place.rows.size:
        check_last_row(place, int(place.rows.max()))
    return place


def _whole_numbers(name: str, values: ArrayLike) -> NDArray[np.uint64]:
    array = np.asarray(values)
    if array.size == 0:
        return array.astype(np.uint64)
    if array.dtype.kind not in "iu":
        raise DropkitTypeError(f"{name} must hold integers, got dtype {array.dtype}")
    if array.min() < 0 or int(array.max()) > MAX_INDEX:
        raise DropkitValueError(f"{name} must lie in [0, 2**63], got {array.min()} to {array.max()}")
    return array.astype(np.uint64)


def _keep_noise(place: Where, t: int, key: Words) -> NDArray[np.bool_]:
    if t in (0, ONE):
        return np.full(place.shape, t == ONE)

    def bits(word: NDArray[np.uint64]) -> NDArray[np.bool_]:
        packed = keep_words(word, t, key).astype("<u4").reshape(-1)
        return np.unpackbits(packed.view(np.uint8), bitorder="little").view(np.bool_).reshape(*word.shape, WORD)

    return _elements(place, WORD, bits)


def _uniforms(block: NDArray[np.uint64], key: Words, domain: int) -> NDArray[np.float32]:
    integers = np.stack(uniform_block(block, key, domain), axis=-1)
    return (integers.astype(np.float32) + np.float32(0.5)) * np.float32(2**-23)


def _elements(place: Where, width: int, blocks: Callable[[NDArray], NDArray]) -> NDArray:
    """Each element's value, where `blocks(b)` computes the `width` values of the indices from `width * b` on."""
    if not isinstance(place, Place):
        numbers, where = np.unique(place // np.uint64(width), return_inverse=True)
        return blocks(numbers)[where.reshape(place.shape), (place % np.uint64(width)).astype(np.int64)]
    outer, run = place.runs()
    start = _starts(place, outer)
    first, lead = start // np.uint64(width), (start % np.uint64(width)).astype(np.int64)
    if start.size == 0 or run == 0:
        return blocks(np.zeros((1,), np.uint64)).reshape(-1)[:0].reshape(place.shape)
    count = (int(lead.max()) + run - 1) // width + 1
    table = blocks(first[..., None] + np.arange(count, dtype=np.uint64)).reshape(*start.shape, count * width)
    if (lead == lead.flat[0]).all():
        values = table[..., lead.flat[0] : lead.flat[0] + run]
    else:
        values = np.take_along_axis(table, lead[..., None] + np.arange(run), axis=-1)
    return values.reshape(place.shape)


def _starts(place: Place, outer: int) -> NDArray[np.uint64]:
    """The index of the first element of each run, over those of the `outer` leading axes that are longer than 1."""
    by_rows = place.rows is not None
    walked = [axis for axis in range(outer) if place.shape[axis] != 1 or (axis == 0 and by_rows)]
    start = np.full([place.shape[axis] for axis in walked], place.base, np.uint64)
    for number, axis in enumerate(walked):
        coordinate = np.arange(place.shape[axis], dtype=np.uint64)
        if axis == 0 and by_rows:
            coordinate = place.rows
        start += (coordinate * np.uint64(place.strides[axis])).reshape(-1, *[1] * (len(walked) - number - 1))
    return start
