"""Dropout as a function on NumPy arrays."""

import os
import reprlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import choice
from ..counter import Key, site_id
from ..errors import DropkitTypeError, DropkitValueError
from ..layout import Layout
from ..mask import ONE, alpha_factors, keep, place_of, rate_type, scale, threshold, thresholds

_KERNELS = choice.cpu()
_FOLD = choice.fold()


def _threads() -> int:
    """The cores that this process may use, or fewer where OMP_NUM_THREADS says so, which torch obeys as well."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(cores, int(asked)) if asked.isdecimal() and int(asked) else cores


_THREADS = _threads()

FLOATING = (np.float16, np.float32, np.float64)
Law = Callable[[int], tuple[float, float, float]]  # of t: scale, shift and what is dropped


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
        x: array of float16, float32 or float64, any shape, strides and byte order. Of a masked array the data are
            dropped and the mask stays; other subclasses stay what they are.
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
            other than the three, in training; an x that is no array; a share axis that does not exist; an offset
            outside the global shape.

    Source: Srivastava et al. 2014 (JMLR 15:1929); mask specification v1 (docs/mask.md).

    >>> dropout(np.ones((2, 8), np.float32), 0.5, training=True, key=Key(seed=1, site="drop"))
    array([[0., 0., 0., 0., 2., 2., 2., 0.],
           [0., 2., 2., 2., 0., 0., 2., 0.]], dtype=float32)
    """
    if _unusual(x):
        return _usual(
            dropout, x, p, training=training, key=key, share=share, offset=offset, global_shape=global_shape, rows=rows
        )  # fmt: skip
    t = _lowered(x, p, training)
    if t is None:
        return x
    key = _needed(key)
    if _kernel_takes(x):
        place = place_of(x.shape, share, offset, global_shape, rows)
        assert _KERNELS is not None
        if isinstance(t, int):
            return _by_kernel(_KERNELS.SCALE, [x], t, key, place)
        rates = np.asarray(p)
        rates = rates.astype(rate_type(rates.dtype), copy=False)
        # The kernels count in elements: before it is broadcast, a copy is small.
        rates = _broadcast(rates if _KERNELS.plain(rates) else rates.copy(), x.shape)
        return _by_kernel(_KERNELS.RATES, [x, rates], 0, key, place)
    kept = keep(x.shape, p, key, share=share, offset=offset, global_shape=global_shape, rows=rows)
    wide = _wide(x)
    factor = wide(scale(t)) if isinstance(t, int) else np.divide(ONE, t, out=np.zeros(t.shape, wide), where=t > 0)
    # `where` rather than a product: a dropped NaN is 0.
    if x.dtype == np.float16:
        return np.multiply(x, factor, dtype=wide, out=np.zeros_like(x, wide), where=kept).astype(np.float16)
    return np.multiply(x, factor, out=np.zeros_like(x), where=kept)


def alpha_dropout(
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
    """Dropout that keeps mean 0 and variance 1, for SELU networks: `y = a x + b` if kept, `a alpha' + b` if dropped.

    Here alpha' = -1.7580993408473766, `a = ((1 - p)(1 + p alpha'^2))^(-1/2)` and `b = -a p alpha'`, exact for the
    rounded p; p = 1 gives 0. Arguments, mask and errors are those of `dropout`. Share the spatial axes to drop whole
    channels (feature alpha dropout).

    Returns:
        An array like x, computed as `dropout` does; a dropped NaN is a dropped value. x itself if nothing is dropped.

    Source: Klambauer et al. 2017 (arXiv:1706.02515).

    >>> x = np.ones((1, 8), np.float32)
    >>> alpha_dropout(x, 0.5, training=True, key=Key(seed=1, site="drop")).round(3)
    array([[-0.779, -0.779, -0.779, -0.779,  1.666,  1.666,  1.666, -0.779]],
          dtype=float32)
    """
    return _affine(x, p, alpha_factors, training, key, share, offset, global_shape, rows)


def alpha_dropout_backward(
    grad: NDArray,
    p: float | NDArray,
    *,
    training: bool,
    key: Key | None = None,
    share: Sequence[int] = (),
    offset: Sequence[int] | None = None,
    global_shape: Sequence[int] | None = None,
    rows: ArrayLike | None = None,
) -> NDArray:
    """The gradient through `alpha_dropout` of the same arguments: `dx = a dy` where kept, 0 elsewhere.

    >>> dy = np.ones((1, 8), np.float32)
    >>> alpha_dropout_backward(dy, 0.5, training=True, key=Key(seed=1, site="drop")).round(3)
    array([[0.   , 0.   , 0.   , 0.   , 0.886, 0.886, 0.886, 0.   ]],
          dtype=float32)
    """
    return _affine(grad, p, _alpha_gradient, training, key, share, offset, global_shape, rows)


def _alpha_gradient(t: int) -> tuple[float, float, float]:
    return alpha_factors(t)[0], -0.0, 0.0  # adding -0 changes nothing, not even the sign of a zero


def _affine(
    x: NDArray,
    p: float | NDArray,
    law: Law,
    training: bool,
    key: Key | None,
    share: Sequence[int],
    offset: Sequence[int] | None,
    global_shape: Sequence[int] | None,
    rows: ArrayLike | None,
) -> NDArray:
    """`x * scale + shift` where kept, `dropped` elsewhere, as the law says of t."""
    if _unusual(x):
        return _usual(_affine, x, p, law, training, key, share, offset, global_shape, rows)
    t = _lowered(x, p, training)
    if t is None:
        return x
    key = _needed(key)
    if isinstance(t, int) and _kernel_takes(x):
        assert _KERNELS is not None
        place = place_of(x.shape, share, offset, global_shape, rows)
        return _by_kernel(_KERNELS.AFFINE, [x], t, key, place, law(t))
    kept = keep(x.shape, p, key, share=share, offset=offset, global_shape=global_shape, rows=rows)
    values, where = np.unique(t, return_inverse=True)
    table = np.array([law(int(value)) for value in values], _wide(x))
    scaled, shift, dropped = table.T[:, where.reshape(np.shape(t))]
    y = np.full_like(x, dropped, dtype=_wide(x))
    np.multiply(x, scaled, dtype=y.dtype, out=y, where=kept)
    np.add(y, shift, out=y, where=kept)
    return y.astype(x.dtype, copy=False)


def _unusual(x: Any) -> bool:
    """Whether x is more or less than an array in the machine's own byte order."""
    return type(x) is not np.ndarray or not x.dtype.isnative


def _usual(drop: Callable[..., NDArray], x: Any, *rest: Any, **more: Any) -> Any:
    """`drop` of x as a plain array, made again into what x is: a scalar, another byte order, a subclass."""
    if not isinstance(x, np.ndarray | np.generic):
        raise DropkitTypeError(
            f"x must be a NumPy array, got {reprlib.repr(x)} of type {type(x).__name__}; convert with "
            "np.asarray(x, np.float32)"
        )
    native = np.asarray(x)
    native = native.astype(native.dtype.newbyteorder("="), copy=False)
    y = drop(native, *rest, **more)
    if y is native:  # nothing is dropped
        return x
    y = y.astype(x.dtype, copy=False)
    if isinstance(x, np.ma.MaskedArray):
        return np.ma.MaskedArray(y, mask=np.ma.getmask(x).copy(), fill_value=x.fill_value)
    return y.view(type(x)) if isinstance(x, np.ndarray) else y[()]


def _lowered(x: NDArray, p: float | NDArray, training: bool) -> int | NDArray | None:
    """p as kept of 65536, one number or an array of them; None where nothing is to be dropped."""
    if not isinstance(training, bool):
        raise DropkitTypeError(f"training must be True or False, got {training!r}")
    each = thresholds(p) if isinstance(p, np.ndarray) and p.ndim else None
    t = threshold(p.item() if isinstance(p, np.ndarray) else p) if each is None else None
    if not training or t == ONE or x.size == 0:
        return None
    if x.dtype not in FLOATING:
        raise DropkitTypeError(
            f"dropout in training needs float16, float32 or float64, but x is {x.dtype}; convert with "
            "x.astype(np.float32)"
        )
    return t if each is None else each


def _wide(x: NDArray) -> type[np.float32] | type[np.float64]:
    """The type that x is computed in."""
    return np.float64 if x.dtype == np.float64 else np.float32


def _kernel_takes(x: NDArray) -> bool:
    return _KERNELS is not None and _KERNELS.plain(x)


def _by_kernel(
    op: int,
    inputs: list[NDArray],
    t: int,
    key: Key,
    place: Layout,
    factors: tuple[float, float, float] = (1.0, 0.0, 0.0),
) -> NDArray:
    """The same in one pass, with nothing allocated but the result."""
    assert _KERNELS is not None
    y = np.empty_like(inputs[0])
    words = _FOLD(key.seed, site_id(key.site), key.step)
    rows = None if place.rows is None else np.ascontiguousarray(place.rows, np.int64)
    _KERNELS.launch(
        op, inputs, y, words, t, place.strides, place.base, rows=rows, threads=_THREADS, factors=factors
    )  # fmt: skip
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
