"""What is to be learned: which kind it is, class numbers from labels, and what is wrong with it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import DataError, DropkitTypeError, DropkitValueError, UnknownNameError
from ....language import say, template
from ....visible import article, one_line
from ..limits import MOST_CLASSES
from .numbers import FAR, check_finite

CLASSIFICATION, BINARY, MULTI_LABEL, REGRESSION = "classification", "binary", "multi-label", "regression"
NEXT_TOKEN, STANDARDISED = "next-token", "standardised"
KINDS = (CLASSIFICATION, BINARY, MULTI_LABEL, REGRESSION, NEXT_TOKEN)
BLOCK = 128  # tokens of a sample, where one long array is cut
EACH, MOST_GUESSED = 5, 100  # whole numbers are classes where there are at most so many, on average so often
SHOWN = 5


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind as it is asked for: its name, how many tokens a sample has, and whether a target is standardised.

    >>> Kind.parse("next-token:256").block, Kind.parse("regression:standardised").standardised
    (256, True)
    """

    name: str
    block: int = BLOCK
    standardised: bool = False

    @classmethod
    def parse(cls, text: str) -> "Kind":
        """Read a kind; behind next-token may stand the length of a sample, behind regression "standardised".

        Raises:
            UnknownNameError: there is no such kind.
            DropkitValueError: what follows the colon is no length.
        """
        if not isinstance(text, str):
            raise DropkitTypeError(f"kind must be one of {', '.join(KINDS)}, got {text!r}")
        if text == f"{REGRESSION}:{STANDARDISED}":
            return cls(REGRESSION, standardised=True)
        name, colon, block = text.partition(":")
        if name not in KINDS:
            raise UnknownNameError("kind", text, KINDS)
        if colon and (name != NEXT_TOKEN or not block.isdecimal() or int(block) < 1):
            raise DropkitValueError(
                f"kind {text!r}: only {NEXT_TOKEN} is followed by a number, the tokens of a sample, as in "
                f"{NEXT_TOKEN}:{BLOCK}, and {REGRESSION} by {STANDARDISED!r}"
            )
        return cls(name, int(block) if colon else BLOCK)


@dataclass(frozen=True, slots=True)
class Target:
    """Targets of all parts together, as models take them.

    Args:
        kind: see `Kind`.
        y: class numbers, int64, (n,); zeros and ones, float32, (n, k); or numbers, float32, (n,) or (n, k).
        outputs: how many numbers a model gives for a sample.
        labels: names of the classes, or of the columns where there are several.
        notes: sentences on how it was understood.
        standardised: whether y becomes so, by its training part.
    """

    kind: str
    y: NDArray
    outputs: int
    labels: tuple[str, ...]
    notes: tuple[str, ...] = ()
    standardised: bool = False

    @property
    def strata(self) -> NDArray | None:
        """What a split keeps in proportion; None where there are no classes."""
        return self.y if self.kind in (CLASSIFICATION, BINARY) else None


def understood(name: str, called: str, y: Any, asked: Kind | None, labels: Sequence[str] = ()) -> Target:
    """Targets as models take them, of a kind that is asked for or guessed.

    Args:
        name, called: of the source and of the target, for messages.
        y: an array of numbers or text.
        asked: the kind; None to guess.
        labels: names of the classes 0, 1, ...; found in y by default.

    Raises:
        DataError: missing values, one class only, or values that are not of this kind.

    >>> found = understood("a.csv", "species", np.array(["owl", "ant", "owl"]), None)
    >>> found.kind, found.y.tolist(), found.labels
    ('classification', [1, 0, 1], ('ant', 'owl'))
    """
    y = _plain(name, called, y)
    if asked is not None and asked.name == NEXT_TOKEN:
        raise DataError(
            f"{name}: {called} is a target of its own, and {NEXT_TOKEN} has none but the tokens; leave it out"
        )
    onehot = y.ndim == 2 and _zeros_and_ones(y) and bool((y.sum(axis=1) == 1).all())
    kind = _guess(name, called, y, onehot) if asked is None else asked.name
    if onehot and kind == CLASSIFICATION:
        y = y.argmax(axis=1)
    found = MAKE[kind](name, called, y, tuple(labels))
    words = template("target {target}: taken as {kind}, as asked")
    if asked is None:
        words = template("target {target}: taken as {kind}; another kind is asked for with --kind")
    first = say(words, target=called, kind=kind)
    if asked is not None and asked.standardised:
        return replace(found, notes=(first,), standardised=True)
    return replace(found, notes=(first, *found.notes))


def _plain(name: str, called: str, y: Any) -> NDArray:
    """An array of numbers, bools or text, without an axis of length 1, with nothing missing."""
    array = np.asarray(y)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim not in (1, 2):
        raise DataError(
            f"{name}: {called} has shape {array.shape}; a target is a number or a class for each sample, (samples,), "
            "or several, (samples, k)"
        )
    if array.dtype.kind == "O":
        array = _typed(name, called, array)
    if array.dtype.kind not in "biufUS":
        raise DataError(f"{name}: {called} holds {array.dtype}; a target is of numbers or of labels")
    check_finite(name, array, called)
    return array


def _typed(name: str, called: str, array: NDArray) -> NDArray:
    """Python objects as text, or as numbers where all of them are."""
    missing = np.array([value is None or value != value for value in array.flat], bool).reshape(array.shape)
    if missing.any():
        raise DataError(
            f"{name}: {called} is missing in {int(missing.sum())} of {len(array)} rows, the first in row "
            f"{int(np.argwhere(missing)[0][0]) + 1}; leave these rows out: a target is never filled in"
        )
    kinds = {type(value) for value in array.flat}
    plain = (bool, np.bool_, int, float, np.integer, np.floating, Decimal)
    for kind in kinds:
        if not issubclass(kind, (*plain, str, bytes)):
            raise DataError(f"{name}: {called} holds {article(kind.__name__)}; a target is of numbers or of labels")
    if kinds == {Decimal}:
        return array.astype(np.float64)
    return np.array(array.tolist()) if all(issubclass(kind, plain) for kind in kinds) else array.astype(str)


def _guess(name: str, called: str, y: NDArray, onehot: bool) -> str:
    if y.ndim == 2:
        if onehot:
            return CLASSIFICATION
        return MULTI_LABEL if _zeros_and_ones(y) else REGRESSION
    if y.dtype.kind == "f":
        return BINARY if _zeros_and_ones(y) else REGRESSION
    if y.dtype.kind in "bUS":
        return BINARY if y.dtype.kind == "b" else CLASSIFICATION
    values = np.unique(y)
    enough = len(y) >= EACH * len(values) and len(values) <= MOST_GUESSED
    counted = values[0] == 0 and values[-1] == len(values) - 1 and len(y) >= 2 * len(values)
    return CLASSIFICATION if len(values) <= 2 or enough or counted else REGRESSION


def _zeros_and_ones(y: NDArray) -> bool:
    return y.dtype.kind in "biuf" and bool(((y == 0) | (y == 1)).all())


def _numbered(name: str, called: str, y: NDArray, labels: tuple[str, ...]) -> tuple[NDArray, tuple[str, ...]]:
    """Class numbers, and what the classes are called."""
    if y.ndim != 1:
        raise DataError(
            f"{name}: {called} has shape {y.shape}, and classes are one for each sample; several at once are --kind "
            f"{MULTI_LABEL}"
        )
    if y.dtype.kind == "f" and not (y == np.round(y)).all():
        raise DataError(f"{name}: {called} holds {y[y != np.round(y)][0]}, which is no class; use --kind {REGRESSION}")
    values, numbers = np.unique(y, return_inverse=True)
    if len(values) < 2:
        raise DataError(
            f"{name}: {called} is {_shown(values)} in all {len(y)} rows; classes to tell apart are two or more"
        )
    if len(values) > MOST_CLASSES or (len(values) > MOST_GUESSED and 2 * len(values) > len(y)):
        raise DataError(
            f"{name}: {called} has {len(values)} different values in {len(y)} rows, too many for classes; numbers are "
            f"for --kind {REGRESSION}"
        )
    if labels and values.dtype.kind in "iu" and values[0] >= 0 and values[-1] < len(labels):
        return y.astype(np.int64), labels
    return numbers.astype(np.int64), tuple(_label(value) for value in values.tolist())


def _label(value: Any) -> str:
    value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return one_line(int(value) if isinstance(value, float) else value)


def _shown(values: NDArray) -> str:
    found = ", ".join(repr(_label(value)) for value in values[:SHOWN].tolist())
    return found + (", ..." if len(values) > SHOWN else "")


def _classes(name: str, called: str, y: NDArray, labels: tuple[str, ...]) -> Target:
    numbers, names = _numbered(name, called, y, labels)
    notes: tuple[str, ...] = ()
    if y.dtype.kind in "iuf" and names != tuple(map(str, range(len(names)))) and not labels:
        listed = _shown(np.unique(y))
        notes = (say("the classes {listed} are numbered from 0", listed=listed),)
    return Target(CLASSIFICATION, numbers, len(names), names, notes)


def _binary(name: str, called: str, y: NDArray, labels: tuple[str, ...]) -> Target:
    numbers, names = _numbered(name, called, y, labels)
    if len(names) != 2:
        raise DataError(
            f"{name}: {called} has {len(names)} classes ({', '.join(names[:SHOWN])}), and --kind {BINARY} is for two; "
            f"use --kind {CLASSIFICATION}"
        )
    notes = (say("{one} is 1, {zero} is 0", one=names[1], zero=names[0]),)
    return Target(BINARY, numbers, 1, names, notes)


def _several(name: str, called: str, y: NDArray, labels: tuple[str, ...]) -> Target:
    if y.ndim != 2 or not _zeros_and_ones(y):
        raise DataError(
            f"{name}: {called} of shape {y.shape} and type {y.dtype} is no matrix of 0 and 1, a column for each label, "
            f"which --kind {MULTI_LABEL} needs"
        )
    if (y == y[:1]).all():
        raise DataError(f"{name}: {called} is the same in all {len(y)} rows; there is nothing to tell apart")
    return Target(MULTI_LABEL, y.astype(np.float32), y.shape[1], labels or tuple(map(str, range(y.shape[1]))))


def _numeric(name: str, called: str, y: NDArray, labels: tuple[str, ...]) -> Target:
    if y.dtype.kind in "US":
        y = _parsed(name, called, y)
    with np.errstate(over="ignore"):
        found = y.astype(np.float32)
    check_finite(name, found, called)
    if (found == found[:1]).all():
        raise DataError(f"{name}: {called} is {found.flat[0]:g} in all {len(y)} rows; there is nothing to predict")
    scale = float(np.std(found, dtype=np.float64)) + abs(float(np.mean(found, dtype=np.float64)))
    notes: tuple[str, ...] = ()
    if scale > FAR or scale < 1 / FAR:
        words = template(
            "{target} has mean {mean:.3g} and standard deviation {sd:.3g}, which a network takes long to reach: "
            "let the "
            "model end in that scale, or ask for --kind regression:standardised"
        )
        notes = (say(words, target=called, mean=float(found.mean()), sd=float(found.std())),)
    return Target(REGRESSION, found, 1 if found.ndim == 1 else found.shape[1], labels, notes)


def _parsed(name: str, called: str, y: NDArray) -> NDArray:
    """Text that is numbers, as numbers."""
    found = np.empty(y.shape)
    for place, value in np.ndenumerate(y):
        try:
            found[place] = float(value)
        except ValueError:
            raise DataError(
                f"{name}: {called} holds {_label(value)!r} in row {place[0] + 1}, and {REGRESSION} needs numbers; "
                f"labels are for --kind {CLASSIFICATION}"
            ) from None
    return found


MAKE = {CLASSIFICATION: _classes, BINARY: _binary, MULTI_LABEL: _several, REGRESSION: _numeric}


def check_classes(name: str, found: Target, train: NDArray, test: NDArray) -> None:
    """Refuse a test part with classes that the training part has not.

    Raises:
        DataError: there is one.
    """
    if found.strata is None:
        return
    new = np.setdiff1d(test, train)
    if len(new):
        names = ", ".join(repr(found.labels[int(number)]) for number in new[:SHOWN])
        raise DataError(
            f"{name}: the test part holds {len(new)} of the classes that the training part has not: {names}; put "
            "samples of each into both"
        )
    if len(np.unique(train)) < 2:
        raise DataError(f"{name}: the training part holds one class alone; it needs two or more")
