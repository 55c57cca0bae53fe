"""What a draw does to a tensor: by the kernels of dropkit's torch, JAX and NumPy frontends, or by `keras.ops`."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import ops

from .. import mask
from ..axes.noise import Alpha, Noise
from ..axes.share import Axes
from ..layout import Layout, layout
from ..place import Part
from . import bits, engine
from .draw import LEVEL_ONE, Draw


def dropout(x: Any, draw: Draw, noise: Sequence[Any], law: Noise) -> Any:
    """x with its elements kept or dropped as the draw says, in a noise shape, by the law of a noise.

    By kernels where there are; half types by way of float32, rounded once.
    """
    if isinstance(draw.level, int) and draw.level == 0:
        return x
    own = engine.frontend()
    draw = draw.of(noise, x.shape)
    if own is None:
        return _affine(x, draw, noise, _alpha if isinstance(law, Alpha) else _scale)
    share = tuple(axis for axis, (n, size) in enumerate(zip(noise, x.shape, strict=True)) if n == 1 != size)
    more: dict[str, Any] = {"training": True, "key": draw.key, "share": share}
    if draw.rows is not None:
        more["rows"] = np.array(draw.rows, np.int64)
    if engine.backend() == "numpy":
        function = own.alpha_dropout if isinstance(law, Alpha) else own.dropout
        return engine.by_frontend(function, x, draw.level / LEVEL_ONE, **more)
    if draw.key is not None:
        return own.dropout(x, draw.level / LEVEL_ONE, noise=law, **more)
    # Traced, so this is JAX. Its own operations: each of Keras' costs a program several.
    part = Part.of(None, None, more.get("rows"))
    return own.ops.of_kept(x, draw.t, draw.words, Axes(share), part, law) if x.size else x


def _scale(t: Any, dtype: str) -> tuple[Any, Any, Any]:
    """Factors of plain dropout: scale, shift, dropped."""
    if isinstance(t, int):
        return mask.scale(t), None, 0.0
    wide = ops.cast(t, dtype)
    return ops.where(ops.equal(wide, 0.0), ops.zeros_like(wide), float(mask.ONE) / wide), None, 0.0


def _alpha(t: Any, dtype: str) -> tuple[Any, Any, Any]:
    """Factors of alpha dropout, as `dropkit.mask.alpha_factors` has them."""
    if isinstance(t, int):
        return mask.alpha_factors(t)
    q = ops.cast(t, dtype) / float(mask.ONE)
    none = ops.equal(q, 0.0)
    p = 1.0 - q
    safe = ops.where(none, ops.ones_like(q), q * (1.0 + p * mask.ALPHA_PRIME**2))
    scale = ops.where(none, ops.zeros_like(q), 1.0 / ops.sqrt(safe))
    shift = -scale * p * mask.ALPHA_PRIME
    return scale, shift, scale * mask.ALPHA_PRIME + shift


def _affine(x: Any, draw: Draw, noise: Sequence[Any], law: Callable[[Any, str], tuple[Any, Any, Any]]) -> Any:
    """`x * scale + shift` where kept, `dropped` elsewhere, as the law says of t."""
    dtype = wide_dtype(x)
    scale, shift, dropped = law(draw.t, dtype)
    y = ops.cast(x, dtype) * scale
    if shift is not None:
        y = y + shift
    kept = keep(noise, draw)
    return ops.cast(ops.where(kept, y, ops.cast(dropped, dtype)), x.dtype)  # not a product: a dropped NaN is dropped


def wide_dtype(x: Any) -> str:
    """The type that x is computed in."""
    return "float64" if keras.backend.standardize_dtype(x.dtype) == "float64" else "float32"


def keep(noise: Sequence[Any], draw: Draw) -> Any:
    """The bool mask of a noise shape."""
    if draw.key is None:
        return bits.keep(draw.place(noise), draw.t, draw.words)
    return ops.convert_to_tensor(np.array(mask.keep(noise, 1 - draw.t / mask.ONE, draw.key, rows=draw.rows)))


def normal(noise: Sequence[Any], draw: Draw, x: Any) -> Any:
    """Standard normal numbers of a noise shape, float32, for use beside x."""
    return _continuous("normal", noise, draw, x)


def uniform(noise: Sequence[Any], draw: Draw, x: Any) -> Any:
    """Uniform numbers of a noise shape, float32, never 0 or 1, for use beside x."""
    return _continuous("uniform", noise, draw, x)


def _continuous(law: str, noise: Sequence[Any], draw: Draw, x: Any) -> Any:
    draw = draw.of(noise, x.shape)
    if draw.key is None:
        return getattr(bits, law)(draw.place(noise), draw.words)
    if engine.backend() == "torch":
        from ..torch.arithmetic import continuous as torch_noise

        place = draw.place(tuple(noise))
        if isinstance(place, Layout):
            place = replace(place, rows=ops.convert_to_tensor(np.array(draw.rows, np.int64), "int64"))
        else:
            place = layout(place)
        return getattr(torch_noise, law)(draw.words, place, x.device)
    # Eagerly, the hundreds of small operations that this takes cost more than NumPy and a copy.
    return ops.convert_to_tensor(np.array(getattr(mask, law)(noise, draw.key, rows=draw.rows)))
