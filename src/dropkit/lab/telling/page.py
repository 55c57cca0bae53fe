"""A comparison as a page of the report: which words, which table, which curves, which settings."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from ...report import Curve, Differences, Figure, Page, Picture, Whisker
from ..recipes.measures import Figures
from ..runs.run import Run
from .stats import mean_interval
from .table import BASELINE, Line, cells, headings, notes

MOST = 6  # pictures of a run that a page shows


def page(
    config: Mapping[str, Any],
    runs: Mapping[str, Sequence[Run]],
    lines: Sequence[Line],
    verdict: Sequence[str],
    environment: Mapping[str, Any],
) -> Page:
    """The page of a comparison, or of a single run."""
    seeds, kind = len(next(iter(runs.values()))), lines[0].figures
    return Page(
        title=f"{config['recipe']} on {config['data']}",
        subtitle=_subtitle(config, len(runs), seeds),
        verdict=tuple(verdict),
        headings=headings(kind),
        rows=tuple(cells(line) for line in lines),
        notes=notes(config["epochs"], seeds, kind),
        figures=_figures(runs, seeds, kind),
        differences=_differences(lines),
        settings=_settings({**config, **environment}),
        pictures=_pictures(runs),
    )


def _subtitle(config: Mapping[str, Any], strategies: int, seeds: int) -> str:
    def count(number: int, one: str, many: str) -> str:
        return f"{number} {one if number == 1 else many}"

    return ", ".join(
        (
            count(strategies, "strategy", "strategies"),
            count(seeds, "seed", "paired seeds" if strategies > 1 else "seeds"),
            count(config["epochs"], "epoch", "epochs"),
            f"size {config['size']}",
        )
    )


def _figures(runs: Mapping[str, Sequence[Run]], seeds: int, kind: Figures) -> tuple[Figure, ...]:
    band = ", band: 95 % interval over seeds" if seeds > 1 else ""
    figures = []
    for chart in kind.charts:
        curves = [
            _curve(strategy, group, line.figure, line.part, line.dotted)
            for strategy, group in runs.items()
            for line in chart.lines
        ]
        figures.append(Figure(chart.title, chart.caption + band, tuple(curves), True))
    for site in next(iter(runs.values()))[0].config["rates"]:
        rates = [_curve(strategy, group, f"rate_{site}", site, False, "hv") for strategy, group in runs.items()]
        title = f"Drop probability of {site}"
        figures.append(Figure(title, f"at each epoch's end; of a learned rate the mean{band}", tuple(rates)))
    return tuple(figures)


def _curve(
    strategy: str,
    group: Sequence[Run],
    figure: str,
    part: str,
    dotted: bool,
    shape: Literal["linear", "hv"] = "linear",
) -> Curve:
    seeds = [[row[figure] for row in run.rows] for run in group]
    intervals = [mean_interval(values) for values in zip(*seeds, strict=True)]
    low = tuple(interval.low for interval in intervals if interval.low is not None)
    high = tuple(interval.high for interval in intervals if interval.high is not None)
    means = tuple(interval.mean for interval in intervals)
    if low == high:  # a rate that no seed moves has no band
        low = high = ()
    return Curve(strategy, part, _epochs(group), means, low, high, dotted, shape)


def _epochs(group: Sequence[Run]) -> tuple[int, ...]:
    return tuple(row["epoch"] for row in group[0].rows)


def _differences(lines: Sequence[Line]) -> Differences | None:
    whiskers = []
    for line in lines:
        difference = line.difference
        if line.differences is not None and difference is not None:
            whiskers.append(Whisker(line.strategy, difference.mean, difference.low, difference.high, line.differences))
    if not whiskers:
        return None
    title = lines[0].figures.title
    return Differences(f'{title.capitalize()} minus that of "{BASELINE}", seed by seed', tuple(whiskers), title)


def _pictures(runs: Mapping[str, Sequence[Run]]) -> tuple[tuple[Picture, ...], ...]:
    """A row for each strategy: what its first run drew after its first epoch, its last, and some between."""
    rows = []
    for strategy, group in runs.items():
        drawn = group[0].pictures
        # About as far from one to the next as the later is from the start: most happens early.
        wanted = np.geomspace(1, len(drawn), MOST) if drawn else ()
        row = []
        for number in sorted({round(float(epoch)) for epoch in wanted}):
            words = f"Images made under {strategy}, seed {group[0].config['seed']}, after epoch {number}"
            row.append(Picture(f"{strategy}, epoch {number}", words, drawn[number - 1].read_bytes()))
        rows.append(tuple(row))
    return tuple(row for row in rows if row)


def _settings(config: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    chosen = "by validation loss" if config["validation"] else "the last epoch's (no validation part is held out)"
    rows = {name: value for name, value in config.items() if name not in ("settings", "rates", "format")}
    rows |= config["settings"]
    rows["best checkpoint"] = f"{chosen}; nothing is ever chosen on the test set"
    for strategy, rates in config["rates"].items():
        rows[f"rates of {strategy}"] = ", ".join(f"{site}: {rate}" for site, rate in rates.items())
    # A list without items is a setting that this recipe does not have.
    return tuple((name.replace("_", " "), _shown(value)) for name, value in rows.items() if value not in ([], ()))


def _shown(value: Any) -> str:
    if value is None:
        return "all there are"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
