"""The mask: `keep(seed, site, step, p, index) -> bool`, the one definition that every other implementation must equal.

One 32-bit word decides 32 elements. Level l of the generator gives bit l of 32 random numbers at once, so comparing
32 random numbers R with the threshold T takes a handful of operations on whole words, and stops at T's last set bit.

    t = 2**16 - round_half_even(p * 2**16)      kept of 65536
    keep(i) = R(i) < t * 2**16                  R(i): bit i % 32 of the level words of word number i // 32
    scale   = 2**16 / t                         exact for the rounded p, so the expectation has no bias

Where an element lies in the *global* noise tensor is its index; `Layout` says so for a whole tensor, a shard, or rows.
The functions on words (`keep_words`, `random16`, `uniform_block`) work on NumPy uint64 and torch int64 arrays alike.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .counter import MASK32, MASK_ROUNDS, Key, philox4x32
from .errors import DropkitTypeError, DropkitValueError
from .layout import MAX_INDEX, Layout, axes, check_last_row, layout

ONE = 1 << 16  # t of "keep everything"
ALPHA_PRIME = -1.7580993408473766  # -lambda * alpha of SELU
WORD = 32  # elements that one keep-word decides
BERNOULLI, UNIFORM, NORMAL_RADIUS, NORMAL_ANGLE = range(4)  # the domains of the counter's last word

Words = tuple[Any, Any]


# ---------------------------------------------------------------------------------------------------------------------
# p -> t and scale


def threshold(p: float) -> int:
    """How many of 65536 equally likely draws keep an element: `t = 2**16 - round_half_even(p * 2**16)`.

    Args:
        p: drop probability in [0, 1].

    Raises:
        DropkitTypeError: p is not a number.
        DropkitValueError: p is NaN or outside [0, 1].

    >>> threshold(0.5), threshold(0.1), threshold(1e-7), threshold(1)
    (32768, 58982, 65536, 0)
    """
    if isinstance(p, str | bytes) or not hasattr(p, "__float__"):
        raise DropkitTypeError(_not_a_number(p))
    value = float(p)
    if not 0.0 <= value <= 1.0:
        raise DropkitValueError(_out_of_range(p))
    return ONE - round(value * ONE)  # Python's round is half to even, and scaling by a power of two is exact


def _not_a_number(p: Any) -> str:
    return f"dropout probability must be a number, but got {p!r} of type {type(p).__name__}; pass a float in [0, 1]"


def _out_of_range(p: Any) -> str:
    return (
        f"dropout probability has to be between 0 and 1, but got {p}; "
        "p is the probability of zeroing, 1 - p that of keeping"
    )


def thresholds(p: NDArray) -> NDArray[np.int64]:
    """`threshold` of every element of an array p; same errors."""
    if p.dtype.kind not in "fiub":
        raise DropkitTypeError(_not_a_number(p))
    inside = (p >= 0) & (p <= 1)  # False for NaN
    if not inside.all():
        raise DropkitValueError(_out_of_range(p[~inside].flat[0]))
    wide: NDArray[Any] = p.astype(rate_type(p.dtype), copy=False)
    return ONE - np.rint(wide * wide.dtype.type(ONE)).astype(np.int64)


def rate_type(dtype: np.dtype) -> type[np.float32] | type[np.float64]:
    """The type that rates of a dtype are computed in: float16 cannot hold 2**16; float32 and float64 scale exactly.

    >>> rate_type(np.dtype(">f8")), rate_type(np.dtype(np.float16))
    (<class 'numpy.float64'>, <class 'numpy.float32'>)
    """
    return np.float64 if dtype.kind == "f" and dtype.itemsize >= 8 else np.float32


def scale(t: int) -> float:
    """What kept values are multiplied by, `2**16 / t`; 0 where nothing is kept.

    >>> scale(threshold(0.5)), scale(threshold(1.0))
    (2.0, 0.0)
    """
    return ONE / t if t else 0.0


def alpha_factors(t: int) -> tuple[float, float, float]:
    """Alpha dropout's `(scale, shift, dropped)`: a kept x becomes `x * scale + shift`, a dropped one `dropped`.

    With q = t / 2**16, p = 1 - q and alpha' = -1.7580993408473766, the limit of SELU at minus infinity:
    `scale = 1 / sqrt(q * (1 + p * alpha'**2))`, `shift = -scale * p * alpha'`, `dropped = scale * alpha' + shift`; an
    x of mean 0 and variance 1 keeps both. Where everything is dropped all three are 0, where nothing is, `(1, 0, 0)`.

    Args:
        t: kept of 65536.

    Source: Klambauer et al. 2017 (arXiv:1706.02515), section "New Dropout Technique".

    >>> [round(factor, 6) for factor in alpha_factors(threshold(0.5))]
    [0.886405, 0.779194, -0.779194]
    """
    if t in (0, ONE):
        return float(t == ONE), 0.0, 0.0
    q = t / ONE
    p = 1.0 - q
    # Every step is one that IEEE rounds correctly (a power is not), so that all libraries agree.
    scale = 1.0 / math.sqrt(q * (1.0 + p * (ALPHA_PRIME * ALPHA_PRIME)))
    shift = -scale * p * ALPHA_PRIME
    return scale, shift, scale * ALPHA_PRIME + shift


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
    shape: Sequence[int],
    p: float | ArrayLike,
    key: Key,
    *,
    share: Sequence[int] = (),
    offset: Sequence[int] | None = None,
    global_shape: Sequence[int] | None = None,
    rows: ArrayLike | None = None,
    index: ArrayLike | None = None,
) -> NDArray[np.bool_]:
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
    place = _place(shape, share, offset, global_shape, rows, index)
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
    shape: Sequence[int],
    p: float,
    key: Key,
    *,
    share: Sequence[int] = (),
    offset: Sequence[int] | None = None,
    global_shape: Sequence[int] | None = None,
    rows: ArrayLike | None = None,
    index: ArrayLike | None = None,
) -> NDArray[np.uint32]:
    """The mask packed, one bit an element of the noise tensor: bit b of word w belongs to element `32 * w + b`.

    Elements count in C order over the noise shape (shared axes count once); the bits past the last element are 0.
    Arguments and errors are those of `keep`, with a scalar p.

    Returns:
        uint32 array of `ceil(noise elements / 32)` words.

    >>> [hex(word) for word in words((2, 8), 0.5, Key(seed=1, site="drop"))]
    ['0x4e70']
    """
    place = _place(shape, share, offset, global_shape, rows, index)
    bits = _keep_noise(place, threshold(p), key.words)
    packed = np.packbits(bits.reshape(-1), bitorder="little")
    return np.pad(packed, (0, -len(packed) % 4)).view("<u4").astype(np.uint32)


def uniform(
    shape: Sequence[int],
    key: Key,
    *,
    share: Sequence[int] = (),
    offset: Sequence[int] | None = None,
    global_shape: Sequence[int] | None = None,
    rows: ArrayLike | None = None,
    index: ArrayLike | None = None,
) -> NDArray[np.float32]:
    """Uniform numbers `u(i) = (n(i) + 0.5) * 2**-23` with a 23-bit n(i): exact in float32, never 0 or 1.

    Arguments and errors are those of `keep`.

    Returns:
        float32 array of `shape`; along shared axes a read-only broadcast view.

    >>> (uniform((3,), Key(seed=1, site="u")) * 2**23 - 0.5).astype(int)
    array([2878323, 2065413, 7642049])
    """
    place = _place(shape, share, offset, global_shape, rows, index)
    return np.broadcast_to(_elements(place, 4, lambda block: _uniforms(block, key.words, UNIFORM)), shape)


def normal(
    shape: Sequence[int],
    key: Key,
    *,
    share: Sequence[int] = (),
    offset: Sequence[int] | None = None,
    global_shape: Sequence[int] | None = None,
    rows: ArrayLike | None = None,
    index: ArrayLike | None = None,
) -> NDArray[np.float32]:
    """Standard normal numbers in pairs: `z(i) = sqrt(-2 ln u2(j)) * (cos if i is even else sin)(2 pi u3(j))`.

    Here j = i // 2. Arguments and errors are those of `keep`. The uniforms are the same bits everywhere; log, sqrt
    and cos agree between libraries to float rounding.

    Returns:
        float32 array of `shape`; along shared axes a read-only broadcast view.

    Source: Box and Muller, 1958.

    >>> normal((4,), Key(seed=1, site="z")).shape
    (4,)
    """
    place = _place(shape, share, offset, global_shape, rows, index)

    def pairs(block: NDArray[np.uint64]) -> NDArray[np.float32]:
        radius = np.sqrt(-2 * np.log(_uniforms(block, key.words, NORMAL_RADIUS)))
        angle = np.float32(2 * math.pi) * _uniforms(block, key.words, NORMAL_ANGLE)
        both = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
        return both.reshape(*block.shape, 8)

    return np.broadcast_to(_elements(place, 8, pairs), shape)


Place = Layout | NDArray[np.uint64]  # computed indices, or indices given outright


def _place(
    shape: Sequence[int],
    share: Sequence[int],
    offset: Sequence[int] | None,
    global_shape: Sequence[int] | None,
    rows: ArrayLike | None,
    index: ArrayLike | None,
) -> Place:
    if index is None:
        return place_of(shape, share, offset, global_shape, rows)
    if rows is not None or offset is not None or global_shape is not None or len(axes(share)):
        raise DropkitValueError("index gives every element's place outright; leave out share, offset and rows")
    numbers = _whole_numbers("index", index)
    try:
        return np.broadcast_to(numbers, shape)
    except ValueError:
        raise DropkitValueError(f"index of shape {numbers.shape} does not broadcast to shape {tuple(shape)}") from None


def place_of(
    shape: Sequence[int],
    share: Sequence[int] = (),
    offset: Sequence[int] | None = None,
    global_shape: Sequence[int] | None = None,
    rows: ArrayLike | None = None,
) -> Layout:
    """`layout` with rows checked: whole numbers, not negative, none past index 2**63."""
    place = layout(shape, share, offset, global_shape, None if rows is None else _whole_numbers("rows", rows))
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


def _keep_noise(place: Place, t: int, key: Words) -> NDArray[np.bool_]:
    if t in (0, ONE):
        return np.full(place.shape, t == ONE)

    def bits(word: NDArray[np.uint64]) -> NDArray[np.bool_]:
        packed = keep_words(word, t, key).astype("<u4").reshape(-1)
        return np.unpackbits(packed.view(np.uint8), bitorder="little").view(np.bool_).reshape(*word.shape, WORD)

    return _elements(place, WORD, bits)


def _uniforms(block: NDArray[np.uint64], key: Words, domain: int) -> NDArray[np.float32]:
    integers = np.stack(uniform_block(block, key, domain), axis=-1)
    return (integers.astype(np.float32) + np.float32(0.5)) * np.float32(2**-23)


def _elements(place: Place, width: int, blocks: Callable[[NDArray], NDArray]) -> NDArray:
    """Each element's value, where `blocks(b)` computes the `width` values of the indices from `width * b` on."""
    if not isinstance(place, Layout):
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


def _starts(place: Layout, outer: int) -> NDArray[np.uint64]:
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
