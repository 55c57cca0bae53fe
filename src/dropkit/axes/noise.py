"""Noise: the law of a dropout, what becomes of an element.

A law is a few numbers, functions of q, the probability of keeping, and at most one other tensor o:

    hard:  y = a x + b o where kept, c o where dropped        o = 1 if the law has no other
    soft:  y = m x + s                                        m, s functions of one random number an element

A law at p = 0 is the identity. Where no noise is on, y = x, unless the law has an `off` of its own: y = u x + v o.
"""

import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

from ..threshold import ONE

ALPHA_PRIME = -1.7580993408473766  # -lambda * alpha of SELU
Numbers = tuple[Any, Any, Any]


# What a law needs of a library of arrays, for single Python numbers.
Plain = SimpleNamespace(sqrt=math.sqrt, where=lambda condition, yes, no: yes if condition else no)


class Hard:
    """Abstract: a law of two outcomes, kept or dropped, by the mask of `dropkit.keep`."""

    needs_other: ClassVar[bool] = False  # whether o is a tensor that the caller gives

    def numbers(self, q: Any, xp: Any = Plain) -> Numbers:
        """The law's (a, b, c) at q, a number or an array of `xp` (which has `where` and `sqrt`)."""
        raise NotImplementedError

    def off(self, q: Any) -> tuple[Any, Any] | None:
        """(u, v) of `y = u x + v o` where no noise is on; None for y = x."""
        return None


class Soft:
    """Abstract: a law with a continuum of outcomes, by the keyed numbers of `dropkit.uniform` or `dropkit.normal`."""

    needs_other: ClassVar[bool] = False
    source: ClassVar[str]  # "uniform" or "normal"

    def factors(self, n: Any, q: Any, xp: Any) -> tuple[Any, Any]:
        """(m, s) of `y = m x + s` for random numbers n at q; s may be None for 0.

        n is an array of `xp`, and q one too, or a number that its `where` and `sqrt` take.
        """
        raise NotImplementedError

    def off(self, q: Any) -> tuple[Any, Any] | None:
        """As that of a hard law."""
        return None


Noise = Hard | Soft


@dataclass(frozen=True, slots=True)
class Bernoulli(Hard):
    """Keep with probability 1 - p and divide by it (inverted dropout): `y = x * m / (1 - p)`, m in {0, 1}.

    E[y] = x and Var[y] = x^2 p / (1 - p); nothing is left to do at evaluation.

    Source: Hinton et al. 2012 (arXiv:1207.0580); Srivastava et al. 2014 (JMLR 15:1929).

    >>> Bernoulli(), Bernoulli().numbers(0.5)
    (Bernoulli(), (2.0, 0.0, 0.0))
    """

    def numbers(self, q: Any, xp: Any = Plain) -> Numbers:
        """1/q, 0, 0."""
        return xp.where(q > 0, 1.0 / xp.where(q > 0, q, 1.0), 0.0), 0.0, 0.0


@dataclass(frozen=True, slots=True)
class Alpha(Hard):
    """Drop to the value at which SELU saturates and rescale: `y = a x + b` if kept, `a alpha' + b` if dropped.

    alpha' = -1.7581 is SELU's limit at minus infinity, `a = ((1 - p)(1 + p alpha'^2))^(-1/2)` and `b = -a p alpha'`:
    inputs of mean 0 and variance 1 keep both, which zeros would not. For networks of SELU units; p = 1 gives 0.

    Source: Klambauer et al. 2017 (arXiv:1706.02515), section "New Dropout Technique".

    >>> [round(number, 6) for number in Alpha().numbers(0.5)]
    [0.886405, 0.779194, -0.779194]
    """

    def numbers(self, q: Any, xp: Any = Plain) -> Numbers:
        """a, b and `a alpha' + b`; all 0 where nothing is kept."""
        # Every step is one that IEEE rounds correctly (a power is not), so that all libraries agree.
        p, some = 1.0 - q, q > 0
        safe = xp.where(some, q, 1.0)
        a = xp.where(some, 1.0 / xp.sqrt(safe * (1.0 + p * (ALPHA_PRIME * ALPHA_PRIME))), 0.0)
        b = -a * p * ALPHA_PRIME
        return a, b, xp.where(q < 1, a * ALPHA_PRIME + b, 0.0)


@dataclass(frozen=True, slots=True)
class Gaussian(Soft):
    """Multiplicative Gaussian noise with the variance of inverted dropout: `y = x (1 + sqrt(p / (1 - p)) z)`, z normal.

    E[y] = x and Var[y] = x^2 p / (1 - p), and nothing is ever exactly 0; p = 1, where the variance has no value, gives
    0.

    Source: Srivastava et al. 2014 (JMLR 15:1929), section 10.

    >>> Gaussian()
    Gaussian()
    """

    source = "normal"

    def factors(self, n: Any, q: Any, xp: Any) -> tuple[Any, Any]:
        """`1 + sqrt(p / q) n`, 0 where q is 0; nothing is added."""
        some = q > 0
        return xp.where(some, 1.0 + xp.sqrt((1.0 - q) / xp.where(some, q, 1.0)) * n, 0.0), None


@dataclass(frozen=True, slots=True)
class Zoneout(Hard):
    """A dropped unit keeps its previous value o: `y = x` where kept, `o` elsewhere; `q x + p o` where no noise is on.

    The other tensor is the state of the step before, of a recurrent network's h or c: each with a rate of its own.

    Source: Krueger et al. 2017 (arXiv:1606.01305).

    >>> Zoneout().numbers(0.75), Zoneout().off(0.75)
    ((1.0, 0.0, 1.0), (0.75, 0.25))
    """

    needs_other = True

    def numbers(self, q: Any, xp: Any = Plain) -> Numbers:
        """1, 0, 1."""
        return 1.0, 0.0, 1.0

    def off(self, q: Any) -> tuple[Any, Any]:
        """q, p: what the noise gives in the mean."""
        return q, 1.0 - q


def alpha_factors(t: int) -> Numbers:
    """`Alpha().numbers` at t, kept of 65536: `(scale, shift, dropped)` of alpha dropout.

    >>> [round(factor, 6) for factor in alpha_factors(32768)]
    [0.886405, 0.779194, -0.779194]
    """
    return Alpha().numbers(t / ONE)
