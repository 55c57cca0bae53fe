"""The command `methods`: the published dropouts of the grid, as a list or one with all its facts."""

import json
import textwrap
from typing import Annotated, Any

import typer

from ..grid import grid

WIDTH = 100


def methods(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A method; all are listed without.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON in place of the text.")] = False,
) -> None:
    """List the published dropouts, or tell of one: formula, usual rate, where it applies, paper, BibTeX."""
    names = grid.names() if name is None else (name,)
    if as_json:
        found = [facts(each) for each in names]
        typer.echo(json.dumps(found if name is None else found[0], indent=1))
    elif name is None:
        typer.echo(listed())
    else:
        typer.echo(one(name))


def facts(name: str) -> dict[str, Any]:
    """All that the grid says of a method, as plain values.

    Raises:
        UnknownNameError: there is none of that name.
    """
    variant = grid[name]
    fields = ("formula", "default", "place", "layout", "applies", "form", "torch", "keras", "jax", "paper", "bibtex")
    axes = {"noise": repr(variant.noise), "share": repr(variant.share), "when": variant.when.value}
    return {"name": name, **{field: getattr(variant, field) for field in fields}, **axes}


def listed() -> str:
    """A line for each method: its name, what it is put on, its paper."""
    wide = max(map(len, grid))
    places = max(len(variant.place) for variant in grid.values())
    return "\n".join(f"{name:{wide}}  {variant.place:{places}}  {variant.paper}" for name, variant in grid.items())


def one(name: str) -> str:
    """A method with all its facts."""
    known = facts(name)
    rows = {
        "formula": known["formula"],
        "usual p": str(known["default"]),
        "put on": f"{known['place']}, {known['layout']}",
        "applies to": known["applies"],
        "form": known["form"],
        "noise": known["noise"],
        "share": known["share"],
        **{room: known[room] and f"dropkit.{room}.{known[room]}" for room in ("torch", "keras", "jax")},
        "anywhere": f'dropkit.grid["{name}"]({known["default"]})',
        "paper": known["paper"],
    }
    wide = max(map(len, rows)) + 2
    shape = textwrap.TextWrapper(WIDTH, subsequent_indent=" " * wide, break_on_hyphens=False)
    told = []
    for label, text in rows.items():
        shape.initial_indent = f"{label:{wide}}"
        told += [shape.fill(text)] if text else []
    return "\n".join([name, "", *told, "", known["bibtex"]])
