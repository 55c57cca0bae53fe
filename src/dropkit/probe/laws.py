"""What a law and a share say of a site, as plain values: they are asked, not known by name."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..axes.noise import Noise, Soft
from ..axes.share import Exactly, Refining
from ..drop import Lowered, lower, settled
from ..language import LIST, counted, joined, say
from ..place import WHOLE
from ..threshold import threshold
from ..visible import written
from .facts import Shape
from .names import by

_SAMPLES = np.array([0.2, 0.4, 0.6, 0.8])  # random numbers, to see what a soft law does with them


def told(law: Noise | None, share: Any, p: float | None, shape: Shape | None, batch: int | None) -> dict[str, Any]:
    """The fields of a `Site` that its law and its share decide; none where there is no law to ask.

    Args:
        law, share: of the site; a law is None where nothing says.
        p: its rate.
        shape: of its noise, 1 where axes share a draw; None where nothing was seen to run.
        batch: samples in the run.

    >>> from dropkit.axes.noise import Alpha, Bernoulli
    >>> told(Alpha(), (), 0.5, (4, 16), 4)
    {'law': 'Alpha()', 'becomes': '-0.779'}
    >>> told(Bernoulli(), Exactly((-1,)), 0.25, (4, 16), 4)["share"]
    'exactly 12 of 16 units, per sample'
    """
    if law is None:
        return {}
    found: dict[str, Any] = {"law": written(law)}
    if p is None:
        return found
    lowered = lower(law, threshold(p))
    if lowered is not None and shape is not None:
        lowered = settled(lowered, share, shape, WHOLE, np)
    if isinstance(law, Soft):
        found |= {"drawn": "values", "effect": _effect(law, 1 - p)}
    elif lowered is not None:
        found["becomes"] = _becomes(lowered)
    if off := _off(law, p):
        found["off"] = off
    if isinstance(share, Refining) and shape is not None:
        found |= _refined(share, p, shape, batch)
    return found


def _becomes(lowered: Lowered) -> str:
    """What a dropped element becomes."""
    c = float(lowered.c)
    if c == 0:
        return say("zero")
    if not lowered.law.needs_other:
        return f"{c:.3g}"
    return say("the other tensor") if c == 1 else say("{c:.3g} times the other tensor", c=c)


def _effect(law: Soft, q: float) -> str:
    """Whether the random numbers multiply the data or are added to them."""
    m, _ = law.factors(_SAMPLES, np.asarray(q), np)
    return "multiplies" if np.ptp(np.broadcast_to(m, _SAMPLES.shape)) > 0 else "adds"


def _off(law: Noise, p: float) -> str:
    """What the law makes of x in evaluation, where that is not x."""
    lowered = lower(law, threshold(p), training=False)
    if lowered is None:
        return ""
    scaled = f"{float(lowered.a):.3g} x"
    return f"{scaled} + {float(lowered.b):.3g} o" if law.needs_other else scaled


def _refined(share: Refining, p: float, shape: Shape, batch: int | None) -> dict[str, Any]:
    """Which mask a share makes of the draws, how much it keeps, and how many masks there are for one sample."""
    t = threshold(p)
    fraction = share.fraction(t, shape, WHOLE, np)
    found: dict[str, Any] = {} if fraction is None else {"kept": float(fraction)}
    if isinstance(share, Exactly):
        return found | _exactly(share, float(fraction), shape, batch)
    lengths = by(shape[1:]) or "1"
    return found | {"share": say("{lengths} units, kept as {share} says", lengths=lengths, share=written(share))}


def _exactly(share: Exactly, fraction: float, shape: Shape, batch: int | None) -> dict[str, Any]:
    axes = sorted(axis % len(shape) for axis in share.over)
    n = math.prod(shape[axis] for axis in axes)
    k = round(fraction * n)
    others = math.prod(size for axis, size in enumerate(shape) if axis and axis not in axes)
    if 0 in axes:  # the samples share one set, so that no number of masks is that of one sample
        words = say("exactly {k} of each {n} along {axes}, over the batch", k=k, n=n, axes=_named(axes))
        return {"share": words}
    choices = others * math.log2(math.comb(n, k))
    if others == 1:
        return {"share": say("exactly {k} of {n} units, per sample", k=k, n=n), "choices": choices}
    words = say("exactly {k} of each {n} along {axes}, per sample", k=k, n=n, axes=_named(axes))
    return {"share": words, "choices": choices}


def _named(axes: Sequence[int]) -> str:
    return counted(len(axes), "axis {axes}", "axes {axes}", axes=joined(map(str, axes), LIST))
