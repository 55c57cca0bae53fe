"""Arrays as data: what kind of targets they hold, whether they fit it, and a sum over all of them."""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...errors import DataError, UnknownNameError

KINDS = ("classification", "binary", "multi-label", "regression", "next-token")
MOST_CLASSES = 1 << 20  # a wrong label must not make a layer of billions
PARTS = ("train", "test")


def of_arrays(
    train: tuple[ArrayLike, ArrayLike], test: tuple[ArrayLike, ArrayLike], kind: str | None, name: str
) -> dict[str, Any]:
    """The fields of a `Data`, checked; see `Data.of`."""
    if kind is not None and kind not in KINDS:
        raise UnknownNameError("kind", str(kind), KINDS)
    pairs = [_pair(part, given, name) for part, given in zip(PARTS, (train, test), strict=True)]
    xs, ys = ([pair[place] for pair in pairs] for place in (0, 1))
    if xs[0].shape[1:] != xs[1].shape[1:]:
        raise DataError(
            f"{name}: a training sample has the shape {xs[0].shape[1:]}, a test sample {xs[1].shape[1:]}; they must be "
            "alike"
        )
    kind = kind or kind_of(xs[0], ys[0])
    ys, classes = TARGETS[kind](xs, ys, name)
    return {
        "name": name,
        "train_x": xs[0],
        "train_y": ys[0],
        "test_x": xs[1],
        "test_y": ys[1],
        "classes": classes,
        "fingerprint": fingerprint(xs[0], ys[0], xs[1], ys[1]),
        "kind": kind,
    }


def fingerprint(*arrays: NDArray) -> str:
    """The sha256 over arrays, their types and shapes."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(repr((array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def kind_of(x: NDArray, y: NDArray) -> str:
    """What kind of targets y holds, by its look.

    >>> kind_of(np.zeros((2, 3)), np.array([0, 1])), kind_of(np.zeros((2, 3)), np.array([0.5, 1]))
    ('classification', 'regression')
    """
    if y.ndim == 2 and y.shape == x.shape and all(np.issubdtype(array.dtype, np.integer) for array in (x, y)):
        return "next-token"
    if y.ndim == 2 and y.shape[1] > 1 and y.dtype.kind in "iufb" and bool(np.isin(y, (0, 1)).all()):
        return "multi-label"
    return "regression" if y.dtype.kind == "f" else "classification"


def _pair(part: str, given: Any, name: str) -> tuple[NDArray, NDArray]:
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise DataError(f"{name}: {part}={type(given).__name__} is no pair of arrays: give {part}=(X, y)")
    x, y = (np.asarray(array) for array in given)
    if x.ndim < 2:
        raise DataError(
            f"{name}: X of the {part} part has the shape {x.shape}; samples lie along the first of two or more axes"
        )
    if x.dtype.kind not in "iufb":
        raise DataError(
            f"{name}: X of the {part} part is of {x.dtype}, and a model takes numbers: encode what is no number"
        )
    if y.ndim < 1 or len(x) != len(y):
        count = len(y) if y.ndim else "no"
        raise DataError(
            f"{name}: the {part} part has {len(x)} samples in X and {count} targets in y; give one for each sample"
        )
    if not len(x):
        raise DataError(f"{name}: the {part} part is empty; give at least one sample")
    for letter, array in (("X", x), ("y", y)):
        if array.dtype.kind == "f" and not bool(np.isfinite(array).all()):
            count = int((~np.isfinite(array)).sum())
            raise DataError(
                f"{name}: {letter} of the {part} part holds {count} numbers that are NaN or infinite; fill them in or "
                "leave those samples out"
            )
    x = x.astype(np.float32) if x.dtype in (np.float64, np.float16, np.bool_) else x
    return x, y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y


def _classes(xs: list[NDArray], ys: list[NDArray], name: str) -> tuple[list[NDArray], int]:
    if any(y.ndim != 1 for y in ys):
        raise DataError(f"{name}: class numbers are one a sample, got y of shape {ys[0].shape}")
    whole = all(y.dtype.kind in "iu" or (y.dtype.kind == "f" and bool((y == np.round(y)).all())) for y in ys)
    if not whole and ys[0].dtype.kind == "f":
        raise DataError(f"{name}: classes are whole numbers or names, got {ys[0][0]} in y; numbers are kind regression")
    if not whole or min(int(y.min()) for y in ys) < 0:
        ys = _numbered(ys, name)
    ys = [y.astype(np.int64) for y in ys]
    highest = max(int(y.max()) for y in ys)
    if highest >= MOST_CLASSES:
        raise DataError(f"{name}: classes run up to {highest}; they must be numbers from 0, below {MOST_CLASSES}")
    if len(np.unique(ys[0])) < 2:
        raise DataError(f"{name}: all training samples are of class {ys[0][0]}; there is nothing to tell apart")
    return ys, highest + 1


def _numbered(ys: list[NDArray], name: str) -> list[NDArray]:
    """Names as numbers, in the order of the names in the training part."""
    known = np.unique(ys[0])
    unknown = np.setdiff1d(ys[1], known)
    if len(unknown):
        raise DataError(f"{name}: the test part has class {unknown[0]!r}, which no training sample has")
    return [np.searchsorted(known, y) for y in ys]


def _binary(xs: list[NDArray], ys: list[NDArray], name: str) -> tuple[list[NDArray], int]:
    ys, classes = _classes(xs, ys, name)
    if classes != 2:
        raise DataError(f"{name}: kind binary has the targets 0 and 1, got {classes} classes; use kind classification")
    return ys, 1


def _labels(xs: list[NDArray], ys: list[NDArray], name: str) -> tuple[list[NDArray], int]:
    if any(y.ndim != 2 or y.dtype.kind not in "iufb" or not bool(np.isin(y, (0, 1)).all()) for y in ys):
        raise DataError(f"{name}: kind multi-label has a matrix of 0 and 1 in y, samples x labels, got {ys[0].shape}")
    return [y.astype(np.float32) for y in ys], ys[0].shape[1]


def _numbers(xs: list[NDArray], ys: list[NDArray], name: str) -> tuple[list[NDArray], int]:
    if any(y.dtype.kind not in "iufb" or y.ndim > 2 for y in ys):
        raise DataError(
            f"{name}: kind regression has numbers in y, one or several a sample, got {ys[0].dtype} of shape "
            f"{ys[0].shape}; names are kind classification"
        )
    return [y.astype(np.float32) for y in ys], 1 if ys[0].ndim == 1 else ys[0].shape[1]


def _tokens(xs: list[NDArray], ys: list[NDArray], name: str) -> tuple[list[NDArray], int]:
    arrays = [*xs, *ys]
    if any(array.dtype.kind not in "iu" or array.ndim != 2 for array in arrays) or xs[0].shape[1] != ys[0].shape[1]:
        raise DataError(
            f"{name}: kind next-token has whole numbers in X and y, both samples x time, got {xs[0].dtype} of shape "
            f"{xs[0].shape} and {ys[0].dtype} of shape {ys[0].shape}"
        )
    if min(int(x.min()) for x in xs) < 0:
        raise DataError(f"{name}: tokens in X are numbers from 0, got {min(int(x.min()) for x in xs)}")
    highest = max(int(array.max()) for array in arrays)
    if highest >= MOST_CLASSES:
        raise DataError(f"{name}: tokens run up to {highest}; they must lie below {MOST_CLASSES}")
    return [y.astype(np.int64) for y in ys], highest + 1


TARGETS = {
    "classification": _classes,
    "binary": _binary,
    "multi-label": _labels,
    "regression": _numbers,
    "next-token": _tokens,
}
