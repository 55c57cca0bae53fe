"""Curves and differences as plain values, in the words of Plotly, that the page's own script draws."""

import json
import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from ..language import joined, say, small
from .values import Curve, Differences, Figure

# Okabe and Ito's colours, which colour-blind readers tell apart, the darkest lightened to be seen on black.
PALETTE = ("#0a84c6", "#e0641b", "#13a57a", "#d07bae", "#d99a00", "#8a7df0")
MOST = 200  # points of a line: a screen shows no more
ALL = 6500  # points of all lines of a page, which keeps it small
BASELINE_COLOUR = "#8b939c"


def colours(groups: Sequence[str]) -> dict[str, str]:
    """A colour for each group; "none", what others are measured against, is grey.

    >>> colours(["none", "fixed"])
    {'none': '#8b939c', 'fixed': '#0a84c6'}
    """
    others = [group for group in groups if group != "none"]
    found = {group: PALETTE[number % len(PALETTE)] for number, group in enumerate(others)}
    return {group: found.get(group, BASELINE_COLOUR) for group in groups}


def points(figures: Sequence[Figure]) -> int:
    """How many points a line may have, so that a page of so many lines stays small.

    >>> points([Figure("Loss", "", [])]), points([Figure("Loss", "", [None] * 65)] * 2)
    (200, 50)
    """
    return max(20, min(MOST, ALL // max(1, sum(len(figure.curves) for figure in figures))))


def line_figure(figure: Figure, groups: Sequence[str], most: int = MOST) -> dict[str, Any]:
    """Lines over epochs of at most so many points, a translucent band under each that has one."""
    palette = colours(groups)
    traces: list[dict[str, Any]] = []
    for curve in figure.curves:
        colour = palette[curve.group]
        if len(curve.low):
            traces.append(_band(curve, colour, most))
        traces.append(_line(curve, colour, most))
    axis: dict[str, Any] = {"title": {"text": small(figure.title)}}
    if figure.focus:
        axis["range"] = _focus(figure.curves)
    return {"data": traces, "layout": {"xaxis": {"title": {"text": say("epoch")}}, "yaxis": axis}}


def _focus(curves: Sequence[Curve]) -> list[float] | None:
    """An axis range for what comes after the first tenth of the epochs, whose curves dwarf the rest."""
    late = [value for curve in curves for value in list(curve.y)[len(curve.y) // 10 :] if math.isfinite(value)]
    if not late:
        return None
    margin = 0.08 * (max(late) - min(late)) or 0.1
    return [min(late) - margin, max(late) + margin]


def _line(curve: Curve, colour: str, most: int) -> dict[str, Any]:
    kept = _kept(len(curve.x), most)
    return {
        "type": "scatter",
        "mode": "lines" if len(curve.x) > 1 else "markers",
        "x": [curve.x[n] for n in kept],
        "y": _finite([curve.y[n] for n in kept]),
        "name": joined((curve.group, curve.part)),
        "group": curve.group,
        "line": {
            "color": colour,
            "width": 1.6 if curve.dotted else 2.4,
            "dash": "dot" if curve.dotted else "solid",
            "shape": curve.shape,
        },
        "marker": {"color": colour, "symbol": "circle-open" if curve.dotted else "circle", "size": 8},
    }


def _kept(length: int, most: int) -> list[int]:
    """The epochs that are drawn: of many, evenly some, and the last."""
    every = -(-length // most)
    return [*range(0, length - 1, every), length - 1] if length else []


def _band(curve: Curve, colour: str, most: int) -> dict[str, Any]:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    kept = _kept(len(curve.x), most)
    x, low, high = ([values[n] for n in kept] for values in (curve.x, curve.low, curve.high))
    return {
        "type": "scatter",
        "mode": "lines",
        "group": curve.group,
        "x": [*x, *reversed(x)],
        "y": _finite([*high, *reversed(low)]),
        "fill": "toself",
        "fillcolor": f"rgba({red},{green},{blue},{0.08 if curve.dotted else 0.18})",
        "line": {"width": 0},
    }


def differences_figure(differences: Differences, groups: Sequence[str]) -> dict[str, Any]:
    """A dot and its interval for each group on a common axis with zero, and the seeds as small dots."""
    palette = colours(groups)
    traces: list[dict[str, Any]] = []
    for row, whisker in enumerate(differences.whiskers):
        colour = palette[whisker.group]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": list(whisker.values),
                "y": [row + 0.24] * len(whisker.values),
                "name": say("{group}, a seed", group=whisker.group),
                "group": whisker.group,
                "marker": {"color": colour, "size": 7, "opacity": 0.6},
            }
        )
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [whisker.mean],
                "y": [row],
                "name": say("{group}, mean", group=whisker.group),
                "group": whisker.group,
                "marker": {"color": colour, "size": 12},
                "error_x": {
                    "type": "data",
                    "array": [0 if whisker.high is None else whisker.high - whisker.mean],
                    "color": colour,
                },
            }
        )
    title = say("{figure}, difference from none", figure=differences.figure)
    layout = {
        "xaxis": {"title": {"text": title}, "zeroline": True, "rangemode": "tozero"},
        "yaxis": {
            "range": [len(differences.whiskers) - 0.45, -0.45],
            "tickvals": list(range(len(differences.whiskers))),
            "ticktext": [whisker.group for whisker in differences.whiskers],
        },
        "height": 90 + 48 * len(differences.whiskers),
    }
    return {"data": traces, "layout": layout}


def _finite(values: Sequence[float]) -> list[float | None]:
    """JSON has no NaN: null is a gap in the line."""
    return [_short(value) if math.isfinite(value) else None for value in values]


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
