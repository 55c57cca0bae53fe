"""The compared figure of each test sample, beside a run: of its last epochs, and their mean, which tables are made of.

Written after each of the last epochs and before the run's state, so that an epoch that counts has its scores; a run
that is lengthened finds those of the epochs that it goes on from.
"""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from ...errors import DataError, DropkitValueError
from ..files import AGAIN
from ..files.arrays import save_arrays
from ..files.sealed import SUM, UNSEALED, read_sealed

SCORES = "scores.safetensors"
MEAN = "test"
LAST = 3  # epochs averaged into a seed's figure: one epoch's test accuracy is noisy at high learning rates

Scores = NDArray[np.float32]


@runtime_checkable
class ScoresSamples(Protocol):
    """A trainer that knows the score of each test sample."""

    def sample_scores(self) -> Scores | None:
        """After the last epoch, in the order of the samples; None where the compared figure is no mean over samples."""


def keep_scores(folder: Path, run: str, epoch: int, epochs: int, scores: Scores | None) -> None:
    """Write an epoch's scores where it is one of the last; with the last one their mean.

    Args:
        folder: of the run.
        run: whose scores they are, as its state has it.
        epoch, epochs: its number, and how many there will be.
        scores: of the test samples, if there are any.
    """
    if scores is None or epoch <= epochs - LAST:
        return
    kept = {number: found for number, found in _read(folder, run).items() if epoch - LAST < number < epoch}
    kept[epoch] = np.asarray(scores, np.float32)
    arrays: dict[str, Any] = {_name(number): found for number, found in kept.items()}
    if epoch == epochs and len(kept) == min(LAST, epochs):
        arrays[MEAN] = np.mean(np.stack(list(kept.values())), axis=0, dtype=np.float64).astype(np.float32)
    save_arrays(folder / SCORES, arrays, {"run": run})


def read_scores(folder: Path) -> Scores | None:
    """The mean score of each test sample over the last three epochs; None where the run has none.

    Raises:
        DataError: the file is damaged.
    """
    return _arrays(folder / SCORES)[0].get(MEAN) if (folder / SCORES).exists() else None


def _read(folder: Path, run: str) -> dict[int, Scores]:
    """Epoch -> scores, as far as they are of this run."""
    if not (folder / SCORES).exists():
        return {}
    arrays, owner = _arrays(folder / SCORES)
    return {int(name.rpartition("-")[2]): found for name, found in arrays.items() if name != MEAN and owner == run}


def _name(epoch: int) -> str:
    return f"epoch-{epoch}"


def _arrays(path: Path) -> tuple[dict[str, Scores], str]:
    try:
        content, header = read_sealed(path)
        if SUM not in header:
            raise DropkitValueError(UNSEALED)
        return load(content), str(header["run"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"cannot read {path}: {error}; {AGAIN}") from error
