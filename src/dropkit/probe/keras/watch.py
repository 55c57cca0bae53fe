"""Who listens to a forward of a Keras model: each layer as it begins and ends, functions of a graph, each dropout."""

import hashlib
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras.src.backend.common.keras_tensor import any_symbolic_tensors

from ...errors import DropkitValueError
from ...keras import engine
from ..activation import of_class
from ..facts import Shape
from .graph import Graph, Node, tensors_in
from .intercept import ATTENTION, Found, Noise, replaced
from .state import Kept
from .tree import LOOPS, Tree, activation


@dataclass(slots=True)
class Record:
    """What a layer gave in one forward.

    Args:
        calls: how often it ran.
        bits: a digest of the outputs of each call; None where a compiler traced it.
        shape: of the first output.
        variances, means: of the first output of each call.
        slopes: of a layer without parameters whose output has the shape of its input, mean of output over input.
        input_variances: of a BatchNorm's input, over all axes but that of the channels, mean over these.
    """

    calls: int = 0
    bits: list[bytes | None] = field(default_factory=list)
    shape: Shape | None = None
    variances: list[float] = field(default_factory=list)
    means: list[float] = field(default_factory=list)
    slopes: list[float] = field(default_factory=list)
    input_variances: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Run:
    """One forward: what each layer gave, in order of execution, and in one of them who took whose output."""

    records: dict[str, Record] = field(default_factory=dict)
    graph: Graph | None = None

    def changed(self, other: "Run") -> set[str]:
        """The layers that gave something else than in another run."""
        both = self.records.keys() & other.records.keys()
        return {name for name in both if _differ(self.records[name].bits, other.records[name].bits)}


@dataclass(slots=True)
class Frame:
    """A layer's call under way: the nodes it began behind, its inputs' nodes, and the nodes made in it."""

    name: str
    start: int
    sources: tuple[int, ...]
    inputs: list[Any]
    made: list[int] = field(default_factory=list)


class Watch:
    """Runs a model and listens.

    Args:
        tree: the model's layers.
        kept: its state.
    """

    def __init__(self, tree: Tree, kept: Kept) -> None:
        self.tree = tree
        self.noise = Noise(tree, kept.rewound, self._dropped)
        self.run: Run | None = None  # None while nobody listens
        self.measured = False  # variances too
        self.reference: Run | None = None  # what has the bits that it has there needs no variance
        self._blocks = tree.blocks()
        self._weighs = {name for name, owned in tree.weights().items() if owned}
        self._frames: list[Frame] = []
        self._digests: dict[int, tuple[Any, bytes | None]] = {}
        self._thread = threading.get_ident()

    @contextmanager
    def met(self) -> Iterator[None]:
        """Inside, every call of a layer comes by here."""
        with ExitStack() as stack:
            stack.enter_context(self.noise.met())
            stack.enter_context(replaced(keras.Layer, "__call__", self._layer_call))
            stack.enter_context(replaced(keras.Operation, "__call__", self._function_call))
            yield

    @contextmanager
    def listening(self, graph: bool = False) -> Iterator[Run]:
        """What runs inside is recorded; with the graph, so are the masks."""
        self.run, self._frames = Run(), []
        self.run.graph = Graph(self._digest) if graph else None
        self.noise.listening, self.noise.masked = True, graph
        try:
            yield self.run
        finally:
            self.run, self.noise.listening, self.noise.masked = None, False, False
            self._digests.clear()

    def give(self, inputs: Sequence[Any]) -> None:
        """The model's inputs, before it runs."""
        if self.run is not None and self.run.graph is not None:
            self.run.graph.give(inputs, (self.run.graph.add(Node("input", "")),))

    # -----------------------------------------------------------------------------------------------------------------

    def _layer_call(self, old: Any) -> Any:
        def __call__(layer: Any, *args: Any, **kwargs: Any) -> Any:
            run = self.run
            if run is None or self._deaf(args, kwargs) or self._in_loop():
                return old(layer, *args, **kwargs)
            name = self.tree.name(layer, self._frames[-1].name if self._frames else "")
            if not layer.built and type(layer).build is not keras.Layer.build:
                raise DropkitValueError(
                    f"the layer {name!r} is not built, so it has no weights yet: call the model once on data, model(x)"
                )
            self._entered(run, name, layer, tensors_in((args, kwargs)))
            try:
                outputs = old(layer, *args, **kwargs)
            finally:
                frame = self._frames.pop()
            self._left(run, frame, layer, tensors_in(outputs))
            return outputs

        return __call__

    def _deaf(self, args: Any, kwargs: Any) -> bool:
        """Whether a call is none of the run's: another thread's, or one that asks for shapes."""
        return threading.get_ident() != self._thread or bool(any_symbolic_tensors(args, kwargs))

    def _in_loop(self) -> bool:
        return bool(self._frames) and isinstance(self.tree.layers[self._frames[-1].name], LOOPS)

    def _entered(self, run: Run, name: str, layer: Any, tensors: list[Any]) -> None:
        record = run.records.setdefault(name, Record())
        record.calls += 1
        sources: tuple[int, ...] = ()
        if run.graph is not None:
            sources = self._sources(run.graph, layer, tensors) if self._frames else (0,)
        self._frames.append(Frame(name, len(run.graph.nodes) if run.graph else 0, sources, tensors))
        if self.measured and isinstance(layer, keras.layers.BatchNormalization) and tensors:
            x = _numpy(tensors[0])
            if x is not None:
                axes = tuple(axis for axis in range(x.ndim) if axis != layer.axis % x.ndim)
                record.input_variances.append(float(np.mean(np.var(x, axis=axes, dtype=np.float64))))

    def _sources(self, graph: Graph, layer: Any, tensors: list[Any]) -> tuple[int, ...]:
        """Where a layer's inputs come from, in the block that calls it."""
        frame = self._frames[-1]
        block, made = self.tree.layers[frame.name], frame.made
        if isinstance(block, ATTENTION) and layer is getattr(block, "_softmax", None):  # the values go around it
            values = self.tree.names.get(id(block._value_dense))
            made = [number for number in made if graph.nodes[number].name != values]
        return graph.sources(tensors, made, frame.sources, _foreign(block))

    def _left(self, run: Run, frame: Frame, layer: Any, tensors: list[Any]) -> None:
        record = run.records[frame.name]
        bits = [self._digest(tensor) for tensor in tensors]
        record.bits.append(None if None in bits else b"".join(each for each in bits if each is not None))
        if tensors:
            record.shape = tuple(int(n) for n in tensors[0].shape)
        if self.measured and tensors and self._wanted(frame.name, record):
            x = _numpy(tensors[0])
            if x is not None and x.size > 1:
                record.variances.append(float(np.var(x, dtype=np.float64)))
        if tensors and frame.name not in self._weighs and frame.name not in self._blocks:
            self._measure(record, frame.inputs, tensors[0])
        if run.graph is not None:
            numbers = self._node(run.graph, frame, layer, tensors)
            if self._frames:
                self._frames[-1].made += numbers
            else:
                run.graph.outputs.update(numbers)

    @staticmethod
    def _measure(record: Record, inputs: list[Any], output: Any) -> None:
        """Mean of a layer without parameters, and over its input."""
        y = _numpy(output)
        if y is None or not np.issubdtype(y.dtype, np.floating) or not y.size:
            return
        record.means.append(float(np.mean(y, dtype=np.float64)))
        x = _numpy(inputs[0]) if len(inputs) == 1 else None
        if x is not None and x.shape == y.shape and np.issubdtype(x.dtype, np.floating):
            size = float(np.sum(np.abs(x), dtype=np.float64))
            record.slopes.append(float(np.sum(np.sign(x) * y, dtype=np.float64)) / size if size else float("nan"))

    def _wanted(self, name: str, record: Record) -> bool:
        """Whether a variance is: of what changed, and for comparison of everything once."""
        before = self.reference.records.get(name) if self.reference else None
        return before is None or before.bits[: len(record.bits)] != record.bits

    def _node(self, graph: Graph, frame: Frame, layer: Any, tensors: list[Any]) -> tuple[int, ...]:
        """The numbers of the nodes that a layer's outputs come from: its own, or those in a block."""
        if frame.name in self._blocks:
            origins = [graph.origin(tensor) for tensor in tensors]
            if origins and all(origin is not None for origin in origins):
                return tuple(dict.fromkeys(n for origin in origins for n in origin or ()))
            sources = graph.sources(tensors, frame.made, frame.sources, _foreign(layer))
            number = graph.add(Node("function", frame.name, sources, frame.name in self._weighs))
        else:
            sites = [n for n in range(frame.start, len(graph.nodes)) if graph.nodes[n].kind == "site"]
            given = {n for tensor in tensors for n in graph.origin(tensor) or ()}
            ends = [n for n in sites if n in given]
            for n in ends:
                graph.nodes[n].ends = True
            sources = tuple(ends) if ends and all(graph.nodes[n].sources for n in ends) else (*frame.sources, *ends)
            node = Node("layer", frame.name, sources, frame.name in self._weighs, activation(layer))
            number = graph.add(node)
            for n in sites:
                graph.nodes[n].around = number
        graph.give(tensors, (number,))
        return (number,)

    def _function_call(self, old: Any) -> Any:
        def __call__(operation: Any, *args: Any, **kwargs: Any) -> Any:
            run = self.run
            outputs = old(operation, *args, **kwargs)
            graph = None if run is None or isinstance(operation, keras.Layer) else run.graph
            if graph is None or not self._frames or self._deaf(args, kwargs):
                return outputs
            frame = self._frames[-1]
            sources = graph.sources(tensors_in((args, kwargs)), frame.made, frame.sources, False)
            kind = type(operation).__name__
            number = graph.add(Node("function", kind, sources, activation=of_class(kind)))
            graph.give(tensors_in(outputs), (number,))
            frame.made.append(number)
            return outputs

        return __call__

    def _dropped(self, site: Found, x: Any, y: Any) -> None:
        """A site has dropped; told by the noise."""
        if self.run is None or self.run.graph is None or not self._frames:
            return
        graph, frame = self.run.graph, self._frames[-1]
        leaf = frame.name not in self._blocks
        if site.label and isinstance(self.tree.layers[frame.name], keras.layers.RNN):
            sources = frame.sources if site.label == "dropout" else ()
        elif (origin := graph.origin(x)) is not None:
            sources = origin
        elif leaf:
            sources = () if frame.name in self._weighs else frame.sources
        else:
            sources = graph.sources([x], frame.made, frame.sources, _foreign(self.tree.layers[frame.name]))
        number = graph.add(Node("site", site.name, sources))
        site.nodes.append(number)
        graph.give([y], (number,))
        if not leaf:
            frame.made.append(number)

    def _digest(self, tensor: Any) -> bytes | None:
        """Of a tensor's bits, whatever its shape; None where a compiler traces it."""
        known = self._digests.get(id(tensor))
        if known is not None and known[0]() is tensor:
            return known[1]
        x = _numpy(tensor)
        bits = None
        if x is not None:
            bits = hashlib.blake2b(np.ascontiguousarray(x).reshape(-1).view(np.uint8).data, digest_size=16).digest()
        self._digests[id(tensor)] = weakref.ref(tensor), bits
        return bits


def _foreign(block: Any) -> bool:
    """Whether what a block computes by functions is its author's own affair, and not known from Keras."""
    return not type(block).__module__.startswith(("keras.", "dropkit."))


def _numpy(tensor: Any) -> np.ndarray | None:
    """A tensor's numbers; None where a compiler traces it."""
    return None if engine.traced(tensor) else np.asarray(keras.ops.convert_to_numpy(tensor))


def _differ(a: Sequence[bytes | None], b: Sequence[bytes | None]) -> bool:
    return len(a) != len(b) or any(x != y and x is not None and y is not None for x, y in zip(a, b, strict=True))
