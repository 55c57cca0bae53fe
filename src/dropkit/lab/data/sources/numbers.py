"""Arrays as models take them: float32, or whole numbers where they are tokens; finite; and whether they repeat."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....counter import Key
from ....errors import DataError
from ....language import say, template
from ....mask import uniform

ROWS = 1 << 22  # numbers converted at once: no second copy of a large array
FAR = 100.0  # a scale that many times away from 1 is worth a word
WHITE = 255


def numbers(name: str, x: Any, index: NDArray[np.int64] | None = None) -> NDArray:
    """Some samples of x, in their order: whole numbers as int64, everything else as float32, pixels in [0, 1].

    Args:
        name: of the source, for messages.
        x: an array; a memory-mapped one is read where it is needed.
        index: which samples; all by default.

    Raises:
        DataError: text, Python objects, complex numbers or dates; NaN or infinity.

    >>> numbers("a.npz", np.array([[1.5], [2.5]]), np.array([1]))
    array([[2.5]], dtype=float32)
    """
    x = np.asanyarray(x)
    check_type(name, x)
    whole = x.dtype.kind in "iu" and x.dtype != np.uint8
    kind = np.int64 if whole else np.float32
    if index is None and x.dtype == kind:
        found = np.ascontiguousarray(x)
    else:
        found = np.empty((len(x) if index is None else len(index), *x.shape[1:]), kind)
        for rows in _chunks(found):
            with np.errstate(over="ignore"):  # what becomes infinite is told below
                found[rows] = x[rows] if index is None else x[index[rows]]
        if x.dtype == np.uint8:
            found /= np.float32(WHITE)
    if not whole:
        check_finite(name, found, "x", index)
    return found


def _chunks(array: NDArray) -> Iterator[slice]:
    step = max(1, ROWS // max(1, array[:1].size))
    return (slice(start, start + step) for start in range(0, len(array), step))


def check_type(name: str, x: NDArray) -> None:
    """Refuse what is no array of numbers.

    Raises:
        DataError: it is not.
    """
    if x.dtype.kind in "biuf":
        return
    what = {"O": "Python objects", "U": "text", "S": "text", "c": "complex numbers", "M": "dates", "m": "durations"}
    remedy = "give numbers, or a table (.csv, .parquet), whose categories are encoded"
    raise DataError(f"{name}: x holds {what.get(x.dtype.kind, str(x.dtype))} where numbers belong; {remedy}")


def check_finite(name: str, array: NDArray, what: str, rows: NDArray[np.int64] | None = None) -> None:
    """Refuse NaN and infinity.

    Args:
        name, what: of the source and of the array, for messages.
        array: samples.
        rows: which rows of the source they are; these in its order by default.

    Raises:
        DataError: there is one; the message counts them and names the first sample.
    """
    if array.dtype.kind != "f" or not array.size:
        return
    with np.errstate(all="ignore"):
        if np.isfinite(array.sum(dtype=np.float64)):
            return
    wrong = ~np.isfinite(array)
    if not wrong.any():
        return
    places = np.unique(np.nonzero(wrong)[0])
    nans, first = int(np.isnan(array).sum()), int((places if rows is None else rows[places]).min())
    infinite = int(wrong.sum()) - nans
    found = " and ".join(
        f"{count} {word}" for count, word in ((nans, "NaN"), (infinite, "infinite or beyond float32")) if count
    )
    raise DataError(
        f"{name}: {what} holds {found}, the first in row {first + 1}; fill these values or leave their rows out"
    )


def notes_on(x: NDArray, raw: NDArray) -> tuple[str, ...]:
    """What should be known of the numbers of the training part: how they were taken, and a scale far from 1."""
    if x.dtype == np.int64:
        words = template(
            "x: whole numbers from {low} to {high}, kept as embeddings take them; as floats they are numbers"
        )
        return (say(words, low=int(x.min()), high=int(x.max())),)
    if raw.dtype == np.uint8:
        return (say("x: bytes, taken as pixels and divided by 255"),)
    scale = float(np.abs(x[: 1 << 16]).mean(dtype=np.float64))
    if scale > FAR:
        words = template("x: numbers of {scale:.3g} on average; networks learn better from standardised ones")
        return (say(words, scale=scale),)
    return ()


def repeated(train: NDArray, test: NDArray) -> int:
    """How many test samples stand in the training part too, value for value.

    >>> repeated(np.float32([[1, 2], [3, 4]]), np.float32([[3, 4], [5, 6]]))
    1
    """
    return int(np.isin(_sums(test), _sums(train)).sum())


def _sums(array: NDArray) -> NDArray[np.uint64]:
    """A number for each sample, by which equal samples are equal and others are not but once in 2**64."""
    flat = array.reshape(len(array), -1)
    factors = (uniform((flat.shape[1], 2), Key(0, "lab/rows", 0)).astype(np.float64) * 2**32).astype(np.uint64)
    factors = factors[:, 0] << np.uint64(32) | factors[:, 1] | np.uint64(1)
    sums = np.empty(len(flat), np.uint64)
    kind = np.uint32 if array.dtype.itemsize == 4 else np.uint64
    for rows in _chunks(flat):
        words = np.ascontiguousarray(flat[rows] + array.dtype.type(0)).view(kind).astype(np.uint64)  # -0 as 0
        words = (words ^ (words >> np.uint64(15))) * np.uint64(0x9E3779B97F4A7C15)
        sums[rows] = ((words ^ (words >> np.uint64(29))) * factors).sum(axis=1, dtype=np.uint64)
    return sums
