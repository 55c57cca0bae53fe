"""Large models made readable: what repeats, and what dropout leaves alone, folds into one line."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..language import LIST, joined, say, template
from .facts import Facts, Layer, Site
from .sentences import passed_on

SMALL = 12  # layers that always fit on a screen: a model of no more stays as it is, and so does a plainer run
BLOCKS = 2  # blocks alike that fold
UNTOUCHED = 5  # siblings that no dropout touches
PERIODS = (1, 2, 3)  # siblings in a pattern that repeats

# What changes the output; where there are parameters, whether they are frozen, and what changes their gradient.
_Reach = tuple[tuple[str, ...], tuple[bool, tuple[str, ...]] | None]


@dataclass(frozen=True, slots=True)
class Node:
    """A line of the tree: a layer with what stands in it, or several siblings in one.

    Args:
        label: the layer's name in its block, "hidden1"; of a fold the first and the last, "0 ... 23".
        layer: None for a fold, which stands for its children.
        children: in order of execution.
        folded: shown closed at first.
        count: layers in it, itself included.
        note: of a fold, what its children share: "24 blocks alike", "229 layers, frozen, untouched".
    """

    label: str
    layer: Layer | None
    children: tuple["Node", ...]
    folded: bool
    count: int
    note: str

    @property
    def layers(self) -> Iterator[Layer]:
        """The layers in it, itself included, in order of execution."""
        if self.layer is not None:
            yield self.layer
        for child in self.children:
            yield from child.layers


def fold(explanation: Facts) -> Node:
    """The tree of a model, in which folded runs of siblings stand as one node; the root is the model itself.

    Three runs fold: blocks alike in kinds, parameters and what dropout does to them (names and p may differ), or a
    pattern of up to three siblings that repeats; siblings that no dropout touches; and, where they are many, siblings
    that dropout reaches in the same way. The last two hold no site. A model of 12 layers or fewer does not fold.

    >>> from dropkit.probe import Explanation
    >>> layers = (Layer(name="", parent=None, kind="Net"), Layer(name="head", parent="", kind="Linear"))
    >>> fold(Explanation(model="Net", framework="torch", inputs=((1, 3),), layers=layers, sites=())).children[0].label
    'head'
    """
    return _Folding(explanation).node(explanation.layers[0])


class _Folding:
    def __init__(self, explanation: Facts) -> None:
        self.explanation = explanation
        self.small = len(explanation.layers) - 1 <= SMALL
        self.inside: dict[str, list[Layer]] = {}
        for layer in explanation.layers[1:]:
            self.inside.setdefault(layer.parent or "", []).append(layer)
        self.sites: dict[str, list[Site]] = {}
        for site in explanation.sites:
            self.sites.setdefault(site.layer, []).append(site)
        self.owners = explanation.owners()
        self.passing = passed_on(explanation)
        self.patterns: dict[Any, int] = {}  # what a block is made of -> its number

    def node(self, layer: Layer) -> Node:
        """A layer with what stands in it."""
        nodes = [self.node(child) for child in self.inside.get(layer.name, [])]
        children = tuple(nodes) if self.small else tuple(self._runs(nodes))
        label = self.explanation.model if layer.parent is None else within(layer.name, layer.parent)
        return Node(label, layer, children, False, 1 + sum(node.count for node in nodes), "")

    def _runs(self, nodes: Sequence[Node]) -> Iterator[Node]:
        """Siblings in order, with runs of them folded: what dropout reaches alike first, then what is alike."""
        reached = [self._reach(node) for node in nodes]
        patterns = [self._pattern(node) for node in nodes]
        start = 0
        while start < len(nodes):
            alike, touched = _same_reach(reached[start:])
            size, period = _repeats(patterns[start:])
            run, blocks = nodes[start : start + size], bool(nodes[start].children)
            if alike >= (SMALL if touched else UNTOUCHED):
                run = nodes[start : start + alike]
                yield _folded(run, _reach_note(run))
            elif size and (blocks or size >= SMALL):
                yield _folded(run, _alike_note(run, period))
            else:
                run = [nodes[start]]
                yield nodes[start]
            start += len(run)

    def _reach(self, node: Node) -> _Reach | None:
        """What dropout does in a block, where it does the same to all of it; None where not, or where a site is."""
        layers = list(node.layers)
        if any(layer.zeroed_by or layer.name in self.sites or layer.name in self.passing for layer in layers):
            return None
        changed = {layer.changed_by for layer in layers}
        gradients = {(layer.frozen, layer.gradient_by) for layer in layers if layer.name in self.owners}
        if len(changed) > 1 or len(gradients) > 1:
            return None
        return changed.pop(), gradients.pop() if gradients else None

    def _pattern(self, node: Node) -> int:
        """A number that blocks share when they are alike: kinds, parameters, status and sites; not names, not p."""
        layer = node.layer
        own: Any = None
        if layer is not None:
            status = (layer.training, bool(layer.zeroed_by), bool(layer.changed_by), layer.gradient, layer.random)
            sites = [
                (site.kind, site.target, site.train, site.eval, site.now) for site in self.sites.get(layer.name, [])
            ]
            own = (layer.kind, layer.parameters, layer.trainable, layer.activation, status, tuple(sites))
        made_of = (own, tuple(self._pattern(child) for child in node.children))
        return self.patterns.setdefault(made_of, len(self.patterns))


def within(name: str, parent: str) -> str:
    """The name of a layer as its block calls it.

    >>> within("encoder.layers.0", "encoder")
    'layers.0'
    """
    return name[len(parent) + 1 :] if parent and name.startswith((f"{parent}.", f"{parent}/")) else name


def _same_reach(reached: Sequence[_Reach | None]) -> tuple[int, bool]:
    """How many siblings, from the first on, dropout reaches alike; and whether it reaches them at all."""
    changed: set[Any] = set()
    gradients: set[Any] = set()
    size = 0
    for reach in reached:
        if reach is None or len({*changed, reach[0]}) > 1 or len(gradients | ({reach[1]} - {None})) > 1:
            break
        changed.add(reach[0])
        gradients |= {reach[1]} - {None}
        size += 1
    return size, any(changed) or any(by for _, by in gradients)


def _repeats(patterns: Sequence[int]) -> tuple[int, int]:
    """How many siblings, from the first on, repeat a pattern, and of how many siblings it is; the most is taken."""
    found = [(0, -1)]
    for period in PERIODS:
        size = period
        while size + period <= len(patterns) and patterns[size : size + period] == patterns[:period]:
            size += period
        if size >= BLOCKS * period:
            found.append((size, -period))
    size, period = max(found)
    return size, -period


def _folded(run: Sequence[Node], note: str) -> Node:
    first, last = run[0].label, run[-1].label
    block = first[: max(first.rfind("."), first.rfind("/")) + 1]
    return Node(
        f"{first} ... {last.removeprefix(block)}", None, tuple(run), True, sum(node.count for node in run), note
    )


def _reach_note(run: Sequence[Node]) -> str:
    """Such as "229 layers, frozen, untouched"."""
    layers = [layer for node in run for layer in node.layers]
    words: list[str] = [say("{number} layers", number=len(layers))]
    if any(layer.frozen for layer in layers):
        words.append(say("frozen"))
    if layers[0].changed_by:
        words.append(say("output changed"))
    if any(layer.gradient_by for layer in layers):
        words.append(say("gradient changed"))
    return joined(words if any(layer.touched for layer in layers) else [*words, say("untouched")])


def _alike_note(run: Sequence[Node], period: int) -> str:
    """Such as "24 blocks alike" or "12 times Dense, Dropout"."""
    if period == 1:
        words = template("{number} blocks alike") if run[0].children else template("{number} layers alike")
        return say(words, number=len(run))
    kinds = [node.layer.kind if node.layer else node.label for node in run[:period]]
    return say("{number} times {kinds}", number=len(run) // period, kinds=joined(kinds, LIST))
