"""The drop probability on its grid: p in 65536ths, as how many of 65536 equally likely draws keep an element.

t = 2**16 - round_half_even(p * 2**16)      kept of 65536
scale = 2**16 / t                           exact for the rounded p, so the expectation has no bias
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import DropkitTypeError, DropkitValueError

ONE = 1 << 16  # t of "keep everything"


def threshold(p: float) -> int:
    """How many of 65536 equally likely draws keep an element: `t = 2**16 - round_half_even(p * 2**16)`.

    Args:
        p: drop probability in [0, 1].

    Raises:
        DropkitTypeError: p is not a number.
        DropkitValueError: p is NaN or outside [0, 1].

    >>> threshold(0.5), threshold(0.1), threshold(1e-7), threshold(1)
    (32768, 58982, 65536, 0)
    """
    if isinstance(p, str | bytes) or not hasattr(p, "__float__"):
        raise DropkitTypeError(_not_a_number(p))
    value = float(p)
    if not 0.0 <= value <= 1.0:
        raise DropkitValueError(_out_of_range(p))
    return ONE - round(value * ONE)  # Python's round is half to even, and scaling by a power of two is exact


def _not_a_number(p: Any) -> str:
    return f"dropout probability must be a number, but got {p!r} of type {type(p).__name__}; pass a float in [0, 1]"


def _out_of_range(p: Any) -> str:
    return (
        f"dropout probability has to be between 0 and 1, but got {p}; "
        "p is the probability of zeroing, 1 - p that of keeping"
    )


def thresholds(p: NDArray) -> NDArray[np.int64]:
    """`threshold` of every element of an array p; same errors."""
    if p.dtype.kind not in "fiub":
        raise DropkitTypeError(_not_a_number(p))
    inside = (p >= 0) & (p <= 1)  # False for NaN
    if not inside.all():
        raise DropkitValueError(_out_of_range(p[~inside].flat[0]))
    wide: NDArray[Any] = p.astype(rate_type(p.dtype), copy=False)
    return ONE - np.rint(wide * wide.dtype.type(ONE)).astype(np.int64)


def rate_type(dtype: np.dtype) -> type[np.float32] | type[np.float64]:
    """The type that rates of a dtype are computed in: float16 cannot hold 2**16; float32 and float64 scale exactly.

    >>> rate_type(np.dtype(">f8")), rate_type(np.dtype(np.float16))
    (<class 'numpy.float64'>, <class 'numpy.float32'>)
    """
    return np.float64 if dtype.kind == "f" and dtype.itemsize >= 8 else np.float32


def scale(t: int) -> float:
    """What kept values are multiplied by, `2**16 / t`; 0 where nothing is kept.

    >>> scale(threshold(0.5)), scale(threshold(1.0))
    (2.0, 0.0)
    """
    return ONE / t if t else 0.0
