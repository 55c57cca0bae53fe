"""What becomes of a shaken branch, as a law."""

import math
from dataclasses import dataclass
from typing import Any

from ...axes.noise import Plain as Plain
from ...axes.noise import Soft
from ...errors import DropkitValueError


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

    def mean(self, q: float) -> tuple[float, float]:
        """The same: evaluation gives what the noise gives in the mean."""
        u, v = self.off(q)
        return float(u), float(v)
