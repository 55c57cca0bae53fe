"""The lab's commands. They parse, call, and print; heavy imports wait inside them, so that --help answers at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import DropkitValueError
from ..interrupts import interruptible
from ..lab import recipes
from ..language import say, told
from . import methods, own, probe, reproduce
from .options import Comparing, Once, Searching, Trained, taking

if TYPE_CHECKING:
    from .console import Bar
    from .terminal import SafeConsole

app = typer.Typer(
    help="dropkit: train the same model under several dropout strategies, and tell which is better; or tell what "
    "dropout does in a model.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command()
def info() -> None:
    """What dropkit runs on here, and why."""
    from ..choice import info_text

    typer.echo(info_text())


@app.command(short_help="Train under several strategies; tell which is better.")
@taking(Comparing, after="data")
def compare(options: Comparing) -> None:
    """Train under several strategies over paired seeds; print a table and a verdict, write a report."""
    names = None if options.strategies is None else [name.strip() for name in options.strategies.split(",")]
    if (loop := own.loop_of(options.recipe)) is not None:
        own.compare(loop, options, names, _resumable)
        return
    folder = options.folder()
    from ..lab.experiment import compare as run
    from .console import say_where, show

    with _at_work(options, folder) as (console, bar):
        words = _resolved(options, console, bar, strategies=names, out=folder)
        found = run(**words, on_epoch=bar)
    show(console, found.verdict, found.lines, found.config["epochs"], options.language)
    say_where(console, folder / "report.html", options.language)


@app.command(short_help="Train once, under one strategy.")
@taking(Once, after="data")
def train(options: Once) -> None:
    """Train once under one strategy; write metrics, checkpoint and report."""
    if (loop := own.loop_of(options.recipe)) is not None:
        own.train(loop, options, _resumable)
        return
    if options.seeds is not None:
        raise DropkitValueError(
            f"--seeds {options.seeds} is for a loop of your own; a recipe or a model is trained once: take --seed, or "
            f"compare with --strategies {options.strategy or options.usual} --seeds {options.seeds}"
        )
    from ..lab.recipes.recipe import Strategy

    strategy = options.usual if options.strategy is None else options.strategy
    folder = options.folder(Strategy.parse(strategy).folder, f"seed{options.seed}")
    from ..lab.experiment import train as run
    from ..lab.telling.table import lines
    from ..lab.telling.verdict import verdict
    from .console import say_where, show

    with _at_work(options, folder, epochs=True) as (console, bar):
        found = run(**_resolved(options, console, bar, out=folder), on_epoch=bar)
    alone = lines({found.config["strategy"]: (found,)})
    show(
        console,
        (*verdict(alone, found.config["data"]), *found.remarks),
        alone,
        found.config["epochs"],
        options.language,
    )
    say_where(console, folder / "report.html", options.language)


@app.command(short_help="Search the best constant rates.")
@taking(Searching, after="data")
def tune(options: Searching) -> None:
    """Search constant rates by validation loss; compare the best with the recipe's own on the test set."""
    if (loop := own.loop_of(options.recipe)) is not None:
        own.tune(loop, options, _resumable)
        return
    if options.strategies is not None:
        raise DropkitValueError(
            f"--strategies {options.strategies} is for a loop of your own; of a recipe or a model tune searches rates: "
            f"leave it out, or compare with --strategies {options.strategies}"
        )
    folder = options.folder("tune")
    from ..lab.tuning import tune as run
    from .console import say_where, show, show_trials

    with _at_work(options, folder) as (console, bar):
        found = run(**_resolved(options, console, bar, out=folder), on_epoch=bar)
    show_trials(console, found, options.language)
    show(console, found.yardstick.verdict, found.yardstick.lines, found.config["epochs"], options.language)
    say_where(console, folder / "yardstick" / "report.html", options.language)
    more = say(
        "Other strategies beside these, or more seeds with --until-settled: the command compare with the same options, "
        "and"
    )
    typer.echo(told(more, options.language))
    names = ",".join(line.strategy for line in found.yardstick.lines)
    typer.echo(f"--strategies {names},... --validation {options.validation} --resume --out {folder / 'yardstick'}")


app.command(cls=probe.OptionalFile, short_help="Tell which layers each dropout affects.")(probe.explain)
app.command(cls=probe.OptionalFile, short_help="Tell what is wrong with a model's dropout.")(probe.doctor)


@app.command(name="recipes", short_help="List what can be trained, and what it needs.")
def list_recipes() -> None:
    """List the recipes, a line each: what they train, and what they need beside the lab."""
    for recipe in recipes.RECIPES.values():
        typer.echo(f"{recipe.name}  {recipe.summary} ({recipe.needed()})")


app.command(short_help="List the published dropouts, or tell of one.")(methods.methods)
app.command(short_help="Run a published table again.")(reproduce.reproduce)


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        from .. import __version__

        typer.echo(f"dropkit {__version__}")
        raise typer.Exit


@contextmanager
def _at_work(options: Trained, folder: Path, epochs: bool = False) -> Iterator[tuple["SafeConsole", "Bar"]]:
    """The console, and a bar on it while something is trained; what is interrupted can be resumed.

    Args:
        options: of the command.
        folder: for the results.
        epochs: a line for each epoch.
    """
    from .console import progress_bar
    from .terminal import console as safe_console

    console = safe_console()
    with _resumable(folder), progress_bar(console, options.preparing(), epochs, options.language) as bar:
        yield console, bar


def _resolved(options: Trained, console: "SafeConsole", bar: "Bar", **others: Any) -> dict[str, Any]:
    """The words for the lab's function; of a model of the user's it is told what was chosen, once that is checked."""
    words = options.words(**others)
    if not options.own:
        return {**words, "on_start": bar.begin}
    from rich.text import Text

    from ..lab.plan import Wanted
    from ..lab.tasks.asked import resolved

    asked = {name: words.pop(name) for name in [*words] if name in Wanted.__annotations__}
    recipe, chosen = resolved(words["recipe"], asked)
    left = list(told(list(recipe.about), options.language))

    def begin(done: int, total: int) -> None:
        while left:  # once, though seeds may be added
            console.print(Text(left.pop(0)), soft_wrap=True)
        bar.begin(done, total)

    return {**words, "recipe": recipe, **chosen, "on_start": begin}


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
