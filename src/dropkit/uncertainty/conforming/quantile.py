"""The quantile of a finite number of scores that a new one exceeds as rarely as is wanted."""

import math
import warnings
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray


def finite_quantile(scores: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
    """The k-th smallest score along axis 0, `k = ceil((n + 1)(1 - alpha))`; infinite, with a warning, where k > n.

    alpha is taken as the fraction that it stands for, 1 / 10 or 1 / 3: in floats (1 - 0.9) * 10 is not 1.

    >>> finite_quantile(np.arange(1.0, 10.0), 0.2)
    array(8.)
    """
    n = len(scores)
    wanted = Fraction(alpha).limit_denominator(10**12) or Fraction(alpha)
    k = math.ceil((n + 1) * (1 - wanted))
    if k > n:
        warnings.warn(
            f"{n} calibration samples are too few for alpha = {alpha}: every set holds all classes, every interval all "
            f"numbers; give {math.ceil(1 / wanted) - 1} or more",
            stacklevel=4,
        )
        return np.full(scores.shape[1:], np.inf)
    return np.asarray(np.partition(scores, k - 1, axis=0)[k - 1])
