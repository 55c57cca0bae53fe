"""`dropkit compare module:function`, where the function is a loop of one's own: it takes a strategy and a seed.

`train` and `tune` take one too.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DropkitValueError
from ..lab.imported import imported, is_named
from ..language import joined, say, template, told
from .options import Comparing, Once, Searching, Trained

if TYPE_CHECKING:
    from ..lab.own.loop import OnRun
    from .terminal import SafeConsole

SAME = ("recipe", "seeds", "out", "resume", "lang", "metric")
TAKES = {
    Comparing: (*SAME, "strategies", "margin", "until_settled", "max_seeds"),
    Once: (*SAME, "strategy", "seed"),
    Searching: (*SAME, "strategies", "trials", "low", "high", "seed"),
}
Loop = Callable[..., Any]
Resumable = Callable[[Path], AbstractContextManager[None]]


def loop_of(target: str) -> Loop | None:
    """The function that a target names, where it takes (strategy, seed); None where it is anything else.

    Raises:
        DropkitError: its module cannot be imported, or has no such name.
    """
    if not is_named(target):
        return None
    from ..lab.own.loop import is_loop

    found = imported(target)
    return found if is_loop(found) else None


def compare(loop: Loop, options: Comparing, names: Sequence[str] | None, resumable: Resumable) -> None:
    """Compare strategies by the function, a line for each finished run; print a table and a verdict, write a report."""
    from ..lab.own.loop import compare_loop
    from .console import say_where, show
    from .terminal import console as safe_console

    if names is None:
        raise DropkitValueError(
            f"{options.recipe} is a loop of your own, so --strategies says which it is called with, such as "
            "--strategies "
            "none,fixed:0.1"
        )
    folder, console = _folder(options), safe_console()
    more: dict[str, Any] = {
        "margin": options.margin,
        "until_settled": options.until_settled,
        "max_seeds": options.max_seeds,
    }
    with resumable(folder):
        found = compare_loop(loop, strategies=names, seeds=options.seeds, **more, **_words(options, folder, console))
    show(console, found.verdict, found.lines, 1, options.language)
    say_where(console, folder / "report.html", options.language)


def train(loop: Loop, options: Once, resumable: Resumable) -> None:
    """Run the function under one strategy, a line for each run; print a table, write a report."""
    from ..lab.own.training import train_loop, usual
    from .console import say_where, show
    from .terminal import console as safe_console

    strategy = usual(loop) if options.strategy is None else options.strategy
    folder, console = _folder(options, strategy), safe_console()
    words: dict[str, Any] = {
        "strategy": strategy,
        "seed": options.seed,
        "seeds": 1 if options.seeds is None else options.seeds,
    }
    with resumable(folder):
        found = train_loop(loop, **words, **_words(options, folder, console))
    show(console, found.verdict, found.lines, 1, options.language)
    say_where(console, folder / "report.html", options.language)


def tune(loop: Loop, options: Searching, resumable: Resumable) -> None:
    """Search the function's rate, a line for each run; print what was tried, and the best beside no dropout."""
    from ..lab.own.tuning import tune_loop
    from .console import say_where, show, show_own_trials
    from .terminal import console as safe_console

    folder, console = _folder(options, "tune"), safe_console()
    search: dict[str, Any] = {"trials": options.trials, "low": options.low, "high": options.high, "seed": options.seed}
    if options.strategies is not None:
        search["strategies"] = [name.strip() for name in options.strategies.split(",")]
    with resumable(folder):
        found = tune_loop(loop, seeds=options.seeds, **search, **_words(options, folder, console))
    show_own_trials(console, found, options.language)
    show(console, found.yardstick.verdict, found.yardstick.lines, 1, options.language)
    say_where(console, folder / "yardstick" / "report.html", options.language)


def _folder(options: Trained, *more: str) -> Path:
    """Where the results go, once the options are checked."""
    _check_options(options)
    from ..lab.own.chosen import Chosen

    name = "-".join([options.recipe.replace(":", "-"), *(Chosen(part).folder for part in more)])
    return options.out or Path("runs") / name


def _words(options: Trained, folder: Path, console: "SafeConsole") -> dict[str, Any]:
    """What all three functions take."""
    words = {"metric": options.metric, "out": folder, "resume": options.resume, "lang": options.language}
    return {**words, "on_run": _teller(options, console)}


def _teller(options: Trained, console: "SafeConsole") -> "OnRun":
    from rich.text import Text

    def tell(strategy: str, seed: int, figures: Mapping[str, float]) -> None:
        values = joined(say("{name} {value:.4f}", name=name, value=value) for name, value in figures.items())
        words = template("{strategy} seed {seed}: {values}")
        line = say(words, strategy=strategy, seed=seed, values=values)
        console.print(Text(told(line, options.language)), soft_wrap=True)
        console.file.flush()

    return tell


def _check_options(options: Trained) -> None:
    """Refuse what the function decides itself."""
    takes = TAKES[type(options)]
    for field in fields(options):
        value = getattr(options, field.name)
        if field.name not in takes and value != field.default:
            given = "" if value is True else f" {', '.join(value) if isinstance(value, list | tuple) else value}"
            raise DropkitValueError(
                f"{options.recipe} is a loop of your own, which decides everything but strategy and seed, so "
                f"--{field.name.replace('_', '-')}{given} has no use; leave it out"
            )
