"""Strategies held against each other, all pairs at once: what each pair tells, by Holm's correction."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import combinations

from numpy.typing import NDArray

from ..statistics import sequence
from ..statistics.crossed import Crossed, crossed
from ..statistics.families import equivalence, holm
from ..statistics.interval import LEVEL, Interval, differences
from ..statistics.outlying import outlying
from .table import BASELINE, Line, between

FEW = 5  # seeds below which nothing is called a difference
ALPHA = 1 - LEVEL


class Status(StrEnum):
    """What a pair tells of its first strategy."""

    BETTER = "better"
    WORSE = "worse"
    WITHIN = "within the margin"
    SAME = "the same in every seed"
    OPEN = "not settled"
    UNKNOWN = "not finite"


@dataclass(frozen=True, slots=True)
class Pair:
    """One strategy minus another, seed by seed.

    Args:
        one, other: the strategies.
        values: the differences, a seed each.
        difference: their mean and interval, as if the pair were the only one.
        p: of no difference, adjusted for all pairs.
        p_within: of a difference of the margin or more, adjusted for all pairs; 1 without a margin.
        table: of seeds and test samples, where these are known and the pair is told.
    """

    one: Line
    other: Line
    values: tuple[float, ...]
    difference: Interval
    p: float = 1.0
    p_within: float = 1.0
    table: Crossed | None = None

    @property
    def status(self) -> Status:
        """What it tells; of fewer than five seeds nothing. A difference within the margin counts as none."""
        if not all(map(math.isfinite, self.values)):
            return Status.UNKNOWN
        if len(self.values) < FEW:
            return Status.OPEN
        if not any(self.values):
            return Status.SAME
        if self.p_within <= ALPHA:
            return Status.WITHIN
        if self.p > ALPHA:
            return Status.OPEN
        return Status.BETTER if self.one.figures.better(self.difference.mean) else Status.WORSE

    @property
    def turned(self) -> "Pair":
        """The second strategy minus the first."""
        found = replace(self.difference, mean=-self.difference.mean)
        table = None if self.table is None else replace(self.table, mean=-self.table.mean)
        values = tuple(-value for value in self.values)
        return replace(self, one=self.other, other=self.one, values=values, difference=found, table=table)

    def same_as(self, pair: "Pair") -> bool:
        """Whether these are the same strategies."""
        return {self.one.strategy, self.other.strategy} == {pair.one.strategy, pair.other.strategy}

    @property
    def outlying(self) -> int | None:
        """The seed that stands apart, if one does."""
        return outlying(self.values)

    def without(self, seed: int) -> Interval:
        """The difference without a seed."""
        kept = [value for number, value in enumerate(self.values) if number != seed]
        return self.one.of(kept)


@dataclass(frozen=True, slots=True)
class Pairs:
    """All pairs of some strategies, of which the best is that with the best mean.

    Args:
        ranked: the strategies, the best first; those that have no finite mean are last.
        margin: below which a difference counts as none, if one was named.
        found: of each pair of strategies, by their names.
    """

    ranked: tuple[Line, ...]
    margin: float | None
    found: dict[tuple[str, str], Pair]

    @property
    def base(self) -> Line | None:
        """The strategy without dropout."""
        return next((line for line in self.ranked if line.strategy == BASELINE), None)

    @property
    def looked(self) -> bool:
        """Whether seeds were added until all was settled."""
        return self.ranked[0].looked

    def of(self, one: Line, other: Line) -> Pair:
        """A pair, either way round."""
        known = self.found.get((one.strategy, other.strategy))
        return self.found[other.strategy, one.strategy].turned if known is None else known

    @property
    def told(self) -> tuple[Pair, ...]:
        """Those that are told: every strategy against none, and the best against all others."""
        best, base = self.ranked[0], self.base
        against = [] if base is None else [self.of(line, base) for line in self.ranked if line is not base]
        rest = [self.of(best, line) for line in self.ranked[1:] if base is None or base not in (best, line)]
        return (*against, *rest)

    @property
    def main(self) -> Pair:
        """The pair that the answer is about: the best strategy that helps, else the best that is not settled, else the
        best; where none is without dropout, the best and the next that is not settled, or the next.
        """
        base = self.base
        told = [pair for pair in self.told if base is None or pair.other is base]
        for status in (Status.BETTER, Status.OPEN) if base is not None else (Status.OPEN,):
            if found := [pair for pair in told if pair.status is status]:
                return found[0]
        return next((pair for pair in told if pair.status is not Status.UNKNOWN), told[0])

    @property
    def settled(self) -> bool:
        """Whether none of those is open."""
        return all(pair.status is not Status.OPEN for pair in self.told)


def judged(lines: Sequence[Line], margin: float | None = None) -> Pairs:
    """Hold all strategies against each other.

    All pairs count for Holm's correction, because which one is the best is known from the same runs. Differences and
    claims of equivalence are two families; a pair cannot be wrong in both.

    Args:
        lines: of the strategies.
        margin: see `Pairs`.
    """
    pairs = [_pair(one, other) for one, other in combinations(lines, 2)]
    both = [_p_values(pair, margin) for pair in pairs]
    first, second = holm([p for p, _ in both]), holm([p for _, p in both])
    found = {
        (pair.one.strategy, pair.other.strategy): replace(pair, p=p, p_within=within)
        for pair, p, within in zip(pairs, first, second, strict=True)
    }
    whole = Pairs(tuple(sorted(lines, key=_rank)), margin, found)
    for pair in whole.told:  # the scores of others need not be read
        key = pair.one.strategy, pair.other.strategy
        key = key if key in found else key[::-1]
        found[key] = replace(found[key], table=_table(found[key].one, found[key].other))
    return whole


def _rank(line: Line) -> float:
    mean = line.compared.mean
    if not math.isfinite(mean):
        return math.inf
    return mean if line.figures.lower_is_better else -mean


def _pair(one: Line, other: Line) -> Pair:
    figure = one.figures.compared
    values = tuple(differences(one.values[figure], other.values[figure]))
    return Pair(one, other, values, between(one, other))


def _p_values(pair: Pair, margin: float | None) -> tuple[float, float]:
    if pair.one.looked:
        return sequence.p_values(pair.values, margin)
    within = 1.0 if margin is None else equivalence(pair.difference, margin)
    return pair.difference.p, within


def _table(one: Line, other: Line) -> Crossed | None:
    """Of seeds and samples, read row by row; None where there are no scores, or too few, or they are not numbers."""
    if one.looked or one.seeds < 2 or not one.scores or not other.scores:
        return None
    try:
        found = crossed(_rows(one, other))
    except _NoScoresError:
        return None
    return found if all(map(math.isfinite, (found.mean, *found.squares))) else None


def _rows(one: Line, other: Line) -> Iterator[NDArray]:
    """Of each seed, the differences of the test samples."""
    for reads, base in zip(one.scores, other.scores, strict=True):
        scores, others = reads(), base()
        if scores is None or others is None or scores.shape != others.shape or scores.size < 2:
            raise _NoScoresError
        yield scores.astype(float) - others


class _NoScoresError(Exception):
    """A run has no score for each test sample."""
