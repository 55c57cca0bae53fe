"""The commands `explain` and `doctor`: what dropout does in a model, and what about it is likely not meant."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from ..probe.explanation import Explanation
    from ..probe.findings import Finding

TargetName = Annotated[
    str, typer.Argument(metavar="TARGET", help="A recipe, module:factory (or module:model), or a .keras file.")
]
Shapes = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="SHAPE",
        help="Of one sample, such as 3,150,150, or 128:int64 for indices; again for each further input.",
    ),
]
DataFile = Annotated[
    Path | None,
    typer.Option("--data", metavar="FILE", help="Samples in place of random ones: .npy, .npz, .safetensors."),
]
Batch = Annotated[int | None, typer.Option("--batch", metavar="N", help="Samples in the run; 8.")]
Seed = Annotated[int, typer.Option("--seed", metavar="K", help="Of first weights and random inputs.")]
Strategy = Annotated[str | None, typer.Option("--strategy", metavar="NAME", help="Of a recipe, such as fixed:0.3.")]
Size = Annotated[str | None, typer.Option("--size", help="Of a recipe: tiny, small or full; full.")]
Json = Annotated[
    str | None, typer.Option("--json", metavar="[FILE]", help="Write JSON, without a file in place of the text.")
]
Html = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Also write a page with the network drawn.")]
Ignore = Annotated[
    list[str] | None,
    typer.Option("--ignore", metavar="CODE", help="A finding not to look for, such as DK108; again for each further."),
]
All = Annotated[bool, typer.Option("--all", help="Show all layers: nothing is folded.")]


class OptionalFile(TyperCommand):
    """A command whose `--json` may stand without its file."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put "-" behind a `--json` that nothing follows, or another option."""
        for place in reversed([place for place, word in enumerate(args) if word == "--json"]):
            if args[place + 1 : place + 2] == [] or args[place + 1].startswith("--"):
                args.insert(place + 1, "-")
        return super().parse_args(ctx, args)


def explain(
    target: TargetName,
    shapes: Shapes = None,
    data: DataFile = None,
    batch: Batch = None,
    seed: Seed = 0,
    strategy: Strategy = None,
    size: Size = None,
    as_json: Json = None,
    html: Html = None,
    every: All = False,
) -> None:
    """Tell which layers each dropout of a model zeroes, and whose outputs and gradients it changes."""
    explanation = _explained(target, shapes or (), data, batch, seed, strategy, size)
    from ..probe.findings import findings
    from ..probe.sentences import to_json

    found = findings(explanation)
    if as_json is not None:
        _write_json(as_json, to_json(explanation))
    if as_json != "-":
        _show(explanation, found, target, opened=every)
    _write_page(html, explanation, found)


def doctor(
    target: TargetName,
    shapes: Shapes = None,
    data: DataFile = None,
    batch: Batch = None,
    seed: Seed = 0,
    strategy: Strategy = None,
    size: Size = None,
    as_json: Json = None,
    html: Html = None,
    ignore: Ignore = None,
) -> None:
    """Tell what about a model's dropout is likely not meant; exit status 1 if there is anything.

    With a code in place of the target, such as DK109: what it means, how it is measured, and when to ignore it.
    """
    from ..probe.findings import check_codes, findings
    from ..probe.findings.about import about
    from ..probe.sentences import findings_json

    if about(target.upper()):
        typer.echo(about(target.upper()))
        return
    ignored = [code.upper() for code in ignore or ()]
    check_codes(ignored)
    explanation = _explained(target, shapes or (), data, batch, seed, strategy, size)
    found = findings(explanation, ignored)
    if as_json is not None:
        _write_json(as_json, findings_json(explanation, ignored))
    if as_json != "-":
        typer.echo(found)
    _write_page(html, explanation, found)
    raise typer.Exit(1 if found else 0)


def _explained(
    target: str,
    shapes: Sequence[str],
    data: Path | None,
    batch: int | None,
    seed: int,
    strategy: str | None,
    size: str | None,
) -> "Explanation":
    from ..lab.recipes.recipe import at_least_one
    from ..probe import explain as run
    from .target import Options, resolve

    if batch is not None:
        at_least_one("batch", batch)
    options = Options(shapes=shapes, data=data, batch=batch, seed=seed, strategy=strategy, size=size)
    found = resolve(target, options)
    explanation = run(found.model, *found.inputs, **found.kwargs)
    return explanation if found.name is None else replace(explanation, model=found.name)


def _show(explanation: "Explanation", found: Sequence["Finding"], target: str, *, opened: bool) -> None:
    from rich.text import Text

    from ..probe.fold import fold
    from ..probe.sentences import sentences
    from ..probe.tree import LEGEND, tree
    from .terminal import console as safe_console

    console = safe_console()
    shapes = " and ".join(" x ".join(map(str, shape)) for shape in explanation.inputs)
    passes = f"{explanation.forwards} forward and {explanation.backwards} backward passes"
    console.print(Text(f"{explanation.framework}, input {shapes}, {passes}. {LEGEND}", style="dim"))
    console.print()
    console.print(tree(fold(explanation), explanation, opened=opened))
    console.print()
    for sentence in (*sentences(explanation), *_once(explanation.notes)):
        console.print(Text(sentence))
    if found:
        console.print()
        for finding in found:
            console.print(Text(f"{finding.code} {finding.site or '(the model)'}: {finding.title}", style="bold"))
        console.print(Text(f"What was measured, and what to do: dropkit doctor {target}"), soft_wrap=True)


def _once(notes: Sequence[str]) -> list[str]:
    """Notes, of those that differ by numbers alone the first."""
    alike: dict[str, list[str]] = {}
    for note in notes:
        alike.setdefault(re.sub(r"\d+", "0", note), []).append(note)
    return [first + (f" So for {len(more)} more." if more else "") for first, *more in alike.values()]


def _write_page(path: Path | None, explanation: "Explanation", found: Sequence["Finding"]) -> None:
    if path is None:
        return
    from ..probe.fold import fold
    from ..probe.sentences import sentences
    from ..report.network import render_network

    _write(path, render_network(explanation, fold(explanation), sentences(explanation), found), "--html")
    typer.echo(f"Page: {path.resolve()}", err=True)


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
