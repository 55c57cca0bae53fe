"""One seed that is unlike the others."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

ALPHA = 0.01
FEWEST = 5


def outlying(values: Sequence[float], alpha: float = ALPHA) -> int | None:
    """The place of a value that stands apart from all others, or None.

    Each is held against the n - 1 others alone: `|x - mean| / (sd sqrt(1 + 1 / (n - 1)))`, by Student's t with n - 2
    degrees of freedom at alpha / n. So one value cannot hide itself by widening the spread, and of normal samples one
    in a hundred has such a value. (Grubbs 1950, Sample criteria for testing outlying observations, which this equals.)

    >>> outlying([0.010, 0.012, 0.011, -0.2, 0.009, 0.010]), outlying([0.01, 0.02, 0.03, 0.04, 0.05])
    (3, None)
    """
    array = np.asarray(values, float)
    n = len(array)
    if n < FEWEST or not np.isfinite(array).all():
        return None
    others = np.asarray([np.delete(array, place) for place in range(n)])
    # Equal numbers have no spread; what their mean has in its last bit is none.
    equal = (others == others[:, :1]).all(1)
    spread = np.where(equal, 0.0, others.std(1, ddof=1))
    distance = np.abs(array - np.where(equal, others[:, 0], others.mean(1)))
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = np.nan_to_num(distance / (spread * math.sqrt(1 + 1 / (n - 1))), nan=0.0, posinf=np.inf)
    place = int(apart.argmax())
    bound = stats.t.ppf(1 - alpha / (2 * n), n - 2)
    return place if apart[place] > bound else None
