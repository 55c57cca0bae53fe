"""Prediction with a reject option: what is risked by answering only those questions that one is most certain of."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import alike, numbers


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """A risk-coverage curve: what is lost on average by answering the most certain samples alone.

    Args:
        coverage: k / n for k = 1 to n, the share of samples that is answered, shape (n,).
        risk: the mean loss of those, shape (n,).

    >>> risk_coverage([0.1, 0.2], [0, 1]).aurc
    0.25
    """

    coverage: NDArray[np.float64]
    risk: NDArray[np.float64]

    @property
    def aurc(self) -> float:
        """The area under the curve: `1/n sum_k risk_k`."""
        return float(self.risk.mean())

    @property
    def augrc(self) -> float:
        """The area under the generalised risk, that of answering wrongly at all: `1/n sum_k coverage_k risk_k`."""
        return float((self.coverage * self.risk).mean())


def risk_coverage(uncertainty: Any, loss: Any) -> RiskCoverage:
    """The risk-coverage curve: the mean loss of the k most certain samples, for every k.

    `risk_k = 1/k sum of loss over the k samples of least uncertainty`. Among samples of equal uncertainty no order is
    better than another: the curve is the expected one under a random order of them, so of each counts their mean loss.

    Args:
        uncertainty: a number for each sample, the larger the less certain (an entropy, a variance, 1 - confidence);
            shape (...), infinite ones too.
        loss: of each sample, 0 or 1 for right and wrong, or any loss such as a squared error; the same shape.

    Returns:
        A `RiskCoverage` with `coverage` and `risk`, both (n,), n being all samples.

    Raises:
        DropkitValueError, DropkitTypeError: NaN, no samples, shapes that differ.

    Source: El-Yaniv and Wiener 2010; Geifman and El-Yaniv, NeurIPS 2017, arXiv:1705.08500.

    >>> curve = risk_coverage([0.1, 0.9, 0.5, 0.5], [0, 1, 1, 0])
    >>> curve.coverage, curve.risk
    (array([0.25, 0.5 , 0.75, 1.  ]), array([0.        , 0.25      , 0.33333333, 0.5       ]))
    """
    unsure = numbers("uncertainty", uncertainty, infinite=True)
    lost = alike("loss", loss, "the uncertainty", unsure.shape).reshape(-1)
    order = np.argsort(unsure.reshape(-1), kind="stable")
    _, group = np.unique(unsure.reshape(-1), return_inverse=True)
    shared = (np.bincount(group, lost) / np.bincount(group))[group]
    k = np.arange(1, len(lost) + 1)
    return RiskCoverage(k / len(lost), np.cumsum(shared[order]) / k)


def aurc(uncertainty: Any, loss: Any) -> float:
    """Area under the risk-coverage curve: `1/n sum_k risk_k`, with ties as in `risk_coverage`.

    Args:
        uncertainty: a number for each sample, the larger the less certain, shape (...).
        loss: of each sample, the same shape.

    Returns:
        The area, at least 0; with losses of 0 and 1, at most 1; of a constant uncertainty the mean loss.

    Raises:
        DropkitValueError, DropkitTypeError: as `risk_coverage`.

    Source: Geifman, Uziel and El-Yaniv, ICLR 2019, arXiv:1805.08206.

    >>> aurc([0.1, 0.9, 0.5, 0.3], [0, 1, 0, 0])
    0.0625
    """
    return risk_coverage(uncertainty, loss).aurc


def excess_aurc(uncertainty: Any, loss: Any) -> float:
    """How much `aurc` lies above that of the best order there is: `aurc(uncertainty, loss) - aurc(loss, loss)`.

    In the best order losses rise. It is that of these samples, not the approximation `risk + (1 - risk) ln(1 - risk)`.

    Args:
        uncertainty: a number for each sample, the larger the less certain, shape (...).
        loss: of each sample, the same shape.

    Returns:
        The difference, at least 0.

    Raises:
        DropkitValueError, DropkitTypeError: as `risk_coverage`.

    Source: Geifman, Uziel and El-Yaniv, ICLR 2019, arXiv:1805.08206 (E-AURC).

    >>> excess_aurc([0.1, 0.9, 0.5, 0.3], [0, 1, 0, 0])
    0.0
    """
    return aurc(uncertainty, loss) - aurc(loss, loss)


def augrc(uncertainty: Any, loss: Any) -> float:
    """Area under the generalised risk-coverage curve: `1/n sum_k k/n risk_k`, with ties as in `risk_coverage`.

    Where the risk of `aurc` is the loss of an answer, this is that of a question: answered, and wrongly.

    Args:
        uncertainty: a number for each sample, the larger the less certain, shape (...).
        loss: of each sample, the same shape.

    Returns:
        The area, at least 0; with losses of 0 and 1, at most 1.

    Raises:
        DropkitValueError, DropkitTypeError: as `risk_coverage`.

    Source: Traub et al., NeurIPS 2024, arXiv:2407.01032.

    >>> augrc([0.1, 0.9, 0.5, 0.3], [0, 1, 0, 0])
    0.0625
    """
    return risk_coverage(uncertainty, loss).augrc
