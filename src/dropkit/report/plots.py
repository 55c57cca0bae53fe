"""Curves, differences and rates as plain values that the page's own script draws."""

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from markupsafe import Markup

from ..language import SEMICOLON, joined, say
from .values import Curve, Differences, Figure, Rated, Scale

# Okabe and Ito's hues, which colour-blind readers tell apart, each at least 3 to 1 against the page it is drawn on.
LIGHT = ("#0072b2", "#c8501a", "#008a64", "#b0528c", "#9a6a00", "#6a5cc8")
DARK = ("#4aa8e0", "#f08a52", "#2fc49a", "#e08fc0", "#e0ac2c", "#a79cf5")
GREY = ("#7b848e", "#8b939c")  # of the reference
MOST = 200  # points of a line: a screen shows no more
LENGTH = 120_000  # characters of all lines of a page, which keeps it small
NUMBER = 7  # characters of a number, with what parts it from the next


def colours(groups: Sequence[str], reference: str | None = "none") -> dict[str, int]:
    """A colour's number for each group, from 1 on; the reference, which others are measured against, is 0, grey.

    >>> colours(["none", "fixed"])
    {'none': 0, 'fixed': 1}
    """
    others = [group for group in groups if group != reference]
    found = {group: 1 + number % len(LIGHT) for number, group in enumerate(others)}
    return {group: found.get(group, 0) for group in groups}


def points(figures: Sequence[Figure]) -> int:
    """How many points a line may have, so that a page of so many lines stays small.

    >>> points([Figure("Loss", "", [])])
    200
    """
    lines = sum(3 if len(curve.low) else 1 for figure in figures for curve in _curves(figure))
    return max(20, min(MOST, LENGTH // (NUMBER * max(1, lines))))


def _curves(figure: Figure) -> Iterator[Curve]:
    return (curve for panel in figure.panels for curve in panel.curves)


def thinned(figure: Figure, most: int) -> str:
    """What is said of a figure that has more epochs than points."""
    every = _every(max((len(curve.x) for curve in _curves(figure)), default=0), most)
    return say("one epoch in {every} is drawn", every=every) if every > 1 else ""


def line_figure(figure: Figure, palette: dict[str, int], most: int = MOST) -> dict[str, Any]:
    """Panels of lines over epochs, each line of at most so many points."""
    x = next((list(curve.x) for curve in _curves(figure)), [])
    kept = _kept(len(x), most)
    return {
        "kind": "lines",
        "axis": say("epoch"),
        **_counting(figure.scale),
        "range": _focus(figure) if figure.focus else None,
        "x": [x[n] for n in kept],
        "panels": [
            {
                "name": panel.group,
                "lines": [_line(curve, palette.get(panel.group, 0), kept, figure.scale) for curve in panel.curves],
            }
            for panel in figure.panels
        ],
    }


def _counting(scale: Scale) -> dict[str, Any]:
    return {"unit": scale.unit, "digits": scale.digits}


def _focus(figure: Figure) -> list[float] | None:
    """An axis range for what comes after the first fifth of the epochs, whose curves dwarf the rest."""
    late = [value for curve in _curves(figure) for value in list(curve.y)[len(curve.y) // 5 :] if math.isfinite(value)]
    if not late:
        return None
    margin = 0.08 * (max(late) - min(late)) or 0.1
    top = max(late) + margin
    # No proportion is more than all of it.
    return [_short(min(late) - margin), _short(min(top, 100.5) if figure.scale.unit == "%" else top)]


def _line(curve: Curve, colour: int, kept: Sequence[int], scale: Scale) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": curve.name,
        "colour": 0 if curve.behind else colour,
        "y": _finite([curve.y[n] for n in kept], scale),
    }
    found |= {"dotted": True} if curve.dotted else {}
    found |= {"behind": True} if curve.behind else {}
    found |= {"stairs": True} if curve.shape == "hv" else {}
    if len(curve.low):
        for name, values in (("low", curve.low), ("high", curve.high)):
            found[name] = _finite([values[n] for n in kept], scale)
    return found


def _every(length: int, most: int) -> int:
    return -(-length // most)


def _kept(length: int, most: int) -> list[int]:
    """The epochs that are drawn: of many, evenly some, and the last."""
    return [*range(0, length - 1, _every(length, most)), length - 1] if length else []


def differences_figure(differences: Differences, palette: dict[str, int]) -> dict[str, Any]:
    """A dot and its interval for each group on a common axis with zero, and the seeds as small dots."""
    rows = [
        {
            "name": whisker.group,
            "colour": palette.get(whisker.group, 0),
            "mean": _short(whisker.mean),
            "low": _known(whisker.low),
            "high": _known(whisker.high),
            "seeds": [_short(value) for value in whisker.values],
            "words": whisker.words,
        }
        for whisker in differences.whiskers
    ]
    # A unit belongs to values; a difference has its own, which the axis names.
    counting = {**_counting(differences.scale), "unit": ""}
    return {"kind": "rows", "axis": differences.axis, **counting, "rows": rows}


def rated_figure(rated: Rated) -> dict[str, Any]:
    """Points with intervals over rates, a line through those of a kind, and a level for what has no rate."""
    series = [
        {
            "name": name,
            "colour": 1 + number % len(LIGHT),
            "x": [dot.x for dot in dots],
            "y": [_known(dot.y) for dot in dots],
            "low": [_known(dot.low) for dot in dots],
            "high": [_known(dot.high) for dot in dots],
        }
        for number, (name, dots) in enumerate(rated.series)
    ]
    level = None if rated.level is None else {"name": rated.level[0], "y": _known(rated.level[1])}
    return {"kind": "points", "axis": rated.axis, **_counting(rated.scale), "series": series, "level": level}


def captioned(figure: Figure, most: int) -> str:
    """A figure's caption, and how it was thinned."""
    return joined((figure.caption, thinned(figure, most)), SEMICOLON)


def _finite(values: Sequence[float], scale: Scale) -> list[float | None]:
    """JSON has no NaN: null is a gap in the line. A digit more than is told is as much as a screen shows."""
    return [float(f"{value:.{scale.digits}f}") if math.isfinite(value) else None for value in values]


def _known(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else _short(value)


def _short(value: float) -> float:
    """Eight digits: more than a screen shows, and half as long."""
    return float(f"{value:.8g}")


def embed(figure: dict[str, Any]) -> Markup:
    """JSON that may stand inside a script element: nothing in it can close the element."""
    text = json.dumps(figure, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def own_text(environment: Any, name: str) -> str:
    """A file of this folder that a page holds as it is."""
    source, _, _ = environment.loader.get_source(environment, name)
    return str(source)
