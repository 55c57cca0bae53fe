"""Noise: the law of a dropout, what becomes of an element.

A law is a few numbers, functions of q, the probability of keeping, and at most one other tensor o:

    hard:  y = a x + b o where kept, c o where dropped        o = 1 if the law has no other
    soft:  y = m x + s                                        m, s functions of one random number an element

A law at p = 0 is the identity. Where no noise is on, y = x, unless the law has an `off` of its own: y = u x + v o.
"""

import math
from types import SimpleNamespace
from typing import Any, ClassVar

Numbers = tuple[Any, Any, Any]


# What a law needs of a library of arrays, for single Python numbers.
Plain = SimpleNamespace(
    sqrt=math.sqrt,
    where=lambda condition, yes, no: yes if condition else no,
    log=math.log,
    exp=math.exp,
    clip=lambda x, low, high: min(max(x, low), high),
)


class Hard:
    """Abstract: a law of two outcomes, kept or dropped, by the mask of `dropkit.keep`."""

    needs_other: ClassVar[bool] = False  # whether o is a tensor that the caller gives

    def numbers(self, q: Any, xp: Any = Plain) -> Numbers:
        """The law's (a, b, c) at q, a number or an array of `xp` (which has `where` and `sqrt`)."""
        raise NotImplementedError

    def off(self, q: Any) -> tuple[Any, Any] | None:
        """(u, v) of `y = u x + v o` where no noise is on; None for y = x."""
        return None

    def mean(self, q: float) -> tuple[float, float] | None:
        """(u, v) of `E[y] = u x + v o` where noise is on."""
        a, b, c = self.numbers(q)
        return q * a, q * b + ((1.0 - q) * c if q < 1 else 0.0)


class Soft:
    """Abstract: a law with a continuum of outcomes, by the keyed numbers of `dropkit.uniform` or `dropkit.normal`."""

    needs_other: ClassVar[bool] = False
    source: ClassVar[str]  # "uniform" or "normal"

    def factors(self, n: Any, q: Any, xp: Any) -> tuple[Any, Any]:
        """(m, s) of `y = m x + s` for random numbers n at q; s may be None for 0.

        n is an array of `xp`, and q one too, or a number that its `where`, `sqrt`, `log`, `exp` and
        `clip(x, low, high)` take; `law.looked_up` finds what only a table knows.
        """
        raise NotImplementedError

    def off(self, q: Any) -> tuple[Any, Any] | None:
        """As that of a hard law."""
        return None

    def mean(self, q: float) -> tuple[float, float] | None:
        """As that of a hard law; None where the law does not say."""
        return None


Noise = Hard | Soft


def inverse(q: Any, xp: Any) -> Any:
    """1 / q, and 0 where q is 0."""
    return xp.where(q > 0, 1.0 / xp.where(q > 0, q, 1.0), 0.0)
