"""Student's t over seeds: of a mean, and of a paired difference."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ...errors import DropkitValueError

LEVEL = 0.95


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

    @property
    def p(self) -> float:
        """Of Student's two-sided test that the mean is zero; 1 for one seed, and for what is no number."""
        return self.p_beyond(0.0) if self.mean else 1.0

    def p_beyond(self, value: float) -> float:
        """Of Student's two-sided test that the mean is this value; 1 for one seed, and for what is no number."""
        if self.sd is None or not math.isfinite(self.mean) or not math.isfinite(self.sd):
            return 1.0
        distance = abs(self.mean - value)
        if not self.sd:
            return 0.0 if distance else 1.0
        return float(2 * stats.t.sf(distance * math.sqrt(self.n) / self.sd, self.n - 1))


def mean_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
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
    # Of equal values the mean may differ in its last bit, and a spread of rounding errors is none.
    if (array == array[0]).all():
        return Interval(float(array[0]), 0.0, 0.0, len(array))
    with np.errstate(invalid="ignore"):  # of a run that diverged
        sd = float(array.std(ddof=1))
    return Interval(float(array.mean()), half_width(sd, len(array), level), sd, len(array))


def half_width(sd: float, n: int, level: float = LEVEL) -> float:
    """`t(level, n - 1) * sd / sqrt(n)`."""
    return float(stats.t.ppf(0.5 + level / 2, n - 1)) * sd / math.sqrt(n)


def paired_difference(values: Sequence[float], baseline: Sequence[float], level: float = LEVEL) -> Interval:
    """The mean of `values - baseline`, seed by seed, and its t interval.

    Pairing takes out what a seed does to both: weights and data order are the same on either side.

    Raises:
        DropkitValueError: not as many of one as of the other, or none.

    >>> round(paired_difference([0.9, 0.8], [0.8, 0.8]).mean, 3)
    0.05
    """
    return mean_interval(differences(values, baseline), level)


def differences(values: Sequence[float], baseline: Sequence[float]) -> list[float]:
    """`values - baseline`, seed by seed, without the noise of rounding: what differs in its last bits alone is equal.

    Raises:
        DropkitValueError: not as many of one as of the other.

    >>> differences([0.3, 0.9], [0.1, 0.7])
    [0.2, 0.2]
    """
    if len(values) != len(baseline):
        raise DropkitValueError(f"pairs need as many values as baselines, got {len(values)} and {len(baseline)}")
    found: list[float] = []
    for one, other in zip(values, baseline, strict=True):
        size = max(abs(one), abs(other))
        found.append(_rounded(one - other, size) if math.isfinite(size) else one - other)
    return found


def _rounded(value: float, size: float) -> float:
    """To 14 digits of numbers of that size."""
    return round(value, 13 - math.floor(math.log10(size))) if size > 1e-250 else value
