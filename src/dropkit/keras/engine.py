"""What runs where, decided here (dropkit's torch, JAX and NumPy frontends, or what Keras has), and who hears of it.

Whoever runs Keras on torch or JAX has that framework loaded, so the frontend for it is imported here, on first use:
this is the one frontend that stands on others. What of Keras has no public name is asked for here too.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from importlib import import_module
from types import ModuleType
from typing import Any, Protocol, TypeVar

import keras
import numpy as np
from keras.src.backend.common import global_state

from ..errors import DropkitRuntimeError

BACKENDS = ("torch", "jax", "tensorflow", "numpy")

T = TypeVar("T")
Apply = Callable[[Any], Any]  # from a tensor to the same with noise


class Heard(Protocol):
    """Who puts noise on a tensor: a layer of dropkit, or a call of `dropkit.keras.dropout`."""

    def mask_shape(self, x: Any) -> tuple[Any, ...]:
        """Shape of the noise for an input, 1 where a draw is shared."""


Listener = Callable[[Heard, Apply, Any], Any]  # (site, apply, x) -> the site's output, such as apply(x)


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


def current_forward() -> Any:
    """The forward that is running, as an object of its own; None outside one.

    It is the outermost layer call; but a stateless call of a model is none, and shows itself by its scope.
    """
    return _scope() or current_call()


def current_call() -> Any:
    """The outermost layer call that is running, which knows its arguments; None outside one."""
    return global_state.get_global_attribute("current_call_ctx")


def repeated() -> int | None:
    """A number of the backward in which torch runs a forward again, whose calls have no outer one; None elsewhere."""
    if backend() != "torch":
        return None
    import torch

    task: int = torch._C._current_graph_task_id()
    return None if torch.compiler.is_compiling() or task == -1 else task + 1


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


def tracing() -> bool:
    """Whether JAX traces something here."""
    if backend() != "jax":
        return False
    import jax

    return isinstance(jax.numpy.zeros(()), jax.core.Tracer)


def _jax_integers(value: Any) -> list[int] | None:
    import jax

    if isinstance(value, jax.core.Tracer):
        return None
    if tracing():  # something is traced, if not this
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


def eagerly_on_cpu(x: Any) -> bool:
    """Whether torch computes with this tensor now, on the CPU."""
    import torch

    return isinstance(x, torch.Tensor) and x.device.type == "cpu" and not torch.compiler.is_compiling()


def run(site: Heard, apply: Apply, x: Any) -> Any:
    """`apply(x)`, heard; on torch by itself, since its compiler would find nothing in it but the call of a kernel."""
    if backend() == "torch":
        import torch

        if isinstance(x, torch.Tensor) and x.is_meta:  # Keras asks for the output's shape
            return torch.empty_like(x)
        if torch.compiler.is_compiling():
            return torch.compiler.disable(heard)(site, apply, x)
    return heard(site, apply, x)


def aside(function: Apply, x: Any) -> Any:
    """`function(x)` as `run` does it, where there is no noise to hear of."""
    if backend() == "torch":
        import torch

        if isinstance(x, torch.Tensor) and x.is_meta:
            return torch.empty_like(x)
        if torch.compiler.is_compiling():
            return torch.compiler.disable(function)(x)
    return function(x)


class _Listening:
    lock = threading.Lock()
    now: tuple[Listener, ...] = ()  # never changed but replaced, so that who reads it needs no lock


def heard(site: Heard, apply: Apply, x: Any) -> Any:
    """`apply(x)`, or what those who listen make of it; who came last is asked first."""
    for listener in _Listening.now:
        apply = partial(listener, site, apply)
    return apply(x)


def overheard() -> bool:
    """Whether anyone listens."""
    return bool(_Listening.now)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Inside, a listener stands between every site of the process, whatever its thread, and its noise.

    Args:
        listener: gets a site, what applies its noise, and its input; what it returns is the site's output. It may
            apply the noise several times, and each time is a draw.

    >>> from keras import ops
    >>> from dropkit.keras import Dropout
    >>> def without(site, apply, x):
    ...     print(site.name, site.mask_shape(x))
    ...     return x
    >>> with listening(without):
    ...     y = Dropout(0.5, noise_shape=(None, 1), name="drop")(ops.ones((2, 8)), training=True)
    drop (2, 1)
    >>> float(ops.min(y))
    1.0
    """
    with _Listening.lock:
        _Listening.now = (*_Listening.now, listener)
    try:
        yield
    finally:
        with _Listening.lock:
            last = len(_Listening.now) - 1 - _Listening.now[::-1].index(listener)
            _Listening.now = _Listening.now[:last] + _Listening.now[last + 1 :]


def recorded(fresh: Callable[[], T]) -> T:
    """A fresh draw, or in a recomputed forward the one that was made at first."""
    if backend() == "torch":
        from ..torch.drawing import recomputation

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
