"""What a law does to a tensor in `keras.ops`: for backends, laws and shares that no frontend of dropkit takes.

    hard:  y = a x + b o where kept, c o elsewhere        soft:  y = m x + s, of a random number an element

Keys, rates and sizes may be such as only a compiled program will know.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from .. import mask
from ..axes.noise import Noise
from ..axes.share import Refining, Sharing
from ..drop import Lowered, lower, settled
from ..errors import DropkitTypeError, DropkitValueError
from ..mask import known_place
from ..place import Part, noise_shape, shared_axes
from ..threshold import ONE
from . import bits
from .draw import Draw


class Size(int):
    """A size that only the running program knows, where a share wants an int; it can be passed on, not counted with.

    >>> Size("traced") * 2  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    dropkit.errors.DropkitTypeError: a share or rows need to know how large an axis is, but ...
    """

    traced: Any

    def __new__(cls, traced: Any) -> "Size":
        """Of a traced size."""
        size = super().__new__(cls, 1)
        size.traced = traced
        return size

    def __mul__(self, other: Any) -> Any:
        raise DropkitTypeError(
            "a share or rows need to know how large an axis is, but only the running program does: give the model an "
            "Input with known sizes"
        )

    __rmul__ = __mul__


class Arrays:
    """`keras.ops` as laws and shares know a library of arrays."""

    where, sqrt = staticmethod(ops.where), staticmethod(ops.sqrt)
    log, exp, clip = staticmethod(ops.log), staticmethod(ops.exp), staticmethod(ops.clip)
    cumsum, moveaxis, pad = staticmethod(ops.cumsum), staticmethod(ops.moveaxis), staticmethod(ops.pad)

    @staticmethod
    def sort(x: Any) -> Any:
        """Sorted along the last axis."""
        return ops.sort(x, axis=-1)

    @staticmethod
    def take(table: np.ndarray, t: Any) -> Any:
        """Entries of a NumPy table; where t is no integer, of its type."""
        found = ops.take(ops.convert_to_tensor(table), ops.cast(t, "int32"))
        return ops.cast(found, t.dtype) if keras.backend.is_float_dtype(t.dtype) else found

    @staticmethod
    def reshape(x: Any, shape: Sequence[Any]) -> Any:
        """x in another shape, in which a size that is not known is that of x on the same axis."""
        return ops.reshape(x, tuple(ops.shape(x)[axis] if size is None else size for axis, size in enumerate(shape)))


def wide_dtype(x: Any) -> str:
    """The type that x is computed in."""
    return "float64" if keras.backend.standardize_dtype(x.dtype) == "float64" else "float32"


def dropout(x: Any, t: Any, draw: Draw, share: Sharing, part: Part, law: Noise, other: Any = None) -> Any:
    """x with noise.

    Args:
        x: floating tensor.
        t: kept of 65536: an int, or a tensor that broadcasts to x and may be traced.
        draw: its key.
        share, part, law, other: as `dropkit.keras.dropout` has them.
    """
    lowered = _lowered(law, t, x, True)
    if lowered is None or 0 in x.shape:
        return x
    shape = sizes(ops.shape(x), part)
    if isinstance(share, Refining):
        lowered = lowered if isinstance(t, int) else lowered._replace(t=ops.cast(t, "int32"))
        lowered = settled(lowered, share, shape, part, Arrays)
    if lowered.soft:
        return _softly(x, lowered, shape, draw, share, part)
    kept = _kept(lowered, shape, draw, share, part)
    return _chosen(x, kept, lowered, matched(other, x))


def without(x: Any, t: Any, law: Noise, other: Any = None) -> Any:
    """x where no noise is on: itself, but for a law that is not the identity then."""
    lowered = _lowered(law, t, x, False)
    if lowered is None:
        return x
    dtype, other = wide_dtype(x), matched(other, x)
    u, v = (_as(number, dtype) for number in lowered[2:4])
    y = ops.cast(x, dtype) * u + (v if other is None else v * other)
    y = y if isinstance(t, int) else ops.where(ops.equal(t, _like(ONE, t)), ops.cast(x, dtype), y)
    return ops.cast(y, x.dtype)


def matched(other: Any, x: Any) -> Any:
    """The other tensor in the type that x is computed in, if its shape fits, as far as that is known."""
    if other is None:
        return None
    try:
        fits = None in (*x.shape, *other.shape) or np.broadcast_shapes(tuple(other.shape), tuple(x.shape)) == x.shape
    except ValueError:
        fits = False
    if not fits:
        raise DropkitValueError(
            f"other of shape {tuple(other.shape)} does not broadcast to x of shape {tuple(x.shape)}"
        )
    return ops.cast(other, wide_dtype(x))


def _lowered(law: Noise, t: Any, x: Any, training: bool) -> Lowered | None:
    if isinstance(t, int):
        return lower(law, t, training)
    return lower(law, t, training, ops.cast(t, wide_dtype(x)) / float(ONE), Arrays)


def _chosen(x: Any, kept: Any, lowered: Lowered, other: Any) -> Any:
    """`a x + b o` where kept, `c o` elsewhere; half types by way of float32, rounded once."""
    dtype = wide_dtype(x)
    a, b, c = (_as(number, dtype) for number in lowered[2:5])
    y = ops.cast(x, dtype) * a
    if not _nothing(b):
        y = y + (b if other is None else b * other)
    gone = c
    if other is not None and not _nothing(c):
        if not isinstance(c, int | float):  # where all is kept nobody asks for c, but a gradient multiplies by it
            c = ops.where(lowered.q < 1, c, ops.zeros_like(c))
        gone = c * other
    # Not a product: a dropped NaN is dropped.
    return ops.cast(ops.where(kept, y, ops.convert_to_tensor(gone, dtype)), x.dtype)


def _softly(x: Any, lowered: Lowered, shape: tuple[int, ...], draw: Draw, share: Sharing, part: Part) -> Any:
    law: Any = lowered.law
    dtype = wide_dtype(x)
    n = ops.cast(numbers(law.source, shape, share.axes, part, draw), dtype)
    m, s = law.factors(n, ops.cast(lowered.q, dtype), Arrays)
    y = ops.cast(x, dtype) * m
    return ops.cast(y if s is None else y + s, x.dtype)


def _kept(lowered: Lowered, shape: tuple[int, ...], draw: Draw, share: Sharing, part: Part) -> Any:
    """The mask, of a shape that broadcasts to this one."""
    t = lowered.t
    if isinstance(t, int) and t == 0:
        return ops.zeros((1,) * len(shape), "bool")
    if isinstance(share, Refining):

        def uniform(shape: tuple[int, ...], part: Part, axes: Sequence[int]) -> Any:
            return numbers("uniform", shape, axes, part, draw)

        return share.kept(t, shape, part, uniform, Arrays)
    if isinstance(t, int) and _known(shape, draw):
        return _in_numpy("keep", shape, share.axes, part, draw, 1 - t / ONE)
    if isinstance(t, int) or len(t.shape) == 0:
        one = t if isinstance(t, int) else ops.cast(t, bits.DTYPE)
        return _placed(lambda place: bits.keep(place, one, draw.words), shape, share.axes, part)
    # No tensor of R below the whole shape: where an axis is shared, its elements compare one R with their own t.
    random = _placed(lambda place: bits.random16(place, draw.words), shape, share.axes, part)
    return ops.less(ops.cast(random, "int32"), t)


def numbers(source: str, shape: tuple[int, ...], axes: Sequence[int], part: Part, draw: Draw) -> Any:
    """`dropkit.uniform` or `dropkit.normal` of a shape with 1 on shared axes, float32."""
    if _known(shape, draw):
        # Eagerly, the hundreds of small operations that this takes cost more than NumPy and a copy.
        return _in_numpy(source, shape, axes, part, draw)
    return _placed(lambda place: getattr(bits, source)(place, draw.words), shape, axes, part)


def _known(shape: tuple[int, ...], draw: Draw) -> bool:
    return draw.key is not None and not any(isinstance(size, Size) for size in shape)


def _in_numpy(name: str, shape: tuple[int, ...], axes: Sequence[int], part: Part, draw: Draw, *rate: float) -> Any:
    place = {"offset": part.offset, "global_shape": part.global_shape, "rows": part.rows}
    values = getattr(mask, name)(shape, *rate, draw.key, share=axes, **place)
    shared = shared_axes(len(shape), axes)
    once = tuple(slice(0, 1) if axis in shared else slice(None) for axis in range(len(shape)))
    return ops.convert_to_tensor(np.array(values[once]))


def _placed(values: Callable[[Any], Any], shape: tuple[int, ...], axes: Sequence[int], part: Part) -> Any:
    """What `values` gives of a noise shape, whose sizes may be traced, or of the place in one."""
    if part.whole or _covers(part, shape):
        return values(_traced(noise_shape(shape, axes)))
    whole = shape if part.global_shape is None else part.global_shape
    unknown = [axis for axis, size in enumerate(shape) if isinstance(size, Size)]
    if part.rows is not None or part.split or not unknown or any(whole[axis] is not shape[axis] for axis in unknown):
        return values(known_place(shape, axes, part))
    # Cut out of the whole, since nobody knows how far its indices are apart.
    all_of_it, shared = values(_traced(noise_shape(whole, axes))), shared_axes(len(shape), axes)
    first = part.offset or (0,) * len(shape)
    cut = [slice(start, start + size) for start, size in zip(first, shape, strict=True)]
    for axis in (*shared, *unknown):
        cut[axis] = slice(None)
    return all_of_it[tuple(cut)]


def _traced(shape: Sequence[int]) -> tuple[Any, ...]:
    return tuple(size.traced if isinstance(size, Size) else size for size in shape)


def _covers(part: Part, shape: tuple[int, ...]) -> bool:
    """Whether a part is all of its whole."""
    return part.rows is None and not part.split and part.global_shape == shape and not any(part.offset or ())


def sizes(shape: Sequence[Any], part: Part) -> tuple[int, ...]:
    """A shape as ints; what only the program knows, as `Size`."""
    known = list(shape)
    if part.rows is not None and known and not isinstance(known[0], int):
        known[0] = len(part.rows)
    return tuple(size if isinstance(size, int) else Size(size) for size in known)


def _as(number: Any, dtype: str) -> Any:
    return number if isinstance(number, int | float) else ops.cast(number, dtype)


def _like(number: int, t: Any) -> Any:
    return ops.cast(number, t.dtype)


def _nothing(number: Any) -> bool:
    return isinstance(number, int | float) and number == 0
