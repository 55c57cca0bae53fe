"""Conformal sets of classes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...counter import Key
from ...errors import DropkitValueError
from ...mask import uniform
from ..arrays import labels, probabilities
from .quantile import finite_quantile

SETS = ("lac", "aps", "raps")
CALIBRATION, PREDICTION = "conformal/calibration", "conformal/prediction"  # sites of the uniform numbers


@dataclass(frozen=True, slots=True)
class SetScore:
    """How strange each class is: small where it is likely.

    Args:
        method: "lac", "aps" or "raps".
        seed: of the uniform numbers.
        randomised: whether they are drawn; else they are 1.
        penalty, rank: of "raps".

    >>> SetScore("aps", 0, False, 0.01, 5).of(np.array([[0.3, 0.7]]), "site", None)
    array([[1. , 0.7]])
    """

    method: str
    seed: int
    randomised: bool
    penalty: float
    rank: int

    def __post_init__(self) -> None:
        if not (isinstance(self.penalty, int | float | np.number) and 0 <= self.penalty < np.inf):
            raise DropkitValueError(f"penalty must be 0 or more for each class beyond the rank, got {self.penalty!r}")
        if isinstance(self.rank, bool) or not isinstance(self.rank, int | np.integer) or self.rank < 0:
            raise DropkitValueError(f"rank must be a whole number of classes without a penalty, got {self.rank!r}")

    def of(self, p: NDArray, site: str, rows: Any) -> NDArray[np.float64]:
        """The score of every class, shape (n, classes); of equal probabilities the first class ranks first."""
        p = p.astype(np.float64)
        if self.method == "lac":
            return 1 - p
        u = (
            uniform((len(p),), Key(self.seed, site), rows=rows).astype(np.float64)
            if self.randomised
            else np.ones(len(p))
        )
        order = np.argsort(-p, axis=1, kind="stable")
        sorted_p = np.take_along_axis(p, order, 1)
        score = np.cumsum(sorted_p, axis=1) - sorted_p + u[:, None] * sorted_p
        if self.method == "raps":
            score += self.penalty * np.maximum(0, np.arange(1, p.shape[1] + 1) - self.rank)
        found = np.empty_like(score)
        np.put_along_axis(found, order, score, 1)
        return found


@dataclass(frozen=True, slots=True)
class ConformalSets:
    """Sets of classes that hold the truth with probability 1 - alpha: what `conformal` makes of probabilities.

    Args:
        alpha: how often the truth may be missed.
        quantile: q, the largest score that a class in a set may have; infinite where there were too few samples.
        n, classes: how many samples it was calibrated on, and how many classes they have.
        score: how strange a class is.

    >>> from dropkit.uncertainty import conformal
    >>> sets = conformal([[0.9, 0.1]] * 9, [0] * 9, alpha=0.2, method="aps", randomised=False)
    >>> sets.method, sets.predict([[0.5, 0.5], [1.0, 0.0]])
    ('aps', array([[ True, False], [False, False]]))
    """

    alpha: float
    quantile: float
    n: int
    classes: int
    score: SetScore

    @property
    def method(self) -> str:
        """The name of the score."""
        return self.score.method

    def predict(self, predicted: Any, rows: Any = None, *, allow_empty: bool = True) -> NDArray[np.bool_]:
        """Which classes the set of each sample holds: those whose score is q at most.

        Args:
            predicted: probabilities (m, classes), or a result whose `mean` has them.
            rows: numbers of the samples in the data set, (m,), on which the u of each depends; 0 to m - 1 without them.
            allow_empty: else a set that would be empty holds the most probable class; the truth is then held more often
                than 1 - alpha says.

        Returns:
            Bool, shape (m, classes).

        >>> from dropkit.uncertainty import conformal
        >>> sets = conformal([[0.9, 0.1]] * 9, [0] * 9, alpha=0.2)
        >>> sets.predict([[0.5, 0.5]]), sets.predict([[0.5, 0.5]], allow_empty=False)
        (array([[False, False]]), array([[ True, False]]))
        """
        p = _rows(predicted)
        if p.shape[1] != self.classes:
            raise DropkitValueError(f"these sets were calibrated on {self.classes} classes, got {p.shape[1]}")
        held = self.score.of(p, PREDICTION, rows) <= self.quantile
        if not allow_empty:
            empty = ~held.any(1)
            held[empty, p.argmax(1)[empty]] = True
        return held


def conformal_sets(predicted: Any, y: Any, alpha: float, score: SetScore, rows: Any) -> ConformalSets:
    """Calibrated sets: `conformal` with the score of a method.

    >>> conformal_sets([[0.9, 0.1]] * 9, [0] * 9, 0.2, SetScore("lac", 0, True, 0.01, 5), None).n
    9
    """
    p = _rows(predicted)
    truth = labels(y, p.shape[:1], p.shape[1])
    scores = score.of(p, CALIBRATION, rows)[np.arange(len(p)), truth]
    return ConformalSets(alpha, float(finite_quantile(scores, alpha)), len(p), p.shape[1], score)


def _rows(predicted: Any) -> NDArray:
    p = probabilities(predicted)
    if p.ndim != 2:
        raise DropkitValueError(
            f"conformal sets need probabilities (samples, classes), got shape {p.shape}; samples must be exchangeable, "
            "which pixels or words of one input are not: take one of each input"
        )
    return p
