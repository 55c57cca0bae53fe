"""Hard laws: an element is kept or dropped, by the mask."""

import math
from dataclasses import dataclass
from typing import Any

from ...errors import DropkitValueError
from ...threshold import ONE
from .law import Hard, Numbers, Plain, inverse

ALPHA_PRIME = -1.7580993408473766  # -lambda * alpha of SELU


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
        return inverse(q, xp), 0.0, 0.0


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


@dataclass(frozen=True, slots=True)
class Raw(Hard):
    """Keep with probability 1 - p and do not rescale: `y = x m`, m in {0, 1}; in evaluation `y = (1 - p) x`.

    E[y] = (1 - p) x in training and in evaluation.

    Source: Hinton et al. 2012 (arXiv:1207.0580).

    >>> Raw().numbers(0.75), Raw().off(0.75)
    ((1.0, 0.0, 0.0), (0.75, 0.0))
    """

    def numbers(self, q: Any, xp: Any = Plain) -> Numbers:
        """1, 0, 0."""
        return 1.0, 0.0, 0.0

    def off(self, q: Any) -> tuple[Any, Any]:
        """q, 0."""
        return q, 0.0


@dataclass(frozen=True, slots=True)
class Fill(Hard):
    """Set dropped elements to a value and do not rescale: `y = x` where kept, `value` where dropped.

    E[y] = (1 - p) x + p value, and in evaluation `y = x`. Minus infinity on the scores of attention, before the
    softmax, is DropKey.

    Args:
        value: what a dropped element becomes; not NaN.

    Raises:
        DropkitValueError: NaN.

    Source: Li et al. 2023 (arXiv:2208.02646) for minus infinity; Vincent et al. 2008 for 0.

    >>> Fill(float("-inf")).numbers(0.5), Fill(2.0).mean(0.75)
    ((1.0, 0.0, -inf), (0.75, 0.5))
    """

    value: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.value, bool) or not isinstance(self.value, int | float) or math.isnan(self.value):
            raise DropkitValueError(f"value must be a number, or an infinity, got {self.value!r}")

    def numbers(self, q: Any, xp: Any = Plain) -> Numbers:
        """1, 0, value."""
        return 1.0, 0.0, float(self.value)


@dataclass(frozen=True, slots=True)
class Shakeout(Hard):
    """`y = (x + c p o) / (1 - p)` where kept, `-c o` where dropped, of weights x with o = sign(x); E[y] = x.

    c = 0 is inverted dropout. The weights of one input unit share a draw: the share says so.

    Args:
        c: the size that a dropped weight is set to, with the opposite sign.

    Raises:
        DropkitValueError: c is negative or not finite.

    Source: Kang, Li and Tao 2018 (arXiv:1904.06593).

    >>> Shakeout(c=0.5).numbers(0.5)
    (2.0, 0.5, -0.5)
    """

    c: float = 0.1
    needs_other = True

    def __post_init__(self) -> None:
        if isinstance(self.c, bool) or not isinstance(self.c, int | float) or not 0 <= self.c < math.inf:
            raise DropkitValueError(f"c must be a finite number of at least 0, got {self.c!r}")

    def numbers(self, q: Any, xp: Any = Plain) -> Numbers:
        """1/q, c p/q, -c."""
        return inverse(q, xp), self.c * (1.0 - q) * inverse(q, xp), -float(self.c)


@dataclass(frozen=True, slots=True)
class Mixout(Hard):
    """`y = (x - p o) / (1 - p)` where kept, `o` where dropped, of weights x and where they began, o; E[y] = x.

    The mean is kept at any p: o = 0 is inverted dropout, x = o stays as it is, and p = 1 gives o. The gradient in x is
    the true one, 1 / (1 - p) where kept.

    Source: Lee, Cho and Kang 2020 (arXiv:1909.11299).

    >>> Mixout().numbers(0.5)
    (2.0, -1.0, 1.0)
    """

    needs_other = True

    def numbers(self, q: Any, xp: Any = Plain) -> Numbers:
        """1/q, -p/q, 1."""
        return inverse(q, xp), -(1.0 - q) * inverse(q, xp), 1.0


def alpha_factors(t: int) -> Numbers:
    """`Alpha().numbers` at t, kept of 65536: `(scale, shift, dropped)` of alpha dropout.

    >>> [round(factor, 6) for factor in alpha_factors(32768)]
    [0.886405, 0.779194, -0.779194]
    """
    return Alpha().numbers(t / ONE)
