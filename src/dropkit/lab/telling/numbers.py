"""Differences in words: percent points where the figure is a proportion, and as many digits as the interval allows."""

import math

from ...language import Said, say
from ..recipes.measures import Figures
from ..statistics.interval import Interval
from .table import BASELINE
from .units import unit

MOST_DIGITS = 3  # more than usual, where fewer would hide on which side of 0 an end lies


def change(kind: Figures, difference: Interval, looked: bool = False) -> str:
    """A difference in the compared figure with its interval, such as "+1.2 points of test accuracy (0.4 to 2.0, 95 %)".

    Args:
        kind: whose compared figure it is.
        difference: with its interval, if it has one.
        looked: whether the interval is one that holds at every look.
    """
    given = written(kind, difference)
    if difference.half is None or not math.isfinite(difference.half):
        return say("{mean} points of {figure}", **given) if kind.proportion else say("{figure} {mean}", **given)
    if not difference.sd and not difference.half:
        if kind.proportion:
            return say("{mean} points of {figure}, the same in every {unit}", unit=unit(kind), **given)
        return say("{figure} {mean}, the same in every {unit}", unit=unit(kind), **given)
    level = say("95 % at every look") if looked else say("95 %")
    if kind.proportion:
        return say("{mean} points of {figure} ({low} to {high}, {level})", level=level, **given)
    return say("{figure} {mean} ({low} to {high}, {level})", level=level, **given)


def brief(kind: Figures, difference: Interval) -> str:
    """The same without the figure's name, such as "+1.2 points (0.4 to 2.0)"."""
    given = written(kind, difference)
    del given["figure"]
    if difference.half is None or not math.isfinite(difference.half):
        return say("{mean} points", **given) if kind.proportion else given["mean"]
    if kind.proportion:
        return say("{mean} points ({low} to {high})", **given)
    return say("{mean} ({low} to {high})", **given)


def ends(kind: Figures, difference: Interval) -> str:
    """The interval alone, such as "0.4 to 2.0 points"."""
    given = written(kind, difference)
    if kind.proportion:
        return say("{low} to {high} points", low=given["low"], high=given["high"])
    return say("{low} to {high}", low=given["low"], high=given["high"])


def amount(kind: Figures, value: float, digits: int = 4) -> str:
    """A size of differences to so many digits, such as "0.5 points of test accuracy"."""
    if kind.proportion:
        size = f"{100 * value:.{digits}g}"
        return say("{size} points of {figure}", size=size if "." in size else f"{size}.0", figure=kind.title)
    return say("{size} of {figure}", size=f"{value:.{digits}g}", figure=kind.title)


def named(strategy: str) -> str:
    """A strategy as a sentence has it; what has no words keeps its name.

    >>> named("none"), named("fixed:0.3"), named("fixed"), named("step:100")
    ('no dropout', 'dropout 0.3', 'dropout (fixed)', 'step:100')
    """
    name, *rates = strategy.split(":")
    if strategy == BASELINE:
        return say("no dropout")
    if strategy == "as-is":
        return say("the model's own dropout")
    if name == "fixed" and "@" not in strategy:
        return say("dropout {rate}", rate=":".join(rates)) if rates else say("dropout ({strategy})", strategy=strategy)
    return strategy


def introduced(strategy: str) -> str:
    """The same for who meets it first: that it is a dropout is said.

    >>> introduced("step"), introduced("none"), introduced("weight-decay:0.001")
    ('dropout (step)', 'no dropout', 'weight-decay:0.001')
    """
    name = named(strategy)
    if isinstance(name, Said) or name.startswith("weight-decay"):
        return name
    return say("dropout ({strategy})", strategy=strategy)


def written(kind: Figures, difference: Interval) -> dict[str, str]:
    """A difference and the ends of its interval, with as many digits as these allow."""
    scale = 100.0 if kind.proportion else 1.0
    mean, low, high = (
        None if one is None else one * scale for one in (difference.mean, difference.low, difference.high)
    )
    assert mean is not None
    places = _places(kind, scale * (difference.half or abs(difference.mean)), low, high)
    written = {"mean": _number(mean, f"+.{places}f"), "figure": kind.title}
    for name, end in (("low", low), ("high", high)):
        written[name] = "" if end is None else _number(end, f".{places}f")
    return written


def level(kind: Figures, figure: str, value: float) -> str:
    """A figure itself: in percent where it is a share.

    >>> from dropkit.lab.recipes.measures import CLASSIFICATION
    >>> level(CLASSIFICATION, "test_accuracy", 0.98406), level(CLASSIFICATION, "test_loss", 0.0762)
    ('98.41 %', '0.0762')
    """
    return say("{value:.2f} %", value=100 * value) if kind.in_percent(figure) else f"{value:.4f}"


def step(kind: Figures, figure: str, value: float) -> str:
    """How far two figures lie apart, with its sign: in percent points where they are shares.

    >>> from dropkit.lab.recipes.measures import CLASSIFICATION
    >>> step(CLASSIFICATION, "gap", 0.0164), step(CLASSIFICATION, "test_loss", -0.02)
    ('+1.64 points', '-0.0200')
    """
    return say("{value:+.2f} points", value=100 * value) if kind.in_percent(figure) else f"{value:+.4f}"


def _number(value: float, spec: str) -> str:
    """A number in so many digits; one that vanishes in them has no sign."""
    text = format(value, spec)
    return text if text.strip("+-0.") else text.lstrip("+-")


def _places(kind: Figures, half: float, low: float | None, high: float | None) -> int:
    """Decimals: one digit of the half width of percent points, at least one; two of other figures."""
    least, digits = (1, 1) if kind.proportion else (0, 2)
    if not half or not math.isfinite(half):
        return least + digits
    usual = max(least, digits - 1 - math.floor(math.log10(half)))
    for places in range(usual, usual + MOST_DIGITS):
        if all(not end or round(end, places) for end in (low, high)):
            return places
    return usual + MOST_DIGITS
