"""Dropout as a function on NumPy arrays."""

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import choice
from ..counter import Key, site_id
from ..errors import DropkitTypeError, DropkitValueError
from ..layout import Layout
from ..mask import ONE, keep, place_of, scale, threshold, thresholds

_KERNELS = choice.cpu()
_FOLD = choice.fold()
_THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

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
    key = _needed(key)
    if _KERNELS is not None and isinstance(x, np.ndarray) and x.flags.aligned and x.dtype.isnative:
        place = place_of(x.shape, share, offset, global_shape, rows)
        return _by_kernel(x, t, p, key, place)
    kept = keep(x.shape, p, key, share=share, offset=offset, global_shape=global_shape, rows=rows)
    wide = np.float64 if x.dtype == np.float64 else np.float32
    factor = wide(scale(t)) if each is None else np.divide(ONE, each, out=np.zeros(each.shape, wide), where=each > 0)  # type: ignore[arg-type]
    # `where` rather than a product: a dropped NaN is 0.
    if x.dtype == np.float16:
        return np.multiply(x, factor, dtype=wide, out=np.zeros_like(x, wide), where=kept).astype(np.float16)
    return np.multiply(x, factor, out=np.zeros_like(x), where=kept)


def _by_kernel(x: NDArray, t: int | None, p: float | NDArray, key: Key, place: Layout) -> NDArray:
    """The same in one pass, with nothing allocated but the result."""
    assert _KERNELS is not None
    y = np.empty_like(x)
    inputs = [x]
    if t is None:
        rates = np.asarray(p)
        inputs.append(_broadcast(rates if rates.dtype == np.float64 else rates.astype(np.float32), x.shape))
    op = _KERNELS.SCALE if t is not None else _KERNELS.RATES
    words = _FOLD(key.seed, site_id(key.site), key.step)
    rows = None if place.rows is None else place.rows.astype(np.int64)
    _KERNELS.walk(op, inputs, y, words, t or 0, place.strides, place.base, rows=rows, threads=_THREADS)
    return y


def _broadcast(p: NDArray, shape: tuple[int, ...]) -> NDArray:
    try:
        return np.broadcast_to(p, shape)
    except ValueError:
        raise DropkitValueError(f"p of shape {p.shape} does not broadcast to shape {shape}") from None


def _needed(key: Key | None) -> Key:
    if key is None:
        raise DropkitValueError(
            "NumPy has no ambient generator to draw a key from; pass key=dropkit.Key(seed, site, step)"
        )
    if not isinstance(key, Key):
        raise DropkitTypeError(f"key must be a dropkit.Key such as Key(seed=0, site='drop', step=0), got {key!r}")
    return key
