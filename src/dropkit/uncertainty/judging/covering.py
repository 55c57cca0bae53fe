"""How often intervals, quantiles and sets hold the truth, and how large they are."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DropkitTypeError, DropkitValueError
from ..arrays import alike, as_numpy, labels, numbers


def interval_coverage(low: Any, high: Any, y: Any) -> float:
    """How many of the truths lie in their intervals, ends included: `mean [low <= y <= high]`.

    Args:
        low, high: the ends, shape (...), infinite ones too.
        y: the truth, the same shape.

    Returns:
        A share in [0, 1].

    Raises:
        DropkitValueError, DropkitTypeError: NaN, no samples, shapes that differ.

    Source: PICP, as in Khosravi et al. 2011.

    >>> interval_coverage([0.0, 0.0], [1.0, 1.0], [1.0, 2.0])
    0.5
    """
    ends = _ends(low, high)
    truth = alike("y", y, "the intervals", ends[0].shape)
    return float(((ends[0] <= truth) & (truth <= ends[1])).mean())


def interval_width(low: Any, high: Any) -> float:
    """The mean width of intervals: `mean (high - low)`; infinite where one is.

    Args:
        low, high: the ends, shape (...), infinite ones too.

    Returns:
        The width, in the unit of the ends.

    Raises:
        DropkitValueError, DropkitTypeError: NaN, no samples, shapes that differ.

    Source: MPIW, as in Khosravi et al. 2011.

    >>> interval_width([0.0, 1.0], [1.0, 4.0])
    2.0
    """
    ends = _ends(low, high)
    return float((ends[1] - ends[0]).mean())


def set_coverage(sets: Any, y: Any) -> float:
    """How many of the labels are in their sets: `1/n sum_i sets[i, y_i]`.

    Args:
        sets: bool, shape (..., classes).
        y: class numbers, shape (...).

    Returns:
        A share in [0, 1].

    Raises:
        DropkitValueError, DropkitTypeError: sets that are not bool, labels outside the classes, other shapes.

    Source: as in Angelopoulos and Bates 2021, arXiv:2107.07511.

    >>> set_coverage([[True, False], [True, True]], [1, 1])
    0.5
    """
    held = _sets(sets)
    found = labels(y, held.shape[:-1], held.shape[-1])
    return float(np.take_along_axis(held, found[..., None], -1).mean())


def set_size(sets: Any) -> float:
    """How many classes a set has on average: `1/n sum_ic sets[i, c]`.

    Args:
        sets: bool, shape (..., classes).

    Returns:
        The mean size, in [0, classes].

    Raises:
        DropkitValueError, DropkitTypeError: sets that are not bool, no samples.

    Source: as in Angelopoulos and Bates 2021, arXiv:2107.07511.

    >>> set_size([[True, False], [True, True]])
    1.5
    """
    return float(_sets(sets).sum(-1).mean())


@dataclass(frozen=True, slots=True)
class QuantileCalibration:
    """How often the truth lies below each predicted quantile.

    Args:
        levels: what was promised, shape (q,).
        observed: the shares that came true, shape (q,).

    >>> quantile_calibration([[0.0, 0.0]], [0.5], [-1.0, -2.0]).error
    0.5
    """

    levels: NDArray[np.float64]
    observed: NDArray[np.float64]

    @property
    def error(self) -> float:
        """The mean over levels of `|observed - level|`."""
        return float(np.abs(self.observed - self.levels).mean())


def quantile_calibration(quantiles: Any, levels: Any, y: Any) -> QuantileCalibration:
    """Of each level how many truths lie at its predicted quantile or below: `observed_q = mean [y <= quantile_q]`.

    Args:
        quantiles: shape (q, ...), an axis of levels first.
        levels: each in (0, 1), shape (q,).
        y: the truth, shape (...).

    Returns:
        A `QuantileCalibration`: `levels`, `observed` and the mean `error`.

    Raises:
        DropkitValueError, DropkitTypeError: NaN, levels outside (0, 1), shapes that do not agree.

    Source: Kuleshov, Fenner and Ermon, ICML 2018, arXiv:1807.00263, with absolute in place of squared differences.

    >>> quantile_calibration([[0.0, 0.0], [1.0, 1.0]], [0.25, 0.75], [0.5, 2.0]).observed
    array([0. , 0.5])
    """
    at = numbers("levels", levels)
    if at.ndim != 1 or not ((at > 0) & (at < 1)).all():
        raise DropkitValueError(f"levels must be a row of numbers strictly between 0 and 1, got {levels!r}")
    found = numbers("quantiles", quantiles, infinite=True)
    if found.shape[:1] != at.shape:
        raise DropkitValueError(f"quantiles of shape {found.shape} need {len(at)} on axis 0, one for each level")
    truth = alike("y", y, "each quantile", found.shape[1:])
    return QuantileCalibration(at, (truth <= found).reshape(len(at), -1).mean(1))


def _ends(low: Any, high: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    first, last = (numbers(name, end, infinite=True) for name, end in (("low", low), ("high", high)))
    if first.shape != last.shape:
        raise DropkitValueError(f"low has shape {first.shape} and high {last.shape}; give both ends of every interval")
    return first, last


def _sets(sets: Any) -> NDArray[np.bool_]:
    held = as_numpy("sets", sets)
    if held.dtype != bool:
        raise DropkitTypeError(f"sets must be bool, True for each class that a set holds, got dtype {held.dtype}")
    if held.ndim < 2 or not held.size:
        raise DropkitValueError(f"sets must have shape (samples, classes), got {held.shape}")
    return held
