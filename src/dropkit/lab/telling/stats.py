"""Intervals over seeds: Student's t for a mean and for a paired difference."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ...errors import DropkitValueError

MOST_SEEDS = 1000


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over n seeds with the half width of its interval: None where n is 1, which has no spread.

    >>> found = Interval(mean=0.5, half=0.25, sd=0.1, n=3)
    >>> found.low, found.high, found.excludes_zero
    (0.25, 0.75, True)
    """

    mean: float
    half: float | None
    sd: float | None
    n: int

    @property
    def low(self) -> float | None:
        """Lower end."""
        return None if self.half is None else self.mean - self.half

    @property
    def high(self) -> float | None:
        """Upper end."""
        return None if self.half is None else self.mean + self.half

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero; never for one seed."""
        return self.half is not None and abs(self.mean) > self.half

    def within(self, comparisons: int) -> "Interval":
        """The same mean with the wider interval of Bonferroni's correction for that many comparisons."""
        if self.sd is None:
            return self
        return Interval(self.mean, _half(self.sd, self.n, 1 - 0.05 / comparisons), self.sd, self.n)


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """The mean and its t interval: `mean +- t(level, n - 1) * sd / sqrt(n)`, sd with n - 1 degrees of freedom.

    Args:
        values: one for each seed, at least one.
        level: coverage, in (0, 1).

    Raises:
        DropkitValueError: no values.

    >>> interval = mean_interval([1.0, 2.0, 3.0])
    >>> interval.mean, round(interval.half, 4)
    (2.0, 2.4841)
    """
    if not len(values):
        raise DropkitValueError("an interval needs at least one value, got none")
    array = np.asarray(values, float)
    if len(array) == 1:
        return Interval(float(array[0]), None, None, 1)
    sd = float(array.std(ddof=1))
    return Interval(float(array.mean()), _half(sd, len(array), level), sd, len(array))


def _half(sd: float, n: int, level: float) -> float:
    return float(stats.t.ppf(0.5 + level / 2, n - 1)) * sd / math.sqrt(n)


def paired_difference(values: Sequence[float], baseline: Sequence[float], level: float = 0.95) -> Interval:
    """The mean of `values - baseline`, seed by seed, and its t interval.

    Pairing takes out what a seed does to both: weights and data order are the same on either side.

    Raises:
        DropkitValueError: not as many of one as of the other, or none.

    >>> round(paired_difference([0.9, 0.8], [0.8, 0.8]).mean, 3)
    0.05
    """
    if len(values) != len(baseline):
        raise DropkitValueError(f"pairs need as many values as baselines, got {len(values)} and {len(baseline)}")
    return mean_interval([a - b for a, b in zip(values, baseline, strict=True)], level)


def seeds_to_separate(difference: Interval, power: float = 0.8) -> int | None:
    """Roughly how many seeds would show a difference of this size: paired t test at 5 %, with the given power.

    Assumes that mean and spread stay as seen. None where more than 1000 would be needed, or where nothing can be said
    (one seed, no difference, no spread).

    >>> seeds_to_separate(Interval(mean=0.01, half=0.0124, sd=0.01, n=5))
    10
    """
    if not difference.sd or not difference.mean:
        return None
    effect = abs(difference.mean) / difference.sd
    for n in range(2, MOST_SEEDS + 1):
        bound = stats.t.ppf(0.975, n - 1)
        if stats.nct.sf(bound, n - 1, effect * math.sqrt(n)) >= power:
            return n
    return None
