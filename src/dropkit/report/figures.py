"""Curves and differences as Plotly figures: plain values that the page's script draws."""

import json
import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from .values import Curve, Differences, Figure

# Okabe and Ito's colours, which colour-blind readers tell apart, the darkest lightened to be seen on black.
PALETTE = ("#0a84c6", "#e0641b", "#13a57a", "#d07bae", "#d99a00", "#8a7df0")
BASELINE_COLOUR = "#8b939c"


def colours(groups: Sequence[str]) -> dict[str, str]:
    """A colour for each group; "none", what others are measured against, is grey.

    >>> colours(["none", "fixed"])
    {'none': '#8b939c', 'fixed': '#0a84c6'}
    """
    others = [group for group in groups if group != "none"]
    found = {group: PALETTE[number % len(PALETTE)] for number, group in enumerate(others)}
    return {group: found.get(group, BASELINE_COLOUR) for group in groups}


def line_figure(figure: Figure, groups: Sequence[str]) -> dict[str, Any]:
    """Lines over epochs, a translucent band under each that has one."""
    palette = colours(groups)
    traces: list[dict[str, Any]] = []
    for curve in figure.curves:
        colour = palette[curve.group]
        if len(curve.low):
            traces.append(_band(curve, colour))
        traces.append(_line(curve, colour))
    axis: dict[str, Any] = {"title": {"text": figure.title.lower()}}
    if figure.focus:
        axis["range"] = _focus(figure.curves)
    return {"data": traces, "layout": {"xaxis": {"title": {"text": "epoch"}}, "yaxis": axis}}


def _focus(curves: Sequence[Curve]) -> list[float] | None:
    """An axis range for what comes after the first tenth of the epochs, whose curves dwarf the rest."""
    late = [value for curve in curves for value in list(curve.y)[len(curve.y) // 10 :] if math.isfinite(value)]
    if not late:
        return None
    margin = 0.08 * (max(late) - min(late)) or 0.1
    return [min(late) - margin, max(late) + margin]


def _line(curve: Curve, colour: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines" if len(curve.x) > 1 else "markers",
        "x": list(curve.x),
        "y": _finite(curve.y),
        "name": f"{curve.group}, {curve.part}",
        "line": {
            "color": colour,
            "width": 1.6 if curve.dotted else 2.4,
            "dash": "dot" if curve.dotted else "solid",
            "shape": curve.shape,
        },
        "marker": {"color": colour, "symbol": "circle-open" if curve.dotted else "circle", "size": 8},
        "hovertemplate": "%{y:.4f}",
    }


def _band(curve: Curve, colour: str) -> dict[str, Any]:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [*curve.x, *reversed(curve.x)],
        "y": _finite([*curve.high, *reversed(curve.low)]),
        "fill": "toself",
        "fillcolor": f"rgba({red},{green},{blue},{0.08 if curve.dotted else 0.18})",
        "line": {"width": 0},
        "hoverinfo": "skip",
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
                "name": f"{whisker.group}, a seed",
                "marker": {"color": colour, "size": 7, "opacity": 0.6},
                "hovertemplate": "%{x:+.4f}",
            }
        )
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [whisker.mean],
                "y": [row],
                "name": f"{whisker.group}, mean",
                "marker": {"color": colour, "size": 12},
                "hovertemplate": "%{x:+.4f}",
                "error_x": {
                    "type": "data",
                    "array": [0 if whisker.high is None else whisker.high - whisker.mean],
                    "color": colour,
                    "thickness": 2.5,
                    "width": 7,
                },
            }
        )
    title = f"{differences.figure}, difference from none"
    layout = {
        "xaxis": {"title": {"text": title}, "zeroline": True, "rangemode": "tozero"},
        "yaxis": {
            "range": [len(differences.whiskers) - 0.45, -0.45],
            "tickvals": list(range(len(differences.whiskers))),
            "ticktext": [whisker.group for whisker in differences.whiskers],
        },
        "height": 90 + 48 * len(differences.whiskers),
        "hovermode": "closest",
    }
    return {"data": traces, "layout": layout}


def _finite(values: Sequence[float]) -> list[float | None]:
    """JSON has no NaN; Plotly draws a gap for null."""
    return [value if math.isfinite(value) else None for value in values]


def embed(figure: dict[str, Any]) -> Markup:
    """JSON that may stand inside a script element: nothing in it can close the element."""
    text = json.dumps(figure, allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
