"""Compare strategies by a function of one's own: `run(strategy, seed)` trains however it likes and returns scores."""

import hashlib
import inspect
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from ...errors import DataError, DropkitError, DropkitRuntimeError, DropkitTypeError, DropkitValueError
from ...language import ENGLISH, Catalogue, catalogue, say, template
from ...visible import one_line
from ..experiment import Comparison, finish
from ..files import read_sealed_json, write_sealed
from ..files.arrays import save_arrays
from ..files.lock import locked
from ..files.sealed import read_sealed
from ..imported import generators_kept, seed_all
from ..recipes.measures import Column, Figures
from ..runs.folder import open_folder
from ..runs.run import Run
from ..settling import Settling
from .chosen import Chosen, chosen
from .returned import SCORE, Returned, is_lower_better, is_share

FORMAT = 1
SEEDS = 5
FOLD = "fold"
FIGURES, SAMPLES = "figures.json", "samples.safetensors"
MOST_COLUMNS = 4
KEPT = "what is finished is kept: mend it and go on with --resume (resume=True)"
Score = Callable[[Chosen, int], Any]
OnRun = Callable[[str, int, Mapping[str, float]], None]
"""(strategy, seed, figures) of each run, when it is finished."""


@dataclass(frozen=True, slots=True)
class OwnRun(Run):
    """A finished run of a function of one's own."""

    def scores(self) -> NDArray[np.float32] | None:
        """The compared figure of each test sample, where the function returned these."""
        path = None if self.folder is None else self.folder / SAMPLES
        if path is None or not path.exists():
            return None
        return _samples(path).get(self.figures.compared)


@dataclass(frozen=True, slots=True)
class Loop:
    """What is compared, besides strategies and seeds.

    Args:
        run: called with a strategy and a seed.
        name: what it is called.
        data: what it is compared on, in words.
        seed: what a seed is called: "seed", or "fold".
        settings: plain values for config.json; the same on resuming.
        overlap: test samples by training samples, where runs share training samples as folds do.
        remarks: what a reader of the result has to know.
        sources: strategy -> the text by which a change of it shows; by default the text of the function.
    """

    run: Score
    name: str
    data: str
    seed: str = "seed"
    settings: Mapping[str, Any] | None = None
    overlap: float = 0.0
    remarks: tuple[str, ...] = ()
    sources: Mapping[str, str] | None = None

    def source(self, strategy: str) -> str | None:
        """A sum of the text by which a change shows; None where there is none."""
        with suppress(OSError, TypeError):
            text = inspect.getsource(self.run) if self.sources is None else self.sources[strategy]
            return hashlib.sha256(text.encode()).hexdigest()
        return None

    def record(self) -> dict[str, Any]:
        """As plain values for config.json."""
        engine = {"format": FORMAT, "engine": "own", "recipe": self.name, "data": self.data}
        return engine | {"settings": dict(self.settings or {})}


@dataclass(frozen=True, slots=True)
class Told:
    """What is asked of the answer: how many seeds, or until when; which figure is compared, and whether less of it is
    better; the report's language; who hears of each finished run.
    """

    settling: Settling
    metric: str | None = None
    lower_is_better: bool | None = None
    lang: str | Catalogue = ENGLISH
    on_run: OnRun | None = None


def is_loop(found: Any) -> bool:
    """Whether it is a function of a strategy and a seed, by the names of what it takes.

    >>> is_loop(lambda strategy, seed: 0.5), is_loop(lambda seed: 0.5)
    (True, False)
    """
    try:
        names = list(inspect.signature(found).parameters)
    except (TypeError, ValueError):
        return False
    return names[:2] == ["strategy", "seed"]


def compare_loop(
    run: Score,
    *,
    strategies: Sequence[str],
    seeds: int | None = None,
    margin: float | None = None,
    until_settled: bool = False,
    max_seeds: int | None = None,
    out: str | Path,
    metric: str | None = None,
    lower_is_better: bool | None = None,
    resume: bool = False,
    data: str | None = None,
    lang: str | Catalogue = ENGLISH,
    on_run: OnRun | None = None,
) -> Comparison:
    """Compare strategies by a function that trains and scores; see `dropkit.lab.compare` for the meanings.

    >>> import tempfile
    >>> def run(strategy, seed):
    ...     return {"accuracy": 0.9 - strategy.p() / 10 + seed / 1000}
    >>> found = compare_loop(run, strategies=["none", "fixed:0.5"], seeds=3, out=tempfile.mkdtemp())
    >>> [round(line.compared.mean, 3) for line in found.lines]
    [0.901, 0.851]
    """
    loop, names = loop_of(run, data), chosen(strategies)
    settling = Settling.make(figure(metric or SCORE), seeds, margin, until_settled, max_seeds)
    told = Told(settling, metric, lower_is_better, lang, on_run)
    return compared(loop, names, Path(out), resume=resume, told=told)


def loop_of(run: Score, data: str | None = None) -> Loop:
    """The loop that a function is.

    Raises:
        DropkitTypeError: it is none.
    """
    if not callable(run):
        raise DropkitTypeError(f"run must be a function of (strategy, seed), got {run!r}")
    name = getattr(run, "__name__", type(run).__name__)
    return Loop(run, name, name if data is None else data)


def figure(metric: str, names: Sequence[str] = (), **more: Any) -> Figures:
    """A figure by which strategies are compared, beside others; accuracies are shares of the samples."""
    others = tuple(Column(name, name) for name in names if name != metric)[:MOST_COLUMNS]
    given: dict[str, Any] = {"compared": metric, "title": metric, "loss": metric, "proportion": is_share(metric)}
    given |= {"rows": tuple(names), "columns": others, "charts": (), "notes": (), "validated": False}
    return Figures(**{**given, **more})


def compared(
    loop: Loop,
    strategies: Sequence[Chosen],
    out: Path,
    *,
    resume: bool,
    told: Told,
    first: int = 0,
    ignore: Sequence[str] = (),
) -> Comparison:
    """Run what is not yet there, seed by seed, and tell what comes of it.

    Args:
        loop, strategies, out, resume, told: as they say.
        first: the first seed.
        ignore: what of config.json may be other than before, beside what says how runs are told.
    """
    catalogue(told.lang)  # an unknown language is told before anything is trained
    settling = told.settling
    with locked(out):
        begun = settling.begin(SEEDS, out, resume)
        kept: dict[str, list[_Kept]] = {str(strategy): [] for strategy in strategies}
        runs: dict[str, tuple[OwnRun, ...]] = {}
        while not runs or settling.goes_on(runs):
            done = len(next(iter(kept.values())))
            config = {**loop.record(), "strategies": list(kept), "seeds": max(begun.seeds, done + 1), **begun.told}
            config |= {"first_seed": first} if first else {}
            grows, others = ("seeds", "strategies"), (*settling.ignored, *ignore)
            open_folder(out, config, resume=resume or done > 0, may_grow=grows, ignore=others)
            for seed in range(first + done, first + config["seeds"]):
                try:
                    _run_all(loop, strategies, seed, out, kept, told)
                except DropkitError:
                    if not resume and not any(kept.values()):
                        _forget(out, out / strategies[0].folder / f"{loop.seed}{seed}")
                    raise
            runs = _as_runs(loop, kept, told)
        return finish({**config, "epochs": 1, "rates": {}}, runs, out, told.lang)


def _run_all(
    loop: Loop, strategies: Sequence[Chosen], seed: int, out: Path, kept: Mapping[str, list["_Kept"]], told: Told
) -> None:
    """A seed under all strategies; what is kept of each call is added."""
    for strategy in strategies:
        first = next((group[0].returned for group in kept.values() if group), None)
        one = run_once(loop, strategy, seed, out / strategy.folder / f"{loop.seed}{seed}", first, told)
        # Memory does not grow with the samples of all runs.
        kept[strategy].append(replace(one, returned=one.returned.light()))


def _forget(out: Path, place: Path) -> None:
    """Take away what was written for a first call that failed: no run is in it."""
    if (place / FIGURES).exists():
        return
    for config in (place / "config.json", out / "config.json"):
        config.unlink(missing_ok=True)
    with suppress(OSError):  # others' files lie there
        place.rmdir()
        place.parent.rmdir()


def _as_runs(loop: Loop, kept: Mapping[str, Sequence["_Kept"]], told: Told) -> dict[str, tuple[OwnRun, ...]]:
    figures, remarks = _figures(next(iter(kept.values()))[0].returned, told, loop)
    remarks = (*loop.remarks, *remarks, *_changed(loop, kept))
    return {name: tuple(_as_run(one, figures, remarks) for one in group) for name, group in kept.items()}


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    """What one call returned, and where that lies."""

    strategy: str
    seed: int
    returned: Returned
    seconds: float
    source: str | None
    place: Path

    def write(self) -> None:
        """Keep it: samples first, since by its figures a run counts."""
        samples = self.returned.samples
        if samples:
            save_arrays(self.place / SAMPLES, samples, {"run": f"{self.strategy} {self.seed}"})
        about = {"seconds": self.seconds, "source": self.source, "samples": sorted(samples)}
        write_sealed(self.place / FIGURES, {"figures": self.returned.figures, **about})


def run_once(loop: Loop, strategy: Chosen, seed: int, place: Path, first: Returned | None, told: Told) -> _Kept:
    """What a call returned, now or before; a call counts once its figures are written.

    Args:
        loop, strategy, seed, told: as they say.
        place: its folder.
        first: what another call returned, which this one must be like.
    """
    where = f"{loop.name}({str(strategy)!r}, {seed})"
    open_folder(place, {**loop.record(), "strategy": str(strategy), "seed": seed}, resume=True, may_grow=())
    if (place / FIGURES).exists():
        found = _read(place, strategy, seed)
        _check(first, found.returned, where)
    else:
        started = time.perf_counter()
        returned = _called(loop.run, strategy, seed, where)
        found = _Kept(strategy, seed, returned, time.perf_counter() - started, loop.source(strategy), place)
        _check(first, returned, where)
        found.write()
        if told.on_run is not None:
            told.on_run(strategy, seed, returned.figures)
    if told.metric is not None and told.metric not in found.returned.figures:
        raise DropkitValueError(
            f"{where} returned {', '.join(found.returned.figures)} and no {told.metric!r}, the metric that was asked "
            f"for; {KEPT}"
        )
    return found


def _check(first: Returned | None, returned: Returned, where: str) -> None:
    if first is None:
        return
    try:
        returned.check_like(first, where)
    except DropkitError as error:
        raise type(error)(f"{error}; {KEPT}") from None


def _called(run: Score, strategy: Chosen, seed: int, where: str) -> Returned:
    """What the function returns, with every generator seeded, checked."""
    try:
        with generators_kept():
            seed_all(seed)
            found = run(strategy, seed)
    except DropkitError as error:  # says itself what is wrong
        raise DropkitRuntimeError(f"{where}: {one_line(error)}; {KEPT}") from error
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        place = f" at {frames[-1].filename}:{frames[-1].lineno}"
        raise DropkitRuntimeError(
            f"{where} failed with {type(error).__name__}: {one_line(error)}{place}; {KEPT}"
        ) from error
    try:
        return Returned.of(found, where)
    except DropkitError as error:
        raise type(error)(f"{error}; {KEPT}") from None


def _read(place: Path, strategy: Chosen, seed: int) -> _Kept:
    values = read_sealed_json(place / FIGURES)
    try:
        figures = {str(name): float(value) for name, value in values["figures"].items()}
        names, seconds, source = list(values["samples"]), float(values["seconds"]), values["source"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{place / FIGURES} is no file of a run ({error!r}); delete its folder and run again") from None
    samples = _samples(place / SAMPLES) if names else {}
    if sorted(samples) != names:
        raise DataError(f"{place / SAMPLES} holds other figures than {FIGURES}; delete its folder and run again")
    return _Kept(strategy, seed, Returned(figures, samples), seconds, source, place)


def _samples(path: Path) -> dict[str, NDArray[np.float32]]:
    try:
        return load(read_sealed(path)[0])
    except (OSError, ValueError, SafetensorError) as error:
        raise DataError(f"cannot read {path}: {error}; delete its folder and run again") from error


def _figures(first: Returned, asked: Told, loop: Loop) -> tuple[Figures, tuple[str, ...]]:
    """Which figure is compared, whether less of it is better, and what to say of both."""
    names, told = list(first.figures), []
    if asked.metric is None and len(names) > 1:
        words = template("Compared by {metric}, the first figure that {name} returns; --metric asks for another.")
        told.append(say(words, metric=names[0], name=loop.name))
    compared = asked.metric or names[0]
    known = known_side(loop.run) if asked.lower_is_better is None else asked.lower_is_better
    lower = is_lower_better(compared) if known is None else known
    if lower and known is None:
        told.append(say("Less of {metric} is better, by its name.", metric=compared))
    words = say("what {name} returned", name=loop.name)
    printed = tuple((name, name) for name in names)
    # Above 1 they are percent already, or something else.
    shares = frozenset(name for name, value in first.figures.items() if is_share(name) and 0 <= value <= 1)
    more = {"overlap": loop.overlap, "folds": loop.seed == FOLD, "shares": shares, "proportion": compared in shares}
    return figure(compared, names, lower_is_better=lower, printed=printed, told=words, **more), tuple(told)


def known_side(run: Score) -> bool | None:
    """Whether less is better, where the function says so by an attribute `higher_is_better`."""
    higher = getattr(run, "higher_is_better", None)
    return None if higher is None else not higher


def _changed(loop: Loop, kept: Mapping[str, Sequence[_Kept]]) -> tuple[str, ...]:
    """A remark where the function has been changed since some of the runs."""
    every = [one for group in kept.values() for one in group]
    old = sum(one.source != loop.source(one.strategy) for one in every)
    if not old:
        return ()
    words = template("warning: {name} was changed since {old} of the {n} runs; delete their folders to run them again")
    return (say(words, name=loop.name, old=old, n=len(every)),)


def _as_run(one: _Kept, figures: Figures, remarks: tuple[str, ...]) -> OwnRun:
    row = {"epoch": 1, "step": 1, **one.returned.figures, "seconds": one.seconds}
    return OwnRun(
        {"strategy": one.strategy, "seed": one.seed, "rates": {}}, (row,), 1, remarks, figures, folder=one.place
    )
