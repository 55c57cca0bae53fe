"""tune: search constant rates by validation loss, the yardstick for rates that adapt."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Unpack

from ..errors import DropkitValueError
from ..language import ENGLISH, Catalogue, catalogue
from .experiment import Comparison, OnStart, finish, paired, run_paired
from .files import write_json
from .files.lock import locked
from .plan import Choices, Plan, Wanted, spelled_out
from .recipes.recipe import Strategy, at_least_one, strategy_rates
from .runs.folder import check_same, open_folder
from .runs.run import OnEpoch, Run, check_files, epochs_done, run_plan
from .searching import (
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
from .tasks.asked import Trained, resolved
from .telling.table import BASELINE, LAST

VALIDATION = 0.1  # the fraction that is held out to choose by


@spelled_out(validation=VALIDATION)
def tune(
    recipe: Trained = "mlp",
    *,
    trials: int = 20,
    low: float = 0.0,
    high: float = 0.8,
    shared: bool = False,
    seeds: int | None = None,
    seed: int = 0,
    out: str | Path,
    resume: bool = False,
    lang: str | Catalogue = ENGLISH,
    on_start: OnStart | None = None,
    on_epoch: OnEpoch | None = None,
    **asked: Unpack[Wanted],
) -> Tuning:
    """Search constant rates, one for each site, for the lowest mean validation loss over paired seeds (Optuna, TPE).

    A run's validation loss is the mean of its last three epochs. Trials are trained with the seeds 1000, 1001, ...;
    the best is then compared on the test set with the seeds 0, 1, ..., which had no part in choosing it.

    Args:
        trials: how many rates to try; the first ten are drawn at random.
        low, high: between which rates are searched, in [0, 1].
        shared: one rate for all sites.
        seeds: how many for each trial and for the comparison; the size's own by default.
        seed: of the search; the same seed tries the same rates.
        validation: fraction of the training set to hold out, more than 0; 0.1 by default.
        out: folder: config.json, trials.json, result.json, `trial-<k>/seed<s>/`, and `yardstick/`, a comparison.
        resume: continue; trials may be more than before, everything else must be the same.
        recipe, data, train, test, target, kind, image_size, loss, metric, optimizer, learning_rate, schedule,
            batch_size, sites, insert, size, epochs, device, precision, data_dir, weights, lang, on_start, on_epoch: see
            `train`.

    Raises: what `train` raises, and
        DropkitValueError: no part is held out, or low is not below high.
        ModuleNotFoundError: Optuna is not installed.

    >>> import tempfile
    >>> found = tune("mlp", size="tiny", epochs=1, trials=2, seeds=1, device="cpu", out=tempfile.mkdtemp())
    >>> len(found.trials), [line.strategy for line in found.yardstick.lines][:2], list(found.rates)
    (2, ['none', 'fixed'], ['dropout1', 'dropout2'])
    """
    catalogue(lang)  # an unknown language is told before anything is trained
    version, folder = optuna_there().__version__, Path(out)
    asked.setdefault("validation", VALIDATION)
    recipe_found, chosen = resolved(recipe, asked)
    choices = Choices.make(recipe_found, **chosen)
    search = Search(_sites(choices), low, high, shared, seed)
    count = choices.settings.seeds if seeds is None else at_least_one("seeds", seeds)
    config = {**choices.record(), "trials": at_least_one("trials", trials), "seeds": count, "optuna": version}
    config |= {name: value for name, value in asdict(search).items() if name != "kinds"}
    config["sites"] = list(search.sites)
    with locked(folder):
        open_folder(folder, config, resume=resume, may_grow=("trials",), ignore=("optuna",))
        _check_what_is_there(folder, choices)
        if on_start is not None:
            on_start(*_epochs(folder, (trials + len(_others(choices)) + 1) * count * choices.settings.epochs))
        found = _run_trials(search, choices, trials, count, folder, on_epoch)
        yardstick = _compare(choices, str(found[best_of(found)].strategy), count, folder / YARDSTICK, on_epoch, lang)
        tuning = Tuning(config, tuple(found), best_of(found), yardstick, folder)
        write_json(folder / "result.json", _result(tuning))
        return tuning


def _check_what_is_there(folder: Path, choices: Choices) -> None:
    """Check all that the search will read, before it trains anything: which strategy is the best is known last."""
    read_trials(folder / "trials.json")
    yardstick = folder / YARDSTICK
    if (yardstick / "config.json").exists():
        before = {name: value for name, value in choices.record().items() if name != "seeds"}
        check_same(yardstick, before, ())
    for place in (*folder.glob("trial-*/seed*"), *yardstick.glob("*/seed*")):
        check_files(place)


def _sites(choices: Choices) -> tuple[str, ...]:
    """The sites whose rates are searched, where there is validation data to choose them by."""
    if not choices.held_out:
        raise DropkitValueError(
            f"tune chooses rates by validation loss, and validation {choices.validation} holds out no sample: hold "
            "some out with --validation, such as --validation 0.1"
        )
    found = tuple(strategy_rates(choices.recipe, Strategy(FIXED), choices.settings, choices.steps))
    if not found:
        raise DropkitValueError(
            f"tune searches rates, and {choices.recipe.name} has no site whose rate can be set: put dropouts in with "
            "--insert PATTERN=RATE"
        )
    return found


def _epochs(folder: Path, total: int) -> tuple[int, int]:
    """How many epochs are done and how many there are; yardsticks of an earlier, shorter search do not count twice."""
    done = sum(epochs_done(table.parent) for table in folder.glob("**/metrics.csv"))
    return min(done, total), total


def _run_trials(
    search: Search, choices: Choices, trials: int, seeds: int, folder: Path, on_epoch: OnEpoch | None
) -> list[Trial]:
    """Train what is missing of the trials; the list is written before a trial, with its rates, and after it."""
    done = read_trials(folder / "trials.json")
    while len(done) < trials or not done[-1].losses:
        if not done or done[-1].losses:
            done.append(Trial(search.suggest(done)))
            write_trials(folder / "trials.json", done)
        number, strategy = len(done) - 1, done[-1].strategy
        runs = [
            run_plan(
                Plan.make(choices, str(strategy), seed),
                folder / f"trial-{number}" / f"seed{seed}",
                resume=True,
                on_epoch=on_epoch,
            )
            for seed in range(FIRST_SEED, FIRST_SEED + seeds)
        ]
        done[-1] = Trial(strategy, tuple(map(_validation_loss, runs)))
        write_trials(folder / "trials.json", done)
    return done


def _validation_loss(run: Run) -> float:
    last = [row["validation_loss"] for row in run.rows[-LAST:]]
    mean = math.fsum(last) / len(last)
    return mean if math.isfinite(mean) else math.inf


def _others(choices: Choices) -> list[str]:
    """What the best is compared with: the recipe's own rates, and none where it has that."""
    return [name for name in (BASELINE, choices.recipe.usual) if name in choices.recipe.strategies]


def _compare(
    choices: Choices, best: str, seeds: int, folder: Path, on_epoch: OnEpoch | None, lang: str | Catalogue
) -> Comparison:
    """The best constant rates on the test set, beside the recipe's own, seed by seed."""
    names = [*_others(choices), best]
    config, plans = paired(choices, names, seeds)
    # After more trials another one may be the best, and `compare` may have added strategies and seeds.
    with locked(folder):
        open_folder(folder, config, resume=True, may_grow=(), ignore=("strategies", "rates", "seeds"))
        return finish(config, run_paired(plans, folder, on_epoch), folder, lang)


def _result(tuning: Tuning) -> dict[str, Any]:
    def about(number: int, trial: Trial) -> Mapping[str, Any]:
        interval = trial.interval
        return {
            "trial": number,
            "strategy": str(trial.strategy),
            "rates": trial.rates(tuning.config["sites"]),
            "validation_loss": None if interval is None else asdict(interval),
            "per_seed": trial.losses,
        }

    return {
        "best": about(tuning.best, tuning.trials[tuning.best]),
        "trials": [about(number, trial) for number, trial in enumerate(tuning.trials)],
        "yardstick": {
            "verdict": tuning.yardstick.verdict,
            "test": [
                {"strategy": line.strategy}
                | {name: asdict(line.interval(name)) for name in (line.figures.compared, line.figures.loss)}
                for line in tuning.yardstick.lines
            ],
        },
    }
