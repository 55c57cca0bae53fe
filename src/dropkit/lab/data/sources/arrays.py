"""Arrays in .npz and .npy files. Nothing is unpickled; a .npy file is read where it is needed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import DataError
from ....visible import one_line
from ..limits import check_arrays
from .columns import listed, near, shown
from .raw import Part, Raw

X = ("x", "data", "images", "features", "inputs", "tokens", "input_ids")
Y = ("y", "target", "targets", "label", "labels")
TRAIN, TEST = "_train", "_test"
NAMES = "X and y, or X_train, y_train, X_test and y_test"
OBJECTS = "holds Python objects, which are not loaded since that can run code"


def read_archive(path: Path, target: str | None) -> Raw:
    """The arrays in an .npz file.

    Raises:
        DataError: it is missing, damaged, too large, holds Python objects, or arrays of other names.
    """
    try:
        with path.open("rb") as file:
            if not path.is_file():
                raise ValueError("it is no regular file")
            check_arrays(file)
            with np.load(file, allow_pickle=False) as archive:
                wanted = [name for name in archive.files if _wanted(name, target)]
                found = {name: archive[name] for name in wanted or archive.files}
    except Exception as error:  # numpy and zipfile raise whatever they meet
        raise _unreadable(path, error) from error
    return named_arrays(str(path), found, target)


def _wanted(name: str, target: str | None) -> bool:
    base = name.lower().removesuffix(TRAIN).removesuffix(TEST)
    return base in (*X, *Y) or name == target


def _unreadable(path: Path, error: Exception) -> DataError:
    if "allow_pickle" in str(error) or "Python objects" in str(error):
        return DataError(f"{path} {OBJECTS}: save numbers, or text of a fixed length (.astype(str))")
    reason = getattr(error, "strerror", None)
    remedy = "" if reason else "; save the arrays again with numpy.savez (X=..., y=...) or numpy.save"
    return DataError(f"cannot read {path}: {one_line(reason or error)[:300]}{remedy}")


def named_arrays(name: str, arrays: Mapping[str, Any], target: str | None) -> Raw:
    """Arrays by what they are called: x and y, or these of both parts.

    Raises:
        DataError: x or a part of it is missing.

    >>> named_arrays("a.npz", {"X": np.zeros((2, 3)), "y": np.arange(2)}, None).train.y
    array([0, 1])
    """
    lower = {key.lower(): key for key in arrays}
    if len(lower) < len(arrays):
        raise DataError(f"{name} holds {listed(list(arrays))}, of which some differ in case alone; keep one of each")

    def pick(names: tuple[str, ...], end: str) -> str | None:
        return next((lower[word + end] for word in names if word + end in lower), None)

    if target is not None and not {target, target + TRAIN} & set(arrays):
        raise DataError(f"{name} has no array {shown(target)}; {near(target, list(arrays))}")
    ends = (TRAIN, TEST) if pick(X, TRAIN) or pick(X, TEST) else ("",)
    parts = []
    for end in ends:
        x, y = pick(X, end), pick(Y, end)
        y = y if target is None else target if not end else target.removesuffix(TRAIN) + end
        if x is None:
            raise DataError(f"{name} holds {listed(list(arrays)) or 'nothing'}; name the arrays {NAMES}")
        if y is not None and y not in arrays:
            raise DataError(f"{name} has no array {shown(y)} for the target; name the arrays {NAMES}")
        parts.append(Part(arrays[x], None if y is None else arrays[y]))
    if len({part.y is None for part in parts}) > 1:
        raise DataError(f"{name} has targets for one part alone; name the arrays {NAMES}")
    return Raw(name, parts[0], parts[1] if len(parts) > 1 else None, target or "y")


def read_array(path: Path, target: str | None) -> Raw:
    """The array in an .npy file; its target is another such file, or one of its columns.

    Raises:
        DataError: it is missing, damaged or holds Python objects; or there is no such target.
    """
    x = _mapped(path)
    if target is None:
        return Raw(str(path), Part(x))
    if target.lower().endswith(".npy"):
        other = Path(target)
        other = other if other.exists() or not (path.parent / other).exists() else path.parent / other
        return Raw(str(path), Part(x, np.asarray(_mapped(other))), target=target)
    try:
        column = int(target)
    except ValueError:
        raise DataError(
            f"{path}: --target {target} is neither an .npy file nor the number of a column; give --target y.npy, or "
            "--target 0 for the first column"
        ) from None
    if x.ndim != 2 or not -x.shape[1] <= column < x.shape[1] or x.shape[1] < 2:
        raise DataError(
            f"{path} has shape {x.shape} and no column {column}; give the number of a column of a table of two or "
            "more, or --target y.npy"
        )
    y = np.array(x[:, column])
    if np.array_equal(y, np.round(y)) and x.dtype.kind == "f" and len(np.unique(y)) <= 100:
        y = y.astype(np.int64)  # class numbers have no type of their own in a table of floats
    return Raw(str(path), Part(np.delete(x, column, axis=1), y), target=f"column {column}")


def _mapped(path: Path) -> NDArray:
    if not path.is_file():
        raise DataError(f"there is no file {path}" if not path.exists() else f"{path} is no regular file")
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except Exception as error:
        raise _unreadable(path, error) from error


def check_leak(name: str, x: NDArray, y: NDArray) -> None:
    """Refuse a column of x that is the target once more, value for value.

    Raises:
        DataError: there is one.
    """
    if x.ndim != 2 or y.ndim != 1 or x.dtype.kind not in "iuf":
        return
    some = np.flatnonzero((x[:1000] == y[:1000, None]).all(axis=0))
    for column in some.tolist():
        if np.array_equal(x[:, column], y):
            raise DataError(
                f"{name}: column {column} of x is the target once more, value for value, so that everything would be "
                "predicted from it; leave it out of x"
            )
