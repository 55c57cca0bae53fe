"""`dropkit compare module:function`, where the function is a loop of one's own: it takes a strategy and a seed."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..errors import DropkitValueError
from ..lab.imported import imported, is_named
from ..language import joined, say, template, told
from .options import Comparing

TAKES = ("recipe", "strategies", "seeds", "out", "resume", "lang", "metric", "margin", "until_settled", "max_seeds")


def loop_of(target: str) -> Callable[..., Any] | None:
    """The function that a target names, where it takes (strategy, seed); None where it is anything else.

    Raises:
        DropkitError: its module cannot be imported, or has no such name.
    """
    if not is_named(target):
        return None
    from ..lab.own.loop import is_loop

    found = imported(target)
    return found if is_loop(found) else None


def compare(
    loop: Callable[..., Any],
    options: Comparing,
    names: Sequence[str] | None,
    resumable: Callable[[Path], AbstractContextManager[None]],
) -> None:
    """Compare strategies by the function, a line for each finished run; print a table and a verdict, write a report."""
    from rich.text import Text

    from ..lab.own.loop import compare_loop
    from .console import say_where, show
    from .terminal import console as safe_console

    if names is None:
        raise DropkitValueError(
            f"{options.recipe} is a loop of your own, so --strategies says which it is called with, such as "
            "--strategies "
            "none,fixed:0.1"
        )
    _check_options(options)
    folder, console = options.out or Path("runs") / options.recipe.replace(":", "-"), safe_console()

    def tell(strategy: str, seed: int, figures: Mapping[str, float]) -> None:
        values = joined(say("{name} {value:.4f}", name=name, value=value) for name, value in figures.items())
        words = template("{strategy} seed {seed}: {values}")
        line = say(words, strategy=strategy, seed=seed, values=values)
        console.print(Text(told(line, options.language)), soft_wrap=True)
        console.file.flush()

    with resumable(folder):
        found = compare_loop(
            loop,
            strategies=names,
            seeds=options.seeds,
            margin=options.margin,
            until_settled=options.until_settled,
            max_seeds=options.max_seeds,
            metric=options.metric,
            out=folder,
            resume=options.resume,
            lang=options.language,
            on_run=tell,
        )
    show(console, found.verdict, found.lines, 1, options.language)
    say_where(console, folder / "report.html", options.language)


def _check_options(options: Comparing) -> None:
    """Refuse what the function decides itself."""
    for field in fields(options):
        value = getattr(options, field.name)
        if field.name not in TAKES and value != field.default:
            raise DropkitValueError(
                f"{options.recipe} is a loop of your own, which decides everything but strategy and seed, so "
                f"--{field.name.replace('_', '-')} {value} has no use; leave it out"
            )
