"""Names that patterns mean, as in `fnmatch`; a pattern that means nothing is an error, which is worded here."""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

from .errors import DropkitTypeError, DropkitValueError

_SHOWN = 20  # names that a message lists


def one(given: Any, example: str) -> str:
    """The one pattern that is given.

    Raises:
        DropkitTypeError: it is no string; the message has the example.

    >>> one("encoder.*", "encoder.*")
    'encoder.*'
    """
    if not isinstance(given, str):
        raise DropkitTypeError(f"pattern must be a str such as {example!r}, got {given!r}")
    return given


def several(argument: str, given: Any, example: str) -> tuple[str, ...]:
    """The patterns that an argument of this name gives, one or several.

    Raises:
        DropkitTypeError: there is none, or one of them is no string.

    >>> several("sites", "encoder.*", "encoder.*"), several("sites", ["a", "b"], "encoder.*")
    (('encoder.*',), ('a', 'b'))
    """
    found = (given,) if isinstance(given, str) else tuple(given)
    if not found or not all(isinstance(pattern, str) for pattern in found):
        raise DropkitTypeError(f"{argument} must be a pattern such as {example!r} or a list of them, got {given!r}")
    return found


def matches(names: Iterable[str], *patterns: str) -> bool:
    """Whether one of the patterns means one of the names; upper and lower case differ on every system.

    >>> matches(["encoder.0.drop", "shared"], "encoder.*"), matches(["Drop"], "drop", "d*")
    (True, False)
    """
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def unmatched(said: str, kind: str, owner: str, known: str, more: str = "") -> DropkitValueError:
    """The error of a pattern that means nothing.

    Args:
        said: the pattern as the message names it, "pattern 'encoder.*'".
        kind: what it should have matched, "no rate", or "nothing".
        owner: whose names they are.
        known: the names that there are.
        more: what else is to be said.

    >>> raise unmatched("pattern 'decoder.*'", "no rate", "Net", listed(["encoder.drop"]))
    Traceback (most recent call last):
        ...
    dropkit.errors.DropkitValueError: pattern 'decoder.*' matches no rate in Net; it has encoder.drop
    """
    return DropkitValueError(f"{said} matches {kind} in {owner}; it has {known}{more}")


def listed(names: Iterable[str]) -> str:
    """Names for a message: the first twenty, and how many more.

    >>> listed(["a", "b"]), listed([]), listed(map(str, range(22)))[-13:]
    ('a, b', 'none', '19 and 2 more')
    """
    found = list(names)
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more if found else "none"
