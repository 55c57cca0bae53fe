"""Every rate of every site, written down epoch by epoch: a CSV file, TensorBoard, or both."""

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from ...errors import DataError, DropkitValueError, OutputError
from ...writing import write_whole

EPOCH = "epoch"


class Writer(Protocol):
    """What a log needs of a `torch.utils.tensorboard.SummaryWriter`, or of its kin."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> object:
        """One point of a curve."""


class RateLog:
    """One row per epoch with the rate of every site, in a CSV file, and one curve `dropout/<site>` in TensorBoard.

    The file is replaced as a whole at each row, and floats are written to the last bit. A log of a file that is there
    goes on from it: a row takes the place of that epoch's and all later ones, so a run that was killed and resumed
    leaves the file of one that was not.

    Args:
        path: the CSV file; None for none. Columns are "epoch" and the sites.
        writer: anything with `add_scalar(tag, value, step)`, such as a SummaryWriter; None for none.

    Raises:
        DropkitValueError: neither path nor writer.
        DataError: the file is there and is no such table.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "rates.csv"
    >>> log = RateLog(path)
    >>> log.add(0, {"drop6": 0.5, "drop7": 0.25})
    >>> log.add(1, {"drop6": 0.4, "drop7": 0.25})
    >>> print(path.read_text())
    epoch,drop6,drop7
    0,0.5,0.25
    1,0.4,0.25
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, writer: Writer | None = None) -> None:
        if path is None and writer is None:
            raise DropkitValueError("a RateLog without a path or a writer keeps nothing; pass one of them")
        self.path = None if path is None else Path(path)
        self.writer = writer
        self.rows: list[dict[str, float]] = []  # each with its epoch and the sites' rates
        if self.path is not None and self.path.exists():
            self.rows = _read(self.path)

    def add(self, epoch: int, rates: Mapping[str, float]) -> None:
        """Write down the rates of an epoch, as `Schedule.rates()` or `site_rates(model)` gives them.

        Raises:
            DropkitValueError: no rates, or other sites than in the rows before.
            OutputError: the file cannot be written.
        """
        rows = [row for row in self.rows if row[EPOCH] < epoch]
        row = {EPOCH: epoch, **rates}
        if len(row) == 1:
            raise DropkitValueError(f"no rates to log at epoch {epoch}")
        if rows and list(rows[-1]) != list(row):
            raise DropkitValueError(
                f"the rows before epoch {epoch} are of the sites {', '.join(list(rows[-1])[1:])}, and this one of "
                f"{', '.join(rates)}; use another file"
            )
        rows.append(row)
        if self.path is not None:
            _write(self.path, rows)
        self.rows = rows
        if self.writer is not None:
            for site, p in rates.items():
                self.writer.add_scalar(f"dropout/{site}", p, epoch)


def _read(path: Path) -> list[dict[str, float]]:
    try:
        with path.open(newline="") as file:
            lines = list(csv.reader(file))
        names = lines[0]
        if names[0] != EPOCH:
            raise ValueError(f"its first column is {names[0]!r}, not {EPOCH!r}")
        return [dict(zip(names, [int(line[0]), *map(float, line[1:])], strict=True)) for line in lines[1:]]
    except (OSError, ValueError, IndexError) as error:
        raise DataError(
            f"cannot go on with {path} as a log of rates: {error}; delete it or use another file"
        ) from error


def _write(path: Path, rows: list[dict[str, float]]) -> None:
    text = io.StringIO()
    table = csv.DictWriter(text, fieldnames=list(rows[-1]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    try:
        write_whole(path, text.getvalue().encode())
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; choose another place") from error
