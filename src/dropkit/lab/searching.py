"""The search over constant rates, whatever is trained at them: what it tries, and what it has tried.

The study is the list of its trials. What a trial tries is a function of (seed, its number, the trials before it), with
a sampler of its own: so a search that was stopped goes on as if it never had been, and no sampler's state is stored.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..axes.rate import probability
from ..counter import Key
from ..errors import DataError, DropkitValueError
from .experiment import Comparison
from .files import AGAIN, read_json, write_json
from .files.sealed import DAMAGED, SUM, UNSEALED, digest_of
from .recipes.recipe import Strategy
from .statistics.interval import Interval, mean_interval
from .statistics.needed import MOST_SEEDS

FIXED = "fixed"
STARTUP = 10  # trials drawn at random before the sampler models them, Optuna's own number
FIRST_SEED = MOST_SEEDS  # of the trials, beyond those of any comparison
YARDSTICK = "yardstick"
SHARED = "shared"  # the name of a rate that all sites have in common
KIND = "kind"


@dataclass(frozen=True, slots=True)
class Trial:
    """Rates that were tried, and of each seed the figure that they are chosen by, a validation loss or what a loop of
    one's own returns; infinite where a run diverged.
    """

    strategy: Strategy
    losses: tuple[float, ...] = ()

    @property
    def loss(self) -> float:
        """What the search is about: the mean over seeds."""
        return math.fsum(self.losses) / len(self.losses)

    @property
    def interval(self) -> Interval | None:
        """Its mean with its 95 % interval over seeds; None where a run diverged."""
        return mean_interval(self.losses) if math.isfinite(self.loss) else None

    def rates(self, sites: Sequence[str]) -> dict[str, float]:
        """Site -> p."""
        values = self.strategy.values
        return dict(zip(sites, values * len(sites) if len(values) == 1 else values, strict=True))


@dataclass(frozen=True, slots=True)
class Tuning:
    """A finished search: config as plain values, trials in order, the best one's number, how it stands on the test set
    beside the recipe's own `none` and `fixed`, the folder, what to know of how it was chosen, and the figure
    that decided.

    >>> trials = (Trial(Strategy("fixed", (0.5,)), (0.3,)), Trial(Strategy("fixed", (0.2,)), (0.1,)))
    >>> Tuning({"sites": ["dropout1"]}, trials, best=1, yardstick=None, folder=Path(".")).rates
    {'dropout1': 0.2}
    """

    config: dict[str, Any]
    trials: tuple[Trial, ...]
    best: int
    yardstick: Comparison
    folder: Path
    words: tuple[str, ...] = ()
    figure: str = "validation_loss"

    @property
    def rates(self) -> dict[str, float]:
        """The best rates: site -> p."""
        return self.trials[self.best].rates(self.config["sites"])


@dataclass(frozen=True, slots=True)
class Search:
    """What decides the rates of every trial, and of several kinds of dropout the kind; checked on construction."""

    sites: tuple[str, ...]
    low: float
    high: float
    shared: bool
    seed: int
    kinds: tuple[str, ...] = (FIXED,)

    def __post_init__(self) -> None:
        low, high = probability("low", self.low), probability("high", self.high)
        if low >= high:
            raise DropkitValueError(f"low must lie below high, got low {low} and high {high}; try --low 0 --high 0.8")
        for name, value in (("low", low), ("high", high), ("seed", Key(self.seed).seed)):
            object.__setattr__(self, name, value)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the rates that are searched."""
        return (SHARED,) if self.shared else self.sites

    def suggest(self, trials: Sequence[Trial], lower: bool = True) -> Strategy:
        """The rates of the trial after these, by Optuna's TPE sampler, to four decimals.

        Args:
            trials: those before.
            lower: whether less of their figure is better.
        """
        optuna = optuna_there()
        space = dict.fromkeys(self.names, optuna.distributions.FloatDistribution(self.low, self.high))
        if len(self.kinds) > 1:
            space[KIND] = optuna.distributions.CategoricalDistribution(self.kinds)
        seed = np.random.SeedSequence((self.seed, len(trials))).generate_state(1)
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # or each trial announces a study
        try:
            sampler = optuna.samplers.TPESampler(seed=int(seed[0]), n_startup_trials=STARTUP)
            study = optuna.create_study(sampler=sampler, direction="minimize" if lower else "maximize")
        finally:
            optuna.logging.set_verbosity(verbosity)
        for trial in trials:
            params: dict[str, Any] = dict(zip(self.names, trial.strategy.values, strict=True))
            params |= {KIND: trial.strategy.name} if KIND in space else {}
            study.add_trial(optuna.trial.create_trial(params=params, distributions=space, value=trial.loss))
        found = study.ask(space).params
        # Four decimals are finer than any seed can tell, and can be written after "fixed:".
        rates = (min(max(round(found[name], 4), self.low), self.high) for name in self.names)
        return Strategy(found.get(KIND, self.kinds[0]), tuple(rates))


def optuna_there() -> Any:
    """Optuna, or an error that says how it is installed."""
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f'tune needs Optuna ({error}): pip install "dropkit[lab]"', name="optuna") from error
    return optuna


def best_of(trials: Sequence[Trial], lower: bool = True) -> int:
    """The number of the trial with the lowest loss, or the highest figure, the first of equals."""
    best = min(range(len(trials)), key=lambda number: trials[number].loss if lower else -trials[number].loss)
    if not math.isfinite(trials[best].loss):
        raise DropkitValueError(
            f"none of {len(trials)} trials ended with a finite validation loss, whatever the rate: the training itself "
            "diverges at this size; lower the recipe's learning rate"
        )
    return best


def write_trials(path: Path, trials: Sequence[Trial]) -> None:
    """Each trial with the sum of it and of all before it."""
    entries: list[dict[str, Any]] = []
    for trial in trials:
        losses = [loss if math.isfinite(loss) else None for loss in trial.losses]
        entry = {"strategy": str(trial.strategy), "losses": losses}
        entries.append({**entry, SUM: digest_of([*entries, entry])})
    write_json(path, entries)


def read_trials(path: Path) -> list[Trial]:
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
