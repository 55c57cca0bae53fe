"""train, of a loop of one's own: one strategy, as many seeds as are asked for."""

import inspect
from pathlib import Path

from ...counter import Key
from ...language import ENGLISH, Catalogue
from ..experiment import Comparison
from ..settling import Settling
from .chosen import NONE, Chosen, chosen
from .loop import OnRun, Score, Told, compared, figure, loop_of
from .returned import SCORE


def train_loop(
    run: Score,
    *,
    strategy: str | None = None,
    seed: int = 0,
    seeds: int = 1,
    out: str | Path,
    metric: str | None = None,
    lower_is_better: bool | None = None,
    resume: bool = False,
    data: str | None = None,
    lang: str | Catalogue = ENGLISH,
    on_run: OnRun | None = None,
) -> Comparison:
    """Run a function of one's own under one strategy; see `dropkit.lab.train` for the meanings.

    >>> import tempfile
    >>> def run(strategy, seed):
    ...     return {"accuracy": 0.9 - strategy.p() / 10 + seed / 1000}
    >>> found = train_loop(run, strategy="fixed:0.5", seeds=2, out=tempfile.mkdtemp())
    >>> found.lines[0].values["accuracy"]
    (0.85, 0.851)
    """
    loop = loop_of(run, data)
    names = [usual(run)] if strategy is None else chosen([strategy], "strategy")
    settling = Settling.make(figure(metric or SCORE), seeds, None, False, None)
    told = Told(settling, metric, lower_is_better, lang, on_run)
    return compared(loop, names, Path(out), resume=resume, told=told, first=Key(seed).seed)


def usual(run: Score) -> Chosen:
    """The strategy of a loop that is trained under none that is named: its parameter's default, or no dropout.

    >>> usual(lambda strategy="fixed:0.2", seed=0: 0.5), usual(lambda strategy, seed: 0.5)
    ('fixed:0.2', 'none')
    """
    default = inspect.signature(run).parameters.get("strategy")
    named = default is not None and isinstance(default.default, str) and default.default.strip()
    return chosen([default.default if named and default is not None else NONE])[0]
