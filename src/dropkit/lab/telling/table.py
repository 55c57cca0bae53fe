"""The table of a comparison: one line a strategy, figures as means over seeds with their intervals."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...language import ENGLISH, Catalogue, say, template, told
from ..recipes.measures import CLASSIFICATION, Count, Figures
from ..runs.run import Run
from ..runs.scores import LAST as LAST
from ..runs.scores import Scores
from ..statistics import sequence
from ..statistics.interval import Interval, differences, mean_interval
from .folds import of_folds
from .units import several, unit

BASELINE = "none"
PAIRS = template(
    'The difference is {figure} minus that of "{baseline}", paired by seed (same first weights, same data order); * '
    "marks an interval that excludes 0 by itself, while the verdict counts all pairs."
)
OWN_PAIRS = template(
    'The difference is {figure} minus that of "{baseline}", paired by {unit}; * marks an interval that excludes 0 by '
    "itself, while the verdict counts all pairs."
)


@dataclass(frozen=True, slots=True)
class Line:
    """One strategy: each figure of each seed, and the compared one minus that of "none", paired by seed; what reads the
    scores of the test samples, for each seed; and whether seeds were added until all was settled.
    """

    strategy: str
    values: Mapping[str, tuple[float, ...]]
    differences: tuple[float, ...] | None
    figures: Figures = CLASSIFICATION
    scores: tuple[Callable[[], Scores | None], ...] = ()
    looked: bool = False

    def interval(self, figure: str) -> Interval:
        """Mean and 95 % interval of a figure over seeds."""
        return self.of(self.values[figure])

    def of(self, values: Sequence[float]) -> Interval:
        """Mean and 95 % interval of numbers, a seed each; where seeds were added, one that holds at every look."""
        return sequence.interval(values) if self.looked else of_folds(mean_interval(values), self.figures.overlap)

    @property
    def compared(self) -> Interval:
        """Mean and 95 % interval of the figure that strategies are compared by."""
        return self.interval(self.figures.compared)

    def counted(self, count: Count) -> tuple[int, int]:
        """How many runs count, and of how many that can be told."""
        told = [found for found in map(count.of, self.values[_last(count)]) if found is not None]
        return sum(told), len(told)

    @property
    def seeds(self) -> int:
        """How many there are."""
        return len(self.values[self.figures.compared])

    @property
    def difference(self) -> Interval | None:
        """Mean and 95 % interval of the paired difference from "none"; None where there is nothing to pair with."""
        return None if self.differences is None else self.of(self.differences)


def _last(count: Count) -> str:
    return f"last_{count.figure}"


def figures(run: Run) -> dict[str, float]:
    """A run's figures: means of its last three epochs (of all, where there are fewer), what runs are counted by as it
    was after the last one, and seconds in total.
    """
    last = run.rows[-LAST:]
    means = {name: sum(row[name] for row in last) / len(last) for name in run.figures.rows}
    means |= {name: means[one] - means[other] for name, (one, other) in run.figures.gaps.items()}
    means |= {_last(count): run.rows[-1][count.figure] for count in run.figures.counts}
    means["seconds"] = sum(row["seconds"] for row in run.rows)
    return means


def lines(runs: Mapping[str, Sequence[Run]], looked: bool = False) -> tuple[Line, ...]:
    """A line for each strategy; its runs stand in the order of their seeds, the same for all.

    Args:
        runs: of each strategy.
        looked: whether seeds were added until all was settled.
    """
    values: dict[str, dict[str, tuple[float, ...]]] = {}
    for strategy, group in runs.items():
        each = [figures(run) for run in group]
        values[strategy] = {name: tuple(one[name] for one in each) for name in each[0]}
    kind = next(iter(runs.values()))[0].figures
    baseline = values.get(BASELINE)
    found = []
    for strategy, figure in values.items():
        minus = None
        if baseline is not None and strategy != BASELINE:
            minus = tuple(differences(figure[kind.compared], baseline[kind.compared]))
        found.append(Line(strategy, figure, minus, kind, tuple(run.scores for run in runs[strategy]), looked))
    return tuple(found)


def between(line: Line, other: Line, figure: str | None = None) -> Interval:
    """A figure of one strategy minus another's, paired by seed; by default the one that they are compared by."""
    figure = figure or line.figures.compared
    return line.of(differences(line.values[figure], other.values[figure]))


def headings(kind: Figures) -> tuple[str, ...]:
    """Of the table's columns.

    >>> headings(CLASSIFICATION)[:3]
    ('strategy', 'test accuracy, %', 'difference from none, points')
    """
    counts = (count.heading for count in kind.counts)
    columns = (_heading(kind, column.figure, column.heading, column.signed) for column in kind.columns)
    compared = _heading(kind, kind.compared, kind.title)
    difference = _heading(kind, kind.compared, say("difference from {baseline}", baseline=BASELINE), signed=True)
    return say("strategy"), compared, difference, *counts, *columns, say("seconds")


def _heading(kind: Figures, figure: str, words: str, signed: bool = False) -> str:
    """With the unit of what stands below, where that is a share."""
    if not kind.in_percent(figure):
        return words
    return say("{heading}, points", heading=words) if signed else say("{heading}, %", heading=words)


def cells(line: Line) -> tuple[str, ...]:
    """A line as text, under the headings; a difference whose interval excludes zero is marked with an asterisk."""
    difference, kind = line.difference, line.figures
    mark = "" if difference is None or not difference.excludes_zero else " *"
    return (
        line.strategy,
        _cell(kind, kind.compared, line.compared),
        "-" if difference is None else _cell(kind, kind.compared, difference, "+") + mark,
        *(_count(*line.counted(count)) for count in kind.counts),
        *(_cell(kind, one.figure, line.interval(one.figure), "+" if one.signed else "") for one in kind.columns),
        f"{line.interval('seconds').mean:.1f}",
    )


def _count(found: int, told: int) -> str:
    return f"{found} of {told}" if told else "-"


def plain(interval: Interval, sign: str = "", times: float = 1.0, digits: int = 4) -> str:
    """Such as "0.9741 ± 0.0020"; times 100 with two digits "97.41 ± 0.20".

    >>> plain(Interval(0.97406, 0.00204, None, 5), times=100, digits=2)
    '97.41 ± 0.20'
    """
    half = "" if interval.half is None else f" ± {times * interval.half:.{digits}f}"
    return f"{times * interval.mean:{sign}.{digits}f}{half}"


def _cell(kind: Figures, figure: str, found: Interval, sign: str = "") -> str:
    """In percent where the figure is a share, as the answer and the charts have it."""
    return plain(found, sign, times=100, digits=2) if kind.in_percent(figure) else plain(found, sign)


def notes(epochs: int, seeds: int, kind: Figures = CLASSIFICATION, looked: bool = False) -> tuple[str, ...]:
    """What the figures are, in a few sentences."""
    last = min(LAST, epochs)
    each, spread = say("from the only epoch"), say("one seed, so there are no intervals")
    if epochs > 1:
        each = say("mean of the last {last} of {epochs} epochs", last=last, epochs=epochs)
    if seeds > 1:
        spread = say("± is half of the 95 % t interval over {seeds}", seeds=several(kind, seeds))
    if looked:
        spread = say("± is half of the 95 % interval over {seeds} seeds that holds at every look", seeds=seeds)
    return (
        say("Figure of each {unit}: {each}; {spread}.", unit=unit(kind), each=kind.told or each, spread=spread),
        say(OWN_PAIRS if kind.told else PAIRS, figure=kind.title, baseline=BASELINE, unit=unit(kind)),
        *kind.notes,
        say("Seconds: training and scoring of one run, mean of the runs."),
    )


def table_rows(found: Sequence[Line]) -> Iterator[dict[str, Any]]:
    """Each figure of each strategy, for programs: mean and interval, the difference from none, and how many seeds."""
    base = next((line for line in found if line.strategy == BASELINE), None)
    for line in found:
        for figure in line.values:
            own = line.interval(figure)
            minus = None if base is None or line is base else between(line, base, figure)
            yield {
                "strategy": line.strategy,
                "metric": figure,
                "mean": own.mean,
                "low": own.low,
                "high": own.high,
                "difference": None if minus is None else minus.mean,
                "difference_low": None if minus is None else minus.low,
                "difference_high": None if minus is None else minus.high,
                "seeds": own.n,
            }


def markdown(found: Sequence[Line], epochs: int, lang: str | Catalogue = ENGLISH) -> str:
    """The table and its notes as Markdown."""
    kind = found[0].figures
    titles = told(headings(kind), lang)
    rows = [titles, ("---",) + ("---:",) * (len(titles) - 1), *(cells(line) for line in found)]
    table = "\n".join("| " + " | ".join(row).replace(" *", r" \*") + " |" for row in rows)
    return table + "\n\n" + "\n".join(told(notes(epochs, found[0].seeds, kind, found[0].looked), lang)) + "\n"
