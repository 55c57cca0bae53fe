"""A published table, and what came out here beside it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import DropkitTypeError, DropkitValueError, UnknownNameError
from ..lab.statistics.interval import Interval, mean_interval


@dataclass(frozen=True, slots=True)
class Row:
    """One published figure.

    Args:
        name: of the setting.
        published: the figure; None for a setting beside the published ones, of which nothing is published.
        band: how far ours may be from it.

    >>> Row("DropEdge", 82.8, 1.5).holds(81.4)
    True
    """

    name: str
    published: float | None = None
    band: float = 0.0

    def holds(self, mean: float) -> bool | None:
        """Whether a mean lies inside the band; None where nothing is published."""
        return None if self.published is None else abs(mean - self.published) <= self.band + 1e-9


@dataclass(frozen=True, slots=True)
class Table:
    """A published table as it can be run here.

    Args:
        title: what it is of.
        paper: where it is from, as the grid has it.
        figure: what its numbers are: "test accuracy, %".
        rows: its figures.
        band: what the bands are taken from.
        settings: what was trained, as published, and what is different here.
        seeds: how many are run unless said.
        minutes: that one seed of all rows takes on two cores, about.
        module: of `dropkit.reproduce`, loaded when it runs; has `prepare(data_dir)` and `train(prepared, row, seed)`.

    >>> from dropkit.reproduce import TABLES
    >>> TABLES["dropedge-cora"].figure
    'test accuracy, %'
    """

    title: str
    paper: str
    figure: str
    rows: tuple[Row, ...]
    band: str
    settings: str
    seeds: int
    minutes: float
    module: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """A row beside what came out.

    Args:
        row: what was published.
        values: of each seed.
        seconds: that they took together.

    >>> found = Outcome(Row("DropEdge", 82.8, 1.5), (82.0, 82.6), 9.0)
    >>> round(found.ours.mean, 1), found.inside
    (82.3, True)
    """

    row: Row
    values: tuple[float, ...]
    seconds: float

    @property
    def ours(self) -> Interval:
        """Mean over the seeds, with its interval."""
        return mean_interval(self.values)

    @property
    def inside(self) -> bool | None:
        """Whether the mean lies inside the band; None where nothing is published."""
        return self.row.holds(self.ours.mean)


Told = Callable[[str, int, float], None]  # of a run that has ended: row, seed, value


def run(
    table: Table,
    rows: Sequence[str] | None,
    seeds: int | None,
    data_dir: str | Path | None,
    ready: Callable[[], None],
    told: Told,
) -> tuple[Outcome, ...]:
    """Train every row with seeds 0, 1, ...; what can be refused is refused before `ready` is called.

    Raises:
        DropkitValueError, DropkitTypeError: fewer than one seed, or no whole number of them.
        UnknownNameError: a row that the table does not have.
        DataError: the data are not there.
    """
    names = tuple(row.name for row in table.rows)
    if isinstance(rows, str):
        rows = [rows]
    for name in rows or ():
        if name not in names:
            raise UnknownNameError("row", name, names)
    count = table.seeds if seeds is None else seeds
    if type(count) is not int:
        raise DropkitTypeError(f"seeds must be a whole number, got {count!r}")
    if count < 1:
        raise DropkitValueError(f"seeds must be at least 1, got {count}")
    work: Any = import_module(f".{table.module}", __package__)
    prepared, found = work.prepare(data_dir), []
    ready()
    for row in table.rows:
        if rows and row.name not in rows:
            continue
        values, start = [], time.monotonic()
        for seed in range(count):
            values.append(float(work.train(prepared, row.name, seed)))
            told(row.name, seed, values[-1])
        found.append(Outcome(row, tuple(values), time.monotonic() - start))
    return tuple(found)
