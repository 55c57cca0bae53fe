"""A comparison as a page of the report: which words, which table, which curves, which settings."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from ...language import capital, counted, joined, say, template
from ...report import Curve, Differences, Figure, Page, Picture, Whisker
from ..recipes.measures import Figures
from ..runs.run import Run
from .stats import mean_interval
from .table import BASELINE, Line, cells, headings, notes

# What a run's config.json and its recipe's settings are called on the page; others stand there as they are.
SETTINGS = (
    template("backend"),
    template("batch size"),
    template("betas"),
    template("channels"),
    template("data"),
    template("device"),
    template("engine"),
    template("epochs"),
    template("evaluated"),
    template("fingerprint"),
    template("first weights"),
    template("frame"),
    template("framework"),
    template("fresh"),
    template("gap gain"),
    template("gap target"),
    template("generator"),
    template("held back"),
    template("hidden"),
    template("hypergradient every"),
    template("image size"),
    template("insert"),
    template("iterations"),
    template("kind"),
    template("l2"),
    template("latent"),
    template("learning rate"),
    template("literal"),
    template("logits"),
    template("loss"),
    template("machine"),
    template("metric"),
    template("model"),
    template("optimizer"),
    template("places"),
    template("precision"),
    template("prepared"),
    template("rate learning rate"),
    template("recipe"),
    template("schedule epochs"),
    template("schedule"),
    template("scored"),
    template("seed"),
    template("seeds"),
    template("sites"),
    template("size"),
    template("step epochs"),
    template("strategies"),
    template("strategy"),
    template("test samples"),
    template("threads"),
    template("train samples"),
    template("trained"),
    template("trunk epochs"),
    template("trunk samples"),
    template("trunk seed"),
    template("validation"),
    template("variant"),
    template("weight decay"),
    template("weight std"),
    template("weights"),
)
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
        title=say("{recipe} on {data}", recipe=config["recipe"], data=config["data"]),
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
    several = template("{n} paired seeds") if strategies > 1 else template("{n} seeds")
    return joined(
        (
            counted(strategies, "{n} strategy", "{n} strategies"),
            counted(seeds, "{n} seed", several),
            counted(config["epochs"], "{n} epoch", "{n} epochs"),
            say("size {size}", size=config["size"]),
        )
    )


def _figures(runs: Mapping[str, Sequence[Run]], seeds: int, kind: Figures) -> tuple[Figure, ...]:
    band = say("band: 95 % interval over seeds") if seeds > 1 else ""
    figures = []
    for chart in kind.charts:
        curves = [
            _curve(strategy, group, line.figure, line.part, line.dotted)
            for strategy, group in runs.items()
            for line in chart.lines
        ]
        figures.append(Figure(chart.title, joined((chart.caption, band)), tuple(curves), True))
    for site in next(iter(runs.values()))[0].config["rates"]:
        rates = [_curve(strategy, group, f"rate_{site}", site, False, "hv") for strategy, group in runs.items()]
        title, caption = (
            say("Drop probability of {site}", site=site),
            say("at each epoch's end; of a learned rate the mean"),
        )
        figures.append(Figure(title, joined((caption, band)), tuple(rates)))
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
    words = template('{figure} minus that of "{baseline}", seed by seed')
    return Differences(say(words, figure=capital(title), baseline=BASELINE), tuple(whiskers), title)


def _pictures(runs: Mapping[str, Sequence[Run]]) -> tuple[tuple[Picture, ...], ...]:
    """A row for each strategy: what its first run drew after its first epoch, its last, and some between."""
    rows = []
    for strategy, group in runs.items():
        drawn = group[0].pictures
        # About as far from one to the next as the later is from the start: most happens early.
        wanted = np.geomspace(1, len(drawn), MOST) if drawn else ()
        row = []
        for number in sorted({round(float(epoch)) for epoch in wanted}):
            given = {"strategy": strategy, "epoch": number}
            words = template("Images made under {strategy}, seed {seed}, after epoch {epoch}")
            alternative, caption = (
                say(words, seed=group[0].config["seed"], **given),
                say("{strategy}, epoch {epoch}", **given),
            )
            row.append(Picture(caption, alternative, drawn[number - 1].read_bytes()))
        rows.append(tuple(row))
    return tuple(row for row in rows if row)


def _settings(config: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    chosen = template("by validation loss; nothing is ever chosen on the test set")
    if not config["validation"]:
        chosen = template("the last epoch's (no validation part is held out); nothing is ever chosen on the test set")
    rows = {name: value for name, value in config.items() if name not in ("settings", "rates", "format")}
    rows |= config["settings"]
    # A list without items is a setting that this recipe does not have.
    found: list[tuple[str, str]] = [
        (_called(name), _shown(value)) for name, value in rows.items() if value not in ([], ())
    ]
    found.append((say("best checkpoint"), say(chosen)))
    for strategy, rates in config["rates"].items():
        given = ", ".join(f"{site}: {rate}" for site, rate in rates.items())
        found.append((say("rates of {strategy}", strategy=strategy), given))
    return tuple(found)


def _shown(value: Any) -> str:
    if value is None:
        return say("all there are")
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _called(name: str) -> str:
    words = name.replace("_", " ")
    return say(words) if words in SETTINGS else words
