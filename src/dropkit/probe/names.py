"""Layers named in sentences: a block for all that stands in it, and the first few of many."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from ..language import AND, LIST, Said, joined, say, template
from .facts import Facts, Layer, Shape, Site

SHOWN = 4  # names in a sentence
BY = template("{before} x {item}")  # of a shape
RUN = template("{first} to {last} ({number:,} layers)")
_TARGETS = {
    "input": template("input"),
    "attention weights": template("attention weights"),
    "hidden states": template("hidden states"),
    "weights": template("weights"),
    "state": template("state"),
}
_NUMBER = re.compile(r"(?<![^./])\d+(?=[./])|(?<=[./_])\d+$")  # of a path's component, or at its end


def label(layer: Layer) -> str:
    """What a sentence calls a layer; a bare number, as in a `Sequential`, would be read as one.

    >>> label(Layer(name="3", parent="", kind="Linear"))
    '3 (Linear)'
    """
    if layer.name.isdecimal():
        return say("{name} ({kind})", name=layer.name, kind=layer.kind)
    return layer.name or say("the model itself")


def called(site: Site) -> str:
    """What a sentence calls a dropout."""
    return say("dropout {name}", name=site.name) if site.name.isdecimal() else site.name


def target(site: Site) -> str:
    """What a dropout drops that is not the output of layers."""
    return say(_TARGETS[site.target]) if site.target in _TARGETS else site.target


def by(shape: Shape) -> str:
    """A shape in words; empty for that of one number.

    >>> by((8, 1024))
    '8 x 1024'
    """
    return joined(map(str, shape), BY)


def count_words(number: int, one: str, many: str | None = None) -> str:
    """A number and its noun.

    >>> count_words(1, "layer"), count_words(1200, "layer")
    ('1 layer', '1,200 layers')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def listed(names: Iterable[str]) -> str:
    """Names as a sentence has them: the first four, where there are more with those in one that differ by a number.

    >>> listed(["a", "b"]), listed("abcdef")
    ('a and b', 'a, b, c, d and 2 more')
    >>> listed(["embed", *(f"layers.{n}.linear" for n in range(24))])
    'embed and layers.*.linear (24)'
    """
    every = list(names)
    if len(every) > SHOWN:
        every = _merged(every)
    if len(every) > SHOWN:
        every.sort(key=_number_of, reverse=True)
    shown = every[:SHOWN]
    more = sum(_number_of(name) for name in every[SHOWN:])
    shown += [say("{more} more", more=more)] if more else []
    return joined(shown, LIST, AND)


def _merged(names: Sequence[str]) -> list[str]:
    """Names with those in one that differ in their first number alone, three or more of them."""
    patterns = [_NUMBER.sub("*", name, count=1) for name in names]
    counts = Counter(pattern for pattern, name in zip(patterns, names, strict=True) if pattern != name)
    pairs = zip(patterns, names, strict=True)
    merged = [f"{pattern} ({counts[pattern]})" if counts[pattern] > 2 else name for pattern, name in pairs]
    return list(dict.fromkeys(merged))


def _number_of(name: str) -> int:
    found = re.search(r"(?:\*.* \(([\d,]+)\)| to .* \(([\d,]+) layers\))$", name)
    return int((found[1] or found[2]).replace(",", "")) if found else 1


def of_several(name: str) -> bool:
    """Whether what `Places.blocks` names is several layers in a row."""
    return isinstance(name, Said) and name.template == RUN


class Places:
    """Names of layers, in which a block stands for its layers where all of them are meant."""

    def __init__(self, explanation: Facts) -> None:
        self.layers = explanation.layers
        self.owners = explanation.owners()
        self.inside: dict[str | None, list[Layer]] = {}
        self.around: set[str | None] = set()  # blocks in which a layer ran
        for layer in reversed(explanation.layers):
            self.inside.setdefault(layer.parent, []).insert(0, layer)
            if layer.output_shape is not None or layer.name in self.around:
                self.around.add(layer.parent)

    def owns(self, layer: Layer) -> bool:
        """Whether it has parameters beside those of what stands in it."""
        return layer.name in self.owners

    def trains(self, layer: Layer) -> bool:
        """Whether it has such parameters, and they are trained."""
        return self.owns(layer) and layer.trainable > 0

    def leaf(self, layer: Layer) -> bool:
        """Whether it ran, and nothing in it did."""
        return layer.output_shape is not None and layer.name not in self.around

    def blocks(self, names: Iterable[str], counts: Callable[[Layer], bool]) -> list[str]:
        """Names in order of execution; a block instead of its layers where all of these that count are named.

        Of many layers in a row, all of which are named, the first and the last stand for all, where that is shorter.
        """
        found = self._visit(self.layers[0], set(names), counts)
        if found.meant == found.every > 1:
            return [say("every layer")]
        few = len(_merged(found.shown)) <= max(SHOWN // 2, len(found.runs) + 1)
        return found.shown if few or len(found.shown) <= SHOWN else found.runs

    def _visit(self, layer: Layer, named: set[str], counts: Callable[[Layer], bool]) -> "_Named":
        inside = [self._visit(child, named, counts) for child in self.inside.get(layer.name, [])]
        own = counts(layer)
        mine = own and layer.name in named
        meant, every = sum(child.meant for child in inside) + mine, sum(child.every for child in inside) + own
        if meant == every and meant > 1 and layer.parent is not None:
            return _Named([label(layer)], [label(layer)], meant, every)
        first = [label(layer)] if mine else []
        shown = [name for child in inside for name in child.shown]
        return _Named(first + shown, first + list(_in_runs(inside)), meant, every)


@dataclass(frozen=True, slots=True)
class _Named:
    """What is said of a block, name by name and by runs; how many of its layers are named, and how many count."""

    shown: list[str]
    runs: list[str]
    meant: int
    every: int

    @property
    def whole(self) -> bool:
        return self.meant == self.every and len(self.shown) == 1


def _in_runs(inside: Sequence[_Named]) -> Iterator[str]:
    """What is said of siblings, with more than a few in a row as one: "conv2d to mixed7 (228 layers)"."""
    told = [child for child in inside if child.every]
    for whole, group in groupby(told, key=lambda child: child.whole):
        run = list(group)
        if whole and len(run) > SHOWN:
            number = sum(child.meant for child in run)
            yield say(RUN, first=run[0].shown[0], last=run[-1].shown[0], number=number)
        else:
            yield from (name for child in run for name in child.runs)
