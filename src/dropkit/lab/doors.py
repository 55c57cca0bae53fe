"""The functions train and tune, whatever is trained: a recipe or a model, or a loop of one's own."""

from collections.abc import Callable
from typing import Any, overload

from ..errors import DropkitTypeError
from . import experiment, tuning
from .experiment import Comparison
from .own.training import train_loop
from .own.tuning import tune_loop
from .runs.run import Run
from .searching import Tuning
from .signatures import check_known, joined


@overload
def train(*given: Any, run: None = None, estimators: None = None, **asked: Any) -> Run: ...
@overload
def train(*, run: Callable[..., Any], **asked: Any) -> Comparison: ...
def train(*given: Any, run: Any = None, estimators: Any = None, **asked: Any) -> Run | Comparison:
    """Train a recipe or a model once, as `dropkit.lab.experiment.train` does; or run a loop of one's own.

    Args:
        given: what `dropkit.lab.experiment.train` takes by place, where `run` is not given.
        run: a loop of one's own, `run(strategy, seed)`, see `dropkit.lab.compare`. What comes back is a comparison of
            one strategy, in a folder that `compare(run=..., resume=True)` goes on with.
        strategy: with `run` any name; by default that of its parameter `strategy`, or "none".
        seed, seeds: with `run`, the first seed and how many; one by default.
        metric, lower_is_better, data, on_run: with `run`, see `dropkit.lab.compare`.
        out, resume, lang: of both.
        asked: what else `dropkit.lab.experiment.train` takes.

    Raises: what `dropkit.lab.experiment.train` and `dropkit.lab.compare` raise.

    >>> import tempfile
    >>> def run(strategy, seed):
    ...     return 0.9 + strategy.p() / 10 + seed / 1000
    >>> found = train(run=run, strategy="fixed:0.2", seeds=2, out=tempfile.mkdtemp())
    >>> [round(value, 3) for value in found.lines[0].values["score"]]
    [0.92, 0.921]
    """
    if estimators is not None:
        raise DropkitTypeError(
            "an estimator trains itself, by fit: compare(estimators={'none': model}, data=(X, y), cv=5) scores one too"
        )
    if run is None:
        return experiment.train(*given, **asked)
    _check(given, asked, train_loop, "train")
    return train_loop(run, **asked)


def tune(*given: Any, run: Any = None, estimators: Any = None, **asked: Any) -> Tuning:
    """Search constant rates of a recipe or a model, as `dropkit.lab.tuning.tune` does; or that of a loop of one's own.

    Args:
        given: what `dropkit.lab.tuning.tune` takes by place, where `run` is not given.
        run: a loop of one's own, `run(strategy, seed)`, see `dropkit.lab.compare`. Rates are chosen by a figure that it
            returns under a name such as "validation_loss"; where there is none, by the figure that is compared, and
            the result says so. The best is then compared with "none" on other seeds.
        strategies: with `run`, the names behind which a rate is searched; ("fixed",) by default. Of several, such as
            ("fixed", "channel"), the best name is searched too.
        trials, low, high, seed: of the search.
        seeds: with `run`, how many for each trial and for the comparison, 5 by default.
        metric, lower_is_better, data, on_run: with `run`, see `dropkit.lab.compare`.
        out, resume, lang: of both.
        asked: what else `dropkit.lab.tuning.tune` takes.

    Raises: what `dropkit.lab.tuning.tune` and `dropkit.lab.compare` raise.

    >>> import tempfile
    >>> def run(strategy, seed):
    ...     return {"accuracy": 0.9, "validation_loss": (strategy.p() - 0.3) ** 2}
    >>> found = tune(run=run, trials=12, seeds=1, out=tempfile.mkdtemp())
    >>> abs(found.rates["p"] - 0.3) < 0.1
    True
    """
    if estimators is not None:
        raise DropkitTypeError(
            "the rate of an estimator is searched by scikit-learn: sklearn.model_selection.RandomizedSearchCV, over "
            "module__p for example; compare(estimators=...) then compares what it found"
        )
    if run is None:
        return tuning.tune(*given, **asked)
    _check(given, asked, tune_loop, "tune")
    return tune_loop(run, **asked)


def _check(given: tuple[Any, ...], asked: dict[str, Any], function: Callable[..., Any], name: str) -> None:
    """Refuse what a loop has no use for."""
    if given:
        raise DropkitTypeError("give a recipe or model, or run=, not both")
    check_known(name, "run", function, asked)


train.__signature__ = joined(experiment.train, [train_loop], ["run"], Run | Comparison)  # type: ignore[attr-defined]
tune.__signature__ = joined(tuning.tune, [tune_loop], ["run"], Tuning)  # type: ignore[attr-defined]
