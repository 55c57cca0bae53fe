"""A dropout is a point on four axes: noise x share x rate x when."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from .axes.noise import Alpha, Bernoulli, Noise
from .axes.rate import Constant, Rate
from .axes.share import Share
from .axes.when import When
from .axes.when import when as parse_when
from .errors import DropkitTypeError
from .mask import alpha_factors, scale, threshold


@dataclass(frozen=True, slots=True)
class Drop:
    """One dropout: what becomes of an element, who shares a draw, how much and how it moves, in which passes.

    Args:
        rate: a drop probability in [0, 1], or a value with `.at(step)` from `dropkit.axes.rate`.
        share: axes that share a draw, a tuple or a `Share`.
        when: "train", "always" or "never", or a `When`.
        noise: what becomes of kept and of dropped elements, a value of `dropkit.axes.noise`.

    Raises:
        DropkitTypeError, DropkitValueError: a rate outside [0, 1], NaN or no number; a bad share or when.

    >>> Drop(0.2, share=(2, 3))
    Drop(rate=Constant(p=0.2), share=Share(axes=(2, 3)), when=<When.TRAIN: 'train'>, noise=Bernoulli())
    """

    rate: Rate | float
    share: Share | Sequence[int] = field(default_factory=Share)
    when: When | str = When.TRAIN
    noise: Noise = field(default_factory=Bernoulli)

    def __post_init__(self) -> None:
        if not hasattr(self.rate, "at"):
            object.__setattr__(self, "rate", Constant(self.rate))
        if not isinstance(self.share, Share):
            object.__setattr__(self, "share", Share(self.share))
        object.__setattr__(self, "when", parse_when(self.when))
        if not isinstance(self.noise, Noise):
            raise DropkitTypeError(
                f"noise must be a value of dropkit.axes.noise, got {self.noise!r}; give Bernoulli() or Alpha()"
            )

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

    def lower(self, step: int = 0) -> tuple[int, float, float, float]:
        """The plain scalars of the hot path: t, kept of 65536, then scale, shift and dropped.

        A kept x becomes `x * scale + shift`, a dropped one `dropped`.

        >>> Drop(0.5).lower()
        (32768, 2.0, 0.0, 0.0)
        """
        t = threshold(self.p(step))
        return t, *(alpha_factors(t) if isinstance(self.noise, Alpha) else (scale(t), 0.0, 0.0))


def element(p: float) -> Drop:
    """Dropout of single elements (Srivastava et al. 2014)."""
    return Drop(p)


def spatial(p: float, axes: Sequence[int] = (2, 3)) -> Drop:
    """Dropout of whole channels of N x C x H x W (Tompson et al. 2015); `axes` are the spatial ones."""
    return Drop(p, share=axes)


def alpha(p: float) -> Drop:
    """Alpha dropout of single elements, for SELU networks (Klambauer et al. 2017)."""
    return Drop(p, noise=Alpha())


def feature_alpha(p: float, axes: Sequence[int] = (2, 3)) -> Drop:
    """Alpha dropout of whole channels of N x C x H x W; `axes` are the spatial ones."""
    return Drop(p, share=axes, noise=Alpha())


def monte_carlo(p: float) -> Drop:
    """Dropout of single elements that stays on at evaluation (Gal and Ghahramani 2016)."""
    return Drop(p, when=When.ALWAYS)
