"""The one function for comparisons: of a recipe or a model, of a loop of one's own, of estimators."""

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import DropkitTypeError
from . import experiment
from .experiment import Comparison
from .own.estimators import compare_estimators
from .own.loop import compare_loop
from .signatures import check_known, joined


def compare(
    *given: Any, run: Callable[..., Any] | None = None, estimators: Mapping[str, Any] | None = None, **asked: Any
) -> Comparison:
    """Compare strategies over paired seeds, and tell which is better; recipes and models as
    `dropkit.lab.experiment.compare` does.

    Args:
        given: what `dropkit.lab.experiment.compare` takes by place, where neither `run` nor `estimators` is given.
        run: a loop of one's own, `run(strategy, seed)`, in any framework; it is called with every generator seeded and
            returns a number, or a dict of numbers or of arrays with one for each test sample, which the intervals then
            use. The strategy is its text, with `.name`, `.values` and `.p(step)`. What each call returned is kept.
        estimators: name -> an estimator of scikit-learn's kind, or a function that makes one; compared over folds.
        strategies: names; with `run` any, of which "none" is what others are compared with.
        seeds: with `run`, how many; 5 by default.
        margin, until_settled, max_seeds: see `dropkit.lab.experiment.compare`; the latter two not for estimators, whose
            folds are as many as they are.
        metric: with `run`, which figure is compared; the first by default.
        lower_is_better: of that figure; by default what its name says, such as "loss".
        data: with `run`, what it is called in the answer; with `estimators`, (X, y), a Data, or whatever
            `dropkit.lab.data.sources.load` takes, encoded in each fold by its training samples alone.
        target, kind: with `estimators`, see `dropkit.lab.data.sources.load`.
        cv: with `estimators`, how many folds, 5 by default; or a splitter of scikit-learn's.
        scoring: with `estimators`, scikit-learn's name of a score, or a function (estimator, X, y); by default their
            own.
        out: folder for the results.
        resume: go on with what the folder holds; seeds and strategies may be more than before.
        lang: of the report.
        on_run: called with strategy, seed and figures of each run when it is finished.
        asked: what else `dropkit.lab.experiment.compare` takes.

    Raises:
        DropkitTypeError: a wrong argument, or a wrong return, with its strategy and seed.
        DropkitRuntimeError: the function failed; what was finished is kept.
        OutputError, DataError: see `dropkit.lab.train`.

    >>> import tempfile
    >>> def run(strategy, seed):
    ...     return 0.9 + strategy.p() / 10 + seed / 1000
    >>> found = compare(run=run, strategies=["none", "fixed:0.2"], seeds=5, out=tempfile.mkdtemp())
    >>> round(found.lines[1].difference.mean, 3)
    0.02
    """
    if run is None and estimators is None:
        return experiment.compare(*given, **asked)
    if given or (run is not None and estimators is not None):
        raise DropkitTypeError("give one of a recipe or model, run= and estimators=, not several")
    function: Callable[..., Comparison] = compare_loop if run is not None else compare_estimators
    check_known("compare", "run" if run is not None else "estimators", function, asked)
    return function(run if run is not None else estimators, **asked)


_LOOPS = (compare_loop, compare_estimators)
compare.__signature__ = joined(  # type: ignore[attr-defined]
    experiment.compare, _LOOPS, ["run", "estimators"], Comparison
)
