"""train: one run. compare: the same model under several strategies over paired seeds; table, words and report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Unpack

from .. import report
from ..errors import DropkitTypeError, DropkitValueError
from ..language import ENGLISH, Catalogue, catalogue
from .files import write_json, write_text
from .files.lock import locked
from .plan import Choices, Plan, Wanted, check_strategies, spelled_out
from .recipes.recipe import Recipe, Strategy, at_least_one
from .runs.events import require
from .runs.folder import environment, open_folder
from .runs.run import OnEpoch, Run, check_files, epochs_done, run_plan
from .tasks.asked import Trained, resolved
from .telling.page import page
from .telling.table import Line, lines, markdown
from .telling.verdict import verdict

OnStart = Callable[[int, int], None]
ALL = "all"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A finished comparison: its config as plain values, the runs of each strategy, the table's lines, the verdict.

    >>> import tempfile
    >>> found = compare("numpy-mlp", size="tiny", epochs=1, seeds=1, strategies=["none"], out=tempfile.mkdtemp())
    >>> list(found.runs), found.config["recipe"]
    (['none'], 'numpy-mlp')
    """

    config: dict[str, Any]
    runs: Mapping[str, tuple[Run, ...]]
    lines: tuple[Line, ...]
    verdict: tuple[str, ...]
    folder: Path


@spelled_out()
def train(
    recipe: Trained = "mlp",
    *,
    strategy: str | None = None,
    seed: int = 0,
    out: str | Path,
    resume: bool = False,
    tensorboard: bool = False,
    lang: str | Catalogue = ENGLISH,
    on_start: OnStart | None = None,
    on_epoch: OnEpoch | None = None,
    **asked: Unpack[Wanted],
) -> Run:
    """Train a recipe once, into a folder: config, metrics, checkpoint, state to resume from, result.

    Args:
        recipe: a recipe's name, or a Recipe; or a model of your own: `module:factory`, or a function without arguments
            (or of `seed`) that returns it.
        strategy: one of the recipe's, such as "none", "fixed", "fixed:0.2:0.5", "step", "step:100" (every 100
            iterations), "concrete", "disarm", "hypergradient" or "gap"; the last two need a validation part. By default
            the rates that the model has, "fixed" of a recipe and "as-is" of a model of your own.
        seed: first weights, order of the data and masks; an int in [0, 2**64).
        data: a name, a file or a folder, see `load_data`; or a Data. The recipe's own by default.
        train, test: of a model of your own (X, y) each, in place of `data`; with data that have no test part of their
            own, test is the fraction that becomes one.
        target, kind, image_size: of such data the column that is predicted, what kind of targets they have
            ("classification", "binary", "multi-label", "regression", "next-token"), the side that images get.
        loss, metric: of a model of your own, by name or `module:name`; those of the kind by default.
        optimizer, learning_rate, schedule, batch_size: "sgd", "adam", "adamw", "rmsprop" or `module:name`; its learning
            rate; "constant", "cosine", "one-cycle", "step" or `module:name`; samples of a step. All have defaults.
        sites, insert: what the model's own dropouts are, and which are put behind its modules: a list of
            "PATTERN=SPEC", where SPEC is a rate or a kind and a rate such as "channel:0.1"; or a dict.
        size: "tiny", "small" or "full".
        epochs: in place of the size's own.
        validation: fraction of the training set to hold out; the best checkpoint is then chosen by its loss, otherwise
            it is the last epoch's. Nothing is ever chosen on the test set. The recipe's own by default.
        out: folder for the run.
        resume: continue an interrupted run (or lengthen a finished one); on the CPU, bit for bit as if never stopped.
        device: "auto", "cpu" or "cuda".
        precision: of Fabric: "32-true", "64-true", "bf16-mixed" or "bf16-true".
        data_dir: see `load_data`.
        weights: file of the frozen part's pretrained weights, for recipes that have such a part.
        tensorboard: also write event files, into `tensorboard/` of the run's folder; needs the package tensorboard.
        lang: the language of the report; one of `dropkit.language.languages()`. Everything else that is written stays
            English.
        on_start: called once with the number of epochs done before and in total.
        on_epoch: called with the plan and each new row.

    Raises:
        UnknownNameError, DropkitValueError, DropkitTypeError: a wrong choice; see the message.
        DataError: the data set cannot be loaded.
        OutputError: the folder cannot be written, or holds something else.

    >>> import tempfile
    >>> run = train("mlp", size="tiny", epochs=1, device="cpu", out=tempfile.mkdtemp())
    >>> run.config["strategy"], len(run.rows)
    ('fixed', 1)
    """
    catalogue(lang)  # an unknown language is told before anything is trained
    if tensorboard:
        require()
    found, chosen = resolved(recipe, asked)
    strategy = found.usual if strategy is None else strategy
    check_strategies(found, [strategy], chosen)
    choices = Choices.make(found, **chosen)
    plan, folder = Plan.make(choices, strategy, seed), Path(out)
    with locked(folder):
        if on_start is not None:
            total = choices.settings.epochs
            on_start(min(epochs_done(folder), total) if resume else 0, total)
        run = run_plan(plan, folder, resume=resume, on_epoch=on_epoch, tensorboard=tensorboard)
        name = str(plan.strategy)
        alone = lines({name: (run,)})
        config = {**run.config, "rates": {name: run.config["rates"]}}
        words = (*verdict(alone, config["data"]), *run.remarks)
        shown = page(config, {name: (run,)}, alone, words, environment())
        write_text(folder / "report.html", report.render(shown, lang))
    return run


@spelled_out()
def compare(
    recipe: Trained = "mlp",
    *,
    strategies: Sequence[str] | None = None,
    seeds: int | None = None,
    out: str | Path,
    resume: bool = False,
    tensorboard: bool = False,
    lang: str | Catalogue = ENGLISH,
    on_start: OnStart | None = None,
    on_epoch: OnEpoch | None = None,
    **asked: Unpack[Wanted],
) -> Comparison:
    """Train under several strategies with the seeds 0, 1, ..., and tell which is better.

    Args:
        strategies: of the recipe, those it compares by default; ["all"] for all; see `train`.
        seeds: how many; the size's own by default.
        out: folder: config.json, result.json, table.md, report.html, and `<strategy>/seed<k>/` for each run.
        resume: continue; epochs, seeds and strategies may be more than before, everything else must be the same.
        recipe, data, train, test, target, kind, image_size, loss, metric, optimizer, learning_rate, schedule,
            batch_size, sites, insert, size, epochs, validation, device, precision, data_dir, weights, tensorboard,
            lang, on_start, on_epoch: see `train`.

    Raises: what `train` raises.

    >>> import tempfile
    >>> found = compare("mlp", size="tiny", epochs=1, seeds=2, strategies=["none", "fixed"], out=tempfile.mkdtemp())
    >>> [line.strategy for line in found.lines]
    ['none', 'fixed']
    """
    catalogue(lang)  # an unknown language is told before anything is trained
    if tensorboard:
        require()
    found, chosen = resolved(recipe, asked)
    names = _names(found, strategies)
    check_strategies(found, names, chosen)
    choices = Choices.make(found, **chosen)
    count = choices.settings.seeds if seeds is None else at_least_one("seeds", seeds)
    config, plans = paired(choices, names, count)
    folder, total = Path(out), choices.settings.epochs
    with locked(folder):
        # The rates of each run are compared with its own config; here only their names may grow.
        open_folder(folder, config, resume=resume, may_grow=("epochs", "seeds", "strategies"), ignore=("rates",))
        places = [plan.place(folder) for plan in plans]
        for place in places:
            check_files(place)
        if on_start is not None:
            on_start(sum(min(epochs_done(place), total) for place in places), len(places) * total)
        return finish(config, run_paired(plans, folder, on_epoch, tensorboard), folder, lang)


def paired(choices: Choices, names: Sequence[str], seeds: int) -> tuple[dict[str, Any], list[Plan]]:
    """The config of a comparison, and its plans: seed by seed, so that an interrupted one is as paired as it can be."""
    plans = [Plan.make(choices, name, seed) for seed in range(seeds) for name in names]
    config = {**choices.record(), "strategies": list(names), "seeds": seeds}
    config["rates"] = {str(plan.strategy): plan.record()["rates"] for plan in plans[: len(names)]}
    return config, plans


def run_paired(
    plans: Sequence[Plan], folder: Path, on_epoch: OnEpoch | None, tensorboard: bool = False
) -> dict[str, tuple[Run, ...]]:
    """Train plans, each from where its own folder stands; the runs of each strategy, in the order of their seeds."""
    runs: dict[str, tuple[Run, ...]] = {}
    for plan in plans:
        run = run_plan(plan, plan.place(folder), resume=True, on_epoch=on_epoch, tensorboard=tensorboard)
        runs[str(plan.strategy)] = (*runs.get(str(plan.strategy), ()), run)
    return runs


def finish(
    config: dict[str, Any],
    runs: Mapping[str, tuple[Run, ...]],
    folder: Path,
    lang: str | Catalogue = ENGLISH,
) -> Comparison:
    """Write table, words and report of finished runs."""
    found = lines(runs)
    remarks = next(iter(runs.values()))[0].remarks  # all were prepared alike
    comparison = Comparison(config, runs, found, (*verdict(found, config["data"]), *remarks), folder)
    write_text(folder / "table.md", markdown(found, config["epochs"], lang))
    shown = page(config, runs, found, comparison.verdict, environment())
    write_text(folder / "report.html", report.render(shown, lang))
    write_json(folder / "result.json", _result(comparison))
    return comparison


def _names(recipe: Recipe, strategies: Sequence[str] | None) -> list[str]:
    if isinstance(strategies, str):
        raise DropkitTypeError(f"strategies must be a list of names, got the string {strategies!r}")
    if strategies is None:
        strategies = recipe.compared or tuple(recipe.strategies)
    elif list(strategies) == [ALL]:
        strategies = tuple(recipe.strategies)
    names = [str(Strategy.parse(name)) for name in strategies]
    if not names:
        raise DropkitValueError(f"no strategies given; choose from {', '.join(recipe.strategies)}")
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise DropkitValueError(f"strategy {min(twice)!r} is given twice; each can be run once")
    return names


def _result(comparison: Comparison) -> dict[str, Any]:
    table = []
    for line in comparison.lines:
        difference = line.difference
        table.append(
            {
                "strategy": line.strategy,
                "figures": {name: asdict(line.interval(name)) for name in line.values},
                "counts": {count.heading: line.counted(count) for count in line.figures.counts},
                "difference_from_none": None if difference is None else asdict(difference),
                "per_seed": {name: list(values) for name, values in line.values.items()},
            }
        )
    return {"verdict": list(comparison.verdict), "table": table}
