"""What the enclosing `with` blocks say: coordinates by `at`, and which layers `enabled` and `disabled` put on and off.

It is local to a thread and a task, since it is a context variable. Programs that were compiled do not look into one.
So inside a block jax.jit traces again, once for each new block (its cache knows of the block), and tf.function and
torch.compile run their Python (an answer that is always right, and slower than the program).
"""

import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import keras
import numpy as np

from ..counter import Key
from ..errors import DropkitTypeError, DropkitValueError


@dataclass(frozen=True, slots=True)
class Said:
    """What blocks say; None is left as it is.

    Args:
        seed, site, step, rows: coordinates.
        on, off: numbers of layers, as `number` gives them; off wins.
        turn: which of several passes at one step.
        turns: what these passes have counted; two blocks of one turn say the same.
    """

    seed: int | None = None
    site: int | str | None = None
    step: int | None = None
    rows: tuple[int, ...] | None = None
    on: frozenset[int] = frozenset()
    off: frozenset[int] = frozenset()
    turn: int | None = None
    turns: "Turns | None" = field(default=None, compare=False)


class Turns:
    """How many forwards each of several passes has had, by clock: only those that no pass before had are new steps.

    Args:
        traced: whether the block was opened while JAX traces.
    """

    def __init__(self, traced: bool) -> None:
        self.traced = traced
        self._most: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._now: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    def next(self) -> None:
        """A pass begins."""
        self._now.clear()

    @contextmanager
    def rewound(self) -> Iterator[None]:
        """What is counted inside is counted again afterwards."""
        before = dict(self._most), dict(self._now)
        try:
            yield
        finally:
            for counts, old in zip((self._most, self._now), before, strict=True):
                counts.clear()
                counts.update(old)

    def behind(self, clock: Any) -> int | None:
        """Count a forward: how many steps it lies behind the last one; None for a step that nobody has begun."""
        self._now[clock] = now = self._now.get(clock, 0) + 1
        most = self._most.get(clock, 0)
        self._most[clock] = max(most, now)
        return most - now if now <= most else None


NOTHING = Said()
_current: ContextVar[Said] = ContextVar("dropkit_keras_blocks", default=NOTHING)
_lock = threading.Lock()
_numbers: "weakref.WeakKeyDictionary[Any, int]" = weakref.WeakKeyDictionary()
_fresh = count()


class _Open:
    """How many blocks there are in the process: while there is none, nobody looks further."""

    blocks = 0


def said() -> Said:
    """What the blocks around here say."""
    return _current.get() if _Open.blocks else NOTHING


def number(layer: Any) -> int:
    """A number of a layer that no other one has or will have."""
    with _lock:
        if layer not in _numbers:
            _numbers[layer] = next(_fresh)
        return _numbers[layer]


def switched(layer: Any) -> bool | None:
    """Whether the blocks around here put a layer on or off; None where they leave it alone."""
    here = said()
    if here is NOTHING or not (here.on or here.off):
        return None
    own = number(layer)
    return False if own in here.off else True if own in here.on else None


@contextmanager
def saying(**more: Any) -> Iterator[None]:
    """A block that says more than those around it."""
    here = replace(_current.get(), **more)
    with ExitStack() as stack:
        stack.enter_context(_follow(here))
        with _lock:
            _Open.blocks += 1
        token = _current.set(here)
        try:
            yield
        finally:
            _current.reset(token)
            with _lock:
                _Open.blocks -= 1


@contextmanager
def at(
    *,
    seed: int | None = None,
    site: int | str | None = None,
    step: int | None = None,
    rows: Sequence[int] | None = None,
) -> Iterator[None]:
    """Set coordinates by hand for every dropkit layer inside the block; what is left out stays as it is.

    So `with at(step=7): model.predict(x)` gives each batch the masks of step 7, and
    `with at(seed=1, step=7, rows=numbers)` those that these samples had there.

    Args:
        seed, site, step: coordinates of the key. Under a given step the counts of layers and models stand still; a
            given site is that of every call.
        rows: row number in the data set of each sample of the batch (axis 0), whole numbers from 0. A mask that is
            shared along axis 0 has none.

    Raises:
        DropkitValueError, DropkitTypeError: numbers outside [0, 2**64), rows that are no whole numbers; where a layer
            draws, rows that are not as many as the batch has.

    Nested blocks add up; the inner one wins. Blocks are local to a thread. Compiled functions follow: under jax.jit
    each new block is compiled once, tf.function and torch.compile run eagerly inside it.

    >>> from dropkit.keras import Dropout
    >>> drop, x = Dropout(0.5), np.ones((2, 8), "float32")
    >>> with at(seed=1, site="drop", step=3):
    ...     first, second = (keras.ops.convert_to_numpy(drop(x, training=True)) for _ in range(2))
    >>> bool((first == second).all())
    True
    """
    Key(0 if seed is None else seed, 0 if site is None else site, 0 if step is None else step)  # validates
    given: dict[str, Any] = {"seed": seed, "site": site, "step": step, "rows": _row_numbers(rows)}
    with saying(**{name: value for name, value in given.items() if value is not None}):
        yield


def _row_numbers(rows: Any) -> tuple[int, ...] | None:
    if rows is None:
        return None
    numbers = np.asarray(rows if isinstance(rows, list | tuple | range) else keras.ops.convert_to_numpy(rows))
    if numbers.dtype.kind not in "iu":
        raise DropkitTypeError(f"rows must hold whole numbers, got dtype {numbers.dtype}")
    if numbers.ndim != 1:
        raise DropkitValueError(
            f"rows must be one-dimensional, a number for each sample; got shape {tuple(numbers.shape)}"
        )
    if numbers.size and int(numbers.min()) < 0:
        raise DropkitValueError(f"rows must not be negative, got {int(numbers.min())}")
    return tuple(int(n) for n in numbers)


# ---------------------------------------------------------------------------------------------------------------------
# compiled programs


def _follow(here: Said) -> AbstractContextManager[Any]:
    """Makes programs that were compiled elsewhere follow what is said here."""
    name = keras.config.backend()
    if name == "jax":
        return _jax_context(here)
    if name == "tensorflow":
        return _shared(_tensorflow_eagerly)
    if name == "torch":
        return _shared(_torch_eagerly)
    return ExitStack()


if keras.config.backend() == "jax":
    import jax

    # jax.jit's cache knows of it. It is made at import, since making one while JAX runs is not safe.
    _jax_context: Callable[[Any], AbstractContextManager[Any]] = jax.make_user_context(NOTHING)


@contextmanager
def _shared(eagerly: Callable[[], AbstractContextManager[Any] | None]) -> Iterator[None]:
    """A state of the process that lasts while any block does; it changes no values, only how they are computed."""
    with _lock:
        _Eager.blocks += 1
        if _Eager.blocks == 1:
            _Eager.context = eagerly()
            if _Eager.context is not None:
                _Eager.context.__enter__()
    try:
        yield
    finally:
        with _lock:
            _Eager.blocks -= 1
            if _Eager.blocks == 0 and _Eager.context is not None:
                _Eager.context.__exit__(None, None, None)


class _Eager:
    blocks = 0
    context: AbstractContextManager[Any] | None = None


def _tensorflow_eagerly() -> AbstractContextManager[Any] | None:
    import tensorflow as tf

    return _functions_run_eagerly() if tf.executing_eagerly() else None  # inside a trace it is part of the program


@contextmanager
def _functions_run_eagerly() -> Iterator[None]:
    import tensorflow as tf

    before = tf.config.functions_run_eagerly()
    # TensorFlow warns that its input pipelines are compiled all the same; no dropout is in them.
    warnings.filterwarnings("ignore", message=".*run_functions_eagerly.*tf.data functions", category=UserWarning)
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


def _torch_eagerly() -> AbstractContextManager[Any] | None:
    torch = sys.modules["torch"]
    if torch.compiler.is_compiling():
        return None
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance
