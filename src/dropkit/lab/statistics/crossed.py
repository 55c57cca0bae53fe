"""Differences that have a seed and a test sample: every seed scores the same samples, so the design is crossed.

    d[s, i] = mean + seed[s] + sample[i] + rest[s, i]

With S seeds and N samples, the mean squares of the two-way table without replication are

    MS_seed   = N sum_s (d[s, .] - d[., .])^2 / (S - 1)
    MS_sample = S sum_i (d[., i] - d[., .])^2 / (N - 1)
    MS_rest   = sum_si (d[s, i] - d[s, .] - d[., i] + d[., .])^2 / ((S - 1)(N - 1))

and the variance of the grand mean is estimated by MS_seed / (S N) where the samples are those of this test set, and by
(MS_seed + MS_sample - MS_rest) / (S N) where they stand for new ones too. Degrees of freedom of the latter are
Satterthwaite's. (Searle, Casella, McCulloch 1992, Variance Components; Satterthwaite 1946.)
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ...errors import DropkitValueError
from .interval import LEVEL, Interval

SEED, SAMPLE, REST = "seed", "sample", "rest"


@dataclass(frozen=True, slots=True)
class Crossed:
    """The sums of a table of differences that its intervals need: of each seed, of each sample, and of all.

    >>> table = crossed([[0.0, 1.0, 2.0], [1.0, 2.0, 6.0]])
    >>> table.mean, table.squares
    (2.0, (6.0, 6.5, 1.5))
    """

    mean: float
    seeds: int
    samples: int
    squares: tuple[float, float, float]

    @property
    def components(self) -> dict[str, float]:
        """Variance components of seed, sample and rest; what would be negative is 0."""
        seed, sample, rest = self.squares
        parts = ((seed - rest) / self.samples, (sample - rest) / self.seeds, rest)
        return dict(zip((SEED, SAMPLE, REST), (max(part, 0.0) for part in parts), strict=True))

    @property
    def shares(self) -> dict[str, float]:
        """How much of the variance of the mean, for new samples too, each source makes; all 0 where there is none."""
        seed, sample, rest = self.components.values()
        parts = (seed / self.seeds, sample / self.samples, rest / (self.seeds * self.samples))
        total = sum(parts)
        return dict(zip((SEED, SAMPLE, REST), (part / total if total else 0.0 for part in parts), strict=True))

    def interval(self, level: float = LEVEL) -> Interval:
        """Of the mean over seeds on these samples: Student's t over seeds."""
        half, sd = intervals(self.seeds, self.samples, self.squares, level)[0], self.squares[0] / self.samples
        return Interval(self.mean, float(half), float(np.sqrt(sd)), self.seeds)

    def new_samples(self, level: float = LEVEL) -> Interval:
        """Of the mean over seeds and samples; never narrower than that on these samples."""
        half, sd = intervals(self.seeds, self.samples, self.squares, level)[1], self.squares[0] / self.samples
        return Interval(self.mean, float(half), float(np.sqrt(sd)), self.seeds)


def intervals(seeds: int, samples: int, squares: Any, level: float = LEVEL) -> tuple[NDArray, NDArray]:
    """Half widths of the two intervals, for these samples and for new ones too, from the three mean squares.

    Args:
        seeds, samples: how many, each at least 2.
        squares: MS_seed, MS_sample, MS_rest; numbers, or arrays of them.
        level: coverage.

    >>> these, new = intervals(2, 3, (6.0, 6.5, 1.5))
    >>> round(float(these), 3), round(float(new), 3)
    (12.706, 12.706)
    """
    seed, sample, rest = (np.asarray(one, float) for one in squares)
    quantile = 0.5 + level / 2
    these = stats.t.ppf(quantile, seeds - 1) * np.sqrt(seed / (seeds * samples))
    total = np.maximum(seed + sample - rest, 0.0)  # by chance it may be below; the other interval then stands
    parts = seed**2 / (seeds - 1) + sample**2 / (samples - 1) + rest**2 / ((seeds - 1) * (samples - 1))
    df = np.divide(total**2, parts, out=np.full_like(total, seeds - 1), where=parts > 0)
    new = stats.t.ppf(quantile, np.maximum(df, 1)) * np.sqrt(total / (seeds * samples))
    return these, np.maximum(these, new)


def mean_squares(table: ArrayLike) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Grand mean, MS_seed, MS_sample and MS_rest of tables (..., seeds, samples)."""
    found = np.asarray(table)
    seeds, samples = found.shape[-2:]
    by_seed, by_sample = found.mean(-1, dtype=float), found.mean(-2, dtype=float)
    mean = by_seed.mean(-1)
    seed = samples * ((by_seed - mean[..., None]) ** 2).sum(-1)
    sample = seeds * ((by_sample - mean[..., None]) ** 2).sum(-1)
    every = np.square(found - mean[..., None, None].astype(found.dtype)).sum((-2, -1), dtype=float)
    rest = np.maximum(every - seed - sample, 0.0)
    return mean, seed / (seeds - 1), sample / (samples - 1), rest / ((seeds - 1) * (samples - 1))


def crossed(rows: Iterable[ArrayLike]) -> Crossed:
    """The table whose rows come one by one, a seed each; memory grows with the samples alone.

    Args:
        rows: of each seed, the difference of each test sample; at least two rows of at least two.

    Raises:
        DropkitValueError: fewer, or rows of other lengths.

    >>> crossed([[0.5, 0.5], [0.5, 0.5]]).squares
    (0.0, 0.0, 0.0)
    """
    means: list[float] = []
    average = spread = np.zeros(0)
    for number, values in enumerate(rows, start=1):
        row = np.asarray(values, float).ravel()
        if number == 1:
            average, spread = np.zeros(len(row)), np.zeros(len(row))
        if len(row) != len(average):
            raise DropkitValueError(f"each seed scores the same samples, got {len(average)} and {len(row)} of them")
        means.append(float(row.mean()))
        moved = row - average  # Welford 1962, sample by sample
        average += moved / number
        spread += moved * (row - average)
    seeds, samples = len(means), len(average)
    if min(seeds, samples) < 2:
        raise DropkitValueError(f"a table needs two seeds and two samples or more, got {seeds} and {samples}")
    mean = float(np.mean(means))
    seed = samples * float(np.square(np.asarray(means) - mean).sum())
    sample = seeds * float(np.square(average - average.mean()).sum())
    rest = float(spread.sum()) - seed
    if rest < 1e-12 * float(spread.sum()):  # a difference of rounding errors
        rest = 0.0
    return Crossed(
        mean, seeds, samples, (seed / (seeds - 1), sample / (samples - 1), rest / ((seeds - 1) * (samples - 1)))
    )
