"""Files of a run: written whole or not at all, read without running code."""

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError, OutputError
from ..probe.plain import json_text


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: into a neighbour first, which then takes the name.

    Raises:
        OutputError: the folder or the file cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; choose another folder with --out"
        ) from error


def write_text(path: Path, content: str) -> None:
    """`write_bytes` of UTF-8 text."""
    write_bytes(path, content.encode())


def write_json(path: Path, value: Any) -> None:
    """`write_bytes` of indented JSON; a number that is not finite, which JSON cannot hold, becomes null."""
    write_text(path, json_text(value))


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """`write_bytes` of a CSV table; floats are written so that reading gives the same bits."""
    text = io.StringIO()
    table = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_text(path, text.getvalue())


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        DataError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}; delete its folder and run again") from error


def claim(folder: Path, *, resume: bool) -> bool:
    """Make sure that a folder can take a run, and tell whether it holds one already.

    Raises:
        OutputError: it cannot be written, it holds a run and `resume` is False, or it holds other files.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = {path.name for path in folder.iterdir()}
        probe = folder / "config.json.partial"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"cannot write to {folder}: {error.strerror or error}; choose another folder with --out"
        ) from error
    started = "config.json" in names
    if started and not resume:
        raise OutputError(
            f"{folder} already holds a run and nothing was changed; continue it with --resume or choose another --out"
        )
    if not started and names - {"config.json.partial"}:
        raise OutputError(f"{folder} holds other files ({min(names)}, ...); choose an empty or new folder with --out")
    return started
