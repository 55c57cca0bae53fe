"""The first units of an order are kept."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import DropkitTypeError, DropkitValueError
from ....place import Part
from ....threshold import ONE
from ..base import Refining, Uniform, placed_axes
from .along import apart, set_one_axis

Table = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Prefix(Refining):
    """The first k units along an axis are kept and the rest dropped, k drawn for each group: ordered, nested dropout.

    "geometric": unit j, from 0, is kept with probability r^j, k geometric, with r such that the mean rate over the
    units is p; beyond p = 1 - 1/n, where r = 0, the first unit goes too. "uniform": every prefix of 1 to n units is as
    likely; or weights of the n prefixes. At p = the mean rate of such a law the draws follow it; below, all units stay
    with some probability in its place, above none do, such that the mean rate is p.

    Args:
        over: the axis of the units, as a tuple of one; a negative one counts from the end.
        law: "geometric", "uniform", or n weights of keeping the first unit, the first two, ..., all n.
        axes: axes that share a draw, as those of `Axes`: (2, 3) of N x C x H x W, with over=(1,), drops whole channels.

    Raises:
        DropkitTypeError, DropkitValueError: not integers, not one axis, one that is shared too; a law that is none, or
            never cuts; when a tensor comes, an axis that it does not have, another number of units than weights, or
            units that rows place.

    Source: Rippel, Gelbart and Adams 2014 (arXiv:1402.0915), "nested dropout"; uniform: Horvath et al. 2021
    (arXiv:2102.13451), "ordered dropout".

    >>> import numpy as np, dropkit, dropkit.numpy as dn
    >>> y = dn.dropout(np.ones((3, 6)), 0.5, training=True, key=dropkit.Key(seed=1), share=Prefix())
    >>> bool((y[:, 1:] <= y[:, :-1]).all())
    True
    """

    over: Sequence[int] = (-1,)
    law: str | Sequence[float] = "geometric"
    axes: Sequence[int] = ()

    def __post_init__(self) -> None:
        set_one_axis(self)
        if not isinstance(self.law, str):
            object.__setattr__(self, "law", _weights(self.law))
        elif self.law not in ("geometric", "uniform"):
            raise DropkitValueError(f"law must be 'geometric', 'uniform' or weights of prefixes, got {self.law!r}")

    def kept(self, t: Any, shape: tuple[int, ...], part: Part, uniform: Uniform, xp: Any) -> Any:
        """u of the group below the probability that a unit is kept."""
        (axis,) = placed_axes("Prefix", self.over, shape, part)
        apart("Prefix", axis, self.axes, shape)
        start, whole = part.in_whole(shape)
        wide = tuple(whole[a] if a == axis else size for a, size in enumerate(shape))
        first = tuple(0 if a == axis else begin for a, begin in enumerate(start))
        numbers = uniform(wide, part._replace(offset=first, global_shape=whole, split=()), self.axes)
        lead = (slice(None),) * axis
        u = numbers * 0.0 + numbers[(*lead, slice(0, 1))]  # one draw for a group: that of its first unit
        position = xp.cumsum(xp.where(numbers > 0, 1, 0), axis) - 1
        kept = self._kept(t, whole[axis], u, position, xp)
        return kept[(*lead, slice(start[axis], start[axis] + shape[axis]))]

    def _kept(self, t: Any, n: int, u: Any, position: Any, xp: Any) -> Any:
        if self.law == "geometric":
            return _geometric(t, n, u, position, xp)
        weights = (1.0,) * n if self.law == "uniform" else self.law
        if len(weights) != n:
            raise DropkitValueError(f"Prefix has {len(weights)} weights of prefixes, but its axis has {n} units")
        return _given(t, tuple(map(float, weights)), u, position, xp)


def _remembered(function: Callable[..., Any]) -> Callable[..., Any]:
    """A table of numbers alone: made once, and a constant to torch's compiler, which would trace what makes it."""
    cached = lru_cache(maxsize=64)(function)

    def found(*numbers: Any) -> Any:
        return cached(*numbers)

    found._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return found


def _geometric(t: Any, n: int, u: Any, position: Any, xp: Any) -> Any:
    """u < r^j, of powers of r by squaring: products alone, which all libraries round alike."""
    table = _powers(n, t) if isinstance(t, int) else _powers(n)
    columns = [float(column[0]) if isinstance(t, int) else xp.take(column, t) for column in table]
    survives = u * 0.0 + columns[0]
    for bit, power in enumerate(columns[1:]):
        survives = xp.where(position // 2**bit % 2 == 1, survives * power, survives)
    return u < survives


def _given(t: Any, weights: tuple[float, ...], u: Any, position: Any, xp: Any) -> Any:
    """By a law of prefixes: below its own mean rate mixed with all units, above it with none."""
    stays, goes = _units(weights)
    rate = _rate(weights)
    if rate <= 0:
        return u < 1.0
    fewer, more = _shares(rate)
    if isinstance(t, int):
        if 1 - t / ONE <= rate:
            return 1.0 - u > xp.take(goes, position) * float(fewer[t])
        return u < xp.take(stays, position) * float(more[t])
    below = 1.0 - u > xp.take(goes, position) * xp.take(fewer, t)
    above = u < xp.take(stays, position) * xp.take(more, t)
    return xp.where(t >= math.ceil((1 - rate) * ONE), below, above)


@_remembered
def _powers(n: int, t: int | None = None) -> tuple[Table, ...]:
    """At t, or at every t: P(the first unit stays), then r, r^2, r^4, ... of n units."""
    q = (np.arange(ONE + 1) if t is None else np.array([t])) / ONE
    low, high = np.zeros(q.shape), np.ones(q.shape)  # of 1 - r, in which small rates are not lost
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        for _ in range(80):
            gap = (low + high) / 2
            over = -np.expm1(n * np.log1p(-gap)) / (n * gap) > q
            low, high = np.where(over, gap, low), np.where(over, high, gap)
        gap = np.where(n * q <= 1, 1.0, np.where(q == 1, 0.0, high))
        powers = [np.exp(2.0**bit * np.log1p(-gap)) for bit in range(max(n - 1, 1).bit_length())]
    return tuple(column.astype(np.float32) for column in (np.minimum(n * q, 1.0), *powers))


@_remembered
def _rate(weights: tuple[float, ...]) -> float:
    """The mean rate of the law itself."""
    return 1 - float(np.mean(_units(weights)[0], dtype=np.float64))


@_remembered
def _units(weights: tuple[float, ...]) -> tuple[Table, Table]:
    """Of each unit, the probability that it stays and that it goes, under weights of prefixes."""
    law = np.array(weights) / sum(weights)
    goes = np.concatenate([[0.0], np.cumsum(law)[:-1]])
    return (1 - goes).astype(np.float32), goes.astype(np.float32)


@_remembered
def _shares(rate: float) -> tuple[Table, Table]:
    """At every t, how much of a law of that mean rate there is beside all units, and beside none."""
    q = np.arange(ONE + 1) / ONE
    fewer, more = np.minimum((1 - q) / rate, 1.0), np.minimum(q / (1 - rate), 1.0)
    return fewer.astype(np.float32), more.astype(np.float32)


def _weights(law: Any) -> tuple[float, ...]:
    try:
        weights = tuple(float(weight) for weight in law)
    except (TypeError, ValueError):
        raise DropkitTypeError(f"law must be 'geometric', 'uniform' or weights of prefixes, got {law!r}") from None
    if not all(0 <= weight < math.inf for weight in weights) or not sum(weights[:-1]) > 0:
        raise DropkitValueError(
            f"weights of prefixes must be finite, at least 0, and one before the last above it, got {law!r}"
        )
    return weights
