"""Raw data divided into what is trained and what is tested on, encoded and checked."""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import DataError
from ....language import counted, say, template
from . import arrays, objects
from .encoder import Encoder
from .numbers import notes_on, numbers, repeated
from .raw import Raw
from .splits import divided
from .targets import NEXT_TOKEN, Kind, Target, check_classes, understood
from .tokens import Ragged, is_text, pairs

Fields = dict[str, Any]
"""Of a Data, by name."""


def of_parts(train: Any, test: Any, kind: str | None, name: str) -> Fields:
    """Arrays of both parts, (X, y) each: the fields of a Data; see `Data.of`."""
    first, second = (objects.pair(name, words, given) for words, given in (("train", train), ("test", test)))
    return made(Raw(name, first, second).checked(), None if kind is None else Kind.parse(kind), 0.0)


def made(raw: Raw, kind: Kind | None, fraction: float) -> Fields:
    """Raw data divided, encoded and checked: the fields of a Data.

    Raises:
        DataError: see `load`.
    """
    if (kind is not None and kind.name == NEXT_TOKEN) or (kind is None and is_text(raw.train.x, raw.train.y)):
        return _text(raw, kind or Kind(NEXT_TOKEN), fraction)
    found = target_of(raw, kind)
    return divide(raw, found, *_index(raw, found, fraction))


def target_of(raw: Raw, kind: Kind | None) -> Target:
    """The targets of all parts together, of a kind that is asked for or guessed.

    Raises:
        DataError: there are none, or they are not of that kind.
    """
    if raw.train.y is None:
        raise DataError(
            f"{raw.name} has no target: give {arrays.NAMES}, or --target; token ids that predict the next one are "
            f"--kind {NEXT_TOKEN}"
        )
    ys = [np.asarray(part.y) for part in raw.parts]
    if len({y.shape[1:] for y in ys}) > 1:
        raise DataError(f"{raw.name}: targets of shape {ys[0].shape} and {ys[1].shape}; give both parts the same")
    together = ys[0] if len(ys) == 1 else np.concatenate(ys)
    return understood(raw.name, raw.target, together, kind, raw.labels)


def _index(raw: Raw, found: Target, fraction: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    count = len(raw.train.x)
    if raw.test is None:
        return divided(raw.name, count, fraction, found.strata)
    return np.arange(count), np.arange(count, count + len(raw.test.x))


def divide(raw: Raw, found: Target, train: NDArray[np.int64], test: NDArray[np.int64]) -> Fields:
    """Data of some samples to train on and others to test on, counted through all parts.

    Raises:
        DataError: classes that only the test part has; samples that cannot be learned from.
    """
    train_y, test_y = found.y[train], found.y[test]
    check_classes(raw.name, found, train_y, test_y)
    train_x, test_x, notes = _samples(raw, found, train, test)
    if found.standardised:
        train_y, test_y, said = _standardised(raw.target, train_y, test_y)
        notes = (said, *notes)
    if train_x.shape[1:] != test_x.shape[1:]:
        raise DataError(
            f"{raw.name}: training samples of shape {train_x.shape[1:]} and test samples of {test_x.shape[1:]}; give "
            "both the same"
        )
    if same := repeated(train_x, test_x):
        words = template(
            "warning: {same} are training samples too, value for value, so that the test is easier than new samples"
        )
        notes = (*notes, say(words, same=counted(same, "{n} test sample", "{n:,} test samples")))
    return _data(raw, found, (train_x, train_y, test_x, test_y), (*raw.notes, *found.notes, *notes))


def _samples(raw: Raw, found: Target, train: NDArray, test: NDArray) -> tuple[NDArray, NDArray, tuple[str, ...]]:
    parts = [part.x.padded(raw.name) if isinstance(part.x, Ragged) else part.x for part in raw.parts]
    notes: tuple[str, ...] = ()
    if isinstance(raw.train.x, Ragged):
        width = max(part.shape[1] for part in parts)
        parts = [np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in parts]
        notes = (say("sequences are padded with 0 behind, to {width}", width=width),)
    if hasattr(parts[0], "columns"):
        first, second = _tables(parts, train, test)
        encoder = Encoder(raw.name, first)
        return encoder.transform(first), encoder.transform(second), encoder.notes(first)
    arrays.check_leak(raw.name, np.asanyarray(parts[0]), np.asarray(raw.train.y))
    if raw.test is None:
        first, second = (numbers(raw.name, parts[0], index) for index in (train, test))
    else:
        first, second = (numbers(raw.name, part) for part in parts)
    return first, second, (*notes, *notes_on(first, parts[0]))


def _standardised(called: str, train: NDArray, test: NDArray) -> tuple[NDArray, NDArray, str]:
    """Numbers in units of the training part's standard deviation, from its mean."""
    mean, sd = train.mean(axis=0, dtype=np.float64), train.std(axis=0, dtype=np.float64)
    sd = np.where(sd > 0, sd, 1.0)
    first, second = (((y - mean) / sd).astype(np.float32) for y in (train, test))
    words = template(
        "{target} is standardised: errors are in units of its standard deviation in the training part, {sd}"
    )
    return first, second, say(words, target=called, sd=", ".join(f"{value:.4g}" for value in np.atleast_1d(sd)))


def _tables(parts: list[Any], train: NDArray, test: NDArray) -> tuple[Any, Any]:
    if len(parts) > 1:
        return parts[0], parts[1]
    return parts[0].iloc[train], parts[0].iloc[test]


def _text(raw: Raw, kind: Kind, fraction: float) -> Fields:
    train, test, vocabulary, note = pairs(raw, kind.block, fraction)
    first = say("taken as {kind}: {n} different tokens", kind=NEXT_TOKEN, n=vocabulary)
    found = Target(NEXT_TOKEN, train[1], vocabulary, (), (first, note))
    return _data(raw, found, (*train, *test), (*raw.notes, *found.notes))


def _data(raw: Raw, found: Target, four: tuple[NDArray, ...], notes: tuple[str, ...]) -> Fields:
    train_x, train_y, test_x, test_y = four
    return {
        "name": raw.name,
        "train_x": train_x,
        "train_y": train_y,
        "test_x": test_x,
        "test_y": test_y,
        "classes": found.outputs,
        "fingerprint": fingerprint(found.kind, four),
        "kind": found.kind,
        "labels": found.labels,
        "notes": notes,
    }


def fingerprint(kind: str, four: tuple[NDArray, ...]) -> str:
    """sha256 over the kind and what is trained and tested on, in its order."""
    digest = hashlib.sha256(kind.encode())
    for array in four:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
