"""What runs where, decided here: the kernels of dropkit's torch, JAX and NumPy frontends, or `keras.ops`.

Whoever runs Keras on torch or JAX has that framework loaded, so the frontend for it is imported here, on first use:
this is the one frontend that stands on others. What of Keras has no public name is asked for here too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import Any, TypeVar

import keras
import numpy as np
from keras import ops
from keras.src.backend.common import global_state

from .. import mask
from ..axes.noise import Alpha, Noise
from ..counter import Key
from ..errors import DropkitRuntimeError
from ..layout import Layout, layout
from ..mask import place_of
from . import bits

BACKENDS = ("torch", "jax", "tensorflow", "numpy")
HALF = ("float16", "bfloat16")
LEVEL_ONE = 1 << 31  # a level of 1.0: levels are in units of 2**-31

T = TypeVar("T")


def backend() -> str:
    """The name of Keras' backend."""
    return keras.config.backend()


def check_backend() -> None:
    """Refuse a backend that cannot carry masks, and say what to set."""
    if backend() not in BACKENDS:
        raise DropkitRuntimeError(
            f"dropkit.keras runs on Keras' backends {', '.join(BACKENDS)}, but Keras runs on {backend()!r}: set the "
            'environment variable KERAS_BACKEND to one of them (KERAS_BACKEND=torch, say), or "backend" in '
            "~/.keras/keras.json, before Keras is imported"
        )


@dataclass(frozen=True, slots=True)
class Draw:
    """All that decides a noise besides its shape.

    Args:
        words: the two words of the key, ints or traced (two tensors, or on JAX an array of two).
        level: drop probability or standard deviation in units of 2**-31, an int or traced.
        key: the key, where its numbers are known.
        rows: row number in the whole of each entry of axis 0, where `at` says them.
    """

    words: Any
    level: Any
    key: Key | None = None
    rows: tuple[int, ...] | None = None

    def place(self, noise: Sequence[Any]) -> Layout | Sequence[Any]:
        """A noise shape, or where it lies if rows say it; a draw that is shared along axis 0 has no rows."""
        return noise if self.rows is None or not noise else place_of(tuple(noise), rows=self.rows)

    def of(self, noise: Sequence[Any], shape: Sequence[Any]) -> "Draw":
        """The same for a noise shape in a tensor of this one."""
        if self.rows is None or not noise or not isinstance(noise[0], int):
            return self
        return replace(self, rows=None) if noise[0] == 1 != shape[0] else self

    @property
    def t(self) -> Any:
        """Kept of 65536."""
        if isinstance(self.level, int):
            return mask.ONE - (self.level >> 15)
        if backend() == "jax":
            return bits.word(mask.ONE) - (self.level >> bits.word(15))
        return bits.word(mask.ONE) - ops.right_shift(self.level, 15)


# ---------------------------------------------------------------------------------------------------------------------
# what is running


def current_forward() -> Any:
    """The forward that is running, as an object of its own; None outside one.

    It is the outermost layer call; but a stateless call of a model is none, and shows itself by its scope.
    """
    return _scope() or global_state.get_global_attribute("current_call_ctx")


def _scope() -> Any:
    return global_state.get_global_attribute("stateless_scope")


def integers(value: Any) -> list[int] | None:
    """The numbers in a state tensor, or None where a compiler traces them."""
    name = backend()
    if name == "jax":
        return _jax_integers(value)
    if name == "tensorflow":
        import tensorflow as tf

        return _listed(np.asarray(value)) if tf.executing_eagerly() else None
    return _listed(value)


def _jax_integers(value: Any) -> list[int] | None:
    import jax

    if isinstance(value, jax.core.Tracer):
        return None
    if isinstance(jax.numpy.zeros(()), jax.core.Tracer):  # something is traced, if not this
        if _scope() is not None:
            return None
        raise DropkitRuntimeError(
            "a dropkit layer is traced by jax.jit with its state outside, so every call would repeat one mask: use "
            "fit, or pass the state in with model.stateless_call(trainable_variables, non_trainable_variables, ...)"
        )
    return _listed(np.asarray(value))


def _listed(value: Any) -> list[int]:
    numbers: list[int] = value.tolist()
    return numbers


def attached(variable: Any) -> bool:
    """Whether a variable has its value: on JAX, fit takes the values of all away for as long as an epoch runs."""
    return _scope() is not None or variable._value is not None


def traced(value: Any) -> bool:
    """Whether a number is one that only a compiled program will know."""
    name = backend()
    if name == "jax":
        import jax

        return isinstance(getattr(value, "value", value), jax.core.Tracer)
    if name == "tensorflow":
        import tensorflow as tf

        return tf.is_tensor(value) and not tf.executing_eagerly()
    return False


def run(noise: Callable[[Any], Any], x: Any) -> Any:
    """`noise(x)`; on torch by itself, since its compiler would find nothing in it but the call of a kernel."""
    if backend() == "torch":
        import torch

        if isinstance(x, torch.Tensor) and x.is_meta:  # Keras asks for the output's shape
            return torch.empty_like(x)
        if torch.compiler.is_compiling():
            return torch.compiler.disable(noise)(x)
    return noise(x)


def recorded(fresh: Callable[[], T]) -> T:
    """A fresh draw, or in a recomputed forward the one that was made at first."""
    if backend() == "torch":
        from ..torch import recomputation

        if not recomputation.never_repeated():
            return recomputation.draw(fresh, stated=False)  # type: ignore[arg-type, return-value]
    return fresh()


@lru_cache(maxsize=1)
def frontend() -> ModuleType | None:
    """The frontend of dropkit for Keras' backend; None for TensorFlow, which has none."""
    name = backend()
    return None if name == "tensorflow" else import_module(f"..{name}", __package__)


def by_frontend(function: Callable[..., Any], x: Any, p: Any, **more: Any) -> Any:
    """A dropout function of `frontend()`, also for the bfloat16 that NumPy itself does not have."""
    if backend() == "numpy" and keras.backend.standardize_dtype(x.dtype) == "bfloat16":
        wide = x.astype(np.float32)
        y = function(wide, p, **more)
        return x if y is wide else y.astype(x.dtype)
    return function(x, p, **more)


# ---------------------------------------------------------------------------------------------------------------------
# what is computed


def dropout(x: Any, draw: Draw, noise: Sequence[Any], law: Noise) -> Any:
    """x with its elements kept or dropped as the draw says, in a noise shape, by the law of a noise.

    By kernels where there are; half types by way of float32, rounded once.
    """
    if isinstance(draw.level, int) and draw.level == 0:
        return x
    own = frontend()
    draw = draw.of(noise, x.shape)
    if own is None:
        return _affine(x, draw, noise, _alpha if isinstance(law, Alpha) else _scale)
    share = tuple(axis for axis, (n, size) in enumerate(zip(noise, x.shape, strict=True)) if n == 1 != size)
    more: dict[str, Any] = {"training": True, "key": draw.key, "share": share}
    if draw.rows is not None:
        more["rows"] = np.array(draw.rows, np.int64)
    if backend() == "numpy":
        function = own.alpha_dropout if isinstance(law, Alpha) else own.dropout
        return by_frontend(function, x, draw.level / LEVEL_ONE, **more)
    if draw.key is not None:
        return own.dropout(x, draw.level / LEVEL_ONE, noise=law, **more)
    # Traced, so this is JAX. Its own operations: each of Keras' costs a program several.
    return own.ops.of_kept(x, draw.t, draw.words, share, rows=more.get("rows"), noise=law) if x.size else x


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
    if backend() == "torch":
        from ..torch import noise as torch_noise

        place = draw.place(tuple(noise))
        if isinstance(place, Layout):
            place = replace(place, rows=ops.convert_to_tensor(np.array(draw.rows, np.int64), "int64"))
        else:
            place = layout(place)
        return getattr(torch_noise, law)(draw.words, place, x.device)
    # Eagerly, the hundreds of small operations that this takes cost more than NumPy and a copy.
    return ops.convert_to_tensor(np.array(getattr(mask, law)(noise, draw.key, rows=draw.rows)))
