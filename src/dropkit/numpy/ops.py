"""Dropout as a function on NumPy arrays."""

import os
import reprlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import choice, mask
from ..axes.noise import Alpha, Bernoulli, Noise
from ..axes.share import Axes, Refining, Sharing, share_of
from ..counter import Key, site_id
from ..drop import Lowered, checked_noise, checked_other, lower, settled
from ..errors import DropkitTypeError, DropkitValueError
from ..mask import known_place
from ..place import WHOLE, Part, Place, whole_place
from ..threshold import ONE, threshold, thresholds

_KERNELS = choice.cpu()
_FOLD = choice.fold()


def _threads() -> int:
    """The cores that this process may use, or fewer where OMP_NUM_THREADS says so, which torch obeys as well."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(cores, int(asked)) if asked.isdecimal() and int(asked) else cores


_THREADS = _threads()

_ELEMENTS = Axes()
FLOATING = (np.float16, np.float32, np.float64)


class Arrays:
    """NumPy as laws and shares know a library of arrays."""

    where, sqrt, take, pad = np.where, np.sqrt, np.take, np.pad
    log, exp, clip = np.log, np.exp, np.clip
    sort, cumsum, moveaxis, reshape = np.sort, np.cumsum, np.moveaxis, np.reshape


def dropout(
    x: NDArray,
    p: float | NDArray,
    *,
    training: bool,
    key: Key | None = None,
    share: Sequence[int] | Sharing = (),
    offset: Sequence[int] | None = None,
    global_shape: Sequence[int] | None = None,
    rows: ArrayLike | None = None,
    noise: Noise = Bernoulli(),  # noqa: B008  a frozen value
    other: NDArray | None = None,
) -> NDArray:
    """Zero elements with probability p and scale the rest: `y = x * keep / (1 - p)`; or another law.

    Inverted dropout is linear in x, so its backward pass is itself: `dx = dropout(dy, p, training=True, key=the same
    key)`. `dropout_backward` is the one of any law.

    Args:
        x: array of float16, float32 or float64, any shape, strides and byte order. Of a masked array the data are
            dropped and the mask stays; other subclasses stay what they are.
        p: drop probability in [0, 1], rounded to 1/65536 (the scale is exact for the rounded value); a number, or an
            array that broadcasts to x.
        training: whether noise is on; without a default on purpose.
        key: the mask's coordinates; needed to drop, since NumPy has no generator of its own to draw one from.
        share: axes along which one draw is shared, or a value of `dropkit.axes.share`.
        offset, global_shape: where x starts in a larger array, and that array's shape.
        rows: row number in the whole of each entry of axis 0.
        noise: what becomes of kept and dropped elements, a value of `dropkit.axes.noise`.
        other: the second array of a law that needs one; it broadcasts to x.

    Returns:
        An array like x: kept values are exactly `x * scale` (in float32 arithmetic for float16, rounded once), dropped
        ones 0 even where x is NaN or infinite. x itself if nothing is dropped.

    Raises:
        DropkitValueError, DropkitTypeError: p outside [0, 1], NaN or no number; no key, or one that is no Key; a dtype
            other than the three, in training; an x that is no array; a share axis that does not exist; an offset
            outside the global shape; a noise that is none, or without its other.

    Source: Srivastava et al. 2014 (JMLR 15:1929); mask specification v1 (docs/mask.md).

    >>> dropout(np.ones((2, 8), np.float32), 0.5, training=True, key=Key(seed=1, site="drop"))
    array([[0., 0., 0., 0., 2., 2., 2., 0.],
           [0., 2., 2., 2., 0., 0., 2., 0.]], dtype=float32)
    """
    part = Part.of(offset, global_shape, rows)
    return _dropped(x, p, noise, training, key, share, part, other)


def dropout_backward(
    grad: NDArray,
    p: float | NDArray,
    *,
    training: bool,
    key: Key | None = None,
    share: Sequence[int] | Sharing = (),
    offset: Sequence[int] | None = None,
    global_shape: Sequence[int] | None = None,
    rows: ArrayLike | None = None,
    noise: Noise = Bernoulli(),  # noqa: B008  a frozen value
) -> Any:
    """The gradient through `dropout` of the same arguments: `dx = a dy` where kept, 0 elsewhere; `dx = m dy` if soft.

    Arguments and errors are those of `dropout`.

    Returns:
        dx; of a law with an other the pair (dx, do), do of the shape of grad: `b dy` where kept, `c dy` elsewhere.

    >>> from dropkit.axes.noise import Alpha
    >>> dy = np.ones((1, 8), np.float32)
    >>> dropout_backward(dy, 0.5, training=True, key=Key(seed=1, site="drop"), noise=Alpha()).round(3)
    array([[0.   , 0.   , 0.   , 0.   , 0.886, 0.886, 0.886, 0.   ]],
          dtype=float32)
    """
    lowered = _lowered(checked_noise(noise), grad, p, training)
    part = Part.of(offset, global_shape, rows)
    return gradients(grad, noise, lowered, key if training else Key(), share, part)


def alpha_dropout(
    x: NDArray,
    p: float | NDArray,
    *,
    training: bool,
    key: Key | None = None,
    share: Sequence[int] | Sharing = (),
    offset: Sequence[int] | None = None,
    global_shape: Sequence[int] | None = None,
    rows: ArrayLike | None = None,
) -> NDArray:
    """Dropout that keeps mean 0 and variance 1, for SELU networks: `y = a x + b` if kept, `a alpha' + b` if dropped.

    Here alpha' = -1.7580993408473766, `a = ((1 - p)(1 + p alpha'^2))^(-1/2)` and `b = -a p alpha'`, exact for the
    rounded p; p = 1 gives 0. It is `dropout` with `noise=Alpha()`; arguments, mask and errors are those. Share the
    spatial axes to drop whole channels (feature alpha dropout).

    Returns:
        An array like x, computed as `dropout` does; a dropped NaN is a dropped value. x itself if nothing is dropped.

    Source: Klambauer et al. 2017 (arXiv:1706.02515).

    >>> x = np.ones((1, 8), np.float32)
    >>> alpha_dropout(x, 0.5, training=True, key=Key(seed=1, site="drop")).round(3)
    array([[-0.779, -0.779, -0.779, -0.779,  1.666,  1.666,  1.666, -0.779]],
          dtype=float32)
    """
    part = Part.of(offset, global_shape, rows)
    return _dropped(x, p, Alpha(), training, key, share, part)


def alpha_dropout_backward(
    grad: NDArray,
    p: float | NDArray,
    *,
    training: bool,
    key: Key | None = None,
    share: Sequence[int] | Sharing = (),
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
    lowered = _lowered(Alpha(), grad, p, training)
    return gradients(grad, Alpha(), lowered, key, share, Part.of(offset, global_shape, rows))


def _dropped(
    x: NDArray,
    p: float | NDArray,
    noise: Noise,
    training: bool,
    key: Key | None,
    share: Sequence[int] | Sharing,
    part: Part,
    other: NDArray | None = None,
) -> NDArray:
    """Check, lower, apply."""
    if type(noise) is not Bernoulli or other is not None:
        checked_other(checked_noise(noise), other)
    lowered = _lowered(noise, x, p, training)
    return x if lowered is None else of_lowered(x, lowered, key if training else Key(), share, part, other)


def of_lowered(
    x: NDArray,
    lowered: Lowered,
    key: Key | None,
    share: Sequence[int] | Sharing,
    part: Part = WHOLE,
    other: NDArray | None = None,
    derivative: Callable[[Lowered], Lowered] | None = None,
) -> NDArray:
    """What a lowered dropout, or a derivative of it, makes of an array of any kind."""
    if _unusual(x):
        return _usual(of_lowered, x, lowered, key, share, part, other, derivative)
    check_dtype(x)
    if x.size == 0:
        return x
    share = _ELEMENTS if type(share) is tuple and not share else share_of(share)
    if isinstance(share, Refining):
        lowered = settled(lowered, share, x.shape, part, Arrays)
    if derivative is not None:
        lowered = derivative(lowered)
    return applied(x, lowered, _needed(key), share, part, other)


def _check_array(x: NDArray) -> None:
    if not isinstance(x, np.ndarray | np.generic):
        raise DropkitTypeError(
            f"x must be a NumPy array, got {reprlib.repr(x)} of type {type(x).__name__}; convert with "
            "np.asarray(x, np.float32)"
        )


def check_dtype(x: NDArray) -> None:
    """Refuse what cannot be scaled; asked at every rate, since one that moves would be refused later."""
    _check_array(x)
    if x.dtype.newbyteorder("=") not in FLOATING:
        raise DropkitTypeError(
            f"dropout in training needs float16, float32 or float64, but x is {x.dtype}; convert with "
            "x.astype(np.float32)"
        )


def gradients(
    grad: NDArray,
    law: Noise,
    lowered: Lowered | None,
    key: Key | None,
    share: Sequence[int] | Sharing,
    part: Part,
) -> Any:
    """dx, or of a law with an other (dx, do), through what `of_lowered` did; None is y = x."""
    dx = grad if lowered is None else of_lowered(grad, lowered, key, share, part, None, Lowered.slope)
    if not law.needs_other:
        return dx
    if lowered is None:
        return dx, np.zeros_like(grad)
    return dx, of_lowered(grad, lowered, key, share, part, grad, Lowered.slope_in_other)


def applied(
    x: NDArray, lowered: Lowered, key: Key, share: Sharing, part: Part, other: NDArray | None = None
) -> NDArray:
    """What a lowered dropout makes of a plain array; by a kernel where one takes it."""
    if other is not None:
        other = _broadcast("other", np.asarray(other), x.shape).astype(_wide(x), copy=False)
    if lowered.soft and lowered.a is None:  # else it is what the law does where no noise is on
        return _softly(x, lowered, key, share, part)
    if (
        other is None
        and not isinstance(share, Refining)
        and (y := _by_kernel(x, lowered, key, share, part)) is not None
    ):
        return y
    kept = _kept(x.shape, lowered, key, share, part)
    wide = _wide(x)
    a, b, c = (np.asarray(number, wide) for number in lowered[2:5])
    # `where` rather than a product: a dropped NaN is 0.
    y = np.multiply(x, a, dtype=wide, out=np.zeros_like(x, wide), where=kept)
    if not _nothing(lowered.b):
        np.add(y, b if other is None else b * other, out=y, where=kept)
    if not _nothing(lowered.c):
        np.copyto(y, c if other is None else c * other, where=~kept)
    return y.astype(x.dtype, copy=False)


def _softly(x: NDArray, lowered: Lowered, key: Key, share: Sharing, part: Part) -> NDArray:
    """`m x + s`."""
    law: Any = lowered.law
    numbers = getattr(mask, law.source)(x.shape, key, share=share.axes, **_keywords(part))
    q = lowered.q if isinstance(lowered.q, float) else np.asarray(lowered.q, _wide(x))
    m, s = law.factors(numbers.astype(_wide(x)), q, Arrays)
    y = x * m if s is None or lowered.b is not None else x * m + s
    return y.astype(x.dtype, copy=False)


def _kept(shape: tuple[int, ...], lowered: Lowered, key: Key, share: Sharing, part: Part) -> NDArray:
    t = lowered.t
    if isinstance(share, Refining) and not (isinstance(t, int) and t in (0, ONE)):

        def uniform(shape: tuple[int, ...], part: Part, axes: Sequence[int]) -> NDArray:
            return mask.uniform(shape, key, share=axes, **_keywords(part))

        return np.broadcast_to(share.kept(t, shape, part, uniform, Arrays), shape)
    axes = share.axes
    return mask.keep(shape, 1 - t / ONE, key, share=axes, **_keywords(part))


def _keywords(part: Part) -> dict[str, Any]:
    return {"offset": part.offset, "global_shape": part.global_shape, "rows": part.rows}


def _nothing(number: Any) -> bool:
    return isinstance(number, float) and number == 0.0


def _by_kernel(x: NDArray, lowered: Lowered, key: Key, share: Sharing, part: Part) -> NDArray | None:
    """The same in one pass, with nothing allocated but the result; None where no kernel takes it."""
    t = lowered.t
    if _KERNELS is None or not _KERNELS.plain(x) or not (isinstance(t, int) or lowered.inverted):
        return None
    if isinstance(t, int) and not isinstance(lowered.q, float):  # without noise, by a rate for each element
        return None
    axes = tuple(share.axes)
    place = whole_place(x.shape, axes) if part is WHOLE else known_place(x.shape, axes, part)
    if isinstance(t, int):
        op = _KERNELS.SCALE if lowered.inverted else _KERNELS.AFFINE
        return _launched(op, [x], t, key, place, lowered[2:5])
    # The kernels count in elements, and take rates rather than thresholds; float32 holds them exactly.
    rates = _broadcast("p", (1 - t / ONE).astype(np.float32), x.shape)
    return _launched(_KERNELS.RATES, [x, rates], 0, key, place)


def _launched(
    op: int,
    inputs: list[NDArray],
    t: int,
    key: Key,
    place: Place,
    factors: tuple[float, float, float] = (1.0, 0.0, 0.0),
) -> NDArray:
    assert _KERNELS is not None
    y = np.empty_like(inputs[0])
    words = _FOLD(key.seed, site_id(key.site), key.step)
    rows = None if place.rows is None else np.ascontiguousarray(place.rows, np.int64)
    _KERNELS.launch(
        op, inputs, y, words, t, place.strides, place.base, rows=rows, threads=_THREADS, factors=factors
    )  # fmt: skip
    return y


def _unusual(x: Any) -> bool:
    """Whether x is more or less than an array in the machine's own byte order."""
    return type(x) is not np.ndarray or not x.dtype.isnative


def _usual(drop: Callable[..., NDArray], x: Any, *rest: Any, **more: Any) -> Any:
    """`drop` of x as a plain array, made again into what x is: a scalar, another byte order, a subclass."""
    _check_array(x)
    native = np.asarray(x)
    native = native.astype(native.dtype.newbyteorder("="), copy=False)
    y = drop(native, *rest, **more)
    if y is native:  # nothing is dropped
        return x
    y = y.astype(x.dtype, copy=False)
    if isinstance(x, np.ma.MaskedArray):
        return np.ma.MaskedArray(y, mask=np.ma.getmask(x).copy(), fill_value=x.fill_value)
    return y.view(type(x)) if isinstance(x, np.ndarray) else y[()]


def _lowered(law: Noise, x: NDArray, p: float | NDArray, training: bool) -> Lowered | None:
    """The law at p, a number or an array, for an array x; None where y = x."""
    _check_array(x)
    if not isinstance(training, bool):
        raise DropkitTypeError(f"training must be True or False, got {training!r}")
    if training:
        check_dtype(x)
    if isinstance(p, np.ndarray) and p.ndim:
        each = thresholds(p)
        lowered = lower(law, each, training, each / ONE, Arrays)
        _broadcast("p", p, x.shape)
    else:
        lowered = lower(law, threshold(p.item() if isinstance(p, np.ndarray) else p), training)
    return lowered


def _wide(x: NDArray) -> type[np.float32] | type[np.float64]:
    """The type that x is computed in."""
    return np.float64 if x.dtype == np.float64 else np.float32


def _broadcast(name: str, values: NDArray, shape: tuple[int, ...]) -> NDArray:
    try:
        return np.broadcast_to(values, shape)
    except ValueError:
        raise DropkitValueError(f"{name} of shape {values.shape} does not broadcast to shape {shape}") from None


def _needed(key: Key | None) -> Key:
    if key is None:
        raise DropkitValueError(
            "NumPy has no ambient generator to draw a key from; pass key=dropkit.Key(seed, site, step)"
        )
    if not isinstance(key, Key):
        raise DropkitTypeError(f"key must be a dropkit.Key such as Key(seed=0, site='drop', step=0), got {key!r}")
    return key
