"""`python -m tests.gallery` writes what docs say of the grid: the table of docs/variants.md."""

from pathlib import Path

from dropkit import grid

DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- python -m tests.gallery -->\n", "<!-- end -->\n"


def table() -> str:
    """Every entry of the grid as a row."""
    rows = ["| name | what becomes of x | usual p | on | paper |", "|---|---|---|---|---|"]
    rows += [f"| `{name}` | {v.formula} | {v.default} | {v.place} | {v.paper} |" for name, v in grid.items()]
    return "\n".join(rows) + "\n"


def pages() -> dict[Path, bytes]:
    """What the generated files contain."""
    page = DOCS / "variants.md"
    before, _, rest = page.read_text().partition(BEGIN)
    return {page: f"{before}{BEGIN}{table()}{END}{rest.partition(END)[2]}".encode()}


if __name__ == "__main__":
    for path, content in pages().items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
