"""A comparison as a page of the report: which words, which table, which curves, which settings."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ..report import Curve, Differences, Figure, Page, Whisker
from .run import Run
from .stats import mean_interval
from .table import BASELINE, HEADINGS, Line, cells, notes

CURVES = (
    ("Accuracy", "test_accuracy", "train_eval_accuracy"),
    ("Loss", "test_loss", "train_eval_loss"),
)


def page(
    config: Mapping[str, Any],
    runs: Mapping[str, Sequence[Run]],
    lines: Sequence[Line],
    verdict: Sequence[str],
    environment: Mapping[str, Any],
) -> Page:
    """The page of a comparison, or of a single run."""
    seeds = len(next(iter(runs.values())))
    return Page(
        title=f"{config['recipe']} on {config['data']}",
        subtitle=_subtitle(config, len(runs), seeds),
        verdict=tuple(verdict),
        headings=HEADINGS,
        rows=tuple(cells(line) for line in lines),
        notes=notes(config["epochs"], seeds),
        figures=_figures(runs, seeds),
        differences=_differences(lines),
        settings=_settings({**config, **environment}),
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


def _figures(runs: Mapping[str, Sequence[Run]], seeds: int) -> tuple[Figure, ...]:
    band = ", band: 95 % interval over seeds" if seeds > 1 else ""
    figures = []
    for title, test, train in CURVES:
        curves = [
            curve
            for strategy, group in runs.items()
            for curve in (_curve(strategy, group, test, "test", False), _curve(strategy, group, train, "train", True))
        ]
        figures.append(Figure(title, f"solid: test, dotted: train with dropout off{band}", tuple(curves), True))
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
    return Differences(f'Test accuracy minus that of "{BASELINE}", seed by seed', tuple(whiskers)) if whiskers else None


def _settings(config: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    chosen = "by validation loss" if config["validation"] else "the last epoch's (no validation part is held out)"
    rows = {name: value for name, value in config.items() if name not in ("settings", "rates", "format")}
    rows |= config["settings"]
    rows["best checkpoint"] = f"{chosen}; nothing is ever chosen on the test set"
    for strategy, rates in config["rates"].items():
        rows[f"rates of {strategy}"] = ", ".join(f"{site}: {rate}" for site, rate in rates.items())
    return tuple((name.replace("_", " "), _shown(value)) for name, value in rows.items())


def _shown(value: Any) -> str:
    if value is None:
        return "all there are"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
