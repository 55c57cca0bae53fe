"""What a draw does to a tensor: by the kernels of dropkit's torch, JAX and NumPy frontends, or by `keras.ops`."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from keras import ops

from ..axes.noise import Noise
from ..axes.share import Axes, Sharing
from ..mask import known_place
from ..place import Place
from . import composed, engine
from .draw import LEVEL_ONE, Draw


def dropout(x: Any, draw: Draw, share: Sharing, law: Noise, other: Any = None) -> Any:
    """x with its elements kept or dropped as the draw says, by a law.

    By kernels where there are; half types by way of float32, rounded once.
    """
    if isinstance(draw.level, int) and draw.level == 0:
        return x
    own, part = engine.frontend(), draw.part_for(share.axes)
    if own is None:
        return composed.dropout(x, draw.t, draw, share, part, law, other)
    if draw.key is not None:
        more: dict[str, Any] = {"rows": part.rows, "noise": law} | ({} if other is None else {"other": other})
        return engine.by_frontend(
            own.dropout, x, draw.level / LEVEL_ONE, training=True, key=draw.key, share=share, **more
        )
    # Traced, so this is JAX. Its own operations: each of Keras' costs a program several.
    return own.ops.of_kept(x, draw.t, draw.words, share, part, law, other) if x.size else x


def axes_of(noise: Sequence[Any], x: Any) -> Axes:
    """The axes along which a noise shape, whose sizes may be traced, shares a draw in x."""
    pairs = enumerate(zip(noise, x.shape, strict=True))
    return Axes(tuple(axis for axis, (n, size) in pairs if isinstance(n, int) and n == 1 != size))


def normal(noise: Sequence[Any], draw: Draw, x: Any) -> Any:
    """Standard normal numbers of a noise shape, float32, for use beside x."""
    return _continuous("normal", noise, draw, x)


def uniform(noise: Sequence[Any], draw: Draw, x: Any) -> Any:
    """Uniform numbers of a noise shape, float32, never 0 or 1, for use beside x."""
    return _continuous("uniform", noise, draw, x)


def _continuous(source: str, noise: Sequence[Any], draw: Draw, x: Any) -> Any:
    part = draw.part_for(axes_of(noise, x).axes)
    shape = composed.sizes(noise, part)
    if engine.backend() != "torch":
        return composed.numbers(source, shape, (), part, draw)
    from ..torch.arithmetic import continuous

    return getattr(continuous, source)(draw.words, _on_torch(known_place(shape, (), part)), x.device)


def _on_torch(place: Place) -> Place:
    if place.rows is None:
        return place
    return replace(place, rows=ops.convert_to_tensor(place.rows.astype("int64"), "int64"))
