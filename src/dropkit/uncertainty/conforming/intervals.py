"""Conformal intervals around numbers."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DropkitTypeError, DropkitValueError
from ..arrays import alike, is_result, numbers, quantiles_of
from .quantile import finite_quantile

INTERVALS = ("split", "normalised", "cqr")
Pair = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class ConformalIntervals:
    """Intervals that hold the truth with probability 1 - alpha: what `conformal` makes of numbers.

    Args:
        method: "split", "normalised" or "cqr".
        alpha: how often the truth may be missed.
        quantile: q, by how much intervals are widened: in the unit of y, or in deviations; of several outputs one of
            each, shape y.shape[1:]. Infinite where there were too few samples.
        n: how many samples it was calibrated on.
        beta: what is added to deviations.

    >>> from dropkit.uncertainty import conformal
    >>> conformal(([0.0] * 9, [4.0] * 9), range(1, 10), 0.2, "normalised").predict(([1.0], [1.0]))
    (array([-3.]), array([5.]))
    """

    method: str
    alpha: float
    quantile: NDArray[np.float64]
    n: int
    beta: float = 0.0

    def predict(self, predicted: Any) -> Pair:
        """The ends of the interval of each sample; several outputs have each an interval, and alpha, of their own.

        Args:
            predicted: as `conformal` took them: means (m, ...); a pair (means, variances) for "normalised", (low, high)
                for "cqr"; or a result.

        Returns:
            `mean - q` and `mean + q` for "split"; the same with q (deviation + beta) for "normalised"; `low - q` and
            `high + q` for "cqr", and where these cross, as q below 0 may make them, the point between them twice.

        >>> from dropkit.uncertainty import conformal
        >>> conformal([0.0] * 9, range(1, 10), 0.2, "split").predict([10.0])
        (array([2.]), array([18.]))
        """
        low, high, unit = _read(predicted, self.method, self.alpha, self.beta)
        if low.shape[1:] != self.quantile.shape:
            raise DropkitValueError(
                f"these intervals were calibrated on outputs of shape {self.quantile.shape}, got {low.shape[1:]}"
            )
        wide = self.quantile * unit
        low, high = low - wide, high + wide
        crossed = low > high
        middle = (low[crossed] + high[crossed]) / 2
        low[crossed], high[crossed] = middle, middle
        return low, high


def conformal_intervals(predicted: Any, y: Any, alpha: float, method: str, beta: float) -> ConformalIntervals:
    """Calibrated intervals: `conformal` with one of their methods.

    >>> conformal_intervals([0.0] * 9, range(1, 10), 0.2, "split", 0.0).quantile
    array(8.)
    """
    if isinstance(beta, bool) or not isinstance(beta, int | float | np.number) or not 0 <= beta < np.inf:
        raise DropkitValueError(f"beta must be 0 or more, in the unit of y, got {beta!r}")
    low, high, unit = _read(predicted, method, alpha, beta)
    truth = alike("y", y, "the prediction", low.shape)
    score = np.maximum(low - truth, truth - high) / unit
    return ConformalIntervals(method, alpha, finite_quantile(score, alpha), len(truth), float(beta))


def _read(predicted: Any, method: str, alpha: float, beta: float) -> tuple[NDArray, NDArray, NDArray]:
    """What is widened, and in which unit: all methods are one with a mean as both ends."""
    if method == "cqr":
        low, high = _pair(
            quantiles_of(predicted, (alpha / 2, 1 - alpha / 2)) if is_result(predicted) else predicted,
            "cqr",
            "low",
            "high",
        )
        if (low > high).any():
            raise DropkitValueError(f"low lies above high in {int((low > high).sum())} of {low.size}; give (low, high)")
        return low, high, np.ones_like(low)
    if method == "split":
        mean = numbers("the prediction", predicted.mean if is_result(predicted) else predicted)
        if not mean.ndim:
            raise DropkitValueError(f"the prediction must have an axis of samples first, got {mean}")
        return mean, mean, np.ones_like(mean)
    pair = (predicted.mean, predicted.variance) if is_result(predicted) else predicted
    mean, variance = _pair(pair, method, "mean", "variance")
    if (variance < 0).any():
        raise DropkitValueError(f"variance must be 0 or more, got {variance.min():.6g}")
    unit = np.sqrt(variance) + beta
    if not unit.all():
        raise DropkitValueError(
            f"{int((unit == 0).sum())} of {unit.size} variances are 0, by which no error can be divided; give beta > "
            "0, in the unit of y, or turn dropout on"
        )
    return mean, mean, unit


def _pair(values: Any, method: str, first: str, second: str) -> Pair:
    if not isinstance(values, tuple | list) or len(values) != 2:
        raise DropkitTypeError(
            f'method "{method}" needs a pair ({first}, {second}), or a result, got {type(values).__name__}'
        )
    found = numbers(first, values[0])
    return found, alike(second, values[1], first, found.shape)
