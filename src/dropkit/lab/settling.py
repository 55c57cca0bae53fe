"""How many seeds a comparison takes: as many as were asked for, or as many as settle it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DropkitTypeError, DropkitValueError, OutputError
from .files import read_sealed_json
from .recipes.measures import Figures
from .recipes.recipe import at_least_one
from .runs.run import Run
from .statistics.needed import MOST_SEEDS
from .telling.pairs import FEW, judged
from .telling.table import lines

MARGIN = 0.005  # half a percent point, of figures that are proportions
MAX_SEEDS = 50
# Of config.json, beside the seeds: they say how runs are told, not how they are trained.
# The rates of each run are compared with its own config; here only their names may grow.
KEYS = ("rates", "margin", "until_settled", "max_seeds", "looks")


@dataclass(frozen=True, slots=True)
class Begun:
    """How many seeds come before the first look, and what config.json says of how runs are told."""

    seeds: int
    told: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Settling:
    """What was asked of the answer; `make` checks it, see `compare` for the meanings."""

    margin: float | None
    until_settled: bool
    seeds: int | None
    max_seeds: int

    @classmethod
    def make(
        cls, figures: Figures, seeds: int | None, margin: float | None, until_settled: bool, max_seeds: int | None
    ) -> "Settling":
        """Check the choices, before anything is loaded."""
        seeds = None if seeds is None else at_least_one("seeds", seeds)
        if margin is not None:
            margin = _margin(figures, margin)
        if not until_settled:
            if max_seeds is not None:
                raise DropkitValueError(
                    f"max_seeds {max_seeds} is for --until-settled: add that, or say how many with --seeds"
                )
            return cls(margin, False, seeds, MAX_SEEDS)
        if margin is None and not figures.proportion:
            raise DropkitValueError(
                f"--until-settled needs a --margin: a difference of {figures.title} that would not matter to you"
            )
        return cls(MARGIN if margin is None else margin, True, seeds, _most(seeds, max_seeds))

    def begin(self, usual: int, folder: Path, resume: bool) -> Begun:
        """How many seeds are trained before the first look; where seeds were added before, as many as there were.

        Args:
            usual: how many, where nobody said so.
            folder: of the comparison.
            resume: whether it goes on from what the folder holds.

        Raises:
            OutputError: seeds were added here until all was settled, and that is not asked for any more.
        """
        before = _before(folder) if resume else {}
        margin = {} if self.margin is None else {"margin": self.margin}
        if self.until_settled:
            told = {**margin, "until_settled": True, "max_seeds": self.max_seeds}
            return Begun(max(FEW, self.seeds or 0, before.get("seeds", 0)), told)
        if before.get("until_settled"):
            raise OutputError(
                f"{folder} was compared with --until-settled, so how many seeds it has follows from what they showed: "
                "go on with --until-settled, or choose another --out"
            )
        seeds, looks = self.seeds or usual, list(before.get("looks", []))
        if (folder / "result.json").exists() and before.get("seeds", seeds) < seeds:
            looks.append(before["seeds"])
        return Begun(seeds, {**margin, **({"looks": looks} if looks else {})})

    @property
    def ignored(self) -> tuple[str, ...]:
        """What of config.json may be other than before."""
        return (*KEYS, "seeds") if self.until_settled else KEYS

    def goes_on(self, runs: Mapping[str, Sequence[Run]]) -> bool:
        """Whether another seed is wanted after these."""
        seeds = len(next(iter(runs.values())))
        if not self.until_settled or len(runs) < 2 or seeds >= self.max_seeds:
            return False
        return not judged(lines(runs, looked=True), self.margin).settled


def _before(folder: Path) -> dict[str, Any]:
    """What a folder says of its comparison; nothing where it holds none."""
    path = folder / "config.json"
    return read_sealed_json(path) if path.exists() else {}


def _margin(figures: Figures, margin: float) -> float:
    if isinstance(margin, bool) or not isinstance(margin, int | float):
        raise DropkitTypeError(f"margin must be a number above 0, got {margin!r} of type {type(margin).__name__}")
    if not margin > 0 or not math.isfinite(margin):
        raise DropkitValueError(
            f"margin must be above 0, got {margin}: it is a difference of {figures.title} that would not matter to you"
        )
    if figures.proportion and margin >= 0.5:
        raise DropkitValueError(
            f"margin {margin:g} would be {100 * margin:g} points of {figures.title}, which lies between 0 and 1; half "
            "a point is 0.005"
        )
    return float(margin)


def _most(seeds: int | None, max_seeds: int | None) -> int:
    if seeds is not None and seeds < FEW:
        raise DropkitValueError(f"--until-settled looks from {FEW} seeds on, got seeds {seeds}; leave --seeds out")
    most = max(MAX_SEEDS, seeds or 0) if max_seeds is None else at_least_one("max_seeds", max_seeds)
    if not max(FEW, seeds or 0) <= most <= MOST_SEEDS:
        raise DropkitValueError(
            f"max_seeds must lie between the first look's {max(FEW, seeds or 0)} and {MOST_SEEDS}, got {most}"
        )
    return most
