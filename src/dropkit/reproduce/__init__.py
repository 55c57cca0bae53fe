"""Published tables, each run again by one command: `dropkit reproduce NAME` prints what was published beside ours."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import UnknownNameError
from .published import TABLES as TABLES
from .table import Outcome as Outcome
from .table import Row as Row
from .table import Table as Table
from .table import Told, run


def names() -> tuple[str, ...]:
    """The tables that there are.

    >>> "dropedge-cora" in names()
    True
    """
    return tuple(TABLES)


def table(name: str) -> Table:
    """What was published, and how it is run.

    Raises:
        UnknownNameError: there is none of that name.

    >>> table("dropedge-cora").rows[1].published
    82.8
    """
    if name not in TABLES:
        raise UnknownNameError("table", name, names())
    return TABLES[name]


def reproduce(
    name: str,
    rows: Sequence[str] | None = None,
    seeds: int | None = None,
    data_dir: str | Path | None = None,
    ready: Callable[[], None] = lambda: None,
    told: Told = lambda row, seed, value: None,
) -> tuple[Outcome, ...]:
    """Run a published table again.

    Args:
        name: one of `names()`.
        rows: some of its rows; all of them by default.
        seeds: how many of each row, 0, 1, ...; the table's own by default.
        data_dir: the folder of the data; DROPKIT_DATA by default.
        ready: called when all is checked, before the first run.
        told: called with row, seed and value of each run that has ended.

    Raises:
        UnknownNameError: no such table, or no such row.
        DropkitValueError, DropkitTypeError: seeds that are no whole number of at least 1.
        DataError: the data are not there, or are not what was published.

    >>> try:
    ...     reproduce("dropedge-cora", seeds=0)
    ... except ValueError as error:
    ...     print(error)
    seeds must be at least 1, got 0
    """
    return run(table(name), rows, seeds, data_dir, ready, told)
