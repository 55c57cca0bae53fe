"""A study: comparisons of the lab that answer one question, over paired seeds, each arm in the table."""

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dropkit.lab import Comparison, compare
from dropkit.lab.recipes import Recipe, get
from dropkit.lab.statistics.interval import Interval
from dropkit.lab.telling.table import Line, between, plain


@dataclass(frozen=True)
class Study:
    """Comparisons that answer one question: recipes at some settings, each under some strategies.

    Args:
        question: in a line.
        takes: on one core of the machine that docs/studies.md names.
        arms: recipe -> its strategies; all recipes have the same seeds, first weights and order of the data.
        data, size, seeds, epochs: see `compare`.
        changed: settings other than those of the size.
    """

    question: str
    takes: str
    arms: dict[str, tuple[str, ...]]
    data: str
    seeds: int
    size: str = "tutorial"
    epochs: int | None = None
    changed: dict[str, Any] = field(default_factory=dict)

    def run(self, out: Path, seeds: int | None, data_dir: str | None, device: str) -> None:
        """Train what is not trained yet; print tables, verdicts, and what the recipes differ by."""
        found = {name: self.compared(name, out, seeds or self.seeds, data_dir, device) for name in self.arms}
        for name, one in found.items():
            table = (one.folder / "table.md").read_text()
            print(f"## {name}\n\n{table}\n{' '.join(one.verdict)}\n")
        lines = {f"{name}, {line.strategy}": line for name, one in found.items() for line in one.lines}
        if len(found) > 1:
            print(differences(lines))

    def compared(self, name: str, out: Path, seeds: int, data_dir: str | None, device: str = "cpu") -> Comparison:
        """One of its comparisons."""
        recipe = get(name)
        return compare(
            replace(recipe, settings=Changed(recipe, self.changed)),
            strategies=list(self.arms[name]),
            seeds=seeds,
            size=self.size,
            data=self.data,
            epochs=self.epochs,
            data_dir=data_dir,
            device=device,
            out=out / name,
            resume=True,
            on_epoch=_say,
        )


@dataclass(frozen=True)
class Changed:
    """The settings of a recipe, some of them changed."""

    recipe: Recipe
    changes: dict[str, Any]

    def __call__(self, size: str, data: str) -> Any:
        """Those of a size, changed, on one thread."""
        return replace(self.recipe.settings(size, data), threads=1, **self.changes)


def differences(lines: dict[str, Line]) -> str:
    """A table of all arms, each with its paired difference from the first two."""
    first, second = list(lines)[:2]
    rows = [["arm", next(iter(lines.values())).figures.title, f"difference from {first}", f"difference from {second}"]]
    rows.append(["---", "---:", "---:", "---:"])
    for name, line in lines.items():
        told = [marked(between(line, lines[base])) if base != name else "-" for base in (first, second)]
        rows.append([name, plain(line.compared), *told])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def marked(difference: Interval) -> str:
    """A difference with its interval, and an asterisk where that excludes 0."""
    return plain(difference, "+") + (r" \*" if difference.excludes_zero else "")


def _say(plan: Any, row: dict[str, float]) -> None:
    shown = {name: round(value, 4) for name, value in row.items() if not name.startswith("rate")}
    print(f"{plan.choices.recipe.name} {plan.strategy} seed {plan.seed}: {shown}", file=sys.stderr, flush=True)


ORDER = Study(
    "Should the rate near the input be the smaller one?",
    "half an hour",
    {"mlp": ("none", "fixed:0.2:0.5", "fixed:0.5:0.2")},
    "fashion-mnist",
    seeds=20,
)
