"""Dropout as a function on the tensors of Keras' backend."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from ..axes.noise import Bernoulli, Noise
from ..axes.share import Sharing, share_of
from ..counter import Key
from ..drop import checked_noise, checked_other
from ..errors import DropkitTypeError, DropkitValueError
from ..mask import known_place
from ..place import Part, noise_shape
from ..threshold import ONE, threshold, thresholds
from . import bits, composed, engine
from .draw import Draw


def dropout(
    x: Any,
    rate: Any,
    *,
    training: bool,
    key: Key,
    share: Sequence[int] | Sharing = (),
    offset: Sequence[int] | None = None,
    global_shape: Sequence[int] | None = None,
    rows: ArrayLike | None = None,
    noise: Noise = Bernoulli(),  # noqa: B008  a frozen value
    other: Any = None,
) -> Any:
    """Zero elements with probability rate and scale the rest: `y = x * keep / (1 - rate)`; or another law.

    Args:
        x: floating tensor of Keras' backend, any shape.
        rate: drop probability in [0, 1], rounded to 1/65536; a number, or a tensor that broadcasts to x and may be
            traced (no gradient).
        training: whether noise is on; without a default on purpose.
        key: the mask's coordinates. Layers count their steps; a function has none to count with.
        share: axes along which one draw is shared, or a value of `dropkit.axes.share`.
        offset, global_shape: where x starts in a larger tensor, and that tensor's shape.
        rows: row number in the whole of each entry of axis 0.
        noise: what becomes of kept and dropped elements, a value of `dropkit.axes.noise`.
        other: the second tensor of a law that needs one; it broadcasts to x, and gets its gradient.

    Returns:
        A tensor like x, equal to that of `dropkit.numpy.dropout`; x itself if nothing is dropped.

    Raises:
        DropkitValueError, DropkitTypeError: as `dropkit.numpy.dropout`.

    >>> y = dropout(ops.ones((2, 8)), 0.5, training=True, key=Key(seed=1, site="drop"))
    >>> ops.convert_to_numpy(y)
    array([[0., 0., 0., 0., 2., 2., 2., 0.],
           [0., 2., 2., 2., 0., 0., 2., 0.]], dtype=float32)
    """
    if not isinstance(training, bool):
        raise DropkitTypeError(f"training must be True or False, got {training!r}")
    x = x if ops.is_tensor(x) else ops.convert_to_tensor(x)
    other = other if other is None or ops.is_tensor(other) else ops.convert_to_tensor(other)
    part = Part.of(offset, global_shape, rows)
    given = (rate, training, key, share, part, noise, other)
    if engine.overheard():
        return engine.heard(Call(rate, share), lambda value: _dropped(value, *given), x)
    return _dropped(x, *given)


@dataclass(frozen=True, slots=True)
class Call:
    """A call of `dropout`, as a listener hears of it: its rate, and the axes along which it shares a draw."""

    rate: Any
    share: Sequence[int] | Sharing

    def mask_shape(self, x: Any) -> tuple[Any, ...]:
        """Shape of the noise for an input, 1 where a draw is shared.

        >>> Call(0.5, (-1,)).mask_shape(ops.ones((2, 8)))
        (2, 1)
        """
        return noise_shape(ops.shape(x), share_of(self.share).axes)


def _dropped(x: Any, rate: Any, training: bool, key: Any, share: Any, part: Part, noise: Noise, other: Any) -> Any:
    """`dropout` by the backend's frontend, or by `keras.ops` where there is none."""
    frontend = engine.frontend()
    if frontend is not None:
        if engine.backend() == "torch" and isinstance(rate, np.ndarray):
            rate = ops.convert_to_tensor(rate, str(rate.dtype))
        return engine.by_frontend(
            frontend.dropout, x, rate, training=training, key=_needed(key), share=share, offset=part.offset,
            global_shape=part.global_shape, rows=part.rows, noise=noise, other=other,
        )  # fmt: skip
    law = checked_noise(noise)
    checked_other(law, other)
    return _by_keras(x, rate, training, key, share_of(share), part, law, other)


def _by_keras(x: Any, rate: Any, training: bool, key: Any, share: Sharing, part: Part, law: Noise, other: Any) -> Any:
    t = _kept_of(rate, tuple(x.shape))
    if training and not keras.backend.is_float_dtype(x.dtype):
        raise DropkitTypeError(
            f"dropout in training needs a floating tensor, but x is {x.dtype}; convert with x = keras.ops.cast(x, "
            '"float32")'
        )
    if (isinstance(t, int) and t == ONE) or 0 in x.shape:
        return x
    if not training:
        return composed.without(x, t, law, other)
    key = _needed(key)
    if None not in x.shape:
        known_place(tuple(x.shape), share.axes, part)  # refuses what does not fit
    if part.rows is not None:
        part = part._replace(rows=np.asarray(part.rows))
    return composed.dropout(x, t, Draw(key.words, None, key), share, part, law, other)


def _kept_of(rate: Any, shape: tuple[Any, ...]) -> Any:
    """The rate as kept of 65536: an int, or a tensor of them."""
    if engine.traced(rate):
        t = bits.thresholds(ops.clip(rate, 0.0, 1.0))
    elif not hasattr(rate, "shape"):
        return threshold(rate)
    else:
        each = ops.convert_to_numpy(rate)
        if each.dtype.kind not in "fiub":
            each = each.astype(np.float32)  # bfloat16, which NumPy calls a void
        t = thresholds(each).astype(np.int32) if each.ndim else np.asarray(threshold(each.item()), np.int32)
    _check_broadcast(t, shape)
    if not isinstance(t, np.ndarray):
        return ops.reshape(t, ()) if all(size == 1 for size in t.shape) else t
    return int(t.item()) if t.size == 1 else ops.convert_to_tensor(t)


def _check_broadcast(t: Any, shape: tuple[Any, ...]) -> None:
    if None in (*t.shape, *shape):
        return
    try:
        fits = np.broadcast_shapes(tuple(t.shape), shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise DropkitValueError(f"p of shape {tuple(t.shape)} does not broadcast to shape {shape}")


def _needed(key: Any) -> Key:
    if not isinstance(key, Key):
        raise DropkitTypeError(f"key must be a dropkit.Key such as Key(seed=0, site='drop', step=0), got {key!r}")
    return key
