"""Soft laws: every element gets a number of its own."""

import math
from dataclasses import dataclass
from typing import Any

from ...errors import DropkitValueError
from .law import Soft


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

    def mean(self, q: float) -> tuple[float, float]:
        """1, 0; nothing is left at q = 0."""
        return float(q > 0), 0.0


@dataclass(frozen=True, slots=True)
class Uniform(Soft):
    """Multiply by uniform noise with the variance of dropout: `y = x (1 + b (2 u - 1))`, b = sqrt(3 p / (1 - p)).

    E[y] = x and Var[y] = x^2 p / (1 - p); b = 0.1 is p = 0.0033. Up to p = 1/4 no sign flips; p = 1, where the variance
    has no value, gives 0.

    Source: Li et al. 2019 (arXiv:1801.05134), "Uout".

    >>> from dropkit.axes.noise import Plain
    >>> Uniform().factors(1.0, 0.75, Plain)
    (2.0, None)
    """

    source = "uniform"

    def factors(self, n: Any, q: Any, xp: Any) -> tuple[Any, Any]:
        """`1 + b (2 n - 1)`, 0 where q is 0; nothing is added."""
        some = q > 0
        width = xp.sqrt(3.0 * (1.0 - q) / xp.where(some, q, 1.0))
        return xp.where(some, 1.0 + width * (2.0 * n - 1.0), 0.0), None

    def mean(self, q: float) -> tuple[float, float]:
        """1, 0; nothing is left at q = 0."""
        return float(q > 0), 0.0


@dataclass(frozen=True, slots=True)
class LogNormal(Soft):
    """Multiply by log-normal noise with the variance of inverted dropout: `y = x exp(s z - s^2 / 2)`, s^2 = -ln(1 - p).

    E[y] = x and Var[y] = x^2 p / (1 - p), and no sign flips; p = 1 gives 0.

    Source: Achille and Soatto 2018 (arXiv:1611.01353) multiply by log-normal noise, of a size that is learned.

    >>> from dropkit.axes.noise import Plain
    >>> LogNormal().factors(0.0, 0.25, Plain)
    (0.5, None)
    """

    source = "normal"

    def factors(self, n: Any, q: Any, xp: Any) -> tuple[Any, Any]:
        """`exp(s n - s^2 / 2)`, 0 where q is 0; nothing is added."""
        some = q > 0
        safe = xp.where(some, q, 1.0)
        s = xp.sqrt(-xp.log(safe))
        return xp.where(some, xp.exp(s * n) * xp.sqrt(safe), 0.0), None  # exp(-s^2 / 2) = sqrt(q)

    def mean(self, q: float) -> tuple[float, float]:
        """1, 0; nothing is left at q = 0."""
        return float(q > 0), 0.0


@dataclass(frozen=True, slots=True)
class AdditiveGaussian(Soft):
    """Add Gaussian noise of the size that dropout gives to elements of a size: `y = x + scale sqrt(p / (1 - p)) z`.

    E[y] = x and Var[y] = scale^2 p / (1 - p), whatever x is: for a standard deviation sd, p = sd^2 / (scale^2 + sd^2).
    p = 1, where the variance has no value, gives 0.

    Args:
        scale: the size of an element for which it has the variance of dropout.

    Raises:
        DropkitValueError: a scale that is not positive and finite.

    Source: Bishop 1995 (Neural Computation 7:108); Srivastava et al. 2014 (JMLR 15:1929), section 10, for the rate.

    >>> from dropkit.axes.noise import Plain
    >>> AdditiveGaussian(2.0).factors(1.0, 0.5, Plain)
    (1.0, 2.0)
    """

    scale: float = 1.0
    source = "normal"

    def __post_init__(self) -> None:
        _check_scale(self.scale)

    def factors(self, n: Any, q: Any, xp: Any) -> tuple[Any, Any]:
        """1 and `scale sqrt(p / q) n`; both 0 where q is 0."""
        some = q > 0
        size = self.scale * xp.sqrt((1.0 - q) / xp.where(some, q, 1.0))
        return xp.where(some, n * 0.0 + 1.0, 0.0), xp.where(some, size * n, 0.0)

    def mean(self, q: float) -> tuple[float, float]:
        """1, 0; nothing is left at q = 0."""
        return float(q > 0), 0.0


@dataclass(frozen=True, slots=True)
class AdditiveUniform(Soft):
    """Add uniform noise of the size that dropout gives to elements of a size: `y = x + b (2 u - 1)`, b from p.

    b = scale sqrt(3 p / (1 - p)), which is scale itself at p = 1/4. E[y] = x and Var[y] = scale^2 p / (1 - p), whatever
    x is; p = 1, where the variance has no value, gives 0.

    Args:
        scale: the size of an element for which it has the variance of dropout.

    Raises:
        DropkitValueError: a scale that is not positive and finite.

    Source: Jain et al. 2024 (arXiv:2310.05914), "NEFTune", whose scale is alpha / sqrt(L d) of L embeddings of width d.

    >>> from dropkit.axes.noise import Plain
    >>> AdditiveUniform(2.0).factors(1.0, 0.75, Plain)
    (1.0, 2.0)
    """

    scale: float = 1.0
    source = "uniform"

    def __post_init__(self) -> None:
        _check_scale(self.scale)

    def factors(self, n: Any, q: Any, xp: Any) -> tuple[Any, Any]:
        """1 and `scale sqrt(3 p / q) (2 n - 1)`; both 0 where q is 0."""
        some = q > 0
        size = self.scale * xp.sqrt(3.0 * (1.0 - q) / xp.where(some, q, 1.0))
        return xp.where(some, n * 0.0 + 1.0, 0.0), xp.where(some, size * (2.0 * n - 1.0), 0.0)

    def mean(self, q: float) -> tuple[float, float]:
        """1, 0; nothing is left at q = 0."""
        return float(q > 0), 0.0


def _check_scale(scale: Any) -> None:
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale < math.inf:
        raise DropkitValueError(f"scale must be a finite number above 0, got {scale!r}")
