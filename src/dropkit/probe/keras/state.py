"""All that running a Keras model changes, kept and put back."""

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import keras
import numpy as np
from keras.src.backend.common import global_state
from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR, global_seed_generator

from ...keras import blocks
from ...keras.state import Draws

_NAMES = "object_name_uids"  # what Keras counts up to name things
_STRIDE = 1009  # draws from one run's masks to the next one's, more than a run makes
_COUNTS = 1 << 31


class Kept:
    """The state of a model and of all generators, as it was.

    Args:
        model: a built Keras layer.
    """

    def __init__(self, model: keras.Layer) -> None:
        layers = model._flatten_layers()
        self.generators = list({id(each): each for layer in layers for each in layer._seed_generators}.values())
        shared = _global_generator()
        if shared is not None:
            self.generators.append(shared)
        states = {id(variable): variable for variable in model.variables}
        states |= {id(each.state): each.state for each in self.generators}
        self.values = [(variable, _array(variable)) for variable in states.values()]
        draws = [each for each in self.generators if isinstance(each, Draws)]
        clocks = {id(each.clock): each.clock for each in draws}
        owners = [*layers, *draws, *clocks.values()]
        self.attributes = [(owner, dict(owner.__dict__), _containers(owner)) for owner in owners]
        self.random = random.getstate()
        self.numpy = np.random.get_state()  # noqa: NPY002 - the one that others draw from
        self.torch = _torch_states()
        self.shared = shared
        self.names = dict(global_state.get_global_attribute(_NAMES) or {})

    def put_back(self) -> None:
        """Everything as it was, with nothing written that did not change."""
        for owner, before, containers in self.attributes:
            if owner.__dict__.keys() != before.keys() or any(owner.__dict__[key] is not before[key] for key in before):
                owner.__dict__.clear()
                owner.__dict__.update(before)
            for container, copy in containers:
                _refill(container, copy)
        for variable, value in self.values:
            if not _same(_array(variable, copy=False), value):
                variable.assign(value)
        random.setstate(self.random)
        np.random.set_state(self.numpy)  # noqa: NPY002
        _set_torch(self.torch)
        global_state.set_global_attribute(GLOBAL_SEED_GENERATOR, self.shared)
        names = global_state.get_global_attribute(_NAMES)
        if names is not None:
            _refill(names, self.names)

    def begin(self, run: int) -> None:
        """Everything as it was but for the random numbers to come, which are those of a number of a run; 0 is next."""
        self.put_back()
        if run:
            for generator in self.generators:
                state = _array(generator.state)
                state[1] = (int(state[1]) + run * _STRIDE) % _COUNTS
                generator.state.assign(state)
        random.seed(run)
        np.random.seed(run)  # noqa: NPY002
        if self.torch is not None:
            sys.modules["torch"].manual_seed(run)
        if self.shared is None:
            global_seed_generator()  # made now, so that each run has the same one

    @contextmanager
    def rewound(self) -> Iterator[None]:
        """What is drawn inside is drawn again afterwards."""
        live = [*self.generators, global_seed_generator()]
        states = [(each.state, _array(each.state)) for each in live]
        draws = [each for each in live if isinstance(each, Draws)]
        counts = [(each, each.count, each.clock.counted) for each in draws]
        torch, turns = _torch_states(), blocks.said().turns
        try:
            with nullcontext() if turns is None else turns.rewound():
                yield
        finally:
            for state, value in states:
                if not _same(_array(state, copy=False), value):
                    state.assign(value)
            for each, count, counted in counts:
                each.count, each.clock.counted = count, counted
            _set_torch(torch)


@contextmanager
def kept(model: keras.Layer) -> Iterator[Kept]:
    """Put everything back at the end, whatever happens."""
    state = Kept(model)
    try:
        yield state
    finally:
        state.put_back()


def _array(variable: Any, copy: bool = True) -> np.ndarray:
    return np.array(keras.ops.convert_to_numpy(variable.value), copy=copy or None)


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays hold the same bits, NaN or not."""
    return bool(np.array_equal(a, b)) or a.tobytes() == b.tobytes()


def _global_generator() -> Any:
    return global_state.get_global_attribute(GLOBAL_SEED_GENERATOR)


def _torch_states() -> tuple[Any, list[Any]] | None:
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []


def _set_torch(states: tuple[Any, list[Any]] | None) -> None:
    if states is not None:
        torch = sys.modules["torch"]
        torch.set_rng_state(states[0])
        if states[1]:
            torch.cuda.set_rng_state_all(states[1])


def _containers(owner: Any) -> list[tuple[Any, Any]]:
    """An object's lists, dicts and sets, which are changed where they are: losses, for one."""
    return [(value, _copy(value)) for value in owner.__dict__.values() if isinstance(value, list | dict | set)]


def _copy(container: Any) -> Any:
    return next(kind(container) for kind in (list, dict, set) if isinstance(container, kind))


def _refill(container: Any, copy: Any) -> None:
    """Make a container hold again what its copy holds; by the methods of its plain class, since Keras' own track."""
    if _alike(container, copy):
        return
    plain: Any = container.__class__ if type(container).__module__.startswith("tensorflow.") else type(copy)
    plain.clear(container)
    (plain.extend if isinstance(copy, list) else plain.update)(container, copy)


def _alike(container: Any, copy: Any) -> bool:
    """Whether two containers hold the very same things."""
    if isinstance(copy, list):
        return len(container) == len(copy) and all(a is b for a, b in zip(container, copy, strict=True))
    if isinstance(copy, dict):
        return container.keys() == copy.keys() and all(container[key] is copy[key] for key in copy)
    return bool(container == copy)
