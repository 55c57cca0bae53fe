"""Noise of branches and layers: laws that let a branch go whole, or mix it with what stands beside it."""

import math
from dataclasses import dataclass
from typing import Any

from ...axes.noise import Hard, Numbers, Plain, Soft
from ...errors import DropkitValueError


@dataclass(frozen=True, slots=True)
class Unscaled(Hard):
    """Keep with probability 1 - p and leave it as it is: `y = x * m`, and `y = x` in evaluation.

    E[y] = (1 - p) x: the mean is not kept.

    Source: LayerDrop (Fan et al. 2020, arXiv:1909.11556); `scale_by_keep=False` of timm's DropPath.

    >>> Unscaled().numbers(0.5)
    (1.0, 0.0, 0.0)
    """

    def numbers(self, q: Any, xp: Any = Plain) -> Numbers:
        """1, 0, 0."""
        return 1.0, 0.0, 0.0


@dataclass(frozen=True, slots=True)
class Shaken(Soft):
    """Keep with probability 1 - p, else multiply by a uniform number: `y = x` if u < q, `x (low + (high - low) u')`.

    u' = (u - q) / p is uniform once u >= q, so one random number decides both. In evaluation y is the expectation,
    `(q + p (low + high) / 2) x`, which is q x for (-1, 1).

    Args:
        low, high: ends of the uniform number.

    Raises:
        DropkitValueError: ends that are not finite, or the wrong way round.

    Source: ShakeDrop (Yamada et al. 2019, arXiv:1802.02375), whose b + alpha - b alpha this is.

    >>> Shaken().factors(0.25, 0.5, Plain), Shaken().factors(0.75, 0.5, Plain), Shaken().off(0.5)
    ((1.0, None), (0.0, None), (0.5, 0.0))
    """

    low: float = -1.0
    high: float = 1.0
    source = "uniform"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise DropkitValueError(f"low and high must be finite with low <= high, got {self.low!r}, {self.high!r}")

    def factors(self, n: Any, q: Any, xp: Any) -> tuple[Any, Any]:
        """1 below q, uniform above; nothing is added."""
        p = 1.0 - q
        some = p > 0
        within = (n - q) / xp.where(some, p, 1.0)
        return xp.where(n < q, 1.0, self.low + (self.high - self.low) * within), None

    def off(self, q: Any) -> tuple[Any, Any]:
        """q + p (low + high) / 2, 0."""
        return q + (1.0 - q) * ((self.low + self.high) / 2), 0.0


@dataclass(frozen=True, slots=True)
class Raw(Hard):
    """Keep with probability 1 - p and leave it as it is; in evaluation take the expectation: `y = x * m`, `(1 - p) x`.

    Source: Hinton et al. 2012 (arXiv:1207.0580).

    >>> Raw().numbers(0.5), Raw().off(0.5)
    ((1.0, 0.0, 0.0), (0.5, 0.0))
    """

    def numbers(self, q: Any, xp: Any = Plain) -> Numbers:
        """1, 0, 0."""
        return 1.0, 0.0, 0.0

    def off(self, q: Any) -> tuple[Any, Any]:
        """q, 0."""
        return q, 0.0
