"""XLA's custom call to the CPU kernels: a library of its own, built where XLA's headers are at hand.

It is loaded by its path and knows no Python; a frontend registers `handler()` with JAX. Its numbers are those of the
extension module, so it is used together with that alone.
"""

import ctypes
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from dropkit.errors import DropkitValueError

from . import codes, extension, path_code
from .codes import PATHS

FILES = ("_ffi.so", "_ffi.dll")
LAWS, MOST_AXES = codes.LAWS, codes.MOST_AXES


def available() -> bool:
    """Whether the library is there and loads."""
    return codes.MODULE is not None and _library() is not None


def handler() -> Any:
    """The function that XLA calls, as a ctypes pointer.

    Raises:
        DropkitValueError: the library, or the extension module, is not there.
    """
    extension()
    library = _library()
    if library is None:
        raise DropkitValueError(
            "the CPU kernels were built without XLA's headers; reinstall dropkit with "
            "-C cmake.define.DROPKIT_XLA_INCLUDE=<what jax.ffi.include_dir() says>"
        )
    return library.dropkit_dropout


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL | None:
    for name in FILES:
        path = Path(__file__).with_name(name)
        if path.exists():
            try:
                library = ctypes.CDLL(str(path))
            except OSError:  # built for another machine
                return None
            forced = os.environ.get("DROPKIT_CPU")
            _configure(library, forced if forced in PATHS else None)
            return library
    return None


def _configure(library: ctypes.CDLL, path: str | None) -> str:
    """Set the path, None for the fastest, and the threads; the name of the path that runs."""
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return PATHS[library.dropkit_configure(path_code(path), threads)]
