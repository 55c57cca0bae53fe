"""A comparison as a page of the report: which words, which tables, which charts, which pictures, which settings."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...language import counted, joined, say, template
from ...report import Page, Picture, Table
from ..recipes.measures import Figures
from ..runs.run import Run
from ..statistics.interval import Interval, differences
from . import charts
from .table import LAST, Line, cells, headings, notes
from .units import several

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
    template("folds"),
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
    template("looks"),
    template("loss"),
    template("machine"),
    template("margin"),
    template("max seeds"),
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
    template("until settled"),
    template("validation"),
    template("variant"),
    template("weight decay"),
    template("weight std"),
    template("weights"),
)
MOST = 6  # pictures of a run that a page shows
BYTES = 160_000  # of all pictures, so that the page stays small
ECE = "test_ece"


def page(
    config: Mapping[str, Any],
    runs: Mapping[str, Sequence[Run]],
    lines: Sequence[Line],
    verdict: Sequence[str],
    environment: Mapping[str, Any],
) -> Page:
    """The page of a comparison, or of a single run."""
    seeds, kind = lines[0].seeds, lines[0].figures
    answer, *details = verdict
    noted = notes(config["epochs"], seeds, kind, lines[0].looked)
    return Page(
        title=say("{recipe} on {data}", recipe=config["recipe"], data=config["data"]),
        subtitle=_subtitle(kind, config, len(runs), seeds),
        answer=answer,
        details=details,
        table=Table("", headings(kind), [cells(line) for line in lines], noted),
        differences=charts.differences(lines),
        pairs=charts.pairs(lines),
        rated=charts.rated(lines, runs),
        figures=(*charts.curves(runs, kind), *charts.moving(runs)),
        tables=tuple(table for table in (_calibration(lines, runs), _cost(lines, config["epochs"])) if table),
        settings=_settings(kind, {**config, **environment}),
        reference=charts.reference(list(runs)),
        pictures=_pictures(runs),
    )


def _subtitle(kind: Figures, config: Mapping[str, Any], strategies: int, seeds: int) -> str:
    return joined(
        (
            counted(strategies, "{n} strategy", "{n} strategies"),
            several(kind, seeds),
            counted(config["epochs"], "{n} epoch", "{n} epochs") if "size" in config else "",
            say("size {size}", size=config["size"]) if "size" in config else "",
        )
    )


def _calibration(lines: Sequence[Line], runs: Mapping[str, Sequence[Run]]) -> Table | None:
    """NLL and ECE of classifiers, where the engine measured the latter."""
    errors = {strategy: [_ece(run) for run in group] for strategy, group in runs.items()}
    if all(math.isnan(error) for group in errors.values() for error in group):
        return None
    base = charts.reference(list(runs))
    rows = []
    for line in lines:
        row = [
            line.strategy,
            _plain(line.interval(line.figures.loss), 4),
            _percent(line.of(errors[line.strategy])),
        ]
        if base is not None:
            difference = line.of(differences(errors[line.strategy], errors[base]))
            row.append("-" if line.strategy == base else _percent(difference, signed=True))
        rows.append(row)
    found = [say("strategy"), say("test NLL"), say("test ECE, %")]
    if base is not None:
        found.append(say("ECE, difference from {baseline}", baseline=base))
    words = say(
        "NLL: the mean negative logarithm of the probability given to the right class (the test loss). ECE: how far "
        "confidence and accuracy lie apart, mean over 15 bins that hold as many samples each. Lower is better."
    )
    return Table(say("Calibration"), found, rows, (words,))


def _ece(run: Run) -> float:
    last = [row.get(ECE, math.nan) for row in run.rows[-LAST:]]
    return sum(last) / len(last)


def _percent(found: Interval, signed: bool = False) -> str:
    if math.isnan(found.mean):
        return "-"
    half = None if found.half is None else 100 * found.half
    text = _plain(Interval(100 * found.mean, half, None, found.n), 2, "+" if signed else "")
    return text + (" *" if signed and found.excludes_zero else "")


def _plain(found: Interval, digits: int, sign: str = "") -> str:
    text = f"{found.mean:{sign}.{digits}f}"
    return text if found.half is None else f"{text} ± {found.half:.{digits}f}"


def _cost(lines: Sequence[Line], epochs: int) -> Table | None:
    """What a run takes, and how many times as much as one of the reference."""
    base = charts.reference([line.strategy for line in lines])
    if base is None:
        return None
    (against,) = (line.interval("seconds").mean for line in lines if line.strategy == base)
    rows = []
    for line in lines:
        seconds = line.interval("seconds").mean
        times = f"{seconds / against:.2f}" if against else "-"
        rows.append((line.strategy, _seconds(seconds), _seconds(seconds / epochs), times))
    titles = (
        say("strategy"),
        say("seconds a run"),
        say("seconds an epoch"),
        say("times that of {baseline}", baseline=base),
    )
    words = say("Training and scoring on this machine, mean of the runs; what else ran on it meanwhile is in it.")
    return Table(say("Cost"), titles, rows, (words,))


def _seconds(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.4f}"


def _pictures(runs: Mapping[str, Sequence[Run]]) -> tuple[tuple[Picture, ...], ...]:
    """A row for each strategy: what its first run drew after its first epoch, its last, and some between; fewer where
    they are large, for at most so many bytes are read.
    """
    drawn = {strategy: group[0].pictures for strategy, group in runs.items()}
    for most in range(MOST, 0, -1):
        chosen = {strategy: _chosen(paths, most) for strategy, paths in drawn.items()}
        if sum(path.stat().st_size for paths in chosen.values() for _, path in paths) <= BYTES or most == 1:
            break
    rows, left = [], BYTES
    for strategy, paths in chosen.items():
        left -= sum(path.stat().st_size for _, path in paths)
        if left >= 0:
            rows.append(tuple(_picture(strategy, runs[strategy][0], epoch, path) for epoch, path in paths))
    return tuple(row for row in rows if row)


def _chosen(paths: Sequence[Path], most: int) -> list[tuple[int, Path]]:
    # About as far from one to the next as the later is from the start: most happens early.
    wanted = np.geomspace(1, len(paths), most) if paths else ()
    epochs = {round(float(epoch)) for epoch in wanted} if most > 1 else {len(paths)} - {0}
    return [(epoch, paths[epoch - 1]) for epoch in sorted(epochs)]


def _picture(strategy: str, run: Run, epoch: int, path: Path) -> Picture:
    given = {"strategy": strategy, "epoch": epoch}
    words = template("Images made under {strategy}, seed {seed}, after epoch {epoch}")
    caption = say("{strategy}, epoch {epoch}", **given)
    return Picture(caption, say(words, seed=run.config["seed"], **given), path.read_bytes())


def _settings(kind: Figures, config: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    chosen = template("by validation loss; nothing is ever chosen on the test set")
    if not config.get("validation"):
        chosen = template("the last epoch's (no validation part is held out); nothing is ever chosen on the test set")
    hidden = {"settings", "rates", "format", *(("seeds",) if kind.folds else ())}  # of folds the settings say how many
    rows = {name: value for name, value in config.items() if name not in hidden}
    rows |= config["settings"]
    # A list without items is a setting that this recipe does not have.
    found: list[tuple[str, str]] = [
        (_called(name), _shown(value)) for name, value in rows.items() if value not in ([], ())
    ]
    if "validation" in config:
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
