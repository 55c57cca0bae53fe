"""What a probe found, as a tree for the terminal: a line for each layer, block, fold and dropout."""

import re
from collections.abc import Iterator, Mapping, Sequence

from rich.text import Text
from rich.tree import Tree

from ..language import ENGLISH, Catalogue, counted, joined, say, told
from .facts import Facts, Layer, Site
from .fold import Node
from .masks import mask_words
from .names import by, listed, target
from .sentences import batch_of, passed_on, zeroed_words

LEGEND = say(
    "Each line: name, class, output shape, parameters, and what dropout does there; in brackets the variance of the "
    "output with dropout on, over that with dropout off."
)
STYLES = {"zeroed": "red", "changed": "yellow", "gradient": "cyan", "site": "bold magenta", "quiet": "dim"}


def tree(root: Node, explanation: Facts, *, opened: bool = False, lang: str | Catalogue = ENGLISH) -> Tree:
    """The layers of a model, each with what dropout does to it; words tell everything, colour only repeats it.

    Args:
        root: as `dropkit.probe.fold.fold` makes it.
        explanation: what it was made of.
        opened: show all that is folded.
        lang: the language in which it is told.

    >>> from dropkit.probe import Explanation
    >>> from rich.console import Console
    >>> from .fold import fold
    >>> layers = (
    ...     Layer(name="", parent=None, kind="Net", output_shape=(8, 2), parameters=34, trainable=34),
    ...     Layer(name="drop", parent="", kind="Dropout", output_shape=(8, 16)),
    ...     Layer(name="head", parent="", kind="Linear", output_shape=(8, 2), parameters=34, trainable=34,
    ...           changed_by=("drop",), gradient="changed", gradient_by=("drop",), variance_ratio=1.2),
    ... )
    >>> drop = Site(name="drop", kind="Dropout", layer="drop", p=0.5, mask_shape=(8, 16), train=True, eval=False)
    >>> net = Explanation(model="Net", framework="torch", inputs=((8, 16),), layers=layers, sites=(drop,))
    >>> Console(width=80).print(tree(fold(net), net))
    Net  8 x 2  34
    ├── drop  Dropout  p 0.5: each of 16 units, per sample
    └── head  Linear  8 x 2  34  changed (x 1.2); gradient changed
    """
    return _Drawing(explanation, opened, lang).draw(root, None)


class _Drawing:
    def __init__(self, explanation: Facts, opened: bool, lang: str | Catalogue) -> None:
        self.explanation = explanation
        self.opened = opened
        self.lang = lang
        self.batch = batch_of(explanation)
        self.modes = {layer.name: layer.training for layer in explanation.layers}
        self.around: set[str | None] = set()  # blocks in which a layer ran
        for layer in reversed(explanation.layers):
            if layer.output_shape is not None or layer.name in self.around:
                self.around.add(layer.parent)
        self.passing = passed_on(explanation)
        self.sites: dict[str, list[Site]] = {}
        for site in explanation.sites:
            self.sites.setdefault(site.layer, []).append(site)

    def draw(self, node: Node, above: Tree | None) -> Tree:
        """A node with all that is in it, below another."""
        text = self._layer(node, node.layer) if node.layer is not None else self._fold(node)
        branch = Tree(text) if above is None else above.add(text)
        if node.layer is None:
            # Of blocks that are alike, one shows what they are.
            shown: Sequence[Node] = node.children[:1] if node.children[0].children and self._sites_in(node) else ()
            for child in shown:
                self.draw(child, branch)
            return branch
        calls = [site for site in self.sites.get(node.layer.name, []) if site.name != node.layer.name]
        after = _places(calls, node.children)
        for number in range(len(node.children) + 1):
            for line in self._opened(node.children[number - 1]) if number else ():
                self.draw(line, branch)
            for site in after.get(number, ()):
                branch.add(self._call(site, node.layer))
        return branch

    def _opened(self, node: Node) -> Iterator[Node]:
        """A node, or what a fold stands for where all is to be shown."""
        if node.layer is not None or not self.opened:
            yield node
        else:
            for child in node.children:
                yield from self._opened(child)

    def _layer(self, node: Node, layer: Layer) -> Text:
        text = Text(node.label, style="bold")
        if layer.parent is not None or layer.kind != node.label:
            self._add(text, layer.kind)
        own = next((site for site in self.sites.get(layer.name, []) if site.name == layer.name), None)
        if own is not None:
            self._add(text, self._dropping(own), "site")
        else:
            self._add(text, self._shape(layer))
        self._add(text, _parameters([layer]))
        if layer.parent is not None and layer.training != self.modes.get(layer.parent, True):
            self._add(text, say("in train mode") if layer.training else say("in eval mode"))
        if layer.calls > 1:
            self._add(text, say("runs {calls} times", calls=layer.calls))
        zeroed = zeroed_words(layer, self.explanation.sites) or (say("zeroed") if layer.name in self.passing else "")
        status = [] if own is not None and not layer.changed_by else _status(layer, zeroed)
        for number, (words, style) in enumerate(status):
            text.append(self._told(say("; ")) if number else "  ").append(self._told(words), STYLES[style])
        return text

    def _shape(self, layer: Layer) -> str:
        """The shape of what comes out; nothing where only its layers run, or only its parameters are used."""
        if layer.output_shape is not None:
            return by(layer.output_shape) or say("a number")
        if layer.used_by:
            return say("runs inside {names}", names=self._inside(layer))
        used = layer.gradient in ("changed", "zero", "unchanged") or layer.name in self.around
        return "" if used else say("did not run")

    def _inside(self, layer: Layer) -> str:
        """The layers that use its parameters, as their blocks call them."""
        return listed(dict.fromkeys(name.rpartition(".")[2] or say("the model") for name in layer.used_by))

    def _fold(self, node: Node) -> Text:
        text = Text(node.label, style="bold")
        self._add(text, node.note)
        inside = self._sites_in(node)
        layers = list(node.layers)
        if len(layers) > len(node.children) and "layers" not in node.note:
            text.append(self._told(say(", {number} layers", number=len(layers))))
        if inside:
            rates = sorted({site.p for site in inside if site.p is not None})
            text.append(self._told(_inside(len(inside), rates)), STYLES["site"])
        parts = [child.layer for child in node.children if child.layer is not None]
        self._add(text, _parameters(parts, frozen="frozen" not in node.note))
        if inside and node.children[0].children:
            text.append(self._told(say("; the first of them:")), STYLES["quiet"])
        return text

    def _sites_in(self, node: Node) -> list[Site]:
        return [site for layer in node.layers for site in self.sites.get(layer.name, [])]

    def _call(self, site: Site, layer: Layer) -> Text:
        """A dropout that is no layer of its own."""
        name = site.name.removeprefix(layer.name).lstrip(":./")
        text = Text(name, style=STYLES["site"])
        if site.kind != name:
            self._add(text, site.kind)
        self._add(text, self._dropping(site), "site")
        self._add(text, re.split(r"[/\\\\]", site.source)[-1], "quiet")
        return text

    def _dropping(self, site: Site) -> str:
        """Rate, mask and modes; modes only where they are not the usual ones."""
        rate = "" if site.p is None else f"p {site.p:g}"
        mask = "" if site.mask_shape is None else mask_words(site, self.batch)
        if site.target not in ("output", "attention weights"):
            mask = joined((target(site), mask))
        words = [say("{rate}: {mask}", rate=rate, mask=mask) if rate and mask else rate or mask]
        if site.idle:
            words.append(say("never drops: {why}", why=site.idle))
        elif site.train is False:
            words.append(say("off in training"))
        elif site.now is False and site.train:
            words.append(say("off as handed in"))
        if site.eval:
            words.append(say("on in evaluation, as asked for") if site.deliberate else say("on in evaluation"))
        if site.fast_path:
            words.append(say("skipped by the fast path"))
        if site.gradient_check.startswith("FAILED"):
            words.append(say("another mask in backward"))
        return joined(words)

    def _told(self, words: str) -> str:
        return str(told(words, self.lang))

    def _add(self, text: Text, words: str, style: str = "") -> None:
        if words:
            text.append("  ", "not bold").append(self._told(words), f"not bold {STYLES.get(style, '')}")


def _inside(number: int, rates: Sequence[float]) -> str:
    """How many dropouts a fold holds, and of which rates."""
    if not rates:
        return counted(number, ", {n} dropout", ", {n} dropouts")
    low, high = (f"{p:g}" for p in (rates[0], rates[-1]))
    if low == high:
        return counted(number, ", {n} dropout of p {low}", ", {n} dropouts of p {low}", low=low)
    return counted(
        number, ", {n} dropout of p {low} to {high}", ", {n} dropouts of p {low} to {high}", low=low, high=high
    )


def _status(layer: Layer, zeroed: str) -> list[tuple[str, str]]:
    """What dropout does to a layer, each with its style; of an untouched one nothing."""
    found = []
    if zeroed:
        found.append((zeroed, "zeroed"))
    if layer.changed_by:
        found.append((say("changed"), "changed"))
        if layer.variance_ratio is not None:
            found[-1] = say("changed (x {ratio:.3g})", ratio=layer.variance_ratio), "changed"
    if layer.gradient in ("changed", "zero"):
        found.append((say("gradient changed") if layer.gradient == "changed" else say("gradient zero"), "gradient"))
    if layer.gradient == "unused":
        found.append((say("no gradient: unused"), "quiet"))
    if layer.input_variance_ratio is not None and layer.changed_by:
        ratio = layer.input_variance_ratio
        found.append((say("its input's variance in training x {ratio:.3g}", ratio=ratio), "changed"))
    if layer.random:
        found.append((say("random without dropout"), "quiet"))
    return found


def _parameters(layers: Sequence[Layer], *, frozen: bool = True) -> str:
    """How many numbers, and how many of them are trained where that is not all."""
    number = sum(layer.parameters for layer in layers)
    trainable = sum(layer.trainable for layer in layers)
    if number == 0:
        return ""
    if trainable == 0:
        return say("{number:,} frozen", number=number) if frozen else f"{number:,}"
    if trainable == number:
        return f"{number:,}"
    return say("{number:,} ({trainable:,} trainable)", number=number, trainable=trainable)


def _places(calls: Sequence[Site], children: Sequence[Node]) -> Mapping[int, list[Site]]:
    """Calls of a block by the number of children they come after.

    That is the last child whose output they zero; where they zero none, what comes before the first one they change.
    """
    found: dict[int, list[Site]] = {}
    names = [{layer.name for layer in child.layers} for child in children]
    for site in calls:
        zeroed = [number for number, inside in enumerate(names, start=1) if not inside.isdisjoint(site.zeroes)]
        changed = next((number for number, inside in enumerate(names) if not inside.isdisjoint(site.changes)), 0)
        found.setdefault(max(zeroed, default=changed), []).append(site)
    return found
