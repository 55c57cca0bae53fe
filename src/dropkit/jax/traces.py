"""What is being traced around a call: lanes of `vmap`, and whether a program is being built."""

import weakref
from collections.abc import Iterator
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
    return tuple(trace.axis_data.size for trace in _traces() if hasattr(trace, "axis_data"))[::-1]


_LOOPS = ("scan", "fori_loop", "while_body")  # as JAX calls what it traces there


class Repetition:
    """A `vmap` or the body of a loop that is being traced here: what is done once for all its lanes or iterations.

    JAX has no public name for these either; without the private ones there are none.
    """

    def __init__(self, traces: list[Any]):
        self.traces = traces
        axis = getattr(traces[0], "axis_data", None)
        self.mapped = axis is not None
        self.axis = axis.name if axis is not None else None
        self.what = "iterations of a loop such as jax.lax.scan" if axis is None else "lanes of a jax.vmap"

    def varies(self, value: Any) -> bool:
        """Whether a value may be another one in each lane or iteration."""
        while isinstance(value, jax.core.Tracer):
            if any(value._trace is trace for trace in self.traces):
                return _from_inputs(value) if not self.mapped else getattr(value, "batch_dim", 0) is not None
            value = getattr(value, "val", getattr(value, "primal", None))
        return False


def _from_inputs(value: Any) -> bool:
    """Whether a value of a program that is being traced depends on its arguments, or is made of constants alone."""
    pending, seen = [value], set()
    while pending:
        each = pending.pop()
        frame, made_by = getattr(each._trace, "frame", None), getattr(each, "parent", None)
        if made_by is None:
            inputs = getattr(frame, "invars", None)
            if inputs is None or any(each.val is variable for variable in inputs):
                return True
        elif id(made_by) not in seen:
            seen.add(id(made_by))
            pending += made_by.in_tracers
    return False


def repetitions() -> list[Repetition]:
    """The repetitions around this call, the innermost first.

    >>> seen = []
    >>> _ = jax.lax.scan(lambda carry, x: (carry, seen.append(repetitions()[0].varies(x))), 0, jnp.ones(3))
    >>> seen, repetitions()
    ([True], [])
    """
    found: list[Repetition] = []
    checkpoint = None  # directly inside a loop's body, it may be the body itself
    for trace in _traces():
        told = getattr(getattr(trace, "frame", None), "debug_info", None)
        if hasattr(trace, "axis_data") and hasattr(trace.axis_data, "name"):
            found.append(Repetition([trace]))
        elif told is not None and told.traced_for in _LOOPS:
            same = checkpoint is not None and checkpoint.frame.debug_info.func_src_info == told.func_src_info
            found.append(Repetition([trace, checkpoint] if same else [trace]))
        checkpoint = trace if told is not None and told.traced_for == "checkpoint / remat" else None
    return found


def _traces() -> Iterator[Any]:
    """What traces here, the innermost first; nothing where JAX does not say."""
    try:
        from jax._src.core import trace_ctx
    except ImportError:
        return
    trace = getattr(trace_ctx, "trace", None)
    while trace is not None:
        yield trace
        trace = getattr(trace, "parent_trace", None)


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
    found = None
    for trace in _traces():
        if hasattr(trace, "frame"):
            found = trace
    return found
