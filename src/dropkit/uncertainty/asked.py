"""What a prediction is asked for, checked, whatever the framework."""

import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DropkitTypeError, DropkitValueError, UnknownNameError
from .streaming import KINDS

SHARES = ("sample", "pass")
LANES = 16  # passes side by side, about
MEMORY = 1 << 28  # bytes of activations at a time


@dataclass(frozen=True)
class Asked:
    """All arguments of `predict` but the model and the inputs."""

    samples: int
    share: str
    seed: int
    chunk: int | None
    stop: float | None
    outputs: str
    axis: int
    quantiles: tuple[float, ...]
    keep: bool
    memory: int
    prefix: bool

    @staticmethod
    def of(
        samples: Any, share: Any, seed: Any, chunk: Any, stop: Any, outputs: Any, axis: Any, quantiles: Any, keep: bool,
        memory: Any, prefix: bool,
    ) -> "Asked":  # fmt: skip
        """Checked.

        Raises:
            DropkitValueError, DropkitTypeError: a number out of range; an unknown name.
        """
        if share not in SHARES:
            raise UnknownNameError("share", share, SHARES)
        if outputs not in KINDS:
            raise UnknownNameError("outputs", outputs, KINDS)
        levels = tuple(float(level) for level in quantiles)
        if not all(0 <= level <= 1 for level in levels):
            raise DropkitValueError(f"quantiles are levels in [0, 1] such as (0.05, 0.95), got {quantiles!r}")
        if stop is not None and not (isinstance(stop, int | float) and stop > 0 and math.isfinite(stop)):
            raise DropkitValueError(f"stop is a standard error above 0, in units of the mean, got {stop!r}")
        return Asked(
            _whole("samples", samples, 1),
            share,
            _whole("seed", seed, 0),
            None if chunk == "auto" else _whole("chunk", chunk, 1),
            stop,
            outputs,
            operator.index(axis),
            levels,
            keep,
            _whole("memory", memory, 1),
            prefix,
        )

    def lanes(self, rows: int, bytes_of_row: int) -> int:
        """How many passes run side by side: as even as can be, within the memory."""
        most = max(1, min(LANES, self.memory // max(rows * bytes_of_row, 1)))
        return math.ceil(self.samples / math.ceil(self.samples / most))


def _whole(name: str, value: Any, least: int) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise DropkitTypeError(f"{name} must be an integer of at least {least}, got {value!r}") from None
    if not least <= number < 1 << 63:
        raise DropkitValueError(f"{name} must be at least {least}, got {value!r}")
    return number


def row_numbers(rows: Any, count: int) -> NDArray[np.int64]:
    """The number of each input in the data set.

    Raises:
        DropkitValueError, DropkitTypeError: not as many as inputs; no whole numbers; below 0.
    """
    if rows is None:
        return np.arange(count)
    found = np.asarray(rows)
    if found.ndim != 1 or not (found.dtype.kind in "iu" or not found.size):
        raise DropkitTypeError(f"rows must be whole numbers, one for each input, got {rows!r:.60}")
    if len(found) != count:
        raise DropkitValueError(f"rows has {len(found)} numbers for {count} inputs: give each input its own")
    if found.size and found.min() < 0:
        raise DropkitValueError(f"rows count from 0, got {found.min()}")
    return found.astype(np.int64)


@dataclass
class Block:
    """Inputs that run together, each in its slot: where they stand in the data, and their row numbers."""

    slots: NDArray[np.int64]
    places: NDArray[np.int64]
    rows: NDArray[np.int64]


def blocks(rows: NDArray[np.int64], size: int) -> Iterator[Block]:
    """The inputs in blocks, row r always in slot r mod size.

    Where a row stands in its block then depends on nothing but its number, and so does every bit that is computed of
    it: a product of matrices may round the third row otherwise than the fourth.

    >>> [(block.slots.tolist(), block.places.tolist()) for block in blocks(np.array([0, 2, 4, 1]), 2)]
    [([0, 1], [0, 3]), ([0], [1]), ([0], [2])]
    """
    slots = rows % size
    turn = np.zeros(len(rows), dtype=np.int64)  # of how many with its slot come before
    for slot in np.unique(slots):
        mine = slots == slot
        turn[mine] = np.arange(mine.sum())
    for number in range(int(turn.max()) + 1 if len(rows) else 0):
        places = np.flatnonzero(turn == number)
        yield Block(slots[places], places, rows[places])


def checked_sites(sites: Any) -> str | Sequence[str] | None:
    """Patterns, or None for all."""
    if sites is None or isinstance(sites, str):
        return sites
    found = list(sites)
    if not found:
        raise DropkitValueError("sites=[] turns nothing on: name sites, or leave sites out for all of them")
    return found
