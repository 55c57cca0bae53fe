"""`python -m tests.gallery` writes what docs say of the grid: the table of docs/variants.md, and the gallery.

A picture is of the numbers themselves: what an entry makes of ones at a fixed key, in eight shades.
"""

import itertools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import dropkit.numpy
from dropkit import Key, grid
from dropkit.grid import Variant

DOCS = Path(__file__).parents[1] / "docs"
PICTURES = DOCS / "img" / "gallery"
BEGIN, END = "<!-- python -m tests.gallery -->\n", "<!-- end -->\n"
P = 0.25  # of every picture
SIDE, PARTS, PANELS = 14, 3, 4  # elements along the last two axes; of an axis of parts; of the axes before
SHADES = 8
HEAD = """# The gallery

Every entry of `dropkit.grid`, and what it makes of ones at p = 0.25 and a fixed key: dark is dropped, bright is kept,
shades are numbers between. A panel is the last two axes of the layout; four panels are entries of the axis before them.
Written by `python -m tests.gallery` from the grid; `dropkit methods NAME` tells the same with BibTeX.
"""


def table() -> str:
    """Every entry of the grid as a row."""
    rows = ["| name | what becomes of x | usual p | on | paper |", "|---|---|---|---|---|"]
    rows += [f"| `{name}` | {v.formula} | {v.default} | {v.place} | {v.paper} |" for name, v in grid.items()]
    return "\n".join(rows) + "\n"


def drawn(name: str, variant: Variant) -> NDArray[np.float64]:
    """What the entry makes of ones: panels of rows of columns."""
    names = variant.layout.split()
    names = [""] * (2 - len(names)) + names
    sizes = [SIDE if axis >= len(names) - 2 else PANELS if axis == len(names) - 3 else 1 for axis in range(len(names))]
    sizes = [PARTS if name == "P" else size if name else 1 for name, size in zip(names, sizes, strict=True)]
    x = np.ones([size for name, size in zip(names, sizes, strict=True) if name], np.float64)
    other = x * 0.5 if variant.noise.needs_other else None
    how = {"share": variant.share, "noise": variant.noise, "other": other}
    y = dropkit.numpy.dropout(x, P, training=True, key=Key(seed=18, site=f"gallery/{name}"), **how)
    return y.reshape(-1, *sizes[-2:])


def picture(y: NDArray[np.float64]) -> str:
    """Panels side by side as SVG, each shade one path of runs."""
    finite = y[np.isfinite(y)]
    low, high = min(finite.min(), 0.0), finite.max()
    level = np.where(np.isfinite(y), (y - low) / (high - low if high > low else 1.0) * (SHADES - 1), 0)
    shades = np.rint(np.round(level, 3)).astype(int)
    panels, rows, columns = y.shape
    paths: dict[int, list[str]] = {}
    for panel, row in itertools.product(range(panels), range(rows)):
        at = panel * (columns + 1)
        for shade, run in itertools.groupby(shades[panel, row]):
            length = len(list(run))
            paths.setdefault(int(shade), []).append(f"M{at} {row}h{length}v1h-{length}z")
            at += length
    width = panels * (columns + 1) - 1
    drawn = [f'<path fill="{colour(shade)}" d="{"".join(path)}"/>' for shade, path in sorted(paths.items())]
    size = f'viewBox="0 0 {width} {rows}" width="{8 * width}" height="{8 * rows}"'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', *drawn, "</svg>"]) + "\n"


def colour(shade: int) -> str:
    """From dark blue to a light yellow."""
    dark, bright = (31, 45, 86), (247, 220, 130)
    return "#" + "".join(f"{a + (b - a) * shade // (SHADES - 1):02x}" for a, b in zip(dark, bright, strict=True))


def gallery() -> str:
    """The page: a section for each entry."""
    parts = [HEAD]
    for name, variant in grid.items():
        lines = [f"{variant.formula}.", f"For {variant.applies}." if variant.applies else ""]
        lines += [
            f"Form: {variant.form}." if variant.form else "",
            f"{variant.paper}; on: {variant.place}, {variant.layout}.",
        ]
        alt = f"the mask of {name} at p = {P}"
        parts.append(f"## {name}\n\n![{alt}](img/gallery/{name}.svg)\n\n" + "\n\n".join(filter(None, lines)) + "\n")
    return "\n".join(parts)


def pages() -> dict[Path, bytes]:
    """What the generated files contain."""
    page = DOCS / "variants.md"
    before, _, rest = page.read_text().partition(BEGIN)
    found = {page: f"{before}{BEGIN}{table()}{END}{rest.partition(END)[2]}", DOCS / "gallery.md": gallery()}
    found |= {PICTURES / f"{name}.svg": picture(drawn(name, variant)) for name, variant in grid.items()}
    return {path: text.encode() for path, text in found.items()}


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    wanted = pages()
    for stale in set(PICTURES.iterdir()) - set(wanted):
        stale.unlink()
    for path, content in wanted.items():
        path.write_bytes(content)
