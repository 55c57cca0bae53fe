"""Scores of inputs by what they say together, or about others."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DropkitValueError
from ..arrays import count
from .joint import Joint, pairs
from .reading import passes, same_functions

CONFIGURATIONS = 10_000


@dataclass(frozen=True, slots=True)
class Batch:
    """Inputs to be labelled together, in the order in which they were chosen.

    Args:
        chosen: their numbers, shape (size,).
        scores: the mutual information of the labels of the first, of the first two and so on, with the pass; in nats.
        sampled: how many of the scores, the last ones, are estimated and not exact.

    >>> batch_bald([[[1.0, 0.0]], [[0.0, 1.0]]], size=1).chosen
    array([0])
    """

    chosen: NDArray[np.int64]
    scores: NDArray[np.float64]
    sampled: int = 0


def batch_bald(
    probabilities: Any, size: int, *, configurations: int = CONFIGURATIONS, seed: int = 0, without: Any = ()
) -> Batch:
    """Inputs whose labels together say most about the model: BatchBALD, chosen greedily.

    `I(i_1..i_b) = H[1/S sum_s prod_j p[s, i_j, y_j]] - 1/S sum_sj H[p[s, i_j]]`. The next input is the one with which
    this is largest, of equal ones the first; what two labels both say counts once. It is a sum over all classes^b
    configurations of labels while they are at most `configurations`; beyond, a mean over as many that are drawn from
    the passes, as many from each, with uniform numbers keyed by (seed, place in the batch). That mean is of terms in
    [0, ln S], not of joint entropies, whose errors would grow with the batch.

    Args:
        probabilities: of the passes, shape (S, n, classes), or a result that kept its `samples`. Pass s must be one
            function for all inputs, with the same masks: `share="pass"`.
        size: how many to choose, at most n.
        configurations: how many are summed over at most, at least S.
        seed: of the draws.
        without: numbers of inputs that are not to be chosen.

    Returns:
        A `Batch`.

    Raises:
        DropkitValueError, DropkitTypeError: no probabilities, another shape, a size above n, fewer configurations than
            passes, a result whose masks differ between inputs.

    Source: Kirsch, van Amersfoort and Gal, NeurIPS 2019, arXiv:1906.08158.

    >>> p = np.array([[1.0, 1.0, 0.9], [1.0, 1.0, 0.1], [0.0, 0.0, 0.9], [0.0, 0.0, 0.1]])  # inputs 0 and 1 are twins
    >>> batch_bald(np.stack([p, 1 - p], -1), size=2).chosen
    array([0, 2])
    """
    same_functions(probabilities)
    p = passes(probabilities)
    left = _left(p.shape[1], count("size", size), without)
    if count("configurations", configurations) < len(p):
        raise DropkitValueError(f"configurations must be at least the {len(p)} passes, got {configurations}")
    joint = Joint(p, configurations, seed)
    chosen: list[int] = []
    scores: list[float] = []
    sampled = 0
    for _ in range(size):
        score = joint.with_each()
        best = int(np.argmax(np.where(left, score, -np.inf)))
        sampled += joint.sampled
        chosen.append(best)
        scores.append(float(score[best]))
        left[best] = False
        if len(chosen) < size:
            joint.add(best)
    return Batch(np.asarray(chosen), np.asarray(scores), sampled)


def epig(probabilities: Any, targets: Any) -> NDArray[np.float64]:
    """Expected predictive information gain: `EPIG(i) = 1/m sum_j I(label of input i; label of target j)`.

    `I = sum_yz P ln(P / (P_y P_z))`, `P(y, z) = 1/S sum_s p[s, i, y] t[s, j, z]`: how much the label of an input is
    expected to say about the labels of inputs such as those that predictions are wanted for.

    Args:
        probabilities: of the passes for the pool, shape (S, n, classes), or a result that kept its `samples`.
        targets: of the same passes for inputs that predictions are wanted for, shape (S, m, classes), or a result. Pass
            s must be one function for all inputs of both, with the same masks: `share="pass"`, and one seed.

    Returns:
        A score for each input of the pool, (n,), in nats, at least 0; the largest are to be labelled.

    Raises:
        DropkitValueError, DropkitTypeError: no probabilities, other shapes, different numbers of passes, a result whose
            masks differ between inputs.

    Source: Bickford Smith et al., AISTATS 2023, arXiv:2304.08151.

    >>> pool = [[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]]]
    >>> epig(pool, [[[1.0, 0.0]], [[0.0, 1.0]]]).round(6)
    array([0.693147, 0.      ])
    """
    same_functions(probabilities, targets)
    pool, wanted = passes(probabilities), passes(targets, "targets")
    if len(pool) != len(wanted):
        raise DropkitValueError(
            f"pool and targets need the same passes, got {len(pool)} and {len(wanted)}; predict both with one seed"
        )
    return pairs(pool, wanted)


def _left(n: int, size: int, without: Any) -> NDArray[np.bool_]:
    left = np.ones(n, dtype=bool)
    barred = np.asarray(without)
    if barred.size:
        if barred.dtype.kind not in "iu" or barred.min() < 0 or barred.max() >= n:
            raise DropkitValueError(f"without must name inputs by numbers 0 to {n - 1}, got {without!r}")
        left[barred] = False
    if size > left.sum():
        raise DropkitValueError(f"size must be at most the {int(left.sum())} inputs there are, got {size}")
    return left
