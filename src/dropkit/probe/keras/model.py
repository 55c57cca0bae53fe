"""What dropout does in a Keras model, found by running it: with all dropout off, with all on, with each site alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from ...errors import DropkitError, DropkitRuntimeError, DropkitTypeError, DropkitValueError
from ...language import say, template
from ..explanation import Explanation
from .answers import Evidence, Reach, explanation
from .gradients import Differentiation, Gradients, changed, stilled
from .graph import Graph
from .inputs import flat, inputs_of
from .intercept import Found
from .state import Kept, kept
from .tree import Tree
from .watch import Run, Watch

ALONE = 16  # sites that are each run alone; of more, the graph tells what each reaches
_NOTHING: frozenset[str] = frozenset()

NO_GRADIENTS = say("Keras' NumPy backend has no gradients, so that nothing is known of them.")
BY_GRAPH = template(
    "With {number} sites, none was run alone: that a site reaches a layer means that dropout changed it, and that it "
    "lies behind the site in the graph (for gradients: in front of an output that does)."
)
GUESSED = say(
    "Some inputs came out of functions that are no layers; which layers feed these is guessed from the order of calls."
)


def explain_keras(model: keras.Layer, *inputs: Any) -> Explanation:
    """What dropout does in a Keras model, layer by layer.

    The model runs a handful of times, forwards and backwards: with all dropout off, with all of it on under several
    masks, with each site on alone (up to 16 sites), and in evaluation. Runs that are compared draw the same numbers.
    Afterwards everything is as it was: variables, what the next masks are, rates, flags, and all generators.

    Args:
        model: a built model or layer, on Keras' torch, JAX, TensorFlow or NumPy backend (NumPy has no gradients).
        inputs: arrays or tensors that it is called with; standard normal numbers of its own input shapes if left out
            (random indices for an Embedding), four samples.

    Raises:
        DropkitTypeError: not a Keras layer.
        DropkitValueError: it is not built, or inputs were left out and cannot be made up.
        DropkitRuntimeError: it fails with these inputs; the cause is kept.

    >>> layers = [keras.Input((8,)), keras.layers.Dense(6, name="a"), keras.layers.Dropout(0.5), keras.layers.Dense(2)]
    >>> found = explain_keras(keras.Sequential(layers)).sites[0]
    >>> found.name, found.zeroes, found.changes
    ('dropout', ('a',), ('', 'dense'))
    """
    if not isinstance(model, keras.Layer):
        raise DropkitTypeError(f"a Keras model or layer is needed, got {type(model).__name__}")
    if not model.built:
        raise DropkitValueError(
            f"the {type(model).__name__} {model.name!r} is not built, so it has no weights yet: begin it with a "
            "keras.Input, or call it once on data, model(x)"
        )
    with kept(model) as state:
        arguments = inputs_of(model, inputs)
        probe = _Probe(model, arguments, state)
        shapes = tuple(tuple(int(n) for n in x.shape) for x in flat(arguments))
        try:
            with probe.watch.met():
                evidence = probe.gather()
        except DropkitError:
            raise
        except Exception as error:
            raise DropkitRuntimeError(
                f"{type(model).__name__} failed on {'these inputs' if inputs else 'inputs made up for it'}, of shapes "
                f"{', '.join(map(str, shapes))}: {type(error).__name__}: {error}; give inputs that it takes, as in "
                "explain(model, x)"
            ) from error
        return explanation(probe.watch, evidence, type(model).__name__, shapes)


@dataclass
class _Probe:
    """A model with its inputs, ready to run."""

    model: keras.Layer
    arguments: tuple[Any, ...]
    state: Kept
    forwards: int = 0
    backwards: int = 0
    training: bool = True
    watch: Watch = field(init=False)
    differentiation: Differentiation = field(init=False)

    def __post_init__(self) -> None:
        self.watch = Watch(Tree(self.model), self.state)
        self.differentiation = Differentiation(self._call, self.model.trainable_variables, self.watch.noise)

    def gather(self) -> Evidence:
        """All runs."""
        watch = self.watch
        watch.measured = True
        off, gradients = self._run(0, _NOTHING, gradient=True)
        watch.reference = off
        active = [site for site in watch.noise.sites if site.train]
        alone = 1 < len(active) <= ALONE
        watched, together = self._run(0, None, gradient=bool(active) and not alone, graph=True)
        on = [watched, *(self._run(n, None)[0] for n in (1, 2))] if active else []
        watch.measured = False
        other = self._run(1, _NOTHING)[0]
        evidence = Evidence(off, watched, on, self._evaluated(), other.changed(off))
        evidence.variables = self.differentiation.variables
        if alone:
            for site in active:
                run, own = self._run(0, frozenset({site.name}), gradient=True)
                evidence.reach[site.name] = _reach(site, run.changed(off), gradients, own)
        elif len(active) == 1:
            evidence.reach[active[0].name] = _reach(active[0], watched.changed(off), gradients, together)
        elif active:
            evidence.reach = self._by_graph(evidence, active, changed(gradients, together))
            evidence.notes.append(say(BY_GRAPH, number=len(active)))
        evidence.unused = [before is None and not evidence.reached(n) for n, before in enumerate(gradients)]
        if not self.differentiation.possible and evidence.variables:
            evidence.notes.append(NO_GRADIENTS)
        if watched.graph is not None and watched.graph.guessed:
            evidence.notes.append(GUESSED)
        evidence.forwards, evidence.backwards = self.forwards, self.backwards
        return evidence

    def _evaluated(self) -> Run:
        self.training = False
        try:
            return self._run(0, None)[0]
        finally:
            self.training = True

    def _by_graph(self, evidence: Evidence, active: Sequence[Found], differ: list[bool]) -> dict[str, Reach]:
        """What each site changes, of what all of them together do."""
        outputs = set[str]().union(*(run.changed(evidence.off) for run in evidence.on))
        graph = evidence.watched.graph
        assert graph is not None
        owners = self._owners()
        reach = {}
        for site in active:
            below = {n for number in site.nodes for n in graph.below(number)}
            ahead = {graph.nodes[n].name for n in graph.ahead(graph.outputs & below)}
            gradients = [each and owner in ahead for each, owner in zip(differ, owners, strict=True)]
            reach[site.name] = Reach(self._with_blocks(graph, below) & outputs, gradients)
        return reach

    def _owners(self) -> list[str]:
        """The layer that owns each variable."""
        owned = self.watch.tree.weights()
        owners = {id(variable): name for name, variables in owned.items() for variable in variables}
        return [owners[id(variable)] for variable in self.differentiation.variables]

    def _with_blocks(self, graph: Graph, nodes: set[int]) -> set[str]:
        """The layers of these nodes, and the blocks that they stand in."""
        found: set[str] = set()
        for number in nodes:
            name: str | None = graph.nodes[number].name
            while name is not None and name in self.watch.tree.parents:
                found.add(name)
                name = self.watch.tree.parents[name]
        return found

    def _run(
        self, number: int, on: frozenset[str] | None, gradient: bool = False, graph: bool = False
    ) -> tuple[Run, Gradients]:
        """One forward in the current mode, with some sites on (None: all), and its gradients where they are wanted."""
        noise, differentiation = self.watch.noise, self.differentiation
        noise.on, noise.training = on, self.training
        gradient = gradient and differentiation.possible
        gradients: Gradients = [None] * len(differentiation.variables)
        self.state.begin(number)
        self.forwards += 1
        with self.watch.listening(graph=graph) as run:
            self.watch.give(flat(self.arguments))
            if gradient and not differentiation.apart:
                gradients = differentiation.gradients()
            else:
                differentiation.forward()
        if gradient and differentiation.apart:
            self.state.begin(number)
            self.forwards += 1
            gradients = differentiation.gradients()
        self.backwards += gradient
        return run, gradients

    def _call(self) -> Any:
        return self.model(*self.arguments, training=self.training)


def _reach(site: Found, outputs: set[str], off: Gradients, on: Gradients) -> Reach:
    """What a site alone changes, and, where it drops everything, what it leaves without gradient."""
    return Reach(outputs, changed(off, on), stilled(off, on) if site.p == 1 else [])
