"""tune: search constant rates by validation loss, the yardstick for rates that adapt.

The study is the list of its trials. What a trial tries is a function of (seed, its number, the trials before it), with
a sampler of its own: so a search that was stopped goes on as if it never had been, and no sampler's state is stored.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from ..axes.rate import probability
from ..counter import Key
from ..errors import DataError, DropkitValueError
from ..language import ENGLISH, Catalogue, catalogue
from .experiment import Comparison, OnStart, finish, paired, run_paired
from .files import AGAIN, read_json, write_json
from .files.lock import locked
from .files.sealed import DAMAGED, SUM, UNSEALED, digest_of
from .plan import Choices, Plan, Wanted, spelled_out
from .recipes.recipe import Strategy, at_least_one, strategy_rates
from .runs.folder import check_same, open_folder
from .runs.run import OnEpoch, Run, check_files, epochs_done, run_plan
from .tasks.asked import Trained, resolved
from .telling.stats import MOST_SEEDS, Interval, mean_interval
from .telling.table import BASELINE, LAST

FIXED = "fixed"
STARTUP = 10  # trials drawn at random before the sampler models them, Optuna's own number
FIRST_SEED = MOST_SEEDS  # of the trials, beyond those of any comparison
VALIDATION = 0.1  # the fraction that is held out to choose by
YARDSTICK = "yardstick"
SHARED = "shared"  # the name of a rate that all sites have in common


@dataclass(frozen=True, slots=True)
class Trial:
    """Rates that were tried, and the validation loss of each seed; infinite where a run diverged."""

    strategy: Strategy
    losses: tuple[float, ...] = ()

    @property
    def loss(self) -> float:
        """What the search minimises: the mean over seeds."""
        return math.fsum(self.losses) / len(self.losses)

    @property
    def interval(self) -> Interval | None:
        """Mean validation loss with its 95 % interval over seeds; None where a run diverged."""
        return mean_interval(self.losses) if math.isfinite(self.loss) else None

    def rates(self, sites: Sequence[str]) -> dict[str, float]:
        """Site -> p."""
        values = self.strategy.values
        return dict(zip(sites, values * len(sites) if len(values) == 1 else values, strict=True))


@dataclass(frozen=True, slots=True)
class Tuning:
    """A finished search: config as plain values, trials in order, the best one's number, and how it stands on the test
    set beside the recipe's own `none` and `fixed`.

    >>> trials = (Trial(Strategy("fixed", (0.5,)), (0.3,)), Trial(Strategy("fixed", (0.2,)), (0.1,)))
    >>> Tuning({"sites": ["dropout1"]}, trials, best=1, yardstick=None, folder=Path(".")).rates
    {'dropout1': 0.2}
    """

    config: dict[str, Any]
    trials: tuple[Trial, ...]
    best: int
    yardstick: Comparison
    folder: Path

    @property
    def rates(self) -> dict[str, float]:
        """The best rates: site -> p."""
        return self.trials[self.best].rates(self.config["sites"])


@dataclass(frozen=True, slots=True)
class Search:
    """What decides the rates of every trial; checked on construction."""

    sites: tuple[str, ...]
    low: float
    high: float
    shared: bool
    seed: int

    def __post_init__(self) -> None:
        low, high = probability("low", self.low), probability("high", self.high)
        if low >= high:
            raise DropkitValueError(f"low must lie below high, got low {low} and high {high}; try --low 0 --high 0.8")
        for name, value in (("low", low), ("high", high), ("seed", Key(self.seed).seed)):
            object.__setattr__(self, name, value)

    def suggest(self, trials: Sequence[Trial]) -> Strategy:
        """The rates of the trial after these, by Optuna's TPE sampler, to four decimals."""
        optuna = _optuna()
        names = (SHARED,) if self.shared else self.sites
        space = dict.fromkeys(names, optuna.distributions.FloatDistribution(self.low, self.high))
        seed = np.random.SeedSequence((self.seed, len(trials))).generate_state(1)
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # or each trial announces a study
        try:
            study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=int(seed[0]), n_startup_trials=STARTUP))
        finally:
            optuna.logging.set_verbosity(verbosity)
        for trial in trials:
            params = dict(zip(names, trial.strategy.values, strict=True))
            study.add_trial(optuna.trial.create_trial(params=params, distributions=space, value=trial.loss))
        found = study.ask(space).params
        # Four decimals are finer than any seed can tell, and can be written after "fixed:".
        return Strategy(FIXED, tuple(min(max(round(found[name], 4), self.low), self.high) for name in names))


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
    version, folder = _optuna().__version__, Path(out)
    asked.setdefault("validation", VALIDATION)
    recipe_found, chosen = resolved(recipe, asked)
    choices = Choices.make(recipe_found, **chosen)
    search = Search(_sites(choices), low, high, shared, seed)
    count = choices.settings.seeds if seeds is None else at_least_one("seeds", seeds)
    config = {**choices.record(), "trials": at_least_one("trials", trials), "seeds": count, "optuna": version}
    config |= {**asdict(search), "sites": list(search.sites)}
    with locked(folder):
        open_folder(folder, config, resume=resume, may_grow=("trials",), ignore=("optuna",))
        _check_what_is_there(folder, choices)
        if on_start is not None:
            on_start(*_epochs(folder, (trials + len(_others(choices)) + 1) * count * choices.settings.epochs))
        found = _run_trials(search, choices, trials, count, folder, on_epoch)
        yardstick = _compare(choices, str(found[_best(found)].strategy), count, folder / YARDSTICK, on_epoch, lang)
        tuning = Tuning(config, tuple(found), _best(found), yardstick, folder)
        write_json(folder / "result.json", _result(tuning))
        return tuning


def _check_what_is_there(folder: Path, choices: Choices) -> None:
    """Check all that the search will read, before it trains anything: which strategy is the best is known last."""
    _read_trials(folder / "trials.json")
    yardstick = folder / YARDSTICK
    if (yardstick / "config.json").exists():
        before = {name: value for name, value in choices.record().items() if name != "seeds"}
        check_same(yardstick, before, ())
    for place in (*folder.glob("trial-*/seed*"), *yardstick.glob("*/seed*")):
        check_files(place)


def _optuna() -> Any:
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f'tune needs Optuna ({error}): pip install "dropkit[lab]"', name="optuna") from error
    return optuna


def _sites(choices: Choices) -> tuple[str, ...]:
    """The sites whose rates are searched, where there is validation data to choose them by."""
    if not choices.held_out:
        raise DropkitValueError(
            f"tune chooses rates by validation loss, and validation {choices.validation} holds out no sample: hold "
            "some out with --validation, such as --validation 0.1"
        )
    return tuple(strategy_rates(choices.recipe, Strategy(FIXED), choices.settings, choices.steps))


def _epochs(folder: Path, total: int) -> tuple[int, int]:
    """How many epochs are done and how many there are; yardsticks of an earlier, shorter search do not count twice."""
    done = sum(epochs_done(table.parent) for table in folder.glob("**/metrics.csv"))
    return min(done, total), total


def _best(trials: Sequence[Trial]) -> int:
    """The number of the trial with the lowest loss, the first of equals."""
    best = min(range(len(trials)), key=lambda number: trials[number].loss)
    if not math.isfinite(trials[best].loss):
        raise DropkitValueError(
            f"none of {len(trials)} trials ended with a finite validation loss, whatever the rate: the training itself "
            "diverges at this size; lower the recipe's learning rate"
        )
    return best


def _run_trials(
    search: Search, choices: Choices, trials: int, seeds: int, folder: Path, on_epoch: OnEpoch | None
) -> list[Trial]:
    """Train what is missing of the trials; the list is written before a trial, with its rates, and after it."""
    done = _read_trials(folder / "trials.json")
    while len(done) < trials or not done[-1].losses:
        if not done or done[-1].losses:
            done.append(Trial(search.suggest(done)))
            _write_trials(folder / "trials.json", done)
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
        _write_trials(folder / "trials.json", done)
    return done


def _validation_loss(run: Run) -> float:
    last = [row["validation_loss"] for row in run.rows[-LAST:]]
    mean = math.fsum(last) / len(last)
    return mean if math.isfinite(mean) else math.inf


def _write_trials(path: Path, trials: Sequence[Trial]) -> None:
    """Each trial with the sum of it and of all before it."""
    entries: list[dict[str, Any]] = []
    for trial in trials:
        losses = [loss if math.isfinite(loss) else None for loss in trial.losses]
        entry = {"strategy": str(trial.strategy), "losses": losses}
        entries.append({**entry, SUM: digest_of([*entries, entry])})
    write_json(path, entries)


def _read_trials(path: Path) -> list[Trial]:
    """Trials as written; JSON has no infinity, so null stands for it.

    Raises:
        DataError: the file is damaged or was changed.
    """
    if not path.exists():
        return []
    entries = read_json(path)
    try:
        trials = [
            Trial(
                Strategy.parse(entry["strategy"]),
                tuple(math.inf if loss is None else float(loss) for loss in entry["losses"]),
            )
            for entry in entries
        ]
        for number, entry in enumerate(entries):
            if SUM not in entry:
                raise DropkitValueError(UNSEALED)
            rest = {name: value for name, value in entry.items() if name != SUM}
            if digest_of([*entries[:number], rest]) != entry[SUM]:
                raise DropkitValueError(DAMAGED)
        return trials
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise DataError(f"cannot read the trials in {path}: {error}; {AGAIN}") from error


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
