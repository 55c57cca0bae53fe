"""Ctrl-C in the command `dropkit`: while modules are imported it leaves with one word; later it is a KeyboardInterrupt.

An import may take seconds, and what is interrupted in it turns into errors of all kinds.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

STATUS = 130  # 128 and the number of the signal, as shells have it


def importing() -> None:
    """Leave at once from here on, where this process is the command; anywhere else nothing happens."""
    script = Path(sys.argv[0]) if sys.argv else Path()
    command = script.stem == "dropkit" and script.parent == Path(sys.executable).parent
    module = ("-m", "dropkit.cli") in zip(sys.orig_argv[1:], sys.orig_argv[2:], strict=False)
    if (command or module) and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        with suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGINT, _leave)


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """Until `interruptible` is called, Ctrl-C ends the process: "stopped", status 130, no traceback."""
    before = signal.getsignal(signal.SIGINT)
    # Who ignores it (nohup), or handles it otherwise, goes on doing so.
    ours = before in (signal.default_int_handler, _leave)
    if not ours or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def interruptible() -> None:
    """From now on Ctrl-C is a KeyboardInterrupt: all is imported, and there may be something to finish."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(number: int, frame: FrameType | None) -> None:
    with suppress(OSError, ValueError):
        os.write(2, b"stopped\n")
    with suppress(Exception):
        sys.stdout.flush()
    os._exit(STATUS)
