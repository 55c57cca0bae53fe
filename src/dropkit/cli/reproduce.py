"""The command `reproduce`: a published table, run again, beside what was published."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..language import say, template, told
from ..plain import json_text
from .options import Lang, spoken

if TYPE_CHECKING:
    from ..reproduce import Outcome, Table

HEADINGS = (template("setting"), template("published"), template("band"), template("ours"), template("seeds"))


def reproduce(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A table; all are listed without.")] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", metavar="N", help="Of each row; the table's own.")] = None,
    row: Annotated[
        list[str] | None, typer.Option("--row", metavar="ROW", help="One row alone; may be repeated.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="Folder of cora/, mnist/, ...; or set DROPKIT_DATA.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON in place of the text.")] = False,
    lang: Lang = None,
) -> None:
    """Run a published table again: what was published beside what comes out here, with its band, seeds and time."""
    from ..reproduce import TABLES, table
    from ..reproduce import reproduce as run

    language = spoken(lang)
    if name is None:
        typer.echo(json_text([facts(each, known) for each, known in TABLES.items()]) if as_json else listed(language))
        return
    known = table(name)
    if as_json:
        found = run(name, row, seeds, data_dir)
        typer.echo(json_text({**facts(name, known), "rows": [_plain(outcome) for outcome in found]}))
        return
    head = partial(_head, known, len(row or known.rows), seeds or known.seeds, language)
    _show(known, run(name, row, seeds, data_dir, head, partial(_ended, language)), language)


def facts(name: str, table: "Table") -> dict[str, Any]:
    """What is known of a table before it is run, as plain values."""
    fields = ("title", "paper", "figure", "band", "settings", "seeds", "minutes")
    rows = [{"name": row.name, "published": row.published, "band": row.band} for row in table.rows]
    return {"name": name, **{field: getattr(table, field) for field in fields}, "rows": rows}


def _plain(outcome: "Outcome") -> dict[str, Any]:
    ours = outcome.ours
    published = {"name": outcome.row.name, "published": outcome.row.published, "band": outcome.row.band}
    found = {"mean": ours.mean, "half": ours.half, "sd": ours.sd, "inside": outcome.inside}
    return {**published, "values": list(outcome.values), **found, "seconds": outcome.seconds}


def listed(lang: str) -> str:
    """A line for each table."""
    from ..reproduce import TABLES

    words = template("{title}: {rows} figures, {minutes:g} minutes a seed")
    wide = max(map(len, TABLES))
    lines = [(name, say(words, title=t.title, rows=len(t.rows), minutes=t.minutes)) for name, t in TABLES.items()]
    return "\n".join(f"{name:{wide}}  {told(line, lang)}" for name, line in lines)


def _head(table: "Table", rows: int, seeds: int, lang: str) -> None:
    minutes = table.minutes * seeds * rows / len(table.rows)
    typer.echo(f"{table.title}\n{table.paper}\n")
    typer.echo(told(say("trained: {settings}", settings=table.settings), lang))
    typer.echo(told(say("bands: {band}", band=table.band), lang))
    typer.echo(told(say("takes some {minutes:.2g} minutes on two cores", minutes=minutes), lang) + "\n")


def _ended(lang: str, row: str, seed: int, value: float) -> None:
    typer.echo(told(say("{row}, seed {seed}: {value:.2f}", row=row, seed=seed, value=value), lang), err=True)


def _show(table: "Table", found: tuple["Outcome", ...], lang: str) -> None:
    from rich.table import Table as Grid
    from rich.text import Text

    from .terminal import console as safe_console

    console, grid = safe_console(), Grid(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for number, heading in enumerate(HEADINGS):
        grid.add_column(told(say(heading), lang), justify="right" if number else "left", overflow="fold")
    for heading in (say("inside"), say("time")):
        grid.add_column(told(heading, lang), justify="right")
    for outcome in found:
        ours, row = outcome.ours, outcome.row
        mean = f"{ours.mean:.2f}" if ours.half is None else f"{ours.mean:.2f} ± {ours.half:.2f}"
        verdict = told(say("yes") if outcome.inside else say("no"), lang)
        published, band = ("", "") if row.published is None else (f"{row.published:g}", f"± {row.band:g}")
        cells = (row.name, published, band, mean, str(ours.n), verdict if published else "")
        grid.add_row(*cells, f"{outcome.seconds:.0f} s")
    console.print(grid)
    console.print()
    note = say("{figure}; ours: mean over seeds, ± half of its 95 % interval", figure=table.figure)
    console.print(Text(told(note, lang), style="dim"))
