"""Dropout as a function on NumPy arrays."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..counter import Key
from ..errors import DropkitTypeError, DropkitValueError
from ..mask import ONE, keep, scale, threshold, thresholds

FLOATING = (np.float16, np.float32, np.float64)


def dropout(
    x: NDArray,
    p: float | NDArray,
    *,
    training: bool,
    key: Key | None = None,
    share: Sequence[int] = (),
    offset: Sequence[int] | None = None,
    global_shape: Sequence[int] | None = None,
    rows: ArrayLike | None = None,
) -> NDArray:
    """Zero elements with probability p and scale the rest: `y = x * keep / (1 - p)`.

    It is linear in x, so its backward pass is itself: `dx = dropout(dy, p, training=True, key=the same key)`.

    Args:
        x: array of float16, float32 or float64, any shape and strides.
        p: drop probability in [0, 1], rounded to 1/65536 (the scale is exact for the rounded value); a number, or an
            array that broadcasts to x.
        training: whether to drop at all; without a default on purpose.
        key: the mask's coordinates; needed to drop, since NumPy has no generator of its own to draw one from.
        share: axes along which one draw is shared.
        offset, global_shape: where x starts in a larger array, and that array's shape.
        rows: row number in the whole of each entry of axis 0.

    Returns:
        An array like x: kept values are exactly `x * scale` (in float32 arithmetic for float16, rounded once), dropped
        ones 0 even where x is NaN or infinite. x itself if nothing is dropped.

    Raises:
        DropkitValueError, DropkitTypeError: p outside [0, 1], NaN or no number; no key, or one that is no Key; a dtype
            other than the three, in training; a share axis that does not exist; an offset outside the global shape.

    Source: Srivastava et al. 2014 (JMLR 15:1929); mask specification v1 (docs/mask.md).

    >>> dropout(np.ones((2, 8), np.float32), 0.5, training=True, key=Key(seed=1, site="drop"))
    array([[0., 0., 0., 0., 2., 2., 2., 0.],
           [0., 2., 2., 2., 0., 0., 2., 0.]], dtype=float32)
    """
    if not isinstance(training, bool):
        raise DropkitTypeError(f"training must be True or False, got {training!r}")
    each = thresholds(p) if isinstance(p, np.ndarray) and p.ndim else None
    t = threshold(p.item() if isinstance(p, np.ndarray) else p) if each is None else None
    if not training or t == ONE or x.size == 0:
        return x
    if x.dtype not in FLOATING:
        raise DropkitTypeError(
            f"dropout in training needs float16, float32 or float64, but x is {x.dtype}; convert with "
            "x.astype(np.float32)"
        )
    kept = keep(x.shape, p, _needed(key), share=share, offset=offset, global_shape=global_shape, rows=rows)
    wide = np.float64 if x.dtype == np.float64 else np.float32
    factor = wide(scale(t)) if each is None else np.divide(ONE, each, out=np.zeros(each.shape, wide), where=each > 0)  # type: ignore[arg-type]
    # `where` rather than a product: a dropped NaN is 0.
    if x.dtype == np.float16:
        return np.multiply(x, factor, dtype=wide, out=np.zeros_like(x, wide), where=kept).astype(np.float16)
    return np.multiply(x, factor, out=np.zeros_like(x), where=kept)


def _needed(key: Key | None) -> Key:
    if key is None:
        raise DropkitValueError(
            "NumPy has no ambient generator to draw a key from; pass key=dropkit.Key(seed, site, step)"
        )
    if not isinstance(key, Key):
        raise DropkitTypeError(f"key must be a dropkit.Key such as Key(seed=0, site='drop', step=0), got {key!r}")
    return key
