"""Class probabilities of many passes, as acquisition functions take them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DropkitValueError
from ..arrays import is_result, kept, probabilities


def passes(samples: Any, name: str = "probabilities") -> NDArray[np.float64]:
    """Probabilities with their axes (passes, inputs, classes), or a result that kept them, in float64.

    >>> passes([[[0.5, 0.5]], [[1.0, 0.0]]]).shape
    (2, 1, 2)
    """
    found = probabilities(kept(samples), name)
    if found.ndim != 3:
        raise DropkitValueError(
            f"{name} must have shape (passes, inputs, classes), got {found.shape}; of a single pass give p[None], of "
            "images or texts one distribution an input"
        )
    return found.astype(np.float64)


def same_functions(*samples: Any) -> None:
    """Whether results say that pass s is one function for all inputs, as joint entropies need; arrays say nothing.

    >>> same_functions([[[0.5, 0.5]]])
    """
    for found in samples:
        share = getattr(found, "share", "pass") if is_result(found) else "pass"
        if share != "pass":
            raise DropkitValueError(
                f"joint entropies need passes with the same masks for all inputs, got share={share!r}; predict with "
                'share="pass"'
            )


def entropy(p: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
    """`-sum p ln p` in nats, with 0 ln 0 = 0.

    >>> entropy(np.array([0.0, 1.0])) + 0.0
    np.float64(0.0)
    """
    return -(p * np.log(np.where(p > 0, p, 1.0))).sum(axis)
