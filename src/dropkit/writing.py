"""Files written whole or not at all, through a fresh neighbour that nobody can have planted."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

START, END = ".dropkit-", ".partial"
"""What the names of such neighbours begin and end with; those of processes that were killed may be deleted."""


def write_whole(path: Path, content: bytes) -> None:
    """Write a file atomically: into a new file beside it, which then takes the name.

    Whatever had the name is replaced, a symbolic link too: what it points at stays as it is. After a failure nothing is
    left behind.

    Args:
        path: of the file; its folder is there.
        content: all of it.

    Raises:
        OSError: the folder or the file cannot be written.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "file"
    >>> write_whole(path, b"whole")
    >>> path.read_bytes(), [each.name for each in path.parent.iterdir()]
    (b'whole', ['file'])
    """
    partial, number = _fresh(path.parent)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:  # Ctrl-C among them
        with suppress(OSError):
            partial.unlink()
        raise


def _fresh(folder: Path) -> tuple[Path, int]:
    """A file that was not there before, and its descriptor: no link is followed."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    for name in ("O_NOFOLLOW", "O_CLOEXEC", "O_BINARY"):  # not every system has all
        flags |= getattr(os, name, 0)
    while True:
        path = folder / f"{START}{secrets.token_hex(8)}{END}"
        try:
            return path, os.open(path, flags, 0o666)
        except FileExistsError:
            continue


def left_behind(name: str) -> bool:
    """Whether a file's name is that of such a neighbour.

    >>> left_behind(".dropkit-0123456789abcdef.partial"), left_behind("report.html")
    (True, False)
    """
    return name.startswith(START) and name.endswith(END)
