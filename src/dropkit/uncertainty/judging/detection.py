"""How well uncertainty tells inputs from outside the training distribution from those inside it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DropkitValueError, UnknownNameError
from ..arrays import fraction, numbers

SIDES = ("out", "in")


def ood_auroc(inside: Any, outside: Any) -> float:
    """Area under the ROC curve with outside as the positive class: `P(u_out > u_in) + 1/2 P(u_out = u_in)`.

    It is the same with the classes exchanged and the sign of the uncertainty turned.

    Args:
        inside: the uncertainty of samples of the training distribution, the larger the less certain, any shape.
        outside: that of samples from elsewhere.

    Returns:
        The area, in [0, 1]; 0.5 is chance.

    Raises:
        DropkitValueError, DropkitTypeError: NaN, or no samples on one side: of one class there is no ROC curve.

    Source: Hanley and McNeil 1982; Hendrycks and Gimpel, ICLR 2017, arXiv:1610.02136.

    >>> ood_auroc([0.1, 0.2, 0.3], [0.3, 0.4])
    0.9166666666666666
    """
    low, high = _sides(inside, outside)
    low.sort()
    below = np.searchsorted(low, high, side="left") + np.searchsorted(low, high, side="right")
    return float(below.sum() / (2 * len(low) * len(high)))


def fpr95(inside: Any, outside: Any, recall: float = 0.95, positive: str = "out") -> float:
    """False positive rate at 95 % recall: how many inside are taken for outside, where 95 % of these are found.

    With outside as the positive class the threshold is the largest t with `mean[u_out >= t] >= recall`, and the rate
    `mean[u_in >= t]`. Much of the literature takes inside as positive: t is then the smallest with
    `mean[u_in <= t] >= recall`, and the rate `mean[u_out <= t]`. Ties with t count against the score in both.

    Args:
        inside: the uncertainty of samples of the training distribution, the larger the less certain, any shape.
        outside: that of samples from elsewhere.
        recall: of the positive class, in (0, 1).
        positive: "out" or "in".

    Returns:
        The rate, in [0, 1]; smaller is better.

    Raises:
        DropkitValueError, DropkitTypeError: NaN, no samples on one side, a recall outside (0, 1), no such class.

    Source: Liang, Li and Srikant, ICLR 2018, arXiv:1706.02690 (FPR at 95 % TPR, inside positive).

    >>> fpr95([0.1, 0.2, 0.3, 0.4], [0.35, 0.5])
    0.25
    >>> fpr95([0.1, 0.2, 0.3, 0.4], [0.35, 0.5], positive="in")
    0.5
    """
    if positive not in SIDES:
        raise UnknownNameError("positive class", positive, SIDES)
    least = fraction("recall", recall, 0.95)
    low, high = _sides(inside, outside)
    hit, other = (high, low) if positive == "out" else (-low, -high)
    hit.sort()
    # How many may be missed; what floats make of a product such as 0.95 * 20 must not miss one more or fewer.
    missed = int(np.floor((1 - least) * len(hit) + 1e-9))
    return float((other >= hit[missed]).mean())


def _sides(inside: Any, outside: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    found = []
    for name, values in (("inside", inside), ("outside", outside)):
        if np.size(values) == 0:
            raise DropkitValueError(f"{name} has no samples; a ROC curve needs both classes, inside and outside")
        found.append(numbers(name, values, infinite=True).reshape(-1))
    return found[0], found[1]
