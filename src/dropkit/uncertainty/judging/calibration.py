"""How far the probabilities that are told and the frequencies that come true lie apart: errors over bins."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...errors import UnknownNameError
from ..arrays import classified, count

BINS = 15
NORMS = ("l1", "l2", "max")
KINDS = ("width", "mass")
Z = 1.959963984540054  # of the standard normal distribution, 97.5 %


def ece(probabilities: Any, y: Any, bins: int = BINS, norm: str = "l1") -> float:
    """Expected calibration error over bins of equal width: `sum_b n_b / n |right_b - confidence_b|`.

    The confidence of a sample is its largest probability, and it is right where the first class that has it is the
    label. Bin b holds confidences in (b / bins, (b + 1) / bins], the first one 0 as well, so that one on an edge, such
    as 1 / 3 of 15 bins, belongs to the bin below; edges are rounded to the precision of the probabilities. `right_b`
    and `confidence_b` are means over a bin; empty bins count nothing.

    Args:
        probabilities: shape (..., classes), or a result whose `mean` has it; all leading axes are samples.
        y: class numbers, shape (...).
        bins: how many.
        norm: "l1" as above; "l2" is `sqrt(sum_b n_b / n (...)^2)`; "max" the largest bin's, called MCE.

    Returns:
        The error, in [0, 1].

    Raises:
        DropkitValueError, DropkitTypeError: as `nll`; bins below 1, an unknown norm.

    Source: Naeini, Cooper and Hauskrecht, AAAI 2015; Guo et al., ICML 2017, arXiv:1706.04599.

    >>> round(ece([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]], [0, 1, 1]), 6)
    0.4
    """
    p, found = classified(probabilities, y)
    return _error(p.max(1), p.argmax(1) == found, count("bins", bins), norm)


def adaptive_ece(probabilities: Any, y: Any, bins: int = BINS) -> float:
    """Expected calibration error over bins of equal mass: `sum_b n_b / n |right_b - confidence_b|`.

    Samples are sorted by confidence, their largest probability, and cut into bins of as many each, or one more in the
    first ones. Samples of one confidence count alike wherever they lie: each as right as all of them on average.

    Args:
        probabilities: shape (..., classes), or a result whose `mean` has it; all leading axes are samples.
        y: class numbers, shape (...).
        bins: how many; of fewer samples each is a bin.

    Returns:
        The error, in [0, 1].

    Raises:
        DropkitValueError, DropkitTypeError: as `nll`; bins below 1.

    Source: Nixon et al., CVPR workshops 2019, arXiv:1904.01685; Roelofs et al., AISTATS 2022, arXiv:2012.08668.

    >>> round(adaptive_ece([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]], [0, 1, 1, 1], bins=2), 6)
    0.4
    """
    p, found = classified(probabilities, y)
    return calibration_error(p.max(1), p.argmax(1) == found, count("bins", bins))


def classwise_ece(probabilities: Any, y: Any, bins: int = BINS) -> float:
    """Class-wise calibration error: the mean over classes of `sum_b n_bc / n |frequency_bc - mean p_bc|`.

    Of each class its probabilities, whether it is the most probable one or not, are held against how often it was the
    label, over bins of equal width as in `ece`. All classes weigh the same, those without a label too.

    Args:
        probabilities: shape (..., classes), or a result whose `mean` has it; all leading axes are samples.
        y: class numbers, shape (...).
        bins: how many for each class.

    Returns:
        The error, in [0, 1].

    Raises:
        DropkitValueError, DropkitTypeError: as `nll`; bins below 1.

    Source: Kull et al., NeurIPS 2019, arXiv:1910.12656; "static calibration error" in Nixon et al. 2019.

    >>> round(classwise_ece([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]], [0, 1, 1]), 6)
    0.4
    """
    p, found = classified(probabilities, y)
    each = [_error(p[:, c], found == c, count("bins", bins), "l1") for c in range(p.shape[1])]
    return float(np.mean(each))


@dataclass(frozen=True, slots=True)
class Reliability:
    """A reliability diagram: of each bin how many samples it holds, how sure they are and how often right.

    Args:
        edges: of the bins, shape (bins + 1,); of equal mass, between the confidences of neighbours.
        count: samples of each bin, shape (bins,).
        confidence, accuracy: their means, NaN where there are none.
        low, high: Wilson's interval of the accuracy at 95 %, NaN where there are none.

    >>> round(reliability([[0.9, 0.1], [0.8, 0.2]], [0, 1], bins=1).error, 6)
    0.35
    """

    edges: NDArray[np.float64]
    count: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @property
    def error(self) -> float:
        """What the diagram shows as one number: `sum_b n_b / n |accuracy_b - confidence_b|`."""
        full = self.count > 0
        gaps = np.abs(self.accuracy - self.confidence)[full]
        return float((self.count[full] * gaps).sum() / self.count.sum())


def reliability(probabilities: Any, y: Any, bins: int = BINS, kind: str = "width") -> Reliability:
    """The data of a reliability diagram: mean confidence and accuracy of each bin, with Wilson's 95 % interval.

    `error` of it is `ece` for bins of equal width, and `adaptive_ece` for those of equal mass.

    Args:
        probabilities: shape (..., classes), or a result whose `mean` has it; all leading axes are samples.
        y: class numbers, shape (...).
        bins: how many; of equal mass, not more than samples.
        kind: "width" or "mass", with ties and edges as in `ece` and `adaptive_ece`.

    Returns:
        A `Reliability`.

    Raises:
        DropkitValueError, DropkitTypeError: as `nll`; bins below 1, an unknown kind.

    Source: DeGroot and Fienberg 1983; Niculescu-Mizil and Caruana, ICML 2005; Wilson 1927.

    >>> found = reliability([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]], [0, 1, 1], bins=2)
    >>> found.count, found.accuracy.round(3)
    (array([0, 3]), array([  nan, 0.667]))
    """
    if kind not in KINDS:
        raise UnknownNameError("kind of bins", kind, KINDS)
    p, found = classified(probabilities, y)
    sure, hit = p.max(1), p.argmax(1) == found
    bins = count("bins", bins)
    if kind == "width":
        n, sums, hits = _sums(sure, hit, bins)
        return _diagram(np.arange(bins + 1) / bins, n, sums, hits)
    sizes, totals, successes, edges = [], [], [], [0.0]
    ordered = np.sort(sure).astype(np.float64)
    for part, shared in _equal_mass(sure, hit, bins):
        sizes.append(len(part))
        totals.append(sure[part].sum(dtype=np.float64))
        successes.append(shared[part].sum())
        after = sum(sizes)
        edges.append(float(ordered[after - 1 : after + 1].mean()) if after < len(ordered) else 1.0)
    return _diagram(np.asarray(edges), np.asarray(sizes), np.asarray(totals), np.asarray(successes))


def calibration_error(confidence: ArrayLike, right: ArrayLike, bins: int = BINS) -> float:
    """The expected calibration error over bins of equal mass, as `adaptive_ece`, of confidences and successes.

    Args:
        confidence: the probability of the predicted class, of each sample, shape (n,).
        right: whether that class was the right one, shape (n,).
        bins: how many; of fewer samples each is a bin.

    Returns:
        The error, in [0, 1]; NaN where a probability is, or without samples.

    >>> calibration_error([0.5, 0.5, 1.0, 1.0], [True, False, True, True], bins=2)
    0.0
    >>> round(calibration_error([0.9, 0.9, 0.9, 0.9], [True, False, True, False]), 6)
    0.4
    """
    sure, hit = np.asarray(confidence, np.float64), np.asarray(right, np.float64)
    if not len(sure) or not np.isfinite(sure).all():
        return float("nan")
    parts = _equal_mass(sure, hit, bins)
    return float(sum(abs((shared[part] - sure[part]).sum()) for part, shared in parts) / len(sure))


def _equal_mass(sure: NDArray, hit: NDArray, bins: int) -> Iterator[tuple[NDArray, NDArray]]:
    """The samples of each bin, and how right every sample is: as right as all of its confidence on average."""
    order = np.argsort(sure, kind="stable")
    values, group = np.unique(sure, return_inverse=True)
    shared = (np.bincount(group, hit, len(values)) / np.bincount(group, minlength=len(values)))[group]
    for part in np.array_split(order, min(bins, len(sure))):
        yield part, shared


def _sums(sure: NDArray, hit: NDArray, bins: int) -> tuple[NDArray, NDArray, NDArray]:
    """Of each bin of equal width the samples, and the sums of their confidences and successes."""
    edges = (np.arange(bins + 1) / bins).astype(sure.dtype)
    place = np.clip(np.searchsorted(edges, sure, side="left") - 1, 0, bins - 1)
    return tuple(np.bincount(place, weight, bins) for weight in (None, sure, hit))  # type: ignore[return-value]


def _error(sure: NDArray, hit: NDArray, bins: int, norm: str) -> float:
    if norm not in NORMS:
        raise UnknownNameError("norm", norm, NORMS)
    n, sums, hits = _sums(sure, hit, bins)
    gaps = np.abs(hits - sums)[n > 0] / n[n > 0]
    share = n[n > 0] / len(sure)
    if norm == "max":
        return float(gaps.max())
    return float((share * gaps).sum() if norm == "l1" else np.sqrt((share * gaps**2).sum()))


def _diagram(edges: NDArray, n: NDArray, sums: NDArray, hits: NDArray) -> Reliability:
    with np.errstate(invalid="ignore", divide="ignore"):
        share = hits / n
        middle = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
        half = Z / (1 + Z**2 / n) * np.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
        return Reliability(edges, n, sums / n, share, np.maximum(middle - half, 0), np.minimum(middle + half, 1))
