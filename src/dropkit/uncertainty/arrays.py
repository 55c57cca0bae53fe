"""What judges and scores take, as NumPy arrays: numbers of any framework, or a result that holds its predictions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DropkitError, DropkitTypeError, DropkitValueError

OFF_BY = 1e-3  # how far from one probabilities may sum
OFF_BY_IN_HALVES = 1e-2  # numbers of 16 bits


def is_result(values: Any) -> bool:
    """Whether it holds predictions as attributes, where an array has a method called `mean`.

    >>> is_result([0.5]), is_result(np.ones(3))
    (False, False)
    """
    return not isinstance(values, type) and hasattr(values, "mean") and not callable(values.mean)


def as_numpy(name: str, values: Any) -> NDArray:
    """Numbers of any framework, on any device, with a graph behind them or not, as a NumPy array.

    Args:
        name: what an error calls them.
        values: an array, a tensor, a list of numbers.

    Raises:
        DropkitTypeError: what holds no numbers, or lists of different lengths.

    >>> as_numpy("y", [1, 2]).dtype.kind
    'i'
    """
    if hasattr(values, "detach"):  # a tensor of torch
        values = values.detach().cpu()
        values = values.float() if str(values.dtype) == "torch.bfloat16" else values
    try:
        array = np.asarray(values)
    except Exception as error:  # frameworks raise whatever they like
        kind = type(values).__name__
        raise DropkitTypeError(f"{name} must be an array of numbers, got {kind}: {_line(error)}") from None
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    if array.dtype.kind not in "biuf":
        raise DropkitTypeError(f"{name} must be an array of real numbers, got {_told(values, array)}")
    return array


def numbers(name: str, values: Any, *, infinite: bool = False) -> NDArray[np.float64]:
    """The same in float64: not empty, without NaN, and finite unless infinities are allowed.

    >>> numbers("y", [1, 2])
    array([1., 2.])
    """
    array = as_numpy(name, values).astype(np.float64)
    if not array.size:
        raise DropkitValueError(f"{name} must hold at least one sample, got shape {array.shape}")
    bad = np.isnan(array) if infinite else ~np.isfinite(array)
    if bad.any():
        where = _first(bad)
        raise DropkitValueError(
            f"{name} must be {'' if infinite else 'finite '}numbers, got {array[where]} at {list(map(int, where))}, as "
            f"{int(bad.sum())} of {bad.size} are; leave such samples out or mend the model"
        )
    return array


def alike(name: str, values: Any, of: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Numbers of exactly a shape: those that would only broadcast to it are nearly always a mistake.

    >>> alike("y", [1, 2], "the prediction", (2,))
    array([1., 2.])
    """
    array = numbers(name, values)
    if array.shape != shape:
        raise DropkitValueError(
            f"{name} has shape {array.shape} and {of} {shape}; give both the same (a column (n, 1) is y[:, 0] as a row)"
        )
    return array


def probabilities(values: Any, name: str = "probabilities", least_axes: int = 2) -> NDArray:
    """Probabilities of classes, which are the last axis: in [0, 1], and of sum one.

    Args:
        values: an array (..., classes), or a result whose `mean` is one.
        name: what an error calls them.
        least_axes: how many axes there are at least.

    Returns:
        The array in its own precision, not normalised again.

    Raises:
        DropkitValueError: NaN, numbers outside [0, 1], sums that are not one, fewer than two classes, no samples.

    >>> probabilities([[0.25, 0.75]])
    array([[0.25, 0.75]])
    """
    given = values.mean if is_result(values) else values
    array = _classes_last(as_numpy(name, given), values, 0)
    if array.ndim < least_axes or array.shape[-1] < 2:
        raise DropkitValueError(
            f"{name} must have shape (samples, classes) with two classes or more, got {array.shape}; of a binary "
            "classifier give both columns, np.stack([1 - p, p], -1)"
        )
    numbers(name, array)
    if array.dtype.kind != "f":
        array = array.astype(np.float64)
    sums = array.sum(-1, dtype=np.float64)
    off = OFF_BY_IN_HALVES if str(getattr(given, "dtype", "")).endswith("float16") else OFF_BY
    wrong = (np.abs(sums - 1) > off) | (array < 0).any(-1) | (array > 1 + off).any(-1)
    if wrong.any():
        where = _first(wrong)
        raise DropkitValueError(
            f"{name} at {list(map(int, where))} are {_few(array[where])} and sum to {sums[where]:.6g}, not to one; "
            "give the softmax of logits, with the classes as the last axis"
        )
    return array


def labels(values: Any, shape: tuple[int, ...], classes: int) -> NDArray[np.int64]:
    """Class numbers, one for each sample.

    Raises:
        DropkitTypeError: no integers.
        DropkitValueError: another shape than that of the samples, or a number outside the classes.

    >>> labels([0, 2], (2,), classes=3)
    array([0, 2])
    """
    array = as_numpy("labels", values)
    if array.shape != shape:
        hot = array.shape == (*shape, classes)
        hint = (
            "of one-hot labels take argmax(-1)" if hot else "classes are the last axis (np.moveaxis), a column y[:, 0]"
        )
        raise DropkitValueError(
            f"labels must have one class number for each sample, shape {shape}, got {array.shape}; {hint}"
        )
    if array.dtype.kind not in "biu":
        raise DropkitTypeError(f"labels must be class numbers, integers, got dtype {array.dtype}; use .astype(int)")
    found = array.astype(np.int64)
    wrong = (found < 0) | (found >= classes)
    if wrong.any():
        where = _first(wrong)
        raise DropkitValueError(
            f"labels hold {found[where]} at {list(map(int, where))}, outside the {classes} classes 0 to {classes - 1}; "
            "leave such samples out of both arrays"
        )
    return found


def classified(predicted: Any, y: Any) -> tuple[NDArray, NDArray[np.int64]]:
    """Probabilities (n, classes) and labels (n,) of as many samples as all axes but the last hold together.

    >>> p, y = classified([[[0.25, 0.75], [1.0, 0.0]]], [[1, 0]])
    >>> p.shape, y
    ((2, 2), array([1, 0]))
    """
    p = probabilities(predicted)
    found = labels(y, p.shape[:-1], p.shape[-1])
    return p.reshape(-1, p.shape[-1]), found.reshape(-1)


def kept(result: Any) -> Any:
    """The samples that a result kept; an array, which is samples itself, as it is.

    >>> kept([[0.5], [0.25]])
    [[0.5], [0.25]]
    """
    if not is_result(result):
        return result
    found = _attribute(result, "samples", "did not keep its samples; predict with samples kept")
    return _classes_last(found, result, 1)


def _classes_last(array: Any, of: Any, front: int) -> Any:
    """An array of a result that has its classes on another axis; `front` axes stand before those of its mean."""
    axis = getattr(of, "axis", -1) if is_result(of) and getattr(of, "outputs", "") != "values" else -1
    return array if axis == -1 else np.moveaxis(as_numpy("the result", array), axis if axis < 0 else axis + front, -1)


def quantiles_of(result: Any, levels: Sequence[float]) -> list[Any]:
    """The quantiles of a result at some levels.

    Its `quantiles` are a function of levels, a dictionary by level, or an array with an axis of levels in front, those
    that its `levels` names, or else the wanted ones.

    Raises:
        DropkitValueError: it has not all of them.

    >>> from types import SimpleNamespace
    >>> quantiles_of(SimpleNamespace(quantiles={0.05: [1.0], 0.95: [2.0]}), (0.05, 0.95))
    [[1.0], [2.0]]
    """
    found = _attribute(result, "quantiles", f"has no quantiles; predict with those at {tuple(levels)}")
    if callable(found):
        return list(found(tuple(levels)))
    if isinstance(found, Mapping):
        have, found = list(found), list(found.values())
    else:
        have = list(getattr(result, "levels", levels))
    places = [[place for place, level in enumerate(have) if abs(level - wanted) < 1e-9] for wanted in levels]
    if len(have) != len(found) or not all(places):
        raise DropkitValueError(
            f"the quantiles at {tuple(levels)} are needed, this {type(result).__name__} has {len(found)}, at {have}; "
            "predict with those"
        )
    return [found[place[0]] for place in places]


def _attribute(result: Any, name: str, missing: str) -> Any:
    try:
        found = getattr(result, name)
    except DropkitError:  # which says what to do
        raise
    except AttributeError:
        found = None
    if found is None:
        raise DropkitValueError(f"this {type(result).__name__} {missing}")
    return found


def drawn(samples: Any, y: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Outputs of passes, shape (S, n, ...), and the truth, shape (n, ...).

    >>> passes, y = drawn([[0.5, 1.0], [0.25, 2.0]], [0.0, 1.0])
    >>> passes.shape, y.shape
    ((2, 2), (2,))
    """
    passes = numbers("samples", kept(samples))
    if passes.ndim < 2:
        raise DropkitValueError(f"samples must have shape (passes, n, ...), passes first, got {passes.shape}")
    return passes, alike("y", y, "each pass", passes.shape[1:])


def fraction(name: str, value: Any, example: float = 0.1) -> float:
    """A number strictly between 0 and 1.

    >>> fraction("alpha", 0.1)
    0.1
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 < value < 1:
        raise DropkitValueError(f"{name} must lie strictly between 0 and 1, got {value!r}; {example} is usual")
    return float(value)


def count(name: str, value: Any) -> int:
    """A whole number, at least one.

    >>> count("bins", 15)
    15
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise DropkitValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    return int(value)


def _first(wrong: NDArray[np.bool_]) -> tuple[Any, ...]:
    return np.unravel_index(int(np.argmax(wrong)), wrong.shape)


def _few(row: NDArray) -> str:
    shown = ", ".join(f"{value:.4g}" for value in row[:4])
    return f"[{shown}{', ...' if len(row) > 4 else ''}]"


def _told(values: Any, array: NDArray) -> str:
    return f"dtype {array.dtype}" if array.dtype != object else type(values).__name__


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
