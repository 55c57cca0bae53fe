"""A network as a page: its layers as boxes, its dropouts as buttons that show how far each reaches."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...language import AND, ENGLISH, Catalogue, catalogue, counted, joined, say, template, told
from ...report.plots import embed, own_text
from ...visible import visible
from ..names import listed
from ..sentences import batch_of
from . import words
from .prose import about_html

if TYPE_CHECKING:
    from ...finding import Finding
    from ..facts import Facts, Layer, Site
    from ..fold import Node


FEW = 3  # layers with gradients that each may say what theirs do


@dataclass(frozen=True, slots=True)
class Button:
    """A dropout on its box."""

    number: int
    site: "Site"
    text: str
    mask: str
    warning: str


@dataclass(frozen=True, slots=True)
class Box:
    """A layer, a block or a fold as it is drawn; the number is its place in the drawing."""

    number: int
    label: str
    layer: "Layer | None"
    facts: Sequence[str]
    marks: Sequence[str]
    children: Sequence["Box"]
    buttons: Sequence[Button]
    closed: bool
    inside: int
    note: str


def render_network(
    explanation: "Facts",
    root: "Node",
    sentences: Sequence[str],
    findings: Sequence["Finding"] = (),
    lang: str | Catalogue = ENGLISH,
) -> str:
    """A model and what dropout does in it, as self-contained HTML: no address is loaded, nothing is evaluated.

    Args:
        explanation: what the probe found.
        root: its tree, as `dropkit.probe.fold.fold` makes it.
        sentences: the summary, which stands first.
        findings: what is likely not meant; each leads to its box.
        lang: the language in which it is told.

    >>> from dropkit.probe.explanation import Explanation, Layer, Site
    >>> from dropkit.probe.fold import fold
    >>> layers = (Layer(name="", parent=None, kind="Net"), Layer(name="head", parent="", kind="Linear"))
    >>> net = Explanation(model="Net", framework="torch", inputs=((1, 3),), layers=layers, sites=())
    >>> html = render_network(net, fold(net), ["No dropout."])
    >>> html.startswith("<!doctype html>"), "No dropout." in html, "head" in html
    (True, True, True)
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("dropkit.probe.page", ".")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: told(value, lang),  # whatever the page shows
    )
    environment.globals |= {
        "say": say,
        "counted": counted,
        "joined": joined,
        "in_language": lambda text: told(text, lang),
    }
    found = catalogue(lang)
    drawing = _Drawing(explanation, root)
    html = environment.get_template("network.html.j2").render(
        language="en" if found is None else found.html,
        title=say("What dropout does in {model}", model=explanation.model),
        subtitle=_subtitle(explanation),
        explanation=explanation,
        sentences=sentences,
        findings=[(finding, drawing.box_of(finding.place), about_html(finding.code, lang)) for finding in findings],
        cells=list(drawing.leaves()),
        root=drawing.root,
        changed=drawing.changed,
        listed=listed,
        words=words,
        batch=drawing.batch,
        overview=words.overview_sentence(explanation),
        data=embed({**told(drawing.data(), lang), "words": words.script_words(lang)}),
        css=own_text(environment, "network.css"),
        script=own_text(environment, "network.js"),
    )
    return visible(html)  # in a script's strings an escape means the same


def _subtitle(explanation: "Facts") -> str:
    inputs = joined((words.shape_words(shape) for shape in explanation.inputs), AND, AND)
    parts = [
        explanation.framework,
        say("input {inputs}", inputs=inputs) if inputs else "",
        counted(len(explanation.layers), "{n} layer", "{n:,} layers"),
        counted(len(explanation.sites), "{n} dropout", "{n:,} dropouts"),
    ]
    if explanation.forwards:
        one = "found with {n} forward pass and {backwards:,} backward"
        many = template("found with {n:,} forward passes and {backwards:,} backward")
        parts.append(counted(explanation.forwards, one, many, backwards=explanation.backwards))
    return joined(parts, template("{before} · {item}"))


def connections(explanation: "Facts") -> Iterator[tuple[str, str, bool]]:
    """Lines from layer to layer, and whether each is of what the first of them takes, rather than of what it gives.

    Along residual connections each block takes the outputs of all before it: n blocks, n^2 / 2 lines. Where a layer
    takes all that one before it took, and more, a single line carries on from there: the residual stream.

    >>> from dropkit.probe.explanation import Explanation, Layer
    >>> inputs = {"a": (), "b": ("a",), "c": ("a", "b"), "d": ("a", "b", "c")}
    >>> layers = tuple(Layer(name=name, parent=None, kind="", inputs=given) for name, given in inputs.items())
    >>> list(connections(Explanation(model="", framework="", inputs=(), layers=layers, sites=())))
    [('a', 'b', False), ('a', 'c', False), ('b', 'c', False), ('c', 'd', True), ('c', 'd', False)]
    """
    joined: list[tuple[str, frozenset[str]]] = []
    for layer in explanation.layers:
        taken = frozenset(layer.inputs)
        before, carried = next(((name, some) for name, some in reversed(joined) if some <= taken), ("", frozenset()))
        if carried:
            yield before, layer.name, True
        for name in layer.inputs:
            if name not in carried:
                yield name, layer.name, False
        if len(taken) > 1:
            joined.append((layer.name, taken))


class _Drawing:
    """Boxes numbered in the order in which they are drawn, and what the page's script needs to know of them."""

    def __init__(self, explanation: "Facts", root: "Node") -> None:
        self.explanation = explanation
        self.batch = batch_of(explanation)
        self.modes = {layer.name: layer.training for layer in explanation.layers}
        gradients = [layer.gradient for layer in explanation.layers if layer.gradient != "none"]
        # What most layers have is said once, in the summary: a mark is for what is not as in the others.
        self.gradients_change = len(gradients) > FEW and gradients.count("changed") > len(gradients) / 2
        nodes = list(_walk(root))
        self.parents = [parent for _, parent in nodes]
        self.numbers = {node.layer.name: number for number, (node, _) in enumerate(nodes) if node.layer is not None}
        self.blocks = {node.layer.name for node, _ in nodes if node.layer is not None and node.children}
        reached = [words.reach(explanation, site) for site in explanation.sites]
        self.zeroed = [zeroed for zeroed, _ in reached]
        self.sentences = [sentence for _, sentence in reached]
        self.changed = [len({*site.changes} - self.blocks - {""}) for site in explanation.sites]
        self.homes = [self._home(number) for number in range(len(explanation.sites))]
        self.at: dict[int, list[int]] = {}
        for index, home in enumerate(self.homes):
            self.at.setdefault(home, []).append(index)
        self.root = self._box(root, iter(range(len(nodes))), inside_fold=False)

    def leaves(self) -> Iterator[Box]:
        """The boxes that hold no other, in the order in which they are drawn."""
        waiting = [self.root]
        while waiting:
            box = waiting.pop()
            if not box.children:
                yield box
            waiting += reversed(box.children)

    def box_of(self, name: str) -> int | None:
        """The box of a site or a layer."""
        for site, home in zip(self.explanation.sites, self.homes, strict=True):
            if site.name == name:
                return home
        return self.numbers.get(name)

    def data(self) -> dict[str, Any]:
        """Numbers of boxes: parents, connections, and the reach of each site."""
        return {
            "parents": self.parents,
            "edges": [
                [self.numbers[start], self.numbers[end], through]
                for start, end, through in connections(self.explanation)
                if start in self.numbers and end in self.numbers
            ],
            "sites": [self._reach(number) for number in range(len(self.homes))],
            "overview": words.overview_sentence(self.explanation),
        }

    def _home(self, number: int) -> int:
        """Where a site is drawn: on the layer it is, else, of a call in a block, on the last layer it zeroes."""
        site = self.explanation.sites[number]
        last = max(self._known(self.zeroed[number]), default=0) if site.layer in self.blocks else 0
        return last or self.numbers.get(site.layer, 0)

    def _reach(self, number: int) -> Mapping[str, Any]:
        site, home, zeroed = self.explanation.sites[number], self.homes[number], self._known(self.zeroed[number])
        return {
            "box": home,
            "name": site.name,
            "sentence": self.sentences[number],
            "facts": words.site_facts(site, self.batch, self.changed[number]),
            # What leaves a dropout is dropped; of a call inside a block, that is what leaves the layers it zeroes.
            "from": zeroed if zeroed and site.layer in self.blocks else [home],
            "zeroed": zeroed,
            "changed": self._known(site.changes),
            "gradients": self._known(site.gradients),
        }

    def _known(self, names: Sequence[str]) -> list[int]:
        return [self.numbers[name] for name in names if name in self.numbers]

    def _box(self, node: "Node", numbers: Iterator[int], inside_fold: bool) -> Box:
        number = next(numbers)
        buttons = tuple(self._button(index) for index in self.at.get(number, ()))
        children = tuple(self._box(child, numbers, inside_fold=node.layer is None) for child in node.children)
        layer = node.layer
        return Box(
            number=number,
            label=node.label or (layer.name if layer else "") or self.explanation.model,
            layer=layer,
            facts=words.layer_facts(layer, bool(children), self._usual(layer)) if layer else (),
            marks=self._marks(layer, number, bool(children)) if layer else (),
            children=children,
            buttons=buttons,
            # A fold opened shows its blocks, not all that is in them.
            closed=bool(children) and (node.folded or inside_fold),
            inside=node.count - (layer is not None),
            note=node.note,
        )

    def _usual(self, layer: "Layer") -> bool | None:
        """The mode of the block that a layer stands in."""
        return None if layer.parent is None else self.modes[layer.parent]

    def _marks(self, layer: "Layer", number: int, block: bool) -> tuple[str, ...]:
        """What a box shows while no single dropout is chosen: forward, then the gradient of its own parameters."""
        marks = ["here"] if number in self.at else []
        marks += ["zeroed"] if any(layer.name in names for names in self.zeroed) else []
        marks += ["changed"] if layer.changed_by else []
        if not marks and not block and layer.output_shape is not None:
            marks.append("untouched")
        usual = layer.gradient == "none" or (layer.gradient == "changed" and self.gradients_change)
        return (*marks, *([] if usual else [f"gradient-{layer.gradient}"]))

    def _button(self, number: int) -> Button:
        site = self.explanation.sites[number]
        warning: str = say("never drops") if site.idle else ""
        if site.eval and not site.deliberate:
            warning = say("on in evaluation")
        elif site.train is False:
            warning = warning or say("off in training")
        text = joined((site.kind, words.rate_words(site.p)))
        return Button(number, site, text, words.mask(site, self.batch), warning)


def _walk(node: "Node") -> Iterator[tuple["Node", int]]:
    """Each node before what is in it, with the number of its parent; the root is its own."""
    stack = [(node, 0)]
    number = 0
    while stack:
        at, above = stack.pop()
        yield at, above
        stack += [(child, number) for child in reversed(at.children)]
        number += 1
