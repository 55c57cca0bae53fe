"""Files of a run: written whole or not at all, read without running code."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import DataError, DropkitValueError, OutputError
from ...plain import finite, json_text
from ...writing import left_behind, write_whole
from . import lock
from .sealed import read_plain, with_sum, without_sum

AGAIN = "delete its folder and run again"


def write_bytes(path: Path, content: bytes) -> None:
    """`write_whole`, whose error names the remedy.

    Raises:
        OutputError: the folder or the file cannot be written.
    """
    try:
        write_whole(path, content)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; choose another folder with --out"
        ) from error


def write_text(path: Path, content: str) -> None:
    """`write_bytes` of UTF-8 text; what UTF-8 cannot say, a raw byte of a file's name, as an escape."""
    write_bytes(path, content.encode(errors="backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """`write_bytes` of indented JSON; a number that is not finite, which JSON cannot hold, becomes null."""
    write_text(path, json_text(value))


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """`write_json` of values with their sum beside them, for `read_sealed_json`."""
    write_json(path, with_sum(finite(value)))


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """`write_bytes` of a CSV table; floats are written so that reading gives the same bits. What a row lacks, since an
    older version wrote it, is "nan".
    """
    text = io.StringIO()
    names = dict.fromkeys(name for row in rows for name in row)
    table = csv.DictWriter(text, fieldnames=list(names), restval="nan", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_text(path, text.getvalue())


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        DataError: the file is missing or is not JSON.
    """
    try:
        return read_plain(path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; {AGAIN}") from error
    except ValueError as error:
        raise DataError(f"cannot read {path}: {error}; {AGAIN}") from error


def read_sealed_json(path: Path) -> dict[str, Any]:
    """The values in a JSON file that `write_sealed` wrote.

    Raises:
        DataError: the file is missing, damaged or changed.
    """
    try:
        return without_sum(read_json(path))
    except DropkitValueError as error:
        raise DataError(f"cannot read {path}: {error}; {AGAIN}") from error


def claim(folder: Path, *, resume: bool) -> bool:
    """Make sure that a folder can take a run, and tell whether it holds one already.

    Raises:
        OutputError: it cannot be written, it holds a run and `resume` is False, or it holds other files.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = {path.name for path in folder.iterdir()} - {lock.NAME}
        for name in {name for name in names if left_behind(name)}:  # by a process that was killed
            (folder / name).unlink()
            names.remove(name)
        write_whole(folder / lock.PROBE, b"")
        (folder / lock.PROBE).unlink()
    except OSError as error:
        raise OutputError(
            f"cannot write to {folder}: {error.strerror or error}; choose another folder with --out"
        ) from error
    started = "config.json" in names
    if started and not resume:
        raise OutputError(
            f"{folder} already holds a run and nothing was changed; continue it with --resume or choose another --out"
        )
    if not started and names:
        raise OutputError(f"{folder} holds other files ({min(names)}, ...); choose an empty or new folder with --out")
    return started
