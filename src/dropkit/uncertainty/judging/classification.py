"""Proper scores and accuracy of class probabilities."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DropkitValueError
from ..arrays import classified, is_result, labels, numbers
from ..arrays import probabilities as checked


def nll(probabilities: Any, y: Any, *, log: bool = False) -> float:
    """Negative log-likelihood of the labels, in nats: `-1/n sum_i ln p[i, y_i]`.

    It is infinite where a label has probability 0, as probabilities in float32 have below 1e-45; logarithms do not.

    Args:
        probabilities: shape (..., classes), or a result whose `mean` has it; all leading axes are samples.
        y: class numbers, shape (...).
        log: `probabilities` are logarithms of probabilities, up to a constant of each sample (logits too).

    Returns:
        The mean over samples, in [0, inf].

    Raises:
        DropkitValueError, DropkitTypeError: no probabilities, labels outside the classes, shapes that do not agree.

    Source: Good 1952, "Rational decisions".

    >>> round(nll([[0.5, 0.5], [0.25, 0.75]], [0, 1]), 6)
    0.490415
    >>> round(nll([[0.0, 0.0], [1.0, 2.0986123]], [0, 1], log=True), 6)
    0.490415
    """
    return float(nll_of_each(probabilities, y, log=log).mean())


def nll_of_each(probabilities: Any, y: Any, *, log: bool = False) -> NDArray[np.float64]:
    """The summands of `nll`, shape (n,), n being all samples.

    >>> nll_of_each([[0.5, 0.5], [0.25, 0.75]], [0, 1]).round(6)
    array([0.693147, 0.287682])
    """
    if log:
        z, found = log_classified(probabilities, y)
        top = z.max(1, keepdims=True)
        total = top[:, 0] + np.log(np.exp(z - top).sum(1))
        return total - z[np.arange(len(z)), found]
    p, found = classified(probabilities, y)
    with np.errstate(divide="ignore"):
        return -np.log(p[np.arange(len(p)), found].astype(np.float64)) + 0.0  # and not -0


def log_classified(logits: Any, y: Any) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logits, or logarithms of probabilities, (n, classes) and labels (n,); -inf is the logarithm of 0.

    >>> log_classified([[0.0, -np.inf]], [0])[0]
    array([[  0., -inf]])
    """
    z = log_rows(logits)
    found = labels(y, z.shape[:-1], z.shape[-1])
    return z.reshape(-1, z.shape[-1]), found.reshape(-1)


def log_rows(logits: Any) -> NDArray[np.float64]:
    """Logits of any shape (..., classes); of a result the logarithm of its mean probabilities.

    >>> log_rows([[0.0, -np.inf]])
    array([[  0., -inf]])
    """
    if is_result(logits):
        with np.errstate(divide="ignore"):
            return np.log(checked(logits).astype(np.float64))
    z = numbers("logits", logits, infinite=True)
    if z.ndim < 2 or z.shape[-1] < 2:
        raise DropkitValueError(f"logits must have shape (samples, classes) with two classes or more, got {z.shape}")
    if (z == np.inf).any() or (z.max(-1) == -np.inf).any():
        raise DropkitValueError("logits hold inf, or a sample of -inf alone, which is no distribution; mend the model")
    return z


def brier(probabilities: Any, y: Any) -> float:
    """Brier score, a sum over classes: `1/n sum_i sum_c (p[i, c] - [y_i = c])^2`.

    With two classes it is twice the score that is taken of one of them (scikit-learn's `brier_score_loss` by default).

    Args:
        probabilities: shape (..., classes), or a result whose `mean` has it; all leading axes are samples.
        y: class numbers, shape (...).

    Returns:
        The mean over samples, in [0, 2].

    Raises:
        DropkitValueError, DropkitTypeError: as `nll`.

    Source: Brier 1950, "Verification of forecasts expressed in terms of probability".

    >>> brier([[0.5, 0.5], [0.25, 0.75]], [0, 1])
    0.3125
    """
    return float(brier_of_each(probabilities, y).mean())


def brier_of_each(probabilities: Any, y: Any) -> NDArray[np.float64]:
    """The summands of `brier`, shape (n,), n being all samples.

    >>> brier_of_each([[0.5, 0.5], [0.25, 0.75]], [0, 1])
    array([0.5  , 0.125])
    """
    p, found = classified(probabilities, y)
    error = p.astype(np.float64)
    error[np.arange(len(p)), found] -= 1
    return np.square(error).sum(1)


def accuracy(probabilities: Any, y: Any) -> float:
    """The share of right predictions: `1/n sum_i [argmax_c p[i, c] = y_i]`, of equal probabilities the first class.

    Args:
        probabilities: shape (..., classes), or a result whose `mean` has it; all leading axes are samples.
        y: class numbers, shape (...).

    Returns:
        A share in [0, 1].

    Raises:
        DropkitValueError, DropkitTypeError: as `nll`.

    Source: by definition.

    >>> accuracy([[0.5, 0.5], [0.25, 0.75]], [0, 0])
    0.5
    """
    return float(right(probabilities, y).mean())


def right(probabilities: Any, y: Any) -> NDArray[np.bool_]:
    """Whether the most probable class, of equal ones the first, is the label: shape (n,), n being all samples.

    >>> right([[0.5, 0.5], [0.25, 0.75]], [0, 0])
    array([ True, False])
    """
    p, found = classified(probabilities, y)
    return p.argmax(1) == found
