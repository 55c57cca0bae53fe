"""Token ids: sequences of different lengths, one long stream, and what a language model learns from them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ....errors import DataError
from ....language import say, template
from ....visible import a_type
from ..limits import MOST, MOST_CLASSES, size
from .raw import Part, Raw
from .splits import divided
from .targets import NEXT_TOKEN

Pair = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True, slots=True, eq=False)
class Ragged:
    """Sequences of different lengths, end to end.

    Args:
        values: all tokens.
        ends: where each sequence ends, (sequences,).

    >>> Ragged(np.array([1, 2, 3]), np.array([2, 3])).padded("a").tolist()
    [[1, 2], [3, 0]]
    """

    values: NDArray
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Of the sequences."""
        return np.diff(self.ends, prepend=0)

    def padded(self, name: str) -> NDArray:
        """As rows of the longest one's length, with zeros behind.

        Raises:
            DataError: that would be too large.
        """
        lengths = self.lengths
        width = int(lengths.max(initial=0))
        if 8 * width * len(self) > MOST:
            raise DataError(
                f"{name}: {len(self)} sequences, padded to the longest one's {width}, would be "
                f"{size(8 * width * len(self))}, and at most {size(MOST)} are made; cut the long ones"
            )
        found = np.zeros((len(self), width), self.values.dtype)
        found[np.arange(width) < lengths[:, None]] = self.values
        return found

    def some(self, index: NDArray[np.int64]) -> NDArray:
        """The tokens of some sequences, end to end."""
        starts, ends = self.ends - self.lengths, self.ends
        return np.concatenate([self.values[starts[number] : ends[number]] for number in index.tolist()])


def is_text(x: object, y: object) -> bool:
    """Whether x is token ids that are their own target: whole numbers, and no y, or the same array, or it shifted."""
    if isinstance(x, Ragged):
        return y is None
    if not isinstance(x, np.ndarray) or x.dtype.kind not in "iu" or x.ndim not in (1, 2):
        return False
    return y is None or (isinstance(y, np.ndarray) and (_same(x, y) or _shifted(x, y)))


def _same(x: NDArray, y: NDArray) -> bool:
    return x.shape == y.shape and x.dtype == y.dtype and bool(np.array_equal(x, y))


def _shifted(x: NDArray, y: NDArray) -> bool:
    return x.ndim == 2 and x.shape == y.shape and x.shape[1] > 1 and bool((x[:, 1:] == y[:, :-1]).all())


def pairs(raw: Raw, block: int, fraction: float) -> tuple[Pair, Pair, int, str]:
    """Tokens and those that follow them, for training and test; how many different tokens there are; what was done.

    Args:
        raw: one long stream, sequences of one length or of several, with or without a test part.
        block: tokens of a sample, where a stream is cut.
        fraction: of the stream's end, or of the sequences, that is the test part.

    Raises:
        DataError: no whole numbers, negative ones, or too few.
    """
    for part in raw.parts:
        _check(raw.name, part)
    first = raw.train.x
    if isinstance(first, np.ndarray) and first.ndim == 2:
        train, test = _rows(raw, fraction)
        words = template("each sequence of {length} tokens is learned from, each token but the last predicts the next")
        note = say(words, length=first.shape[1])
    else:
        train, test = (_cut(raw.name, stream, block) for stream in _streams(raw, fraction))
        words = template("the stream of tokens is cut into samples of {length}; {kind}:N makes them of N")
        note = say(words, length=block, kind=NEXT_TOKEN)
    values = [part.x.values if isinstance(part.x, Ragged) else part.x for part in raw.parts]
    least, most = min(int(each.min()) for each in values), 1 + max(int(each.max()) for each in values)
    if least < 0 or most > MOST_CLASSES:
        raise DataError(
            f"{raw.name}: tokens run from {least} to {most - 1}; they must be whole numbers from 0, below "
            f"{MOST_CLASSES}"
        )
    return train, test, most, note


def _check(name: str, part: Part) -> None:
    x = part.x.values if isinstance(part.x, Ragged) else part.x
    if not isinstance(x, np.ndarray) or x.dtype.kind not in "iu" or x.ndim > 2:
        what = f"{x.dtype} of shape {x.shape}" if isinstance(x, np.ndarray) else f"{a_type(x)}"
        raise DataError(
            f"{name}: x is {what}, and {NEXT_TOKEN} needs token ids: whole numbers, one long array or (sequences, "
            "length)"
        )
    if part.y is not None and not is_text(x, np.asarray(part.y)):
        raise DataError(
            f"{name}: y is neither x nor the tokens that follow those of x, which {NEXT_TOKEN} learns; leave y out"
        )


def _streams(raw: Raw, fraction: float) -> tuple[NDArray, NDArray]:
    """The tokens to learn from and those to test on, of which none is in both."""
    if raw.test is not None:
        streams = [part.x.values if isinstance(part.x, Ragged) else np.ravel(part.x) for part in raw.parts]
        return streams[0], streams[1]
    x = raw.train.x
    if isinstance(x, Ragged):
        train, test = divided(raw.name, len(x), fraction, None)
        return x.some(train), x.some(test)
    cut = len(x) - round(len(x) * fraction)
    return x[:cut], x[cut:]


def _cut(name: str, stream: NDArray, block: int) -> Pair:
    count = (len(stream) - 1) // block
    if count < 1:
        raise DataError(
            f"{name}: {len(stream)} tokens of a part make no sample of {block}, with the one that follows; give more "
            f"tokens, or shorter samples with --kind {NEXT_TOKEN}:{max(1, (len(stream) - 1) // 4)}"
        )
    tokens = stream[: count * block + 1].astype(np.int64)
    return tokens[:-1].reshape(count, block), tokens[1:].reshape(count, block)


def _rows(raw: Raw, fraction: float) -> tuple[Pair, Pair]:
    parts = raw.parts
    if len(parts) == 1:
        train, test = divided(raw.name, len(parts[0].x), fraction, None)
        y = parts[0].y
        parts = tuple(Part(parts[0].x[index], None if y is None else y[index]) for index in (train, test))
    found = []
    for part in parts:
        x = np.asarray(part.x, np.int64)
        if part.y is not None and _shifted(part.x, np.asarray(part.y)):
            found.append((x, np.asarray(part.y, np.int64)))
            continue
        if x.ndim != 2 or x.shape[1] < 2:
            raise DataError(f"{raw.name}: sequences of shape {x.shape} have no next token; they need two or more each")
        found.append((np.ascontiguousarray(x[:, :-1]), np.ascontiguousarray(x[:, 1:])))
    return found[0], found[1]
