"""Where a Keras model drops: every draw is met where it happens, told apart by place, and let through or held back."""

import hashlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import keras
import numpy as np
from keras.src import backend
from keras.src.backend.common import global_state
from keras.src.layers.rnn.dropout_rnn_cell import DropoutRNNCell

from ... import keras as frontend
from ...axes.noise import Alpha, Bernoulli, Hard, Soft
from ...axes.noise import Noise as Law
from ...keras import base, blocks, engine, ops
from ...keras.engine import Apply
from ...keras.held import Holder
from ...keras.recurrent import Cell
from ...language import say
from ..facts import Shape
from .tree import Tree

_LAYERS = (
    keras.layers.Dropout,
    keras.layers.AlphaDropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    base.Keyed,
)
ATTENTION = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)
_FOREIGN = tuple(f"{Path(str(file)).parent}/" for file in (keras.__file__, frontend.__file__, __file__))


@dataclass(slots=True)
class Found:
    """A place where dropout happens.

    Args:
        name, kind, p, source, mask_shape, input_rank, deliberate: as of a `Site`.
        path: of the layer, hidden or not.
        label: what it is of a layer that does more: "dropout", "recurrent_dropout"; "function" of a call.
        noise, share: its law and its share, values of `dropkit.axes`; None and () where nothing says.
        effect: of noise that has no such value, what it does: "multiplies" or "adds".
        train, eval: whether it dropped there.
        first: when it dropped first, None if it has not.
        shapes: of the masks of the first run.
        masks: what the first run drew, applied to ones.
        taken: digests of what these were put on.
        turns: of several passes on purpose.
        nodes: its numbers in the graph of that run.
        noted: what else should be known.
    """

    name: str
    kind: str
    path: str
    label: str
    p: float | None
    source: str = ""
    noise: Law | None = None
    share: Any = ()
    effect: str = ""
    mask_shape: Shape | None = None
    input_rank: int | None = None
    deliberate: bool = False
    train: bool = False
    eval: bool = False
    first: int | None = None
    shapes: list[Shape] = field(default_factory=list)
    masks: list[np.ndarray] = field(default_factory=list)
    taken: list[bytes] = field(default_factory=list)
    turns: set[int] = field(default_factory=set)
    nodes: list[int] = field(default_factory=list)
    noted: list[str] = field(default_factory=list)


class Noise:
    """The sites of a model, and which of them are on.

    What is held back is drawn all the same, so that every other draw is what it would have been.

    Args:
        tree: the model's layers.
        rewound: makes what is drawn inside be drawn again.
        happened: told of (site, input, output) while `listening`.
    """

    def __init__(self, tree: Tree, rewound: Callable[[], Any], happened: Callable[[Found, Any, Any], None]) -> None:
        self.tree = tree
        self.on: frozenset[str] | None = None  # names of sites; None for all
        self.training = True
        self.listening = False
        self.masked = False
        self.found: dict[tuple[Any, ...], Found] = {}
        self._rewound, self._happened = rewound, happened
        self._cell: tuple[Any, str] | None = None
        self._switches: dict[str, Any] | None = None
        self._within = False  # a site's own function
        self._thread = threading.get_ident()
        self._count = 0
        for path in list(tree.layers):
            self._declared(path)

    @property
    def sites(self) -> list[Found]:
        """In order of execution; then those that did not run."""
        last = len(self.found) + self._count
        return sorted(self.found.values(), key=lambda site: last if site.first is None else site.first)

    def is_on(self, name: str) -> bool:
        """Whether a site is let through."""
        return self.on is None or name in self.on

    @contextmanager
    def switched(self, on: dict[str, Any]) -> Iterator[None]:
        """Inside, what is on is data, and may be traced."""
        self._switches = on
        try:
            yield
        finally:
            self._switches = None

    def _declared(self, path: str) -> None:
        """The sites that a layer has by its class."""
        layer = self.tree.layers[path]
        parent = self.tree.layers.get(self.tree.parents[path] or "")
        if isinstance(parent, Cell) and isinstance(layer, base.Keyed):
            self._gates_site(layer, path)
        elif isinstance(layer, _LAYERS):
            unused = isinstance(parent, ATTENTION) and parent._dropout_layer is layer and not layer.rate
            if not unused:
                self._layer_site(layer, path)
        elif isinstance(layer, Holder):
            pass  # what it holds are layers
        elif isinstance(layer, DropoutRNNCell):
            for label in ("dropout", "recurrent_dropout"):
                if getattr(layer, label) > 0:
                    self._cell_site(layer, path, label)
        elif isinstance(layer, keras.layers.Attention) and layer.dropout > 0:
            self._attention_site(layer, path)

    def _layer_site(self, layer: Any, path: str) -> Found:
        key = (id(layer),)
        if key in self.found:
            return self.found[key]
        site = self._site(key, path or str(layer.name), type(layer).__name__, path, "", _rate(layer))
        site.deliberate = getattr(layer, "when", "") == "always"
        site.noise, site.share = _law(layer), getattr(layer, "share", ())
        if site.noise is None and isinstance(layer, keras.layers.GaussianDropout | keras.layers.GaussianNoise):
            site.effect = "adds" if hasattr(layer, "stddev") else "multiplies"
        if hasattr(layer, "stddev"):
            site.noted = [say("adds noise of standard deviation {sd:g}", sd=float(layer.stddev))]
        return site

    def _cell_site(self, cell: Any, path: str, label: str) -> Found:
        outer = self.tree.shown(path)
        stacked = isinstance(getattr(self.tree.layers[outer], "cell", None), keras.layers.StackedRNNCells)
        name = path if stacked else outer
        kind = type(self.tree.layers[outer]).__name__
        return self._site((id(cell), label), f"{name}:{label}", kind, path, label, float(getattr(cell, label)))

    def _gates_site(self, drop: Any, path: str) -> Found:
        """That of a dropout in a cell of dropkit's, told as Keras' own of that cell would be."""
        above = self.tree.parents[path] or ""
        site = self._cell_site(self.tree.layers[above], above, drop.name)
        site.deliberate = drop.when == "always"
        return site

    def _attention_site(self, layer: Any, path: str) -> Found:
        kind = type(layer).__name__
        return self._site((id(layer), "dropout"), f"{path}:dropout", kind, path, "dropout", float(layer.dropout))

    def _site(self, key: tuple[Any, ...], name: str, kind: str, path: str, label: str, p: float | None) -> Found:
        if key not in self.found:
            names = {site.name for site in self.found.values()}
            number, plain = 0, name
            while name in names:
                number += 1
                name = f"{plain}#{number}"
            self.found[key] = Found(name, kind, path, label, p)
        return self.found[key]

    # -----------------------------------------------------------------------------------------------------------------
    # where it happens

    @contextmanager
    def met(self) -> Iterator[None]:
        """Inside, every draw comes by here: dropkit's own are heard, Keras' are intercepted."""
        with ExitStack() as stack:
            stack.enter_context(engine.listening(self._heard))
            patches: list[tuple[Any, str, Callable[[Any], Any]]] = [
                (backend.random, "dropout", self._random_dropout),
                (DropoutRNNCell, "get_dropout_mask", lambda old: self._cell_mask(old, "dropout")),
                (DropoutRNNCell, "get_recurrent_dropout_mask", lambda old: self._cell_mask(old, "recurrent_dropout")),
                (keras.layers.AlphaDropout, "call", self._layer_call),
                (keras.layers.GaussianDropout, "call", self._layer_call),
                (keras.layers.GaussianNoise, "call", self._layer_call),
            ]
            for target, name, make in patches:
                stack.enter_context(replaced(target, name, make))
            yield

    def _random_dropout(self, old: Any) -> Any:
        def dropout(inputs: Any, rate: Any, noise_shape: Any = None, seed: Any = None) -> Any:
            def apply(x: Any) -> Any:
                return old(x, rate, noise_shape=noise_shape, seed=seed)

            if self._within:
                return apply(inputs)
            if self._cell is not None:
                return self._in_cell(apply, inputs)
            layer, source = self._caller()
            if layer is None:
                return apply(inputs)
            path = self.tree.names[id(layer)]
            if isinstance(layer, keras.layers.Dropout):
                site = self._layer_site(layer, path)
            elif isinstance(layer, keras.layers.Attention):
                site = self._attention_site(layer, path)
            else:
                site = self._function_site(layer, path, source, "keras.random.dropout", rate)
            return self._drop(site, apply, inputs, lambda _: noise_shape)

        return dropout

    def _in_cell(self, apply: Apply, ones: Any) -> Any:
        cell, label = self._cell  # type: ignore[misc]
        site = self._cell_site(cell, self.tree.names[id(cell)], label)
        context = global_state.get_global_attribute("current_call_ctx")
        if not context.get_value("training"):  # Keras draws, and does not use it
            return apply(ones)
        batch, *rest = ones.shape
        mask = (batch, 1, *rest) if label == "dropout" else (batch, *rest)
        before = len(site.shapes)
        y = self._drop(site, apply, ones, lambda _: None)
        site.mask_shape, site.input_rank = tuple(mask), len(mask)
        site.shapes[before:] = [tuple(mask)] * (len(site.shapes) - before)
        return y

    def _of_gates(self, cell: Any, site: Found, apply: Apply, ones: Any) -> Any:
        """The masks of a cell of dropkit's, which are one draw for all gates."""
        gates = getattr(cell, "dropout_mask_count", None) or 1
        masks, shapes = len(site.masks), len(site.shapes)
        y = self._drop(site, apply, ones, lambda _: None)
        site.masks[masks:] = [gate for mask in site.masks[masks:] for gate in np.split(mask, gates, axis=-1)]
        *rest, features = (int(size) for size in ones.shape)
        if site.label == "dropout":
            rest.insert(1, 1)
        site.mask_shape, site.input_rank = (*rest, features // gates), len(rest) + 1
        site.shapes[shapes:] = [site.mask_shape] * gates * (len(site.shapes) - shapes)
        return y

    def _cell_mask(self, old: Any, label: str) -> Any:
        def get_mask(cell: Any, step_input: Any) -> Any:
            before, self._cell = self._cell, (cell, label) if id(cell) in self.tree.names else None
            try:
                return old(cell, step_input)
            finally:
                self._cell = before

        return get_mask

    def _layer_call(self, old: Any) -> Any:
        def call(layer: Any, inputs: Any, training: bool = False) -> Any:
            def apply(x: Any) -> Any:
                return old(layer, x, training=training)

            if id(layer) not in self.tree.names:
                return apply(inputs)
            site = self._layer_site(layer, self.tree.names[id(layer)])
            return self._drop(site, apply, inputs, lambda _: getattr(layer, "noise_shape", None))

        return call

    def _heard(self, who: engine.Heard, apply: Apply, x: Any) -> Any:
        """A dropkit layer, or a call of `dropkit.keras.dropout`, wherever it goes from there."""
        if not isinstance(who, ops.Call):
            path = self.tree.names.get(id(who))
            if path is None:
                return apply(x)
            holder = self.tree.layers[self.tree.parents[path] or ""]
            if isinstance(holder, Cell):
                return self._of_gates(holder, self._gates_site(who, path), apply, x)
            site = self._layer_site(who, path)
        else:
            layer, source = (None, "") if self._within else self._caller()
            if layer is None:
                return apply(x)
            path = self.tree.names[id(layer)]
            site = self._function_site(layer, path, source, "dropkit.keras.dropout", who.rate)
        return self._drop(site, apply, x, who.mask_shape)

    def _caller(self) -> tuple[Any, str]:
        """The layer of the model that calls, and from where; None where another thread calls for something else."""
        layer, source = _caller(self.tree)
        if layer is None and threading.get_ident() == self._thread:
            layer = self.tree.layers[""]
        return layer, source

    def _function_site(self, layer: Any, path: str, source: str, kind: str, rate: Any) -> Found:
        try:
            p = float(rate)
        except (TypeError, ValueError):  # a tensor of many, or one that is traced
            p = None
        site = self._site((id(layer), source), f"{path}:dropout", kind, path, "function", p)
        site.source = source
        return site

    def _drop(self, site: Found, apply: Apply, x: Any, noise_shape: Callable[[Any], Any]) -> Any:
        """The output of a site, or its input where it is off."""
        self._within = True
        try:
            draw = self.masked and self.listening and not engine.traced(x)
            if draw:
                with self._rewound():
                    mask = keras.ops.convert_to_numpy(apply(keras.ops.ones_like(x)))
            y = apply(x)
        finally:
            self._within = False
        if y is x:
            return x
        if self.listening:
            self._count += 1
            if (turn := blocks.said().turn) is not None:
                site.turns.add(turn)
            site.first = self._count if site.first is None else site.first
            site.train, site.eval = site.train or self.training, site.eval or not self.training
            site.mask_shape, site.input_rank = _concrete(noise_shape(x), tuple(x.shape)), len(x.shape)
            if draw:
                site.masks.append(mask)
                site.taken.append(_digest(x))
                site.shapes.append(site.mask_shape)
            self._happened(site, x, y)
        if self._switches is not None:
            return keras.ops.where(self._switches.get(site.name, False), y, x)
        return y if self.is_on(site.name) else x


def _digest(x: Any) -> bytes:
    array = np.ascontiguousarray(keras.ops.convert_to_numpy(x))
    return hashlib.blake2b(array.tobytes(), person=str(array.shape).encode()[:16]).digest()


@contextmanager
def replaced(target: Any, name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    """Another attribute of a module or class for a while."""
    old = target.__dict__[name]
    setattr(target, name, make(old))
    try:
        yield
    finally:
        setattr(target, name, old)


def _law(layer: Any) -> Law | None:
    """The law of a layer: the one that it holds, or what its class says."""
    held = getattr(layer, "noise", None)
    if isinstance(held, Hard | Soft):
        return held
    if isinstance(layer, keras.layers.AlphaDropout):
        return Alpha()
    return Bernoulli() if isinstance(layer, keras.layers.Dropout) else None


def _rate(layer: Any) -> float | None:
    if isinstance(layer, frontend.ConcreteDropout):
        return round(float(keras.ops.convert_to_numpy(layer.p)[0]), 6)
    return float(layer.rate) if hasattr(layer, "rate") else None


def _caller(tree: Tree) -> tuple[Any, str]:
    """The layer whose method calls, if any, and the file and line of the first caller that is neither Keras' nor
    dropkit's."""
    frame: FrameType | None = sys._getframe(1)
    source = ""
    while frame is not None:
        file = frame.f_code.co_filename
        if not source and not file.startswith(_FOREIGN):
            source = f"{file}:{frame.f_lineno}"
        owner = frame.f_locals.get("self")
        if isinstance(owner, keras.Layer) and id(owner) in tree.names:
            return owner, source
        frame = frame.f_back
    return None, source


def _concrete(noise_shape: Any, shape: Shape) -> Shape:
    """A noise shape with all its numbers, as many as the input has axes."""
    if noise_shape is None:
        return tuple(int(n) for n in shape)
    given = list(noise_shape)
    given = [1] * (len(shape) - len(given)) + given
    return tuple(int(size if n is None else n) for n, size in zip(given, shape, strict=True))
