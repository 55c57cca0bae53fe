"""The lab's commands. They parse, call, and print; heavy imports wait inside them, so that --help answers at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ..interrupts import interruptible
from ..lab import recipes
from . import probe

app = typer.Typer(
    help="dropkit: train the same model under several dropout strategies, and tell which is better; or tell what "
    "dropout does in a model.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="See `dropkit recipes`.")]
DataName = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="NAME|DIR",
        help="digits, fashion-mnist, mnist, cifar10, flowers2, or a folder of IDX files or images; the recipe's own.",
    ),
]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder of fashion_mnist/, mnist/, ...; or set DROPKIT_DATA.")
]
Weights = Annotated[
    Path | None, typer.Option("--weights", metavar="FILE", help="Pretrained weights of the frozen part (transfer).")
]
Size = Annotated[str, typer.Option("--size", help="tiny (seconds), small (minutes) or full (the published setting).")]
Epochs = Annotated[int | None, typer.Option("--epochs", metavar="N", help="In place of the size's own.")]
Validation = Annotated[
    float | None,
    typer.Option("--validation", metavar="FRACTION", help="Hold out a part of the training set; the recipe's own."),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
Precision = Annotated[str, typer.Option("--precision", help="32-true, 64-true, bf16-mixed or bf16-true.")]
TensorBoard = Annotated[bool, typer.Option("--tensorboard", help="Also write event files, into each run's folder.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue what the output folder holds.")]


@app.command()
def info() -> None:
    """What dropkit runs on here, and why."""
    from ..choice import info_text

    typer.echo(info_text())


@app.command(short_help="Train under several strategies; tell which is better.")
def compare(
    recipe: RecipeName,
    data: DataName = None,
    strategies: Annotated[
        str | None,
        typer.Option("--strategies", metavar="NAMES", help="Comma-separated, such as none,fixed:0.2:0.5,gap; or all."),
    ] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", metavar="N", help="Paired seeds 0 to N - 1.")] = None,
    epochs: Epochs = None,
    size: Size = "small",
    validation: Validation = None,
    out: Annotated[Path | None, typer.Option("--out", help="Default: runs/RECIPE-DATA-SIZE.")] = None,
    resume: Resume = False,
    device: Device = "auto",
    precision: Precision = "32-true",
    data_dir: DataDir = None,
    weights: Weights = None,
    tensorboard: TensorBoard = False,
) -> None:
    """Train under several strategies over paired seeds; print a table and a verdict, write a report."""
    names = None if strategies is None else [name.strip() for name in strategies.split(",")]
    folder = out or Path("runs") / f"{recipes.get(recipe).name}-{_short(data, recipe)}-{size}"
    from ..lab.experiment import compare as run_comparison
    from .console import progress_bar, say_where, show
    from .terminal import console as safe_console

    console = safe_console()
    with _resumable(folder), progress_bar(console, _preparing(recipe, data)) as bar:
        found = run_comparison(
            recipe,
            data=data,
            strategies=names,
            seeds=seeds,
            size=size,
            epochs=epochs,
            validation=validation,
            out=folder,
            resume=resume,
            device=device,
            precision=precision,
            data_dir=data_dir,
            weights=weights,
            tensorboard=tensorboard,
            on_start=bar.begin,
            on_epoch=bar,
        )
    show(console, found.verdict, found.lines, found.config["epochs"])
    say_where(console, folder / "report.html")


@app.command(short_help="Train once, under one strategy.")
def train(
    recipe: RecipeName,
    data: DataName = None,
    strategy: Annotated[str, typer.Option("--strategy", metavar="NAME", help="Such as none or fixed:0.3.")] = "fixed",
    seed: Annotated[int, typer.Option("--seed", metavar="K", help="First weights, data order, masks.")] = 0,
    epochs: Epochs = None,
    size: Size = "small",
    validation: Validation = None,
    out: Annotated[Path | None, typer.Option("--out", help="Default: runs/RECIPE-DATA-SIZE-STRATEGY-seedK.")] = None,
    resume: Resume = False,
    device: Device = "auto",
    precision: Precision = "32-true",
    data_dir: DataDir = None,
    weights: Weights = None,
    tensorboard: TensorBoard = False,
) -> None:
    """Train once under one strategy; write metrics, checkpoint and report."""
    from ..lab.recipes.recipe import Strategy

    name = Strategy.parse(strategy).folder
    folder = out or Path("runs") / f"{recipes.get(recipe).name}-{_short(data, recipe)}-{size}-{name}-seed{seed}"
    from ..lab.experiment import train as run_training
    from ..lab.telling.table import lines
    from ..lab.telling.verdict import verdict
    from .console import progress_bar, say_where, show
    from .terminal import console as safe_console

    console = safe_console()
    with _resumable(folder), progress_bar(console, _preparing(recipe, data)) as bar:
        run = run_training(
            recipe,
            data=data,
            strategy=strategy,
            seed=seed,
            size=size,
            epochs=epochs,
            validation=validation,
            out=folder,
            resume=resume,
            device=device,
            precision=precision,
            data_dir=data_dir,
            weights=weights,
            tensorboard=tensorboard,
            on_start=bar.begin,
            on_epoch=bar,
        )
    alone = lines({run.config["strategy"]: (run,)})
    show(console, (*verdict(alone, run.config["data"]), *run.remarks), alone, run.config["epochs"])
    say_where(console, folder / "report.html")


@app.command(short_help="Search the best constant rates.")
def tune(
    recipe: RecipeName,
    data: DataName = "digits",
    trials: Annotated[int, typer.Option("--trials", metavar="N", help="How many rates to try.")] = 20,
    low: Annotated[float, typer.Option("--low", metavar="P", help="Lowest rate.")] = 0.0,
    high: Annotated[float, typer.Option("--high", metavar="P", help="Highest rate.")] = 0.8,
    shared: Annotated[bool, typer.Option("--shared", help="One rate for all sites.")] = False,
    seeds: Annotated[int | None, typer.Option("--seeds", metavar="N", help="Runs of each trial.")] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="K", help="Of the search.")] = 0,
    epochs: Epochs = None,
    size: Size = "small",
    validation: Annotated[float, typer.Option("--validation", metavar="FRACTION", help="Part to choose by.")] = 0.1,
    out: Annotated[Path | None, typer.Option("--out", help="Default: runs/RECIPE-DATA-SIZE-tune.")] = None,
    resume: Resume = False,
    device: Device = "auto",
    precision: Precision = "32-true",
    data_dir: DataDir = None,
) -> None:
    """Search constant rates by validation loss; compare the best with the recipe's own on the test set."""
    folder = out or Path("runs") / f"{recipes.get(recipe).name}-{_short(data, recipe)}-{size}-tune"
    from ..lab.tuning import tune as run_search
    from .console import progress_bar, say_where, show, show_trials
    from .terminal import console as safe_console

    console = safe_console()
    with _resumable(folder), progress_bar(console, _preparing(recipe, data)) as bar:
        found = run_search(
            recipe,
            trials=trials,
            low=low,
            high=high,
            shared=shared,
            seeds=seeds,
            seed=seed,
            data=data,
            size=size,
            epochs=epochs,
            validation=validation,
            out=folder,
            resume=resume,
            device=device,
            precision=precision,
            data_dir=data_dir,
            on_start=bar.begin,
            on_epoch=bar,
        )
    show_trials(console, found)
    show(console, found.yardstick.verdict, found.yardstick.lines, found.config["epochs"])
    say_where(console, folder / "yardstick" / "report.html")
    typer.echo("More seeds, or other strategies beside these: the command compare with the same options, and")
    names = ",".join(line.strategy for line in found.yardstick.lines)
    typer.echo(f"--strategies {names},... --validation {validation} --resume --out {folder / 'yardstick'}")


app.command(cls=probe.OptionalFile, short_help="Tell which layers each dropout affects.")(probe.explain)
app.command(cls=probe.OptionalFile, short_help="Tell what is wrong with a model's dropout.")(probe.doctor)


@app.command(name="recipes", short_help="List what can be trained, and what it needs.")
def list_recipes() -> None:
    """List the recipes, a line each: what they train, and what they need beside the lab."""
    for recipe in recipes.RECIPES.values():
        typer.echo(f"{recipe.name}  {recipe.summary} ({recipe.needed()})")


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        from .. import __version__

        typer.echo(f"dropkit {__version__}")
        raise typer.Exit


def _short(data: str | None, recipe: str) -> str:
    return Path(recipes.get(recipe).data if data is None else data).name or "data"


def _preparing(recipe: str, data: str | None) -> str:
    found = recipes.get(recipe)
    more = "" if found.prepare is None else ", what is computed once from them"
    return f"preparing {found.name}: the data {found.data if data is None else data}{more}, the model"


@contextmanager
def _resumable(folder: Path) -> Iterator[None]:
    interruptible()
    try:
        yield
    except KeyboardInterrupt:
        left = (folder / "config.json").is_file()
        kept = (
            f"finished epochs are in {folder}: the same command with --resume continues"
            if left
            else (f"nothing was written to {folder} yet")
        )
        typer.echo(f"\nstopped; {kept}", err=True)
        raise typer.Exit(130) from None
