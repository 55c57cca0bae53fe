"""What is being traced around a call: lanes of `vmap`, and whether a program is being built."""

import weakref
from types import FunctionType
from typing import Any

import jax
import jax.numpy as jnp

LIBRARIES = ("builtins", "abc", "typing", "flax", "equinox", "dropkit", "jax")


class Lanes:
    """Sizes of the `vmap`s that a layer was made in. All are equal to JAX, since no program depends on them.

    >>> Lanes((3,)) == Lanes()
    True
    """

    def __init__(self, sizes: tuple[int, ...] = ()):
        self.sizes = sizes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lanes)

    def __hash__(self) -> int:
        return hash(Lanes)

    def __repr__(self) -> str:
        return f"Lanes({self.sizes})"


def lanes() -> tuple[int, ...]:
    """The sizes of the `vmap`s around this call, the outermost first.

    What a module's constructor makes under `vmap` becomes a stack of that shape. JAX has no public name for it; without
    the private one nothing is known, and a stack is told by its arrays alone.

    >>> seen = []
    >>> _ = jax.vmap(lambda x: seen.append(lanes()) or x)(jnp.ones(3))
    >>> seen, lanes()
    ([(3,)], ())
    """
    try:
        from jax._src.core import trace_ctx
    except ImportError:
        return ()
    sizes: list[int] = []
    trace = getattr(trace_ctx, "trace", None)
    while trace is not None:
        if hasattr(trace, "axis_data"):
            sizes.insert(0, trace.axis_data.size)
        trace = getattr(trace, "parent_trace", None)
    return tuple(sizes)


def tracing() -> bool:
    """Whether operations become part of a program here, as under `jit`, rather than being done."""
    return isinstance(jnp.zeros(()), jax.core.Tracer)


def draws_by_hand(kind: type) -> bool:
    """Whether a user's class names `jax.random.bernoulli` in a method: dropout by hand, very likely.

    >>> class Layer:
    ...     def __call__(self, x, key):
    ...         return x * jax.random.bernoulli(key, 0.5, x.shape)
    >>> Layer.__module__ = "mine"
    >>> draws_by_hand(Layer), draws_by_hand(int)
    (True, False)
    """
    own = [cls for cls in kind.__mro__ if cls.__module__.split(".")[0] not in LIBRARIES]
    methods = [value for cls in own for value in vars(cls).values()]
    functions = [getattr(method, "__wrapped__", getattr(method, "method", method)) for method in methods]
    return any("bernoulli" in each.__code__.co_names for each in functions if isinstance(each, FunctionType))


class Counted:
    """Notices numbers that are counted up, 0, 1, 2, 3, by one program after another: each of them was compiled anew.

    >>> counted = Counted()
    >>> told = [jax.jit(lambda: counted.notes("drop", step) or jnp.ones(()))() for step in range(2)]
    >>> counted.notes("drop", 2)  # not traced
    False
    """

    def __init__(self, programs: int = 4, names: int = 4096):
        self.programs, self.names = programs, names
        self.runs: dict[Any, tuple[int, int, Any]] = {}  # by name: the last number, how many programs counted, the last

    def notes(self, name: Any, number: int) -> bool:
        """Whether this is the program that makes it plain; True once for a name."""
        program = _program()
        if program is None:
            return False
        last, count, before = self.runs.get(name, (number - 1, 0, None))
        if before is not None and before() is program:
            self.runs[name] = number, count, before
            return False
        count = count + 1 if number == last + 1 else 1
        if len(self.runs) < self.names:
            self.runs[name] = number, count, weakref.ref(program)
        return count == self.programs


def _program() -> Any:
    """The outermost trace of a program, such as `jit`'s; None outside of any, or where JAX does not say."""
    try:
        from jax._src.core import trace_ctx
    except ImportError:
        return None
    found, trace = None, getattr(trace_ctx, "trace", None)
    while trace is not None:
        if hasattr(trace, "frame"):
            found = trace
        trace = getattr(trace, "parent_trace", None)
    return found
