"""How far a classifier's confidence and its accuracy lie apart."""

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..recipes.objective import CLASSES, LOSSES, Objective

BINS = 15
ECE = "test_ece"


def calibration_error(confidence: ArrayLike, right: ArrayLike, bins: int = BINS) -> float:
    """The expected calibration error over bins of equal mass.

    Samples are sorted by confidence and cut into `bins` bins of as many samples each (or one more, in the first ones):
    `sum_b n_b / n |mean right in b - mean confidence in b|`. Bins of equal mass are less biased than those of equal
    width, most of which hold few samples where a network is confident of nearly all.

    Args:
        confidence: the probability of the predicted class, of each sample, shape (n,).
        right: whether that class was the right one, shape (n,).
        bins: how many; of fewer samples each is a bin.

    Returns:
        The error, in [0, 1]; NaN where a probability is, or without samples.

    >>> calibration_error([0.5, 0.5, 1.0, 1.0], [True, False, True, True], bins=2)
    0.0
    >>> round(calibration_error([0.9, 0.9, 0.9, 0.9], [True, False, True, False]), 6)
    0.4

    Source: Naeini, Cooper and Hauskrecht, AAAI 2015; equal mass: Roelofs et al., AISTATS 2022, arXiv:2012.08668.
    """
    sure, hit = np.asarray(confidence, np.float64), np.asarray(right, np.float64)
    if not len(sure) or not np.isfinite(sure).all():
        return float("nan")
    order = np.argsort(sure, kind="stable")
    # Samples of one confidence, wherever they lie in the data, count alike: each has the mean accuracy of all of them.
    values, group = np.unique(sure, return_inverse=True)
    hit = (np.bincount(group, hit, len(values)) / np.bincount(group, minlength=len(values)))[group]
    parts = np.array_split(order, min(bins, len(sure)))
    return float(sum(abs((hit[part] - sure[part]).sum()) for part in parts) / len(sure))


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
