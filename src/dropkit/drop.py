"""A dropout is a law, shared by some, at a rate, in some passes. `Drop` lowers it once to plain numbers.

A draw says which noise; a frontend only applies:

    hard:  y = a x + b o where kept, c o elsewhere        soft:  y = m x + s, of a random number an element
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from .axes.noise import Bernoulli, Noise, Plain, Soft
from .axes.rate import Constant, Rate
from .axes.share import Axes, Refining, Sharing, share_of
from .axes.when import When
from .errors import DropkitTypeError, DropkitValueError
from .place import Part
from .threshold import ONE, threshold


class Lowered(NamedTuple):
    """A dropout at one rate as plain numbers: what every backend eats.

    Args:
        t: kept of 65536: an int, or an array of the framework.
        law: whose numbers these are.
        a, b, c: of a hard law, numbers or arrays; None of a soft one.
        q: t / 65536, where soft laws need it.

    >>> lower(Bernoulli(), 32768)
    Lowered(t=32768, law=Bernoulli(), a=2.0, b=0.0, c=0.0, q=0.5)
    """

    t: Any
    law: Noise
    a: Any = None
    b: Any = None
    c: Any = None
    q: Any = None

    @property
    def inverted(self) -> bool:
        """Whether it is plain inverted dropout, whose scale 2**16 / t a kernel finds by itself."""
        return type(self.law) is Bernoulli

    @property
    def soft(self) -> bool:
        """Whether it takes random numbers rather than a mask."""
        return isinstance(self.law, Soft)

    def slope(self) -> "Lowered":
        """The law of the derivative in x: `a dy` where kept, 0 elsewhere."""
        return self._replace(b=-0.0, c=0.0)  # adding -0 changes nothing, not even the sign of a zero

    def slope_in_other(self) -> "Lowered":
        """The law of the derivative in the other, with dy for both tensors: `b dy` where kept, `c dy` elsewhere."""
        return self._replace(a=self.b, b=-0.0)


def lower(law: Noise, t: Any, training: bool = True, q: Any = None, xp: Any = Plain) -> Lowered | None:
    """A law at a rate as numbers; None where y = x.

    Args:
        law: a value of `dropkit.axes.noise`.
        t: kept of 65536, an int or an array.
        training: whether noise is on. Where it is off and the law is not the identity then, all is kept: t is 65536.
        q: the fraction kept, as a number or an array of the type that is computed in; t / 65536 for an int if left out.
        xp: the library of such arrays.
    """
    if type(t) is int and q is None:
        return _plain(law, t, training)
    return _on(law, t, q, xp) if training else _off(law, q)


def _off(law: Noise, q: Any) -> Lowered | None:
    off = law.off(q)
    return None if off is None else Lowered(ONE, law, *off, 0.0, q)


def _on(law: Noise, t: Any, q: Any, xp: Any) -> Lowered:
    return Lowered(t, law, q=q) if isinstance(law, Soft) else Lowered(t, law, *law.numbers(q, xp), q)


@lru_cache(maxsize=4096)
def _plain(law: Noise, t: int, training: bool) -> Lowered | None:
    if t == ONE:
        return None
    return _on(law, t, t / ONE, Plain) if training else _off(law, t / ONE)


def settled(lowered: Lowered, share: Sharing, shape: tuple[int, ...], part: Part, xp: Any) -> Lowered:
    """The same under a share that keeps another fraction than was asked, and whose law scales by that.

    Raises:
        DropkitTypeError: a share that refines a mask, and a law that has none.
        DropkitValueError: such a share, and a rate for each element.
    """
    if not isinstance(share, Refining):
        return lowered
    if lowered.soft:
        raise DropkitTypeError(f"noise {lowered.law!r} has no mask for share {share!r} to refine; share axes")
    if type(lowered.t) is int and lowered.t in (0, ONE):
        return lowered
    if math.prod(getattr(lowered.t, "shape", ())) != 1:
        raise DropkitValueError(f"share {share!r} takes one rate for all elements, got p of shape {lowered.t.shape}")
    q = share.fraction(lowered.t, shape, part, xp)
    if isinstance(q, float) and q == 1.0:  # nothing is dropped after all, and a law at p = 0 is the identity
        return Lowered(ONE, lowered.law, 1.0, 0.0, 0.0, q)
    return lowered if q is None else _on(lowered.law, lowered.t, q, Plain if isinstance(q, float) else xp)


def checked_noise(noise: Any) -> Noise:
    """The law, if it is one.

    Raises:
        DropkitTypeError: no value of `dropkit.axes.noise`.
    """
    if isinstance(noise, Noise):
        return noise
    raise DropkitTypeError(f"noise must be a value of dropkit.axes.noise, got {noise!r}; give Bernoulli() or Alpha()")


def checked_other(law: Noise, other: Any) -> Any:
    """The other tensor, if the law needs one and gets it, or neither.

    Raises:
        DropkitValueError: one without the other.
    """
    if law.needs_other == (other is not None):
        return other
    if other is None:
        raise DropkitValueError(f"noise {law!r} needs a second tensor; pass other=...")
    raise DropkitValueError(f"noise {law!r} takes no second tensor; leave out other=")


@dataclass(frozen=True, slots=True)
class Drop:
    """One dropout: what becomes of an element, who shares a draw, how much and how it moves, in which passes.

    Args:
        rate: a drop probability in [0, 1], or a value with `.at(step)` from `dropkit.axes.rate`.
        share: axes that share a draw, a tuple, or a value of `dropkit.axes.share`.
        when: "train", "always" or "never", or a `When`.
        noise: what becomes of kept and of dropped elements, a value of `dropkit.axes.noise`.

    Raises:
        DropkitTypeError, DropkitValueError: a rate outside [0, 1], NaN or no number; a bad share or when.

    >>> Drop(0.2, share=(2, 3))
    Drop(rate=Constant(p=0.2), share=Axes(axes=(2, 3)), when=<When.TRAIN: 'train'>, noise=Bernoulli())
    """

    rate: Rate | float
    share: Sharing | Sequence[int] = field(default_factory=Axes)
    when: When | str = When.TRAIN
    noise: Noise = field(default_factory=Bernoulli)

    def __post_init__(self) -> None:
        if not hasattr(self.rate, "at"):
            object.__setattr__(self, "rate", Constant(self.rate))
        object.__setattr__(self, "share", share_of(self.share))
        object.__setattr__(self, "when", When.of(self.when))
        checked_noise(self.noise)

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes that share a draw."""
        return tuple(self.share.axes)  # type: ignore[union-attr]

    def active(self, training: bool) -> bool:
        """Whether noise is drawn in a pass of this mode."""
        return self.when.active(training)  # type: ignore[union-attr]

    def p(self, step: int = 0) -> float:
        """The drop probability at a step, as the schedule says it.

        >>> Drop(0.1).p()
        0.1
        """
        return self.rate.at(step)  # type: ignore[union-attr]

    def lower(self, step: int = 0, training: bool = True, p: float | None = None) -> Lowered | None:
        """The plain numbers of the hot path in a pass of this mode; None where y = x.

        Args:
            step: at which the schedule is asked.
            training: the mode of the pass.
            p: a drop probability in place of the schedule's.

        >>> Drop(0.5).lower()
        Lowered(t=32768, law=Bernoulli(), a=2.0, b=0.0, c=0.0, q=0.5)
        >>> Drop(0.5).lower(training=False) is None
        True
        """
        return lower(self.noise, threshold(self.p(step) if p is None else p), self.active(training))
