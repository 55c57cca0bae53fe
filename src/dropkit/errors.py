"""What dropkit raises. Every class is also the builtin that existing handlers catch."""

import difflib
from collections.abc import Iterable


class DropkitError(Exception):
    """Base of every error that dropkit raises on purpose."""


class DropkitValueError(DropkitError, ValueError):
    """A value outside what is allowed; the message echoes it and names the remedy."""


class DropkitTypeError(DropkitError, TypeError):
    """An argument of the wrong type; the message echoes it and names the remedy."""


class DropkitRuntimeError(DropkitError, RuntimeError):
    """A call that cannot work in the state that things are in; the message says which and what to do."""


class UnknownNameError(DropkitValueError):
    """A name that is not in a list of known ones; the message suggests the nearest.

    >>> raise UnknownNameError("recipe", "mlpp", ["mlp", "gan"])
    Traceback (most recent call last):
        ...
    dropkit.errors.UnknownNameError: unknown recipe 'mlpp'; did you mean 'mlp'? Known: gan, mlp
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]):
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        super().__init__(f"unknown {kind} {name!r}; {hint}Known: {', '.join(names)}")


class DataError(DropkitError, OSError):
    """A data file that is missing, truncated or not the one it claims to be."""


class OutputError(DropkitError, OSError):
    """A folder or file that cannot be written."""
