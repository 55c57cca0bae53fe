"""tune, of a loop of one's own: its drop probability is searched, and of several kinds of dropout the kind.

A loop knows its data itself. So rates are chosen by a figure that it calls validation; where it returns none, by the
figure that is compared, and then it is said that this is so.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import DropkitValueError
from ...language import ENGLISH, Catalogue, catalogue, say, template
from ..experiment import Comparison
from ..files import write_json
from ..files.lock import locked
from ..recipes.recipe import at_least_one
from ..runs.folder import open_folder
from ..searching import (
    FIRST_SEED,
    FIXED,
    YARDSTICK,
    Search,
    Trial,
    Tuning,
    best_of,
    optuna_there,
    read_trials,
    write_trials,
)
from ..settling import Settling
from .chosen import NONE, Chosen, chosen
from .loop import SEEDS, Loop, OnRun, Score, Told, compared, figure, known_side, loop_of, run_once
from .returned import SCORE, Returned, is_lower_better

SITE = "p"  # what a loop's one rate is called
VALIDATION = re.compile(r"(?i)(validation|valid|val|dev)(?:[ _-]+(.*))?")
_KIND = re.compile(r"[\w.+-]+")


def tune_loop(
    run: Score,
    *,
    strategies: Sequence[str] = (FIXED,),
    trials: int = 20,
    low: float = 0.0,
    high: float = 0.8,
    seeds: int | None = None,
    seed: int = 0,
    out: str | Path,
    metric: str | None = None,
    lower_is_better: bool | None = None,
    resume: bool = False,
    data: str | None = None,
    lang: str | Catalogue = ENGLISH,
    on_run: OnRun | None = None,
) -> Tuning:
    """Search the drop probability of a function of one's own; see `dropkit.lab.tune` for the meanings.

    >>> import tempfile
    >>> def run(strategy, seed):
    ...     return {"accuracy": 0.9 - strategy.p() / 10, "validation_loss": (strategy.p() - 0.3) ** 2}
    >>> found = tune_loop(run, trials=3, seeds=1, out=tempfile.mkdtemp())
    >>> found.words[0]
    'Rates were chosen by validation_loss.'
    """
    catalogue(lang)  # an unknown language is told before anything is run
    version, folder, loop = optuna_there().__version__, Path(out), loop_of(run, data)
    search = Search((SITE,), low, high, True, seed, _kinds(strategies))
    count = SEEDS if seeds is None else at_least_one("seeds", seeds)
    told = Told(Settling.make(figure(metric or SCORE), count, None, False, None), metric, lower_is_better, lang, on_run)
    config = {**loop.record(), "trials": at_least_one("trials", trials), "seeds": count, "optuna": version}
    config |= {**asdict(search), "sites": [SITE], "kinds": list(search.kinds)}
    with locked(folder):
        open_folder(folder, config, resume=resume, may_grow=("trials",), ignore=("optuna",))
        found, by = _tried(search, loop, config, folder, told)
        best = best_of(found, by.lower)
        yardstick = _yardstick(replace(loop, remarks=by.words(loop)), str(found[best].strategy), folder, by, told)
        tuning = Tuning(config, tuple(found), best, yardstick, folder, by.words(loop), by.figure)
        write_json(folder / "result.json", _result(tuning, by))
        return tuning


@dataclass(frozen=True, slots=True)
class By:
    """The figure that rates are chosen by, whether less of it is better, and the one that the answer is about."""

    figure: str
    lower: bool
    compared: str

    def words(self, loop: Loop) -> tuple[str, ...]:
        """What a reader has to know of that."""
        if self.figure != self.compared:
            return (say("Rates were chosen by {figure}.", figure=self.figure),)
        words = template(
            "Rates were chosen by {figure} itself, for {name} returns no figure called validation, so the best trial's "
            "figure is optimistic. The comparison has other seeds; if it has the same test samples, it is still "
            "optimistic. Return a figure such as validation_loss to choose by."
        )
        return (say(words, figure=self.figure, name=loop.name),)


def chosen_by(returned: Returned, run: Score, metric: str | None, lower_is_better: bool | None) -> By:
    """By which of its figures a loop's rates are chosen.

    >>> found = Returned({"accuracy": 0.9, "val_loss": 0.2}, {})
    >>> chosen_by(found, lambda strategy, seed: None, None, None)
    By(figure='val_loss', lower=True, compared='accuracy')
    """
    held = [name for name in returned.figures if VALIDATION.fullmatch(name)]
    compared = metric or next((name for name in returned.figures if name not in held), next(iter(returned.figures)))
    known = known_side(run) if lower_is_better is None else lower_is_better
    lower = is_lower_better(compared) if known is None else known
    held = [name for name in held if name != compared]
    if not held:
        return By(compared, lower, compared)
    same = [name for name in held if _of(name) == _of(compared)]  # of several that of the compared figure
    name = (same or held)[0]
    return By(name, lower if _of(name) in ("", _of(compared)) else is_lower_better(name), compared)


def _of(name: str) -> str:
    """What a figure is of, without the part that it was taken on."""
    found = VALIDATION.fullmatch(name)
    return ((found[2] or "") if found else re.sub("(?i)^test[ _-]+", "", name)).lower()


def _kinds(strategies: Any) -> tuple[str, ...]:
    """Names before the colon, whose number is searched."""
    names = chosen(strategies)
    for name in names:
        if not _KIND.fullmatch(name) or name == NONE:
            raise DropkitValueError(
                f"tune searches the number behind a name, so strategies are names alone, such as fixed,channel; got "
                f"{str(name)!r}"
            )
    return tuple(map(str, names))


def _tried(search: Search, loop: Loop, config: Mapping[str, Any], folder: Path, told: Told) -> tuple[list[Trial], By]:
    """Run what is missing of the trials; the list is written before a trial, with its rate, and after it."""
    path, by, first = folder / "trials.json", None, None
    done = read_trials(path)
    for number in range(config["trials"]):
        if number == len(done):
            done.append(Trial(search.suggest(done, True if by is None else by.lower)))
            write_trials(path, done)
        if done[number].losses and by is not None:
            continue
        strategy, figures = done[number].strategy, []
        for seed in range(FIRST_SEED, FIRST_SEED + config["seeds"]):
            place = folder / f"trial-{number}" / f"{loop.seed}{seed}"
            kept = run_once(loop, Chosen(strategy), seed, place, first, told)
            first = kept.returned.light() if first is None else first
            by = by or chosen_by(kept.returned, loop.run, told.metric, told.lower_is_better)
            figures.append(kept.returned.figures[by.figure])
        done[number] = Trial(strategy, tuple(figures))
        write_trials(path, done)
    assert by is not None
    return done, by


def _yardstick(loop: Loop, best: str, folder: Path, by: By, told: Told) -> Comparison:
    """The best beside no dropout, on seeds that had no part in choosing it."""
    settling = Settling.make(figure(by.compared), told.settling.seeds, None, False, None)
    asked = replace(told, settling=settling, metric=by.compared)
    names, place = chosen([NONE, best]), folder / YARDSTICK
    # After more trials another one may be the best, and `compare` may have added strategies and seeds.
    return compared(loop, names, place, resume=True, told=asked, ignore=("strategies", "seeds"))


def _result(tuning: Tuning, by: By) -> dict[str, Any]:
    def about(number: int, trial: Trial) -> dict[str, Any]:
        interval = trial.interval
        return {
            "trial": number,
            "strategy": str(trial.strategy),
            "rates": trial.rates((SITE,)),
            by.figure: None if interval is None or not math.isfinite(interval.mean) else asdict(interval),
            "per_seed": trial.losses,
        }

    return {
        "best": about(tuning.best, tuning.trials[tuning.best]),
        "chosen_by": by.figure,
        "lower_is_better": by.lower,
        "words": list(tuning.words),
        "trials": [about(number, trial) for number, trial in enumerate(tuning.trials)],
        "yardstick": {
            "verdict": tuning.yardstick.verdict,
            "test": [
                {"strategy": line.strategy, by.compared: asdict(line.compared)} for line in tuning.yardstick.lines
            ],
        },
    }
