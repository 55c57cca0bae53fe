"""How many seeds a new comparison would take, as a range: the standard deviation over few seeds is known badly."""

import math

from scipy import stats

from .interval import LEVEL, Interval

MOST_SEEDS = 1000
POWER = 0.8


def sd_range(sd: float, n: int, level: float = LEVEL) -> tuple[float, float]:
    """The interval of a standard deviation: `sd * sqrt((n - 1) / chi2(1 - a/2 or a/2, n - 1))`, for normal numbers.

    >>> low, high = sd_range(1.0, 5)
    >>> round(low, 3), round(high, 3)
    (0.599, 2.874)
    """
    ends = (0.5 + level / 2, 0.5 - level / 2)
    low, high = (sd * math.sqrt((n - 1) / float(stats.chi2.ppf(end, n - 1))) for end in ends)
    return low, high


def seeds_to_show(effect: float, alpha: float = 1 - LEVEL, power: float = POWER) -> int | None:
    """The fewest seeds at which a paired t test at alpha finds a difference of `effect` standard deviations.

    From the noncentral t distribution: P(|t| > t(1 - alpha/2, n - 1)) with noncentrality `effect * sqrt(n)` is at least
    `power`. None where that takes more than 1000.

    >>> seeds_to_show(1.0)
    10
    """

    def found(n: int) -> bool:
        bound = stats.t.ppf(1 - alpha / 2, n - 1)
        return bool(stats.nct.sf(bound, n - 1, abs(effect) * math.sqrt(n)) >= power)

    if not effect or not found(MOST_SEEDS):
        return None
    low, high = 1, MOST_SEEDS  # too few, enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if found(middle) else (middle, high)
    return high


def seeds_needed(difference: Interval, size: float, alpha: float = 1 - LEVEL) -> tuple[int | None, int | None] | None:
    """How many seeds would show a difference of that size, at least and at most; None for more than 1000.

    The ends follow from the 95 % interval of the standard deviation. None where there is none, or no spread.

    >>> seeds_needed(Interval(mean=0.01, half=0.0124, sd=0.01, n=5), 0.01)
    (6, 67)
    """
    if not difference.sd or not size or not math.isfinite(difference.sd) or not math.isfinite(size):
        return None
    low, high = sd_range(difference.sd, difference.n)
    return seeds_to_show(abs(size) / low, alpha), seeds_to_show(abs(size) / high, alpha)
