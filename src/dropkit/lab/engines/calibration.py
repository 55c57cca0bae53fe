"""How far a classifier's confidence and its accuracy lie apart."""

import torch
from torch import Tensor

from ...uncertainty.judging.calibration import calibration_error
from ..recipes.objective import CLASSES, LOSSES, Objective

ECE = "test_ece"


def calibrated(objective: Objective) -> bool:
    """Whether outputs are logits of classes, or logarithms of their probabilities, whose softmax is a confidence.

    >>> calibrated(Objective.of("classification")), calibrated(Objective.of("regression"))
    (True, False)
    """
    return objective.kind == CLASSES and objective.loss in LOSSES[CLASSES]


def figures(calibration: "Calibration | None") -> dict[str, float]:
    """What a row says of it: `test_ece`, and nothing where it was not taken."""
    return {} if calibration is None else {ECE: calibration.error()}


class Calibration:
    """Confidence and success of samples, batch by batch, on the device of the logits until they are asked for."""

    def __init__(self) -> None:
        self.sure: list[Tensor] = []
        self.right: list[Tensor] = []

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Take in a batch: logits (n, classes) and class numbers (n,)."""
        sure, found = logits.detach().float().softmax(1).max(1)
        self.sure.append(sure)
        self.right.append(found == labels)

    def error(self) -> float:
        """The expected calibration error of all that was taken in."""
        if not self.sure:
            return float("nan")
        return calibration_error(torch.cat(self.sure).cpu().numpy(), torch.cat(self.right).cpu().numpy())
