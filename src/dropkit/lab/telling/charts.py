"""The charts of a comparison as plain values: differences, every pair, rates against scores, curves over epochs."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from ...language import SEMICOLON, capital, joined, say, template
from ...report import Cell, Curve, Differences, Dot, Figure, Matrix, Panel, Rated, Scale, Whisker
from ..recipes.measures import Chart, Figures
from ..runs.run import Run
from ..statistics.interval import Interval, mean_interval
from .table import BASELINE, Line, between
from .units import unit


def scale(kind: Figures, figure: str, values: Sequence[float]) -> Scale:
    """Percent for a share; else as many decimals as tell the values apart, at least two.

    >>> from dropkit.lab.recipes.measures import CLASSIFICATION as kind
    >>> scale(kind, "test_accuracy", [0.9]), scale(kind, "test_loss", [0.0123]).digits
    (Scale(unit='%', digits=2), 5)
    """
    if kind.in_percent(figure):
        return Scale("%", 2)
    most = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    return Scale("", max(2, min(8, 3 - math.floor(math.log10(most)))) if most else 4)


def _factor(kind: Figures, figure: str) -> float:
    return 100.0 if kind.in_percent(figure) else 1.0


def reference(strategies: Sequence[str]) -> str | None:
    """What others are drawn against: no dropout, or else the first; a single one is drawn against nothing."""
    if len(strategies) < 2:
        return None
    return BASELINE if BASELINE in strategies else strategies[0]


def ranked(lines: Sequence[Line]) -> list[Line]:
    """The best first; what has no number last."""
    lower = lines[0].figures.lower_is_better

    def place(line: Line) -> float:
        mean = line.compared.mean
        return math.inf if math.isnan(mean) else mean if lower else -mean

    return sorted(lines, key=place)


def differences(lines: Sequence[Line]) -> Differences | None:
    """Each strategy's figure minus the reference's, seed by seed, the best first."""
    base = reference([line.strategy for line in lines])
    others = [line for line in ranked(lines) if line.strategy != base]
    if base is None:
        return None
    (against,) = (line for line in lines if line.strategy == base)
    kind, factor = lines[0].figures, _factor(lines[0].figures, lines[0].figures.compared)
    shown = _difference_scale(lines)
    whiskers = []
    for line in others:
        seeds = [a - b for a, b in zip(line.values[kind.compared], against.values[kind.compared], strict=True)]
        if not all(map(math.isfinite, seeds)):  # a run that diverged has no place on the axis
            continue
        found = _times(between(line, against), factor)
        words = _told(found, shown)
        whiskers.append(Whisker(line.strategy, found.mean, found.low, found.high, [factor * s for s in seeds], words))
    if not whiskers:
        return None
    title = say(
        '{figure} minus that of "{baseline}", {unit} by {unit}',
        figure=capital(kind.title),
        baseline=base,
        unit=unit(kind),
    )
    several = say("dot and bar: mean and 95 % interval; small dots: each {unit}; the best first", unit=unit(kind))
    caption = several if lines[0].seeds > 1 else say("one seed, so there are no intervals")
    return Differences(title, whiskers, _axis(kind), joined((caption, _direction(kind)), SEMICOLON), shown)


def _difference_scale(lines: Sequence[Line]) -> Scale:
    """As the figure has it; a difference has more decimals where the smaller ones need them."""
    kind = lines[0].figures
    found = scale(kind, kind.compared, [value for line in lines for value in line.values[kind.compared]])
    return Scale("", found.digits)


def _axis(kind: Figures) -> str:
    return say("difference, percent points") if kind.proportion else say("difference")


def _direction(kind: Figures) -> str:
    return say("left is better") if kind.lower_is_better else say("right is better")


def _times(interval: Interval, factor: float) -> Interval:
    half, sd = (None if value is None else factor * value for value in (interval.half, interval.sd))
    return Interval(factor * interval.mean, half, sd, interval.n)


def _told(interval: Interval, shown: Scale) -> str:
    if interval.low is None or interval.high is None:
        return shown.signed(interval.mean)
    return f"{shown.signed(interval.mean)} ({shown.signed(interval.low)} … {shown.signed(interval.high)})"


def pairs(lines: Sequence[Line]) -> Matrix | None:
    """The difference of every pair, the best first; two strategies are one pair, which stands above already."""
    order, kind, shown = ranked(lines), lines[0].figures, _difference_scale(lines)
    if len(order) < 3 or lines[0].seeds < 2:
        return None
    rows = [
        [_cell(between(line, other), kind, shown) if column >= row else None for column, other in enumerate(order[1:])]
        for row, line in enumerate(order[:-1])
    ]
    title = say("{figure}, every pair: the row's minus the column's", figure=capital(kind.title))
    words = template("mean difference, paired by {unit}, ± half of its 95 % interval, the best first; *: it excludes 0")
    if kind.proportion:
        words = template(
            "mean difference in percent points, paired by {unit}, ± half of its 95 % interval, the best first; *: it "
            "excludes 0"
        )
    return Matrix(
        title,
        joined((say(words, unit=unit(kind)), _uncorrected(len(order))), SEMICOLON),
        [line.strategy for line in order],
        rows,
    )


def _uncorrected(strategies: int) -> str:
    return say("each of the {pairs} for itself, uncorrected", pairs=math.comb(strategies, 2))


def _cell(found: Interval, kind: Figures, shown: Scale) -> Cell | None:
    found = _times(found, _factor(kind, kind.compared))
    if not math.isfinite(found.mean) or found.half is None:
        return None
    return Cell(shown.signed(found.mean), f"± {found.half:.{shown.digits}f}", found.excludes_zero)


def rated(lines: Sequence[Line], runs: Mapping[str, Sequence[Run]]) -> Rated | None:
    """The figure over the rates that were tried, a line for each kind and place of which there are several."""
    kind = lines[0].figures
    found: dict[str, list[tuple[float, Line]]] = {}
    for line in lines:
        named = _rate_of(line.strategy, runs[line.strategy][0])
        if named is not None:
            found.setdefault(named[0], []).append((named[1], line))
    kinds = {name: sorted(tried, key=lambda one: one[0]) for name, tried in found.items() if len(tried) > 1}
    if not kinds:
        return None
    series = [(name, [_dot(rate, line, kind) for rate, line in tried]) for name, tried in kinds.items()]
    level = next(((BASELINE, _dot(0, line, kind).y) for line in lines if line.strategy == BASELINE), None)
    caption = say("points and bars: mean and 95 % interval over seeds; a line for each kind")
    if lines[0].seeds < 2:
        caption = say("one seed, so there are no intervals")
    title = say("{figure} at each drop probability", figure=capital(kind.title))
    shown = scale(kind, kind.compared, [value for line in lines for value in line.values[kind.compared]])
    return Rated(title, caption, say("drop probability p"), series, level, shown)


def _dot(rate: float, line: Line, kind: Figures) -> Dot:
    found = _times(line.compared, _factor(kind, kind.compared))
    low, high = found.low, found.high
    return Dot(rate, found.mean, low, high) if math.isfinite(found.mean) else Dot(rate, math.nan, None, None)


def _rate_of(strategy: str, run: Run) -> tuple[str, float] | None:
    """The kind (and place) of a strategy and its rate, where its name ends in the one constant that its sites have.

    Numbers after a name may be something else, such as the interval of `step:100`; the rates that were trained at tell.
    """
    name, at, place = strategy.partition("@")
    kind, colon, number = name.rpartition(":")
    try:
        rate = float(number)
    except ValueError:
        return None
    if not colon or ":" in kind or not any(_close(row[site], rate) for row in run.rows[:1] for site in _sites(row)):
        return None
    constant = all(_close(row[site], run.rows[0][site]) for row in run.rows for site in _sites(row))
    return (kind + at + place, rate) if constant else None


def _close(a: float, b: float) -> bool:
    return math.isclose(a, b, abs_tol=2e-5)  # rates lie on a grid of 65536ths


def _sites(row: Mapping[str, object]) -> list[str]:
    return [name for name in row if name.startswith("rate_")]


def curves(runs: Mapping[str, Sequence[Run]], kind: Figures) -> list[Figure]:
    """A figure for each chart of a recipe: a panel for each strategy, the reference's first line behind each."""
    base, several = reference(list(runs)), len(next(iter(runs.values()))) > 1
    found = []
    for chart in kind.charts:
        first = chart.lines[0].figure
        panels = [Panel(strategy, _panel(kind, strategy, chart, runs, base)) for strategy in runs]
        notes = [chart.caption, say("band: 95 % interval over seeds") if several else ""]
        if base is not None:
            notes.append(say("grey in each: {baseline}", baseline=base))
        values = [y for panel in panels for curve in panel.curves for y in curve.y]
        found.append(Figure(chart.title, joined(notes, SEMICOLON), panels, scale(kind, first, values), focus=True))
    return found


def _panel(
    kind: Figures, strategy: str, chart: Chart, runs: Mapping[str, Sequence[Run]], base: str | None
) -> list[Curve]:
    found = [
        _curve(kind, line.part, runs[strategy], line.figure, band=number == 0, dotted=line.dotted)
        for number, line in enumerate(chart.lines)
    ]
    if base is not None and strategy != base:
        found.append(_curve(kind, base, runs[base], chart.lines[0].figure, band=False, behind=True))
    return found


def _curve(
    kind: Figures,
    name: str,
    group: Sequence[Run],
    figure: str,
    *,
    band: bool,
    dotted: bool = False,
    behind: bool = False,
    shape: Literal["linear", "hv"] = "linear",
) -> Curve:
    factor = _factor(kind, figure)
    # Epoch by epoch, so that no more is held than what is drawn.
    intervals = [
        _times(mean_interval([run.rows[epoch][figure] for run in group]), factor) for epoch in range(len(group[0].rows))
    ]
    low = tuple(interval.low for interval in intervals if band and interval.low is not None)
    high = tuple(interval.high for interval in intervals if band and interval.high is not None)
    if low == high:  # a rate that no seed moves has no band
        low = high = ()
    means = tuple(interval.mean for interval in intervals)
    return Curve(name, tuple(row["epoch"] for row in group[0].rows), means, low, high, dotted, behind, shape)


def moving(runs: Mapping[str, Sequence[Run]]) -> list[Figure]:
    """The rates that move, a panel for each strategy that moves one; sites that move alike share a line."""
    panels = []
    for strategy, group in runs.items():
        drawn = [
            _curve(group[0].figures, site[5:], group, site, band=True, shape="hv") for site in _sites(group[0].rows[0])
        ]
        if any(curve.y[0] != y for curve in drawn for y in curve.y):
            panels.append(Panel(strategy, _alike(drawn)))
    if not panels:
        return []
    still = [strategy for strategy in runs if strategy not in {panel.group for panel in panels}]
    notes = [say("at each epoch's end; of a learned rate the mean")]
    if still:
        notes.append(say("not drawn: {names}, whose rates stay as they are", names=joined(still)))
    return [Figure(say("Drop probabilities"), joined(notes, SEMICOLON), panels, Scale("", 3))]


def _alike(drawn: Sequence[Curve]) -> list[Curve]:
    groups: dict[tuple[float, ...], list[Curve]] = {}
    for curve in drawn:
        groups.setdefault(tuple(curve.y), []).append(curve)
    found = []
    for curves_ in groups.values():
        first = curves_[0]
        name = (
            first.name if len(curves_) == 1 else say("{first} and {more} more", first=first.name, more=len(curves_) - 1)
        )
        if len(curves_) == len(drawn) > 1:
            name = say("all sites")
        found.append(Curve(name, first.x, first.y, first.low, first.high, False, False, first.shape))
    return found
