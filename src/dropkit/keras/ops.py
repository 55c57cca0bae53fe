"""Dropout as a function on the tensors of Keras' backend."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from .. import mask
from ..counter import Key
from ..errors import DropkitTypeError, DropkitValueError
from ..mask import known_place
from ..place import Part
from . import bits, engine
from .arithmetic import wide_dtype


def dropout(
    x: Any,
    rate: Any,
    *,
    training: bool,
    key: Key,
    share: Sequence[int] = (),
    offset: Sequence[int] | None = None,
    global_shape: Sequence[int] | None = None,
    rows: ArrayLike | None = None,
) -> Any:
    """Zero elements with probability rate and scale the rest: `y = x * keep / (1 - rate)`, the gradient likewise.

    Args:
        x: floating tensor of Keras' backend, any shape that is known.
        rate: drop probability in [0, 1], rounded to 1/65536; a number, or a tensor that broadcasts to x and may be
            traced (no gradient).
        training: whether to drop at all; without a default on purpose.
        key: the mask's coordinates. Layers count their steps; a function has none to count with.
        share: axes along which one draw is shared.
        offset, global_shape: where x starts in a larger tensor, and that tensor's shape.
        rows: row number in the whole of each entry of axis 0.

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
    given = (rate, training, key, share, offset, global_shape, rows)
    if engine.overheard():
        return engine.heard(Call(rate, share), lambda value: _dropped(value, *given), x)
    return _dropped(x, *given)


@dataclass(frozen=True, slots=True)
class Call:
    """A call of `dropout`, as a listener hears of it: its rate, and the axes along which it shares a draw."""

    rate: Any
    share: Sequence[int]

    def mask_shape(self, x: Any) -> tuple[Any, ...]:
        """Shape of the noise for an input, 1 where a draw is shared.

        >>> Call(0.5, (-1,)).mask_shape(ops.ones((2, 8)))
        (2, 1)
        """
        shape = tuple(ops.shape(x))
        shared = {axis % len(shape) for axis in self.share}
        return tuple(1 if axis in shared else size for axis, size in enumerate(shape))


def _dropped(
    x: Any, rate: Any, training: bool, key: Any, share: Any, offset: Any, global_shape: Any, rows: ArrayLike | None
) -> Any:
    """`dropout` by the backend's frontend, or by `keras.ops` where there is none."""
    frontend = engine.frontend()
    if frontend is not None:
        if engine.backend() == "torch" and isinstance(rate, np.ndarray):
            rate = ops.convert_to_tensor(rate, str(rate.dtype))
        return engine.by_frontend(
            frontend.dropout, x, rate, training=training, key=_needed(key), share=share, offset=offset,
            global_shape=global_shape, rows=rows,
        )  # fmt: skip
    return _by_keras(x, rate, training, key, share, offset, global_shape, rows)


def _by_keras(
    x: Any, rate: Any, training: bool, key: Any, share: Any, offset: Any, global_shape: Any, rows: ArrayLike | None
) -> Any:
    t = _lowered(rate)
    if not training or (isinstance(t, int) and t == mask.ONE) or 0 in x.shape:
        return x
    if not keras.backend.is_float_dtype(x.dtype):
        raise DropkitTypeError(
            f"dropout in training needs a floating tensor, but x is {x.dtype}; convert with x = keras.ops.cast(x, "
            '"float32")'
        )
    shape = tuple(x.shape)
    place = known_place(shape, share, Part.of(offset, global_shape, rows))
    key = _needed(key)
    if isinstance(t, int):
        kept = ops.convert_to_tensor(
            np.array(
                mask.keep(
                    shape, 1 - t / mask.ONE, key, share=share, offset=offset, global_shape=global_shape, rows=rows
                )
            )
        )
        return _where(x, kept, mask.scale(t))
    if len(t.shape) == 0:
        return _where(x, bits.keep(place, ops.cast(t, bits.DTYPE), key.words), _scale(t, x))
    _check_broadcast(t, shape)
    # No tensor of R below the whole shape: where an axis is shared, its elements compare one R with their own t.
    return _where(x, ops.less(ops.cast(bits.random16(place, key.words), "int32"), t), _scale(t, x))


def _where(x: Any, kept: Any, scale: Any) -> Any:
    y = ops.cast(x, wide_dtype(x)) * scale
    return ops.cast(ops.where(kept, y, ops.zeros_like(y)), x.dtype)


def _scale(t: Any, x: Any) -> Any:
    wide = ops.cast(t, wide_dtype(x))
    return ops.where(ops.equal(wide, 0.0), ops.zeros_like(wide), float(mask.ONE) / ops.maximum(wide, 1.0))


def _lowered(rate: Any) -> Any:
    """The rate as kept of 65536: an int, or a tensor of them."""
    if engine.traced(rate):
        return bits.thresholds(ops.clip(rate, 0.0, 1.0))
    if not hasattr(rate, "shape"):
        return mask.threshold(rate)
    each = ops.convert_to_numpy(rate)
    if each.dtype.kind not in "fiub":
        each = each.astype(np.float32)  # bfloat16, which NumPy calls a void
    if each.ndim == 0:
        return mask.threshold(each.item())
    return ops.convert_to_tensor(mask.thresholds(each).astype(np.int32))


def _check_broadcast(t: Any, shape: tuple[int, ...]) -> None:
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
