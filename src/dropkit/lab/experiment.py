"""train: one run. compare: the same model under several strategies over paired seeds; table, words and report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Unpack

from .. import report
from ..errors import DropkitTypeError, DropkitValueError
from ..language import ENGLISH, Catalogue, catalogue
from .files import write_json, write_rows, write_text
from .files.lock import locked
from .plan import Choices, Plan, Wanted, check_strategies, spelled_out
from .recipes.recipe import Recipe, Strategy
from .runs.events import require
from .runs.folder import environment, open_folder
from .runs.run import OnEpoch, Run, check_files, epochs_done, run_plan
from .settling import Settling
from .statistics.interval import Interval
from .tasks.asked import Trained, resolved
from .telling.page import page
from .telling.pairs import Pair, Pairs, judged
from .telling.table import Line, lines, markdown, table_rows
from .telling.verdict import verdict

OnStart = Callable[[int, int], None]
ALL = "all"
GROWS = ("epochs", "seeds", "strategies")  # what may be more than before, on resume


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
        out: folder for the run: config.json, result.json, metrics.csv, table.csv, report.html, checkpoint and state.
        resume: continue an interrupted run (or lengthen a finished one); on the CPU, bit for bit as if never stopped.
        device: "auto", "cpu" or "cuda".
        precision: of Fabric: "32-true", "64-true", "bf16-mixed" or "bf16-true".
        data_dir: see `load_data`.
        weights: file of the frozen part's pretrained weights, for recipes that have such a part.
        tensorboard: also write event files, into `tensorboard/` of the run's folder; needs the package tensorboard.
        lang: the language of the report; one of `dropkit.language.languages()`. Everything else that is written stays
            English.
        on_start: called with the number of epochs done before and in total, once all that was asked for is checked.
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
        open_folder(folder, plan.record(), resume=resume, may_grow=("epochs",))
        if on_start is not None:
            total = choices.settings.epochs
            on_start(min(epochs_done(folder), total) if resume else 0, total)
        run = run_plan(plan, folder, resume=True, on_epoch=on_epoch, tensorboard=tensorboard)
        name = str(plan.strategy)
        alone = lines({name: (run,)})
        config = {**run.config, "rates": {name: run.config["rates"]}}
        words = (*verdict(alone, config["data"]), *run.remarks)
        shown = page(config, {name: (run,)}, alone, words, environment())
        write_text(folder / "report.html", report.render(shown, lang))
        write_rows(folder / "table.csv", list(table_rows(alone)))
    return run


@spelled_out()
def compare(
    recipe: Trained = "mlp",
    *,
    strategies: Sequence[str] | None = None,
    seeds: int | None = None,
    margin: float | None = None,
    until_settled: bool = False,
    max_seeds: int | None = None,
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
        seeds: how many; the size's own by default. With `until_settled`, how many before the first look, 5 by default.
        margin: a difference of the compared figure, such as 0.005 of accuracy, which is half a point, below which it
            does not matter: then "no difference larger than that" is an answer too.
        until_settled: add seeds until every strategy is settled as better, worse or within the margin (0.005 by
            default where the figure is a proportion); the intervals hold at every look on the way.
        max_seeds: then at most; 50 by default.
        out: folder: config.json, result.json, table.csv, table.md, report.html, and `<strategy>/seed<k>/` for each run.
        resume: continue; epochs, seeds and strategies may be more than before, everything else must be the same.
        recipe, data, train, test, target, kind, image_size, loss, metric, optimizer, learning_rate, schedule,
            batch_size, sites, insert, size, epochs, validation, device, precision, data_dir, weights, tensorboard,
            lang, on_start, on_epoch: see `train`; `on_start` is called again whenever a seed is added.

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
    settling = Settling.make(found.figures, seeds, margin, until_settled, max_seeds)
    check_strategies(found, names, chosen)
    choices, folder = Choices.make(found, **chosen), Path(out)
    paired(choices, names, seeds=1)  # what cannot be planned is told before anything is written
    with locked(folder):
        begun = settling.begin(choices.settings.seeds, folder, resume)
        runs: dict[str, tuple[Run, ...]] = {}
        while not runs or settling.goes_on(runs):
            done = len(next(iter(runs.values()), ()))
            config, plans = paired(choices, names, max(begun.seeds, done + 1))
            config |= begun.told
            open_folder(folder, config, resume=resume or done > 0, may_grow=GROWS, ignore=settling.ignored)
            new = plans[done * len(names) :]
            _begin(plans, new, folder, on_start)
            more = run_paired(new, folder, on_epoch, tensorboard)
            runs = {name: (*runs.get(name, ()), *group) for name, group in more.items()}
        return finish(config, runs, folder, lang)


def _begin(plans: Sequence[Plan], new: Sequence[Plan], folder: Path, on_start: OnStart | None) -> None:
    """Check what the new ones would be resumed from, and say how much is done of all."""
    for plan in new:
        check_files(plan.place(folder))
    if on_start is not None:
        total = plans[0].choices.settings.epochs
        on_start(sum(min(epochs_done(plan.place(folder)), total) for plan in plans), len(plans) * total)


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
    found = lines(runs, looked=bool(config.get("until_settled")))
    pairs = judged(found, config.get("margin"))
    remarks = next(iter(runs.values()))[0].remarks  # all were prepared alike
    words = verdict(found, config["data"], looks=config.get("looks", ()), pairs=pairs)
    comparison = Comparison(config, runs, found, (*words, *remarks), folder)
    write_text(folder / "table.md", markdown(found, config["epochs"], lang))
    shown = page(config, runs, found, comparison.verdict, environment())
    write_text(folder / "report.html", report.render(shown, lang))
    write_rows(folder / "table.csv", list(table_rows(found)))
    write_json(folder / "result.json", _result(comparison, pairs))
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
    twice = {name for name in names if name and names.count(name) > 1}
    if twice:
        raise DropkitValueError(f"strategy {min(twice)!r} is given twice; each can be run once")
    return names


def _result(comparison: Comparison, pairs: Pairs) -> dict[str, Any]:
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
    looked = {"margin": pairs.margin, "until_settled": pairs.looked}
    told = [_of_pair(pair) for pair in pairs.told]
    return {"verdict": list(comparison.verdict), "table": table, **looked, "pairs": told}


def _of_pair(pair: Pair) -> dict[str, Any]:
    """A pair as plain values: p values are adjusted for all pairs."""
    table, seed = pair.table, pair.outlying
    found: dict[str, Any] = {
        "strategy": pair.one.strategy,
        "against": pair.other.strategy,
        "answer": str(pair.status),
        "difference": _plain(pair.difference),
        "p_no_difference": pair.p,
        "p_margin_or_more": pair.p_within,
        "outlying_seed": seed,
        "difference_without_it": None if seed is None else _plain(pair.without(seed)),
    }
    if table is not None:
        found |= {"new_samples": _plain(table.new_samples()), "test_samples": table.samples}
        found |= {"variance_components": table.components, "shares_of_variance": table.shares}
    return found


def _plain(interval: Interval) -> dict[str, Any]:
    return {**asdict(interval), "low": interval.low, "high": interval.high}
