"""Several passes of one model at one step: how many, and what a site is called in each."""

import operator
from typing import Any

from .errors import DropkitTypeError, DropkitValueError


def passes_checked(n: Any) -> int:
    """How many passes, at least 1.

    >>> passes_checked(2)
    2
    """
    try:
        if isinstance(n, bool) or operator.index(n) < 1:
            raise DropkitValueError(f"passes needs at least one pass, got n={n!r}")
    except TypeError:
        raise DropkitTypeError(f"n must be an integer such as 2, got {n!r}") from None
    return operator.index(n)


def in_pass(site: int | str, turn: int | None) -> int | str:
    """The site's name in a pass: pass 0 is the ordinary draw.

    >>> in_pass("drop", 0), in_pass("drop", 1)
    ('drop', 'drop@1')
    """
    return f"{site}@{turn}" if turn else site


NESTED = "passes inside a pass of another block: take all of them in one, passes({what}, n)"
