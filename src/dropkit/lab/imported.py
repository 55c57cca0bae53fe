"""What somebody names as `module:name`: found from the current folder too, called with every generator seeded."""

import difflib
import inspect
import os
import random
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DropkitRuntimeError, DropkitTypeError, DropkitValueError
from ..visible import a_type

SEED = "seed"  # the parameter by which a function of the user's gets the seed


def is_named(text: Any) -> bool:
    """Whether a text names something in a module.

    >>> is_named("torch.nn:GELU"), is_named("adam"), is_named(None)
    (True, False, False)
    """
    return isinstance(text, str) and ":" in text


def imported(text: str) -> Any:
    """What `module:name` is; the name may have dots.

    Raises:
        DropkitValueError: there is no such module, or no such name in it; the nearest are told.
        DropkitRuntimeError: importing the module fails.

    >>> imported("math:pi") > 3
    True
    """
    name, _, attribute = text.partition(":")
    if not (name and all(attribute.split("."))):
        raise DropkitValueError(f"{text!r} names nothing in a module: write module:name, such as my_models:cnn")
    if name.endswith(".py") or os.sep in name:
        written = name.removesuffix(".py").replace(os.sep, ".").strip(".")
        raise DropkitValueError(f"{name!r} is a path, and a module is named as in Python: {written}:{attribute}")
    # What it prints would stand in the middle of what is told.
    with redirect_stdout(sys.stderr):
        found: Any = _module(name)
        for number, step in enumerate(attribute.split(".")):
            if not hasattr(found, step):
                place = ".".join([name, *attribute.split(".")[:number]])
                raise DropkitValueError(f"{place} has no {step!r}{near(step, dir(found))}")
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
                f"{near(name, modules)}"
            ) from None
        raise DropkitRuntimeError(failed(f"importing {name}", error)) from error
    except (Exception, SystemExit) as error:
        raise DropkitRuntimeError(failed(f"importing {name}", error)) from error


def made(target: str, make: Callable[..., Any], seed: int, wanted: str) -> Any:
    """What a factory returns, with all generators seeded; it gets the seed too where it has a parameter `seed`.

    Args:
        target: what it is called in errors.
        make: takes nothing else.
        seed: an int in [0, 2**64).
        wanted: what the factory should be, for errors.

    Raises:
        DropkitTypeError: it cannot be called so.
        DropkitRuntimeError: it fails.

    >>> made("it", lambda seed: seed + 1, 4, "a function")
    5
    """
    if not callable(make):
        raise DropkitTypeError(f"{target} is {a_type(make)}, and neither a model nor {wanted}")
    words = {}
    try:
        signature = _signature(make)
        words = {SEED: seed} if SEED in signature.parameters else {}
        signature.bind(**words)
    except TypeError as error:
        raise DropkitTypeError(f"{target} cannot be called without arguments ({error}): give {wanted}") from None
    except ValueError:  # some builtins have no signature
        pass
    seed_all(seed)  # whatever importing the module drew
    try:
        with redirect_stdout(sys.stderr):
            return make(**words)
    except (Exception, SystemExit) as error:
        raise DropkitRuntimeError(failed(target, error)) from error


def _signature(make: Callable[..., Any]) -> inspect.Signature:
    """What it takes; of a class, what its `__init__` takes, where its metaclass hides that as flax' does."""
    if not inspect.isclass(make) or type(make).__call__ is type.__call__:
        return inspect.signature(make)
    found = inspect.signature(make.__init__)
    return found.replace(parameters=list(found.parameters.values())[1:])


def failed(what: str, error: BaseException) -> str:
    """One line on a failure in somebody's code, with the place."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{what} failed with {type(error).__name__}: {error}{place}"


def near(name: str, known: Sequence[str]) -> str:
    """The names that are nearest, as the end of a sentence."""
    found = difflib.get_close_matches(name, [each for each in known if not each.startswith("__")], n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(map(repr, found))}?" if found else ""


def seed_all(seed: int) -> None:
    """Make what others' code draws repeatable: Python's, NumPy's and torch's generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  # the generator that others' code may use
    if find_spec("torch") is not None:
        import torch

        torch.manual_seed(seed % 2**63)


@contextmanager
def generators_kept() -> Iterator[None]:
    """Give Python's, NumPy's and torch's generators back as they were, whatever is drawn inside."""
    python, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002
    tensors = None
    if find_spec("torch") is not None:
        import torch

        tensors = torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)  # noqa: NPY002
        if tensors is not None:
            torch.set_rng_state(tensors)
