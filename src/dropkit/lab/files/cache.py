"""Where is kept what took long and can be computed again: between runs, and without it nothing is lost."""

import os
from collections.abc import Callable
from pathlib import Path

from ...errors import OutputError
from ...language import say, template

VARIABLE = "DROPKIT_CACHE"


def cache(name: str) -> Path:
    """A folder of the cache: below DROPKIT_CACHE, and without that variable in the user's own cache folder."""
    root = os.environ.get(VARIABLE)
    if not root:
        import pooch

        root = str(pooch.os_cache("dropkit"))
    return Path(root) / name


def kept_in(path: Path) -> str:
    """Says where a file is kept."""
    return say("kept in {path}", path=str(path))


def keep(path: Path, write: Callable[[], None]) -> str:
    """Make a file's folder and write it; says where it is kept, or why not, for a run can do without.

    >>> def write():
    ...     raise OSError("the disk is full")
    >>> keep(Path("kept"), write)
    'not kept (the disk is full): set DROPKIT_CACHE to a folder that can be written'
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write()
    except (OSError, OutputError) as error:
        reason = error.__cause__ or error
        words = template("not kept ({reason}): set {variable} to a folder that can be written")
        return say(words, reason=str(reason), variable=VARIABLE)
    return kept_in(path)
