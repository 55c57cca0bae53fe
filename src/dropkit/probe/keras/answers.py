"""From what was seen of a Keras model to what is said of it."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from ...language import SEMICOLON, joined, say, template
from ..activation import at_zero
from ..explanation import Explanation
from ..facts import Gradient, Layer, Shape, Site, draws_for_one
from ..findings.modes import TOLD
from ..laws import told
from .graph import Graph
from .intercept import ATTENTION, Found
from .tree import Tree, activation
from .watch import Record, Run, Watch

FAR = 0.02  # how far a mean may be off
TWINS = 64  # elements of a mask, below which two may be alike by chance
UNCHECKED = "not checked: Keras leaves the backward to the framework, which differentiates the forward that ran"


@dataclass
class Reach:
    """What a site changes: outputs of layers, and for each variable whether its gradient."""

    outputs: set[str]
    gradients: list[bool]
    stilled: list[bool] = field(default_factory=list)  # by rate 1: there is no gradient left


@dataclass
class Evidence:
    """What the runs showed.

    Args:
        off, watched: with all dropout off; with all of it on and the graph recorded; both with the same numbers.
        on: runs with all of it on, under several masks; none where nothing drops.
        evaluated: in evaluation.
        random: layers whose output changes with all dropout off.
        variables: what was differentiated by; for each, in `unused`, whether the outputs do not depend on it.
    """

    off: Run
    watched: Run
    on: list[Run]
    evaluated: Run
    random: set[str]
    variables: Sequence[Any] = ()
    unused: list[bool] = field(default_factory=list)
    reach: dict[str, Reach] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    forwards: int = 0
    backwards: int = 0

    def stilled(self, variable: int) -> bool:
        """Whether a site leaves nothing of the gradient of a variable."""
        return any(reach.stilled and reach.stilled[variable] for reach in self.reach.values())

    def reached(self, variable: int) -> bool:
        """Whether any site changes the gradient of a variable."""
        return any(reach.gradients[variable] for reach in self.reach.values())


def explanation(watch: Watch, evidence: Evidence, model: str, inputs: tuple[Shape, ...]) -> Explanation:
    """All of it, in order of execution."""
    answers = _Answers(watch, evidence, inputs[0][0] if inputs and inputs[0] else None)
    sites = tuple(answers.site(site) for site in watch.noise.sites)
    return Explanation(
        model=model,
        framework="keras",
        inputs=inputs,
        layers=tuple(answers.layer(name, sites) for name in answers.order),
        sites=sites,
        forwards=evidence.forwards,
        backwards=evidence.backwards,
        notes=tuple(evidence.notes),
    )


class _Answers:
    def __init__(self, watch: Watch, evidence: Evidence, batch: int | None) -> None:
        assert evidence.watched.graph is not None
        self.batch = batch
        self.watch, self.evidence, self.tree = watch, evidence, watch.tree
        self.graph: Graph = evidence.watched.graph
        self.records = evidence.watched.records
        self.order = _in_order(self.tree, self.records)
        self.weights = self.tree.weights()
        self.blocks = self.tree.blocks()
        self.numbers = {id(variable): n for n, variable in enumerate(evidence.variables)}
        self.changed = set[str]().union(*(run.changed(evidence.off) for run in evidence.on))
        self.takes: dict[str, set[str]] = {name: set() for name in self.order}
        for node in self.graph.nodes:
            if node.kind == "layer":
                self.takes[node.name] |= self.graph.layers(node.sources)

    # -----------------------------------------------------------------------------------------------------------------
    # sites

    def site(self, found: Found) -> Site:
        """A site."""
        layer = self.tree.shown(found.path)
        ran = layer in self.records
        sources = [source for number in found.nodes for source in self.graph.nodes[number].sources]
        target, zeroes = self._zeroes(found, sources)
        reach = self.evidence.reach.get(found.name)
        return Site(
            name=found.name,
            kind=found.kind,
            layer=layer,
            p=found.p,
            mask_shape=found.mask_shape,
            calls=1 if self._recurrent(found) else max(1, len(found.shapes)),
            **self._calls(found, target),
            all_draws=sum(draws_for_one(shape, self.batch) for shape in found.shapes) or None,
            train=found.train if ran else None,
            eval=found.eval if ran else None,
            deliberate=found.deliberate,
            target=target,
            zeroes=self._ordered(zeroes) if target == "output" else (),
            changes=self._ordered(reach.outputs - self._itself(found)) if reach else (),
            gradients=self._ordered(self._owning(reach.gradients)) if reach else (),
            input_rank=found.input_rank,
            follows=self.graph.activation(tuple(dict.fromkeys(sources))),
            on_prediction=target == "output" and any(self.graph.predicts(number) for number in found.nodes),
            twins=tuple(self._twins(found)),
            passes=len(found.turns),
            views=self._views(found),
            gradient_check=UNCHECKED,
            **self._law(found),
            **self._scaled(found),
            **self._into(found),
            idle=_idle(found, self.tree.layers[found.path]) if ran else "",
            note=joined(
                [*found.noted, *self._masks(found), *([TOLD] if self.tree.told(found.path) else [])], SEMICOLON
            ),
            source=found.source,
        )

    def _calls(self, found: Found, target: str) -> dict[str, Any]:
        """Mask and zeroed layers of each call, of a site that drops several times in one forward."""
        if self._recurrent(found) or not 1 < len(found.shapes) == len(found.nodes):
            return {}
        above = [self.graph.above(self.graph.nodes[number].sources) for number in found.nodes]
        zeroes = [
            {node.name for node in nodes if node.kind == "layer"} if target == "output" else set() for nodes in above
        ]
        return {"call_masks": tuple(found.shapes), "call_zeroes": tuple(map(self._ordered, zeroes))}

    def _scaled(self, found: Found) -> dict[str, Any]:
        """What a layer around dropout makes of its input in evaluation, against training with dropout off."""
        name = self.tree.shown(found.path)
        runs = self.evidence.off, self.evidence.evaluated
        off, evaluated = (run.records.get(name, Record()).slopes for run in runs)
        if not (off and evaluated and found.train and off[0] and evaluated[0]) or found.effect:
            return {}
        if any(site.eval and self.tree.shown(site.path) == name for site in self.watch.noise.sites):
            return {}  # its mean in evaluation is one of random numbers
        if found.noise is not None and found.noise.off(0.5) is not None:  # it is meant so
            return {}
        c = evaluated[0] / off[0]
        if not np.isfinite(c) or abs(c - 1) <= FAR:
            return {}
        return {"train_mean": 1.0, "eval_mean": c, "mean_ratio": 1 / c, "mean_error": 0.0}

    def _into(self, found: Found) -> dict[str, Any]:
        """The function with f(0) != 0 that takes what a site dropped to zero, and how far its mean moves."""
        if found.effect or told(found.noise, (), found.p, None, None).get("becomes", "zero") != "zero":
            return {}
        for number in found.nodes:
            node = self.graph.taken_by(number, lambda node: at_zero(node.activation or node.name))
            if node is not None:
                runs = self.evidence.off, self.evidence.watched
                off, on = (run.records.get(node.name, Record()).means for run in runs)
                shift = on[0] - off[0] if off and on else None
                return {"into": at_zero(node.activation or node.name), "shift": shift}
        return {}

    def _law(self, found: Found) -> dict[str, Any]:
        """What the law of a site says of it."""
        if found.effect:
            return {"drawn": "values", "effect": found.effect}
        return told(found.noise, found.share, found.p, found.mask_shape, self.batch)

    def _zeroes(self, found: Found, sources: Iterable[int]) -> tuple[str, set[str]]:
        """What a site drops, and of which layers that is the output."""
        layer = self.tree.layers[found.path]
        parent = self.tree.layers.get(self.tree.parents[found.path] or "")
        if isinstance(layer, keras.layers.Attention) or (
            isinstance(parent, (*ATTENTION, keras.layers.Attention))
            and getattr(parent, "_dropout_layer", None) is layer
        ):
            return "attention weights", set()
        if found.label == "recurrent_dropout":
            return "state", set()
        cells = parent.cells if isinstance(parent, keras.layers.StackedRNNCells) else [layer]
        if found.label == "dropout" and layer is not cells[0]:
            return "hidden states", set()
        above = list(self.graph.above(sources))
        zeroes = {node.name for node in above if node.kind == "layer"}
        for node in (self.graph.nodes[number] for number in found.nodes):
            if node.ends and not node.sources and node.around is not None:  # a layer that drops what it computed
                zeroes.add(self.graph.nodes[node.around].name)
        return "input" if above and all(node.kind == "input" for node in above) else "output", zeroes

    def _itself(self, found: Found) -> set[str]:
        """The layer that a site is, if it is one."""
        name = self.tree.shown(found.path)
        return set() if found.label or isinstance(self.tree.layers[name], keras.layers.RNN) else {name}

    def _owning(self, variables: Sequence[bool]) -> set[str]:
        """The layers that own any of these variables."""
        return {
            name
            for name, owned in self.weights.items()
            if any(variables[n] for each in owned if (n := self.numbers.get(id(each))) is not None)
        }

    def _twins(self, found: Found) -> Iterable[str]:
        """The sites that drew the same masks at the same rate."""
        sizes = sum(mask.size for mask in found.masks)
        if sizes < TWINS or all(np.ptp(mask) == 0 for mask in found.masks):
            return
        for other in self.watch.noise.sites:
            alike = other is not found and other.p == found.p and len(other.masks) == len(found.masks)
            if alike and all(np.array_equal(a, b) for a, b in zip(found.masks, other.masks, strict=True)):
                yield other.name

    def _views(self, found: Found) -> int:
        """Calls that got the input of another one, and its mask: their results are equal."""
        if self._recurrent(found) or len(found.taken) != len(found.masks):
            return 0
        drawn = [mask.tobytes() if mask.size >= TWINS and np.ptp(mask) else b"" for mask in found.masks]
        calls = Counter(zip(found.taken, drawn, strict=True))
        return sum(count for (_, mask), count in calls.items() if mask and count > 1)

    def _masks(self, found: Found) -> Iterable[str]:
        if len(found.masks) > 1:
            gates, calls = template("{number} masks, one for each gate"), template("{number} masks, one for each call")
            yield say(gates if self._recurrent(found) else calls, number=len(found.masks))

    def _recurrent(self, found: Found) -> bool:
        return isinstance(self.tree.layers[self.tree.shown(found.path)], keras.layers.RNN)

    def _ordered(self, names: set[str]) -> tuple[str, ...]:
        return tuple(name for name in self.order if name in names)

    # -----------------------------------------------------------------------------------------------------------------
    # layers

    def layer(self, name: str, sites: Sequence[Site]) -> Layer:
        """A layer, given the sites."""
        layer, record = self.tree.layers[name], self.records.get(name, Record())
        inside = [each for each in self.order if each == name or name == "" or each.startswith(f"{name}/")]
        owned = [variable for each in inside for variable in self.weights[each]]
        trained = [variable for variable in owned if id(variable) in self.numbers]
        return Layer(
            name=name,
            parent=self.tree.parents[name],
            kind=type(layer).__name__,
            output_shape=record.shape,
            parameters=sum(_size(variable) for variable in owned),
            trainable=sum(_size(variable) for variable in trained),
            training=bool(layer.trainable) or not isinstance(layer, keras.layers.BatchNormalization),
            calls=record.calls,
            inputs=self._ordered(self.takes[name] - {name}),
            zeroed_by=tuple(site.name for site in sites if name in site.zeroes),
            changed_by=tuple(site.name for site in sites if name in site.changes),
            gradient=self._gradient(self.weights[name]),
            gradient_by=tuple(site.name for site in sites if name in site.gradients),
            variance_ratio=self._ratio(name, "variances") if name in self.changed else None,
            input_variance_ratio=self._ratio(name, "input_variances"),
            random=name in self.evidence.random,
            activation=None if name in self.blocks else activation(layer),
        )

    def _gradient(self, owned: Sequence[Any]) -> Gradient:
        if not owned:
            return "none"
        trained = [n for variable in owned if (n := self.numbers.get(id(variable))) is not None]
        if not trained:
            return "frozen"
        if any(self.evidence.reached(n) for n in trained):
            return "zero" if all(self.evidence.stilled(n) for n in trained) else "changed"
        return "unused" if all(self.evidence.unused[n] for n in trained) else "unchanged"

    def _ratio(self, name: str, which: str) -> float | None:
        """A variance with dropout on, mean over the masks, over that with dropout off."""
        off = getattr(self.evidence.off.records.get(name, Record()), which)
        on = [values for run in self.evidence.on if (values := getattr(run.records.get(name, Record()), which))]
        if not on or not off or not np.mean(off) > 0:
            return None
        ratio = float(np.mean([np.mean(values) / np.mean(off) for values in on]))
        return ratio if np.isfinite(ratio) else None


def _in_order(tree: Tree, records: dict[str, Record]) -> list[str]:
    """The layers in order of execution, a block before what stands in it; those that did not run come last in it."""
    began = {name: n for n, name in enumerate(records)}
    inside: dict[str, list[str]] = {}
    for name in reversed(tree.visible):  # children before their block
        parent = tree.parents[name]
        if parent is not None:
            inside.setdefault(parent, []).insert(0, name)
        first = [began[child] for child in inside.get(name, []) if child in began]
        if first:  # a block that is never called, only what stands in it
            began[name] = min(began.get(name, first[0]), *first)
    order: list[str] = []

    def visit(name: str) -> None:
        order.append(name)
        for child in sorted(inside.get(name, []), key=lambda child: began.get(child, len(records))):
            visit(child)

    visit("")
    return order


def _idle(found: Found, layer: Any) -> str:
    """Why a site can never drop."""
    if found.p == 0:
        return say("its rate is 0")
    if getattr(layer, "when", "") == "never":
        return say("off by name: when='never'")
    if hasattr(layer, "stddev") and not float(layer.stddev):
        return say("its standard deviation is 0")
    return ""


def _size(variable: Any) -> int:
    return int(np.prod(variable.shape))
