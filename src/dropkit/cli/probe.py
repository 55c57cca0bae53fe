"""The commands `explain` and `doctor`: what dropout does in a model, and what about it is likely not meant."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from ..lab.recipes.recipe import at_least_one
from ..language import AND, SPACE, joined, say, template, told
from .options import Lang, spoken, taking
from .target import Options, resolve

if TYPE_CHECKING:
    from ..probe.explanation import Explanation
    from ..probe.findings import Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Examining(Options):
    """The options of both commands."""

    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="A recipe, module:factory (or module:model), or a .keras file.")
    ]
    as_json: Annotated[
        str | None, typer.Option("--json", metavar="[FILE]", help="Write JSON, without a file in place of the text.")
    ] = None
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Also write a page with the network drawn.")
    ] = None
    lang: Lang = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explaining(Examining):
    """The options of `explain`."""

    every: Annotated[bool, typer.Option("--all", help="Show all layers: nothing is folded.")] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Doctoring(Examining):
    """The options of `doctor`."""

    ignore: Annotated[
        list[str] | None,
        typer.Option(
            "--ignore", metavar="CODE", help="A finding not to look for, such as DK108; again for each further."
        ),
    ] = None


class OptionalFile(TyperCommand):
    """A command whose `--json` may stand without its file."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put "-" behind a `--json` that nothing follows, or another option."""
        for place in reversed([place for place, word in enumerate(args) if word == "--json"]):
            if args[place + 1 : place + 2] == [] or args[place + 1].startswith("--"):
                args.insert(place + 1, "-")
        return super().parse_args(ctx, args)


@taking(Explaining)
def explain(options: Explaining) -> None:
    """Tell which layers each dropout of a model zeroes, and whose outputs and gradients it changes."""
    lang = spoken(options.lang)
    explanation = _explained(options)
    from ..probe.findings import findings
    from ..probe.record import to_json

    found = findings(explanation)
    if options.as_json is not None:
        _write_json(options.as_json, to_json(explanation))
    if options.as_json != "-":
        _show(explanation, found, options.target, opened=options.every, lang=lang)
    _write_page(options.html, explanation, found, lang)


@taking(Doctoring)
def doctor(options: Doctoring) -> None:
    """Tell what about a model's dropout is likely not meant; exit status 1 if there is anything.

    With a code in place of the target, such as DK109: what it means, how it is measured, and when to ignore it.
    """
    from ..probe.findings import check_codes, findings
    from ..probe.findings.about import about
    from ..probe.record import findings_json

    lang = spoken(options.lang)
    if about(options.target.upper()):
        typer.echo(about(options.target.upper(), lang))
        return
    ignored = [code.upper() for code in options.ignore or ()]
    check_codes(ignored)
    explanation = _explained(options)
    found = findings(explanation, ignored)
    if options.as_json is not None:
        _write_json(options.as_json, findings_json(explanation, ignored))
    if options.as_json != "-":
        typer.echo(found.text(lang))
    _write_page(options.html, explanation, found, lang)
    raise typer.Exit(1 if found else 0)


def _explained(options: Examining) -> "Explanation":
    from ..probe import explain as run

    if options.batch is not None:
        at_least_one("batch", options.batch)
    found = resolve(options.target, options)
    explanation = run(found.model, *found.inputs, **found.kwargs)
    return explanation if found.name is None else replace(explanation, model=found.name)


def _show(explanation: "Explanation", found: Sequence["Finding"], target: str, *, opened: bool, lang: str) -> None:
    from rich.text import Text

    from ..probe.fold import fold
    from ..probe.names import by
    from ..probe.sentences import sentences
    from ..probe.tree import LEGEND, tree
    from .terminal import console as safe_console

    console = safe_console()
    head = say(
        "{framework}, input {shapes}, {forwards} forward and {backwards} backward passes.",
        framework=explanation.framework,
        shapes=joined(map(by, explanation.inputs), AND, AND),
        forwards=explanation.forwards,
        backwards=explanation.backwards,
    )
    console.print(Text(told(joined((head, LEGEND), SPACE), lang), style="dim"))
    console.print()
    console.print(tree(fold(explanation), explanation, opened=opened, lang=lang))
    console.print()
    for sentence in told((*sentences(explanation), *_once(explanation.notes)), lang):
        console.print(Text(sentence))
    if found:
        console.print()
        for finding in found:
            console.print(Text(told(finding.head, lang), style="bold"))
        where = say("What was measured, and what to do: dropkit doctor {target}", target=target)
        console.print(Text(told(where, lang)), soft_wrap=True)


def _once(notes: Sequence[str]) -> list[str]:
    """Notes, of those that differ by numbers alone the first."""
    alike: dict[str, list[str]] = {}
    for note in notes:
        alike.setdefault(re.sub(r"\d+", "0", note), []).append(note)
    again = template("So for {number} more.")
    return [joined((first, say(again, number=len(more)) if more else ""), SPACE) for first, *more in alike.values()]


def _write_page(path: Path | None, explanation: "Explanation", found: Sequence["Finding"], lang: str) -> None:
    if path is None:
        return
    from ..probe.fold import fold
    from ..probe.page import render_network
    from ..probe.sentences import sentences

    _write(path, render_network(explanation, fold(explanation), sentences(explanation), found, lang), "--html")
    typer.echo(told(say("Page: {path}", path=str(path.resolve())), lang), err=True)


def _write_json(path: str, text: str) -> None:
    if path == "-":
        typer.echo(text, nl=False)
    else:
        _write(Path(path), text, "--json")


def _write(path: Path, text: str, option: str) -> None:
    from ..errors import OutputError
    from ..lab.files import write_text

    try:
        write_text(path, text)
    except OutputError as error:
        raise OutputError(f"cannot write {path}: {error.__cause__}; give another file with {option}") from error
