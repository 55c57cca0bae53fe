"""What stands behind `module:function`: the module is imported with the current folder importable, the function "
"called."""

import difflib
import inspect
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from ....errors import DropkitRuntimeError, DropkitTypeError, DropkitValueError
from .objects import GIVES, seeded


def called(text: str) -> Any:
    """What a function without arguments gives; or what is there, where it is no function.

    Raises:
        DropkitValueError: no such module, or nothing of that name in it.
        DropkitTypeError: the function takes arguments.
        DropkitRuntimeError: the module or the function fails.
    """
    found = attribute(text)
    if not inspect.isroutine(found) and not inspect.isclass(found):
        return found
    try:
        inspect.signature(found).bind()
    except TypeError as error:
        raise DropkitTypeError(
            f"{text} cannot be called without arguments ({error}): give a function without arguments that gives {GIVES}"
        ) from None
    except ValueError:  # some builtins have no signature
        pass
    try:
        with seeded(0):  # so that a resumed run meets the same data
            return found()
    except (Exception, SystemExit) as error:
        raise DropkitRuntimeError(_failed(text, error)) from error


def attribute(text: str) -> Any:
    """What a module holds under a name.

    Raises:
        DropkitValueError: no such module, or nothing of that name in it.
        DropkitRuntimeError: importing the module fails.
    """
    name, _, path = text.partition(":")
    if name.endswith(".py") or os.sep in name:
        written = name.removesuffix(".py").replace(os.sep, ".").strip(".")
        raise DropkitValueError(f"{name!r} is a path, and a module is named as in Python: {written}:{path}")
    with seeded(0):
        found = _module(name)
    for number, step in enumerate(path.split(".")):
        if not hasattr(found, step):
            place = ".".join([name, *path.split(".")[:number]])
            raise DropkitValueError(f"{place} has no {step!r}{_near(step, dir(found))}")
        found = getattr(found, step)
    return found


def _module(name: str) -> Any:
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            modules = [path.stem for path in Path.cwd().glob("*.py")]
            raise DropkitValueError(
                f"there is no module {error.name!r} here or installed: run the command in the folder that it lies in"
                f"{_near(name, modules)}"
            ) from None
        raise DropkitRuntimeError(_failed(f"importing {name}", error)) from error
    except (Exception, SystemExit) as error:
        raise DropkitRuntimeError(_failed(f"importing {name}", error)) from error


def _failed(what: str, error: BaseException) -> str:
    """One line on a failure in somebody's code, with the place."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{what} failed with {type(error).__name__}: {error}{place}"


def _near(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, [each for each in known if not each.startswith("__")], n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
