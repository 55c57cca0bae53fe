"""One process at a time in a folder: the lock is the system's own, which a killed process gives back."""

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ...errors import OutputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NAME, PROBE = ".dropkit.lock", ".dropkit.probe"
_held = threading.local()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a folder and hold its lock; in a block of the same thread that holds it already, nothing happens.

    Raises:
        OutputError: another process holds it, or the folder cannot be written.
    """
    mine: set[str] = _held.__dict__.setdefault("folders", set())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        name = os.path.realpath(folder)
        if name in mine:
            yield_only = True
        else:
            yield_only, number = False, _take(folder)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(
            f"cannot write to {folder}: {error.strerror or error}; choose another folder with --out"
        ) from error
    if yield_only:
        yield
        return
    mine.add(name)
    try:
        yield
    finally:
        mine.discard(name)
        _give_back(folder / NAME, number)


def _take(folder: Path) -> int:
    path = folder / NAME
    flags = os.O_RDWR | os.O_CREAT
    for name in ("O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK", "O_BINARY"):
        flags |= getattr(os, name, 0)
    while True:
        number = os.open(path, flags, 0o666)
        try:
            found = os.fstat(number)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
                raise OutputError(f"{path} is no lock of dropkit's; delete it")
            if not _locks(number):
                raise OutputError(
                    f"another dropkit process is writing here: PID {_owner(number)}, in {folder}; wait for it or "
                    "choose another --out"
                )
            if _same(path, found):
                os.ftruncate(number, 0)
                os.write(number, f"{os.getpid()}\n".encode())
                return number
        except BaseException:
            os.close(number)
            raise
        os.close(number)  # who held it has deleted it in between


def _locks(number: int) -> bool:
    """Take the system's lock on an open file, without waiting for it."""
    try:
        if fcntl is not None:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            _windows(number, unlock=False)
    except OSError as error:
        if isinstance(error, BlockingIOError | PermissionError):
            return False
        raise
    return True


def _windows(number: int, *, unlock: bool) -> None:
    import msvcrt

    module: Any = msvcrt
    os.lseek(number, 1 << 20, os.SEEK_SET)  # behind the PID, which others may read
    module.locking(number, module.LK_UNLCK if unlock else module.LK_NBLCK, 1)
    os.lseek(number, 0, os.SEEK_SET)


def _same(path: Path, found: os.stat_result) -> bool:
    try:
        now = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (now.st_dev, now.st_ino) == (found.st_dev, found.st_ino)


def _owner(number: int) -> str:
    text = os.pread(number, 20, 0) if hasattr(os, "pread") else os.read(number, 20)
    return text.decode("ascii", "replace").strip() or "unknown"


def _give_back(path: Path, number: int) -> None:
    """Delete the file while the lock is held: who waits opens a new one."""
    with suppress(OSError):
        if fcntl is None:  # an open file cannot be deleted
            _windows(number, unlock=True)
            os.close(number)
            path.unlink()
            return
        if _same(path, os.fstat(number)):
            path.unlink()
    with suppress(OSError):
        os.close(number)
