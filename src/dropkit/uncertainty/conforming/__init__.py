"""Conformal prediction on top of any prediction: sets and intervals that hold the truth as often as they say."""

from typing import Any, Literal, overload

from ...errors import DropkitValueError, UnknownNameError
from ..arrays import fraction
from .intervals import INTERVALS, ConformalIntervals, conformal_intervals
from .sets import SETS, ConformalSets, SetScore, conformal_sets


@overload
def conformal(
    predicted: Any, y: Any, alpha: float, method: Literal["lac", "aps", "raps"] = "lac", *, seed: int = 0,
    rows: Any = None, randomised: bool = True, penalty: float | None = None, rank: int | None = None,
) -> ConformalSets: ...  # fmt: skip
@overload
def conformal(
    predicted: Any, y: Any, alpha: float, method: Literal["split", "normalised", "cqr"], *, beta: float | None = None
) -> ConformalIntervals: ...


def conformal(
    predicted: Any, y: Any, alpha: float, method: str = "lac", *, seed: int = 0, rows: Any = None,
    randomised: bool = True, penalty: float | None = None, rank: int | None = None, beta: float | None = None,
) -> ConformalSets | ConformalIntervals:  # fmt: skip
    """Calibrate sets of classes, or intervals, that hold the truth with probability 1 - alpha.

    Of each of the n calibration samples a score s_i says how strange its truth is. `q` is the k-th smallest of them,
    with `k = ceil((n + 1)(1 - alpha))`, and infinite where k > n. A set holds all classes, an interval all numbers,
    whose score is q at most. Where calibration and new samples are exchangeable, the truth is held with probability
    1 - alpha or more, and at most 1 - alpha + 1 / (n + 1) where scores have no ties; over both draws, and not for each
    input.

    | method | score | predicted |
    | --- | --- | --- |
    | "lac" | `1 - p[y]` | probabilities |
    | "aps" | `sum of p over classes above y + u p[y]` | probabilities |
    | "raps" | that of "aps" + `penalty max(0, rank of y - rank)` | probabilities |
    | "split" | `abs(y - mean)` | means |
    | "normalised" | `abs(y - mean) / (sqrt(variance) + beta)` | means and variances |
    | "cqr" | `max(low - y, y - high)` | quantiles at alpha / 2 and 1 - alpha / 2 |

    Args:
        predicted: of held-out samples, which the model was not fitted to: probabilities (n, classes); means (n, ...);
            a pair (means, variances) for "normalised", (low, high) for "cqr"; or a result with `mean`, `variance` and
            `quantiles`.
        y: class numbers (n,), or numbers of the shape of the means.
        alpha: how often the truth may be missed, in (0, 1).
        method: as in the table.
        seed, rows: key the uniform u of each sample: `rows` are numbers of the samples in the data set, 0 to n - 1
            without them. Nothing else is random.
        randomised: whether u is drawn; else it is 1, and sets hold the truth more often than they say.
        penalty, rank: of "raps": what each class beyond the first `rank` ones costs; 0.01 and 5.
        beta: of "normalised": what is added to deviations, in the unit of y; 0.

    Returns:
        A `ConformalSets`, whose `predict` gives bool (n, classes), or a `ConformalIntervals`, whose `predict` gives
        (low, high).

    Raises:
        DropkitValueError: alpha outside (0, 1), no such method, an option of another, no probabilities, NaN, labels
            outside the classes, shapes that do not agree, a deviation of 0 with "normalised".
        DropkitTypeError: no numbers.

    Warns where n is so small that q is infinite: below 1 / alpha - 1.

    Source: Vovk, Gammerman and Shafer 2005; LAC: Sadinle, Lei and Wasserman 2019; APS: Romano, Sesia and Candes,
    NeurIPS 2020, arXiv:2006.02544; RAPS: Angelopoulos et al., ICLR 2021, arXiv:2009.14193; normalised: Papadopoulos et
    al. 2008; CQR: Romano, Patterson and Candes, NeurIPS 2019, arXiv:1905.03222.

    >>> import numpy as np
    >>> p = np.array([0.9, 0.8, 0.7, 0.6] * 5)
    >>> sets = conformal(np.stack([p, 1 - p], -1), [0] * 20, alpha=0.1)
    >>> round(sets.quantile, 6), sets.predict([[0.5, 0.5], [0.65, 0.35]])
    (0.4, array([[False, False], [ True, False]]))
    >>> low, high = conformal([0.0] * 9, range(1, 10), alpha=0.2, method="split").predict([10.0])
    >>> low, high
    (array([2.]), array([18.]))
    """
    level = fraction("alpha", alpha)
    if method not in (*SETS, *INTERVALS):
        raise UnknownNameError("conformal method", str(method), (*SETS, *INTERVALS))
    for name, value, owner in (("penalty", penalty, "raps"), ("rank", rank, "raps"), ("beta", beta, "normalised")):
        if value is not None and method != owner:
            raise DropkitValueError(f'{name}={value!r} is an option of method "{owner}", got "{method}"; leave it out')
    if method in SETS:
        penalty, rank = 0.01 if penalty is None else penalty, 5 if rank is None else rank
        return conformal_sets(predicted, y, level, SetScore(method, seed, randomised, penalty, rank), rows)
    return conformal_intervals(predicted, y, level, method, 0.0 if beta is None else beta)
