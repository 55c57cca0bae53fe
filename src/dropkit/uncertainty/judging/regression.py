"""Errors and likelihoods of predictions that are numbers."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DropkitValueError
from ..arrays import alike, drawn, is_result, numbers


def rmse(predicted: Any, y: Any) -> float:
    """Root mean square error: `sqrt(mean (predicted - y)^2)` over all elements.

    Args:
        predicted: shape (...), or a result whose `mean` has it.
        y: the truth, the same shape.

    Returns:
        The error, in the unit of y.

    Raises:
        DropkitValueError, DropkitTypeError: NaN or infinity, no samples, shapes that differ.

    Source: by definition.

    >>> rmse([1.0, 2.0], [1.0, 4.0])
    1.4142135623730951
    """
    mean = numbers("the prediction", predicted.mean if is_result(predicted) else predicted)
    return math.sqrt(np.square(mean - alike("y", y, "the prediction", mean.shape)).mean())


def gaussian_nll(mean: Any, variance: Any, y: Any) -> float:
    """Negative log-likelihood under a normal distribution: `(y - mean)^2 / (2 v) + ln(2 pi v) / 2`, in nats.

    Axis 0 are samples, over which the mean is taken; outputs of one sample are independent, their logarithms add.

    Args:
        mean: shape (n, ...).
        variance: above 0, the same shape.
        y: the truth, the same shape.

    Returns:
        The mean over samples.

    Raises:
        DropkitValueError, DropkitTypeError: NaN or infinity, a variance of 0 or below, shapes that differ.

    Source: Nix and Weigend 1994.

    >>> round(gaussian_nll([0.0, 0.0], [1.0, 4.0], [0.0, 2.0]), 6)
    1.515512
    """
    return float(gaussian_nll_of_each(mean, variance, y).mean())


def gaussian_nll_of_each(mean: Any, variance: Any, y: Any) -> NDArray[np.float64]:
    """The summands of `gaussian_nll`, shape (n,).

    >>> gaussian_nll_of_each([0.0, 0.0], [1.0, 4.0], [0.0, 2.0]).round(6)
    array([0.918939, 2.112086])
    """
    m = numbers("mean", mean)
    v = above_zero("variance", alike("variance", variance, "the mean", m.shape))
    truth = alike("y", y, "the mean", m.shape)
    return (np.square(truth - m) / (2 * v) + np.log(2 * np.pi * v) / 2).reshape(len(m), -1).sum(1)


def log_likelihood(samples: Any, y: Any, tau: float) -> float:
    """Log-likelihood of Monte Carlo dropout: `ln 1/S sum_s exp(-tau/2 |y - y_s|^2) - D/2 ln(2 pi) + D/2 ln tau`.

    The predictive distribution is a mixture of S normal ones of precision tau around the outputs of the passes, of D
    outputs each; of a single output D is 1. tau and y are in the same units: where targets were standardised by a
    deviation sd, `tau / sd^2` belongs to y in its own unit.

    Args:
        samples: outputs of the passes, shape (S, n, ...), or a result that kept its `samples`.
        y: the truth, shape (n, ...).
        tau: the precision, 1 / variance of the noise of y, above 0.

    Returns:
        The mean over the n samples, in nats.

    Raises:
        DropkitValueError, DropkitTypeError: NaN or infinity, tau not above 0, shapes that do not agree, no samples
            kept.

    Source: Gal and Ghahramani, ICML 2016, arXiv:1506.02142, section 4 of its appendix.

    >>> round(log_likelihood([[0.0], [1.0]], [0.0], tau=1.0), 6)
    -1.138009
    """
    return float(log_likelihood_of_each(samples, y, tau).mean())


def log_likelihood_of_each(samples: Any, y: Any, tau: float) -> NDArray[np.float64]:
    """The summands of `log_likelihood`, shape (n,).

    >>> log_likelihood_of_each([[0.0], [1.0]], [0.0], tau=1.0).round(6)
    array([-1.138009])
    """
    if isinstance(tau, bool) or not isinstance(tau, int | float | np.number) or not 0 < tau < np.inf:
        raise DropkitValueError(f"tau must be a precision above 0, 1 / variance of the noise of y, got {tau!r}")
    passes, truth = drawn(samples, y)
    total, outputs = len(passes), truth[0].size
    error = np.square(passes - truth).reshape(total, len(truth), outputs).sum(-1)
    least = error.min(0)
    mean = np.log(np.exp(-0.5 * tau * (error - least)).mean(0)) - 0.5 * tau * least
    return mean + 0.5 * outputs * math.log(tau / (2 * math.pi))


def crps(samples: Any, y: Any, *, fair: bool = False) -> float:
    """Continuous ranked probability score of samples: `mean_s |y_s - y| - 1/2 mean_st |y_s - y_t|`.

    It is the integral of the squared distance between two distribution functions, that of the S samples and that of y.
    The pairs (s, t) are all S^2, as belongs to the distribution that S equal weights make; `fair` takes the S (S - 1)
    of two different ones, as belongs to the distribution that they were drawn from.

    Args:
        samples: outputs of the passes, shape (S, n, ...), or a result that kept its `samples`.
        y: the truth, shape (n, ...).
        fair: pairs of different samples alone; needs two of them.

    Returns:
        The mean over all elements of y, in its unit; smaller is better.

    Raises:
        DropkitValueError, DropkitTypeError: NaN or infinity, shapes that do not agree, no samples kept.

    Source: Gneiting and Raftery 2007, "Strictly proper scoring rules"; fair: Ferro 2014.

    >>> crps([[0.0], [2.0]], [1.0])
    0.5
    >>> crps([[0.0], [2.0]], [1.0], fair=True)
    0.0
    """
    passes, truth = drawn(samples, y)
    total = len(passes)
    if fair and total < 2:
        raise DropkitValueError(f"fair needs two samples or more, got {total}; take fair=False")
    # Of sorted samples each stands 2 s - S + 1 more often on the right of a pair than on the left.
    weights = (2 * np.arange(total) - total + 1).reshape(-1, *[1] * truth.ndim)
    pairs = 2 * (weights * np.sort(passes, axis=0)).sum(0) / (total * (total - 1 if fair else total))
    return float((np.abs(passes - truth).mean(0) - pairs / 2).mean())


def above_zero(name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Numbers that all are above 0.

    >>> above_zero("variance", np.ones(2))
    array([1., 1.])
    """
    if not (values > 0).all():
        raise DropkitValueError(
            f"{name} must be above 0, got {values.min():.6g} of {int((values <= 0).sum())} of {values.size}; add the "
            "variance of the noise"
        )
    return values
