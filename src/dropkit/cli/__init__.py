"""The command `dropkit`: errors made on purpose become one line and exit status 2."""

import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from ..errors import DropkitError
from ..interrupts import leaving_at_once
from ..visible import one_line, shown

# Top-level modules that come with the extra `lab`.
LAB = {
    "jinja2",
    "lightning_fabric",
    "markupsafe",
    "optuna",
    "pooch",
    "rich",
    "safetensors",
    "scipy",
    "sklearn",
    "torch",
    "torchmetrics",
    "typer",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: status 0, 2 for wrong input, 130 when interrupted.

    Args:
        arguments: without the program's name; those of the process by default.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    with shown(), leaving_at_once():
        try:
            _run(words)
        except DropkitError as error:
            _fail(str(error))
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if missing == "optuna":  # its error says what needs it
                _fail(str(error))
            if missing not in LAB:
                raise
            _fail(f'{missing} is not installed; the lab needs it: pip install "dropkit[lab]"')
        except BrokenPipeError:  # who read the output has gone
            raise
        except OSError as error:
            _fail(f"{error.strerror or error}: {error.filename}" if error.filename is not None else str(error))
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
            sys.exit(130)


def _run(words: list[str]) -> None:
    if words == ["--version"]:
        from .. import __version__

        print(f"dropkit {__version__}")
        sys.exit(0)
    if words == ["info"]:  # works with NumPy alone
        from ..choice import info_text

        print(info_text())
        sys.exit(0)
    # Imported here: without the extra there is no typer, and the error should say what to install.
    from .lab import app

    try:
        sys.exit(app(args=words, prog_name="dropkit", standalone_mode=False) or 0)
    except Exception as error:
        # Typer's errors of usage, by what they have: some versions of it bring a click of their own.
        if not hasattr(error, "format_message"):
            raise
        _fail(_usage(error, words))


def _usage(error: Any, words: Sequence[str]) -> str:
    """What is wrong with the words of a command, what was given, and where to read on."""
    context, message = getattr(error, "ctx", None), error.format_message()
    options = getattr(getattr(error, "param", None), "opts", ())
    given = [value for word, value in pairwise(words) if word in options]
    if given and repr(given[-1]) not in message:
        message = f"{message.rstrip('.')}, got {given[-1]!r}"
    return f"{message.rstrip('.')}; see {context.command_path if context is not None else 'dropkit'} -h"


def _fail(message: str) -> None:
    print("dropkit: error: " + one_line(message), file=sys.stderr)
    sys.exit(2)
