"""Scores of inputs one by one."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .reading import entropy, passes


def max_entropy(probabilities: Any) -> NDArray[np.float64]:
    """Entropy of the mean prediction: `H[p](i) = -sum_c pbar[i, c] ln pbar[i, c]`, `pbar = 1/S sum_s p[s]`.

    Args:
        probabilities: of the passes, shape (S, n, classes), or a result that kept its `samples`.

    Returns:
        A score for each input, (n,), in nats, in [0, ln classes]; the largest are to be labelled.

    Raises:
        DropkitValueError, DropkitTypeError: no probabilities, another shape, no samples kept.

    Source: Shannon 1948; Gal, Islam and Ghahramani, ICML 2017, arXiv:1703.02910.

    >>> max_entropy([[[0.5, 0.5], [1.0, 0.0]], [[0.5, 0.5], [1.0, 0.0]]]).round(6)
    array([0.693147, 0.      ])
    """
    return entropy(passes(probabilities).mean(0)) + 0.0  # and not -0


def bald(probabilities: Any) -> NDArray[np.float64]:
    """Mutual information of a label and the pass: `I(i) = H[1/S sum_s p[s, i]] - 1/S sum_s H[p[s, i]]`.

    It is large where passes are sure of different classes, and 0 where all say the same.

    Args:
        probabilities: of the passes, shape (S, n, classes), or a result that kept its `samples`.

    Returns:
        A score for each input, (n,), in nats, in [0, min(ln S, ln classes)]; the largest are to be labelled.

    Raises:
        DropkitValueError, DropkitTypeError: no probabilities, another shape, no samples kept.

    Source: Houlsby et al. 2011, arXiv:1112.5745; Gal, Islam and Ghahramani, ICML 2017, arXiv:1703.02910.

    >>> bald([[[0.5, 0.5], [1.0, 0.0]], [[0.5, 0.5], [0.0, 1.0]]]).round(6)
    array([0.      , 0.693147])
    """
    p = passes(probabilities)
    # A mean of divergences p ln(p / mean), with a mean that rounds to p where passes are equal: I is then exactly 0.
    mean = p[0] + (p - p[0]).mean(0)
    ratio = np.where(p > 0, p, 1.0) / np.where(p > 0, mean, 1.0)
    return np.maximum((p * np.log(ratio)).sum(-1).mean(0), 0.0)


def variation_ratio(probabilities: Any) -> NDArray[np.float64]:
    """How many passes do not vote for the class that most vote for: `1 - 1/S max_c sum_s [argmax p[s, i] = c]`.

    Of equal probabilities the first class has the vote.

    Args:
        probabilities: of the passes, shape (S, n, classes), or a result that kept its `samples`.

    Returns:
        A score for each input, (n,), in [0, 1 - 1 / classes]; the largest are to be labelled.

    Raises:
        DropkitValueError, DropkitTypeError: no probabilities, another shape, no samples kept.

    Source: Freeman 1965; Gal, Islam and Ghahramani, ICML 2017, arXiv:1703.02910.

    >>> variation_ratio([[[0.9, 0.1], [0.8, 0.2]], [[0.6, 0.4], [0.3, 0.7]]])
    array([0. , 0.5])
    """
    p = passes(probabilities)
    votes = (p.argmax(-1)[..., None] == np.arange(p.shape[-1])).mean(0)
    return 1 - votes.max(-1)
