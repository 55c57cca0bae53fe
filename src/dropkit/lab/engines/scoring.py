"""Scores of models that are not torch's: what they give, as arrays, scored by the formulas of the torch engine."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..recipes.objective import Objective
from .calibration import Calibration, calibrated, figures
from .loop import Row
from .losses import Losses, Score, losses, outputs_of

TEST = "test"
Arrays = NDArray[Any]
Own = Callable[[Arrays, Arrays], Arrays]
"""(what the model gave, targets) -> the loss of a batch, or of each sample: a loss of the user's."""


def evaluated(
    name: str,
    objective: Objective,
    batches: Iterable[tuple[Arrays, Arrays]],
    logits: Callable[[Arrays], Arrays],
    own: Own | None = None,
) -> tuple[Row, NDArray[np.float32] | None]:
    """The figures of a part, and the scores of its samples where it is the test set.

    Args:
        name: of the part.
        objective: what is scored.
        batches: what the model gave, and the targets.
        logits: what it gave -> the same before any softmax or sigmoid.
        own: the loss, where it is the user's.
    """
    score = Score(name, objective, torch.device("cpu"), kept=name == TEST)
    given: Arrays = np.zeros(0)

    def each(_: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        assert own is not None
        found = np.asarray(own(given, targets.numpy()), np.float32)
        return torch.from_numpy(found.reshape(len(targets), -1).mean(1)) if found.ndim else torch.from_numpy(found)

    found = losses(objective) if own is None else Losses(lambda *both: each(*both).mean(), each)
    score.losses = found
    calibration = Calibration() if name == TEST and calibrated(objective) else None
    for given, targets in batches:
        outputs = outputs_of(torch.from_numpy(np.array(logits(given), np.float32)), objective.kind)
        labels = torch.from_numpy(np.array(targets))
        score.add(found.mean(outputs, labels), outputs, labels)
        if calibration is not None:
            calibration.add(outputs, labels)
    return score.row() | figures(calibration), score.of_samples() if name == TEST else None
