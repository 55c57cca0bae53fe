"""Several comparisons at once: Holm's correction, and tests of equivalence."""

from collections.abc import Sequence

import numpy as np

from ...errors import DropkitValueError
from .interval import Interval


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjusted p values: those at most alpha can all be called differences, with at most alpha for one false one.

    Of m sorted p values the k-th becomes `max_{j <= k} min(1, (m - j + 1) p_j)`, whatever the tests have to do with
    each other. (Holm 1979, A simple sequentially rejective multiple test procedure.)

    Raises:
        DropkitValueError: a value outside [0, 1].

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03, 0.005])]
    [0.03, 0.06, 0.06, 0.02]
    """
    values = np.asarray(p_values, float)
    if not ((values >= 0) & (values <= 1)).all():
        raise DropkitValueError(f"p values lie in [0, 1], got {list(p_values)}")
    order = np.argsort(values, kind="stable")
    steps = np.maximum.accumulate(np.minimum(1.0, values[order] * np.arange(len(values), 0, -1)))
    adjusted = np.empty_like(values)
    adjusted[order] = steps
    return tuple(float(p) for p in adjusted)


def equivalence(difference: Interval, margin: float) -> float:
    """The p value of two one-sided t tests: small where the mean lies within (-margin, margin).

    It is the larger of those of "the mean is at most -margin" and "at least margin", so at 0.05 it says the same as a
    90 % interval inside the margin. (Schuirmann 1987, A comparison of the two one-sided tests procedure.)

    Raises:
        DropkitValueError: no margin above 0.

    >>> round(equivalence(Interval(mean=0.0, half=1.0, sd=1.0, n=10), 0.6), 4)
    0.0451
    """
    if not margin > 0:
        raise DropkitValueError(f"a margin is a difference above 0, got {margin}")
    if not abs(difference.mean) < margin:
        return 1.0
    return max(difference.p_beyond(margin), difference.p_beyond(-margin)) / 2
