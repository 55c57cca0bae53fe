"""Relaxed laws: soft stand-ins of a mask, of which the mean is an integral."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DropkitValueError
from ...threshold import ONE
from .law import Soft, inverse

Table = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Concrete(Soft):
    """A mask relaxed to numbers in (0, 1): `y = x z / (1 - p)`, `z = sigmoid((logit(1 - p) - logit(u)) / T)`.

    P(z < 1/2) = p at every T, and T towards 0 is inverted dropout. But E[z] is 1 - p for p = 1/2 alone: E[y] = 0.95 x
    at p = 0.1 and T = 2/3. `correct` divides by E[z] in place of 1 - p, and E[y] = x. p = 1 gives 0.

    Args:
        temperature: T, above 0; 0.1 as in concrete dropout, which takes 2/3 for channels.
        correct: divide by E[z].

    Raises:
        DropkitValueError: a temperature that is not positive and finite.

    Source: Maddison, Mnih and Teh 2017 (arXiv:1611.00712); Gal, Hron and Kendall 2017 (arXiv:1705.07832).

    >>> round(Concrete(2 / 3).mean(0.9)[0], 4), Concrete(2 / 3, correct=True).mean(0.9)[0]
    (0.9497, 1.0)
    """

    temperature: float = 0.1
    correct: bool = False
    source = "uniform"

    def __post_init__(self) -> None:
        _check(self.temperature, self.correct)

    def factors(self, n: Any, q: Any, xp: Any) -> tuple[Any, Any]:
        """`z / q`, or `z / E[z]`; 0 where q is 0 and 1 where it is 1."""
        scale = looked_up(_concrete_scales, self.temperature, q, xp) if self.correct else inverse(q, xp)
        return _between(q, _sigmoid((_logit(q, xp) - _odds(n, xp)) / self.temperature, xp) * scale, xp), None

    def mean(self, q: float) -> tuple[float, float]:
        """`E[z] / q`, 0; or 1, 0."""
        if self.correct or q in (0, 1):
            return float(q > 0), 0.0
        return float(_concrete_means(self.temperature, np.array([q]))[0]) / q, 0.0


@dataclass(frozen=True, slots=True)
class HardConcrete(Soft):
    """A relaxed mask stretched past its ends and cut: `y = x z`, exactly 0 with probability p, often exactly x.

        v = sigmoid((logit(u) + ln a) / T),   z = clip(1.2 v - 0.1, 0, 1),   ln a = logit(1 - p) + T ln(0.1 / 1.1)

    p is P(z = 0), as the rate of a dropout is; the authors start ln a at logit(1 - p), where P(z = 0) is less. Nothing
    is rescaled: E[y] = E[z] x, and in evaluation `y = clip(1.2 sigmoid(ln a) - 0.1, 0, 1) x`, which is not E[z] x.
    `correct` divides by E[z] in training, E[y] = x, and evaluation is `y = x`. p = 1 gives 0.

    Args:
        temperature: T, above 0.
        correct: divide by E[z].

    Raises:
        DropkitValueError: a temperature that is not positive and finite.

    Source: Louizos, Welling and Kingma 2018 (arXiv:1712.01312).

    >>> round(HardConcrete().mean(0.5)[0], 4), [round(u, 4) for u in HardConcrete().off(0.5)]
    (0.1943, [0.1018, 0.0])
    """

    temperature: float = 2 / 3
    correct: bool = False
    source = "uniform"

    def __post_init__(self) -> None:
        _check(self.temperature, self.correct)

    def factors(self, n: Any, q: Any, xp: Any) -> tuple[Any, Any]:
        """`z`, or `z / E[z]`; 0 where q is 0 and 1 where it is 1."""
        shift = self.temperature * math.log(-LOW / HIGH)
        v = _sigmoid((_odds(n, xp) + _logit(q, xp) + shift) / self.temperature, xp)
        z = xp.clip(v * (HIGH - LOW) + LOW, 0.0, 1.0)
        scale = looked_up(_hard_concrete_scales, self.temperature, q, xp) if self.correct else 1.0
        return _between(q, z * scale, xp), None

    def off(self, q: Any) -> tuple[Any, Any] | None:
        """The gate of sigmoid(ln a), 0; none where E[z] is divided out."""
        if self.correct:
            return None
        c = (-LOW / HIGH) ** self.temperature
        gate = q * c / (q * c + (1.0 - q)) * (HIGH - LOW) + LOW
        above = (gate + abs(gate)) * 0.5  # clipped by arithmetic that every library has, to 0 and 1 exactly
        return 1.0 - ((1.0 - above) + abs(1.0 - above)) * 0.5, 0.0

    def mean(self, q: float) -> tuple[float, float]:
        """`E[z]`, 0; or 1, 0."""
        if self.correct or q in (0, 1):
            return float(q > 0), 0.0
        return float(_hard_concrete_means(self.temperature, np.array([q]))[0]), 0.0


LOW, HIGH = -0.1, 1.1  # how far a gate is stretched past 0 and 1: gamma and zeta


def looked_up(table: Callable[[float], Table], parameter: float, q: Any, xp: Any) -> Any:
    """The entry at q of a table over t = 65536 q."""
    if isinstance(q, int | float | np.ndarray | np.generic):
        return table(parameter)[np.rint(np.asarray(q) * ONE).astype(np.int64)]
    return xp.take(table(parameter), q * ONE)


def _concrete_scales(temperature: float) -> Table:
    return _scales(_concrete_means, temperature)


def _hard_concrete_scales(temperature: float) -> Table:
    return _scales(_hard_concrete_means, temperature)


@lru_cache(maxsize=16)
def _scales(means: Callable[[float, NDArray[Any]], NDArray[Any]], temperature: float) -> Table:
    """1 / E[z] at every t, 1 at both ends."""
    q = np.arange(1, ONE) / ONE
    return np.concatenate([[1.0], 1 / means(temperature, q), [1.0]]).astype(np.float32)


for _table in (_concrete_scales, _hard_concrete_scales):
    _table._dynamo_marked_constant = True  # type: ignore[attr-defined]  # torch's compiler does not look inside


def _concrete_means(temperature: float, q: NDArray[Any]) -> NDArray[Any]:
    """E[z] = integral over s of P(z > s), with s = sigmoid(w): of `sigmoid'(w) sigmoid(logit(q) - T w)`.

    The trapezoid rule, whose error falls as exp(-2 pi d / h) for an integrand without poles within d of the real line.
    """
    step = 0.9 * min(1.0, 1.0 / temperature)
    w = np.arange(-40.0, 40.0, step)
    density = np.exp(-np.abs(w)) / (1 + np.exp(-np.abs(w))) ** 2
    logit = np.log(q) - np.log1p(-q)
    return sum(step * d / (1 + np.exp(temperature * x - logit)) for d, x in zip(density, w, strict=True))


def _hard_concrete_means(temperature: float, q: NDArray[Any]) -> NDArray[Any]:
    """E[z] = integral over s in (0, 1) of P(z > s), by Gauss and Legendre."""
    nodes, weights = np.polynomial.legendre.leggauss(48)
    r = ((nodes + 1) / 2 - LOW) / (HIGH - LOW)
    log_a = np.log(q) - np.log1p(-q) + temperature * math.log(-LOW / HIGH)
    odds = temperature * (np.log(r) - np.log1p(-r))
    return sum(weight / 2 / (1 + np.exp(o - log_a)) for weight, o in zip(weights, odds, strict=True))


def _check(temperature: float, correct: bool) -> None:
    number = isinstance(temperature, int | float) and not isinstance(temperature, bool)
    if not number or not 0 < temperature < math.inf:
        raise DropkitValueError(f"temperature must be a finite number above 0, got {temperature!r}")
    if not isinstance(correct, bool):
        raise DropkitValueError(f"correct must be True or False, got {correct!r}")


def _logit(q: Any, xp: Any) -> Any:
    """ln(q / p); 0 at both ends, which have no finite one."""
    inside = (q > 0) & (q < 1)
    safe = xp.where(inside, q, 0.5)
    return xp.log(safe) - xp.log(1.0 - safe)


def _odds(n: Any, xp: Any) -> Any:
    """ln(n / (1 - n)) of a uniform number, which is never 0 or 1."""
    return xp.log(n) - xp.log(1.0 - n)


def _sigmoid(x: Any, xp: Any) -> Any:
    return 1.0 / (1.0 + xp.exp(xp.clip(-x, -80.0, 80.0)))


def _between(q: Any, m: Any, xp: Any) -> Any:
    """m, but 0 where nothing is kept and 1 where all is."""
    return xp.where(q > 0, xp.where(q < 1, m, 1.0), 0.0)
