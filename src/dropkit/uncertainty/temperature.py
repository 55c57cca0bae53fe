"""Temperature scaling: one number for all logits, that their likelihood is largest with."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DropkitValueError
from .judging.classification import log_classified, log_rows

STEPS = 200
NEAR = 1e-12  # how far apart the two ends of the search are at its end, in relation to them


@dataclass(frozen=True, slots=True)
class Temperature:
    """A temperature and what it made of the calibration samples; `predict` puts it to use.

    Args:
        value: T; above 1 where the logits were too sure.
        before, after: the negative log-likelihood of the calibration samples at T = 1 and at T.

    >>> Temperature(2.0, before=0.7, after=0.6).predict([[0.0, 2 * np.log(3.0)]]).round(6)
    array([[0.25, 0.75]])
    """

    value: float
    before: float
    after: float

    def predict(self, logits: Any) -> NDArray[np.float64]:
        """`softmax(logits / T)` along the last axis; of a result, of the logarithm of its mean probabilities.

        Args:
            logits: shape (..., classes), or logarithms of probabilities, or a result whose `mean` are probabilities.

        Returns:
            Probabilities, of the same shape.

        >>> Temperature(1.0, 0.5, 0.5).predict([[0.0, 0.0]])
        array([[0.5, 0.5]])
        """
        return softmax(log_rows(logits) / self.value)


def temperature_scaling(logits: Any, y: Any) -> Temperature:
    """The temperature T with which `softmax(logits / T)` gives held-out labels their largest likelihood.

    `d NLL / d b = 1/n sum_i (sum_c p_c z[i, c] - z[i, y_i])`, p being softmax(b z), rises with b = 1 / T. So there is
    one minimum, which is found by halving an interval, by Newton's steps where these stay in it, to 1e-12. Nothing is
    random. The order of classes stays, so accuracy does.

    Args:
        logits: of held-out samples, shape (..., classes): of a single pass; or logarithms of mean probabilities, of
            many passes; or a result, of whose `mean` the logarithm is taken.
        y: class numbers, shape (...).

    Returns:
        A `Temperature`, whose `predict` takes the logits of other samples.

    Raises:
        DropkitValueError: every label has the largest logit, so that no T above 0 is best; labels that have smaller
            logits than the others on average, so that none below infinity is; a label of probability 0; NaN.
        DropkitTypeError: no numbers, no integers.

    Source: Guo et al., ICML 2017, arXiv:1706.04599; Platt 1999.

    >>> found = temperature_scaling([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [2.0, 0.0]], [0, 0, 0, 1])
    >>> round(found.value, 6), round(float(2 / np.log(3)), 6)
    (1.820478, 1.820478)
    """
    z, found = log_classified(logits, y)
    z = z - z.max(1, keepdims=True)
    _check(z, found)
    low, high = _bracket(z, found)
    middle = (low + high) / 2
    for _ in range(STEPS):
        slope, curve = _slope(z, found, middle)
        low, high = (middle, high) if slope < 0 else (low, middle)
        if high - low <= NEAR * high or slope == 0:
            break
        step = middle - slope / curve if curve > 0 else low
        middle = step if low < step < high else (low + high) / 2
        if min(middle - low, high - middle) <= NEAR * high / 4:  # Newton's steps come from one side
            middle = min(max(middle, low + NEAR * high / 4), high - NEAR * high / 4)
    return Temperature(1 / middle, _nll(z, found, 1.0), _nll(z, found, middle))


def softmax(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Softmax along the last axis.

    >>> softmax(np.zeros((1, 2)))
    array([[0.5, 0.5]])
    """
    powers = np.exp(z - z.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _check(z: NDArray[np.float64], y: NDArray[np.int64]) -> None:
    of_labels = z[np.arange(len(z)), y]
    if np.isneginf(of_labels).any():
        sample = int(np.argmax(np.isneginf(of_labels)))
        raise DropkitValueError(
            f"the label of sample {sample} has probability 0, which no temperature changes; give logits, or the "
            "logarithm of a mean that was taken in logarithms"
        )
    if not of_labels.any():
        raise DropkitValueError(
            f"each of the {len(y)} labels has the largest logit, so the lower the temperature the likelier they are, "
            "without end; give more held-out samples, some of which the model gets wrong"
        )
    if _slope(z, y, 0.0)[0] >= 0:
        raise DropkitValueError(
            f"the {len(y)} labels have no larger logits than other classes on average, so no temperature is best; "
            "check that labels and logits belong to the same samples, and classes to the same columns"
        )


def _bracket(z: NDArray[np.float64], y: NDArray[np.int64]) -> tuple[float, float]:
    low, high = 0.0, 1.0
    while _slope(z, y, high)[0] < 0:
        low, high = high, 2 * high
    return low, high


def _slope(z: NDArray[np.float64], y: NDArray[np.int64], b: float) -> tuple[float, float]:
    """First and second derivative of the NLL by b: mean - z of the label, and the variance of z, by softmax(b z)."""
    finite = np.where(np.isneginf(z), 0.0, z)  # where p is 0, whatever b is
    p = np.where(np.isneginf(z), 0.0, np.exp(b * finite))
    p /= p.sum(1, keepdims=True)
    mean = (p * finite).sum(1)
    return float((mean - z[np.arange(len(z)), y]).mean()), float(((p * finite**2).sum(1) - mean**2).mean())


def _nll(z: NDArray[np.float64], y: NDArray[np.int64], b: float) -> float:
    return float((np.log(np.exp(b * z).sum(1)) - b * z[np.arange(len(z)), y]).mean())
