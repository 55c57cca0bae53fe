"""The table of a comparison: one line a strategy, figures as means over seeds with their intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...language import ENGLISH, Catalogue, say, told
from ..recipes.measures import CLASSIFICATION, Count, Figures
from ..runs.run import Run
from ..runs.scores import LAST as LAST
from .stats import Interval, mean_interval, paired_difference

BASELINE = "none"


@dataclass(frozen=True, slots=True)
class Line:
    """One strategy: each figure of each seed, and the compared one minus that of "none", paired by seed."""

    strategy: str
    values: Mapping[str, tuple[float, ...]]
    differences: tuple[float, ...] | None
    figures: Figures = CLASSIFICATION

    def interval(self, figure: str) -> Interval:
        """Mean and 95 % interval of a figure over seeds."""
        return mean_interval(self.values[figure])

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
        return None if self.differences is None else mean_interval(self.differences)


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


def lines(runs: Mapping[str, Sequence[Run]]) -> tuple[Line, ...]:
    """A line for each strategy; its runs stand in the order of their seeds, the same for all."""
    values: dict[str, dict[str, tuple[float, ...]]] = {}
    for strategy, group in runs.items():
        each = [figures(run) for run in group]
        values[strategy] = {name: tuple(one[name] for one in each) for name in each[0]}
    kind = next(iter(runs.values()))[0].figures
    baseline = values.get(BASELINE)
    return tuple(
        Line(strategy, found, None if baseline is None or strategy == BASELINE else _minus(found, baseline, kind), kind)
        for strategy, found in values.items()
    )


def _minus(
    line: Mapping[str, tuple[float, ...]], baseline: Mapping[str, tuple[float, ...]], kind: Figures
) -> tuple[float, ...]:
    return tuple(a - b for a, b in zip(line[kind.compared], baseline[kind.compared], strict=True))


def between(line: Line, other: Line, figure: str | None = None) -> Interval:
    """A figure of one strategy minus another's, paired by seed; by default the one that they are compared by."""
    figure = figure or line.figures.compared
    return paired_difference(line.values[figure], other.values[figure])


def headings(kind: Figures) -> tuple[str, ...]:
    """Of the table's columns.

    >>> headings(CLASSIFICATION)[:3]
    ('strategy', 'test accuracy', 'difference from none')
    """
    own = (*(count.heading for count in kind.counts), *(column.heading for column in kind.columns))
    return say("strategy"), kind.title, say("difference from {baseline}", baseline=BASELINE), *own, say("seconds")


def cells(line: Line) -> tuple[str, ...]:
    """A line as text, under the headings; a difference whose interval excludes zero is marked with an asterisk."""
    difference = line.difference
    mark = "" if difference is None or not difference.excludes_zero else " *"
    return (
        line.strategy,
        plain(line.compared),
        "-" if difference is None else signed(difference) + mark,
        *(_count(*line.counted(count)) for count in line.figures.counts),
        *((signed if column.signed else plain)(line.interval(column.figure)) for column in line.figures.columns),
        f"{line.interval('seconds').mean:.1f}",
    )


def _count(found: int, told: int) -> str:
    return f"{found} of {told}" if told else "-"


def plain(interval: Interval) -> str:
    """Such as "0.9741 ± 0.0020"."""
    return f"{interval.mean:.4f}" + _half(interval)


def signed(interval: Interval) -> str:
    """Such as "+0.0041 ± 0.0020"."""
    return f"{interval.mean:+.4f}" + _half(interval)


def _half(interval: Interval) -> str:
    return "" if interval.half is None else f" ± {interval.half:.4f}"


def notes(epochs: int, seeds: int, kind: Figures = CLASSIFICATION) -> tuple[str, ...]:
    """What the figures are, in a few sentences."""
    last = min(LAST, epochs)
    each, spread = say("from the only epoch"), say("one seed, so there are no intervals")
    if epochs > 1:
        each = say("mean of the last {last} of {epochs} epochs", last=last, epochs=epochs)
    if seeds > 1:
        spread = say("± is half of the 95 % t interval over {seeds} seeds", seeds=seeds)
    return (
        say("Each seed's figure: {each}; {spread}.", each=each, spread=spread),
        say(
            'The difference is {figure} minus that of "{baseline}", paired by seed (same first weights, same data '
            "order); * marks an interval that excludes 0.",
            figure=kind.title,
            baseline=BASELINE,
        ),
        *kind.notes,
        say("Seconds: training and scoring of one run, mean over seeds."),
    )


def markdown(found: Sequence[Line], epochs: int, lang: str | Catalogue = ENGLISH) -> str:
    """The table and its notes as Markdown."""
    kind = found[0].figures
    titles = told(headings(kind), lang)
    rows = [titles, ("---",) + ("---:",) * (len(titles) - 1), *(cells(line) for line in found)]
    table = "\n".join("| " + " | ".join(row).replace(" *", r" \*") + " |" for row in rows)
    return table + "\n\n" + "\n".join(told(notes(epochs, found[0].seeds, kind), lang)) + "\n"
