"""Which call took whose output, in one forward of a Keras model: tensors known by identity, else by their bits."""

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras

Digest = Callable[[Any], bytes | None]


@dataclass(slots=True)
class Node:
    """A call, or a place where dropout happens within one.

    Args:
        kind: the model's input, a layer that holds no others, a function of the graph, or a site.
        name: path of the layer, or name of the site; of a function that of its class.
        sources: numbers of the nodes whose outputs it takes.
        weighs: it has parameters.
        activation: that it is or ends in.
        ends: of a site, the output of the layer around it is that of the site.
        around: of a site, the number of that layer's node.
    """

    kind: Literal["input", "layer", "function", "site"]
    name: str
    sources: tuple[int, ...] = ()
    weighs: bool = False
    activation: str | None = None
    ends: bool = False
    around: int | None = None


class Graph:
    """The calls of one forward, in order.

    Args:
        digest: of a tensor's bits; None where they cannot be had.
    """

    def __init__(self, digest: Digest) -> None:
        self.nodes: list[Node] = []
        self.outputs: set[int] = set()  # nodes that give the model's outputs
        self.guessed = False  # some input came out of functions that nobody saw
        self._digest = digest
        self._known: dict[int, tuple[weakref.ref[Any], tuple[int, ...]]] = {}
        self._bits: dict[bytes, tuple[int, ...]] = {}
        self._taken: set[int] = set()

    def add(self, node: Node) -> int:
        """Append a node."""
        self._taken.update(node.sources)
        self.nodes.append(node)
        return len(self.nodes) - 1

    def give(self, tensors: Iterable[Any], numbers: tuple[int, ...]) -> None:
        """These tensors come from these nodes."""
        for tensor in tensors:
            self._known[id(tensor)] = weakref.ref(tensor), numbers
            bits = self._digest(tensor)
            if bits is not None:
                self._bits[bits] = numbers

    def origin(self, tensor: Any) -> tuple[int, ...] | None:
        """The nodes that a tensor comes from, None if nobody saw it made."""
        known = self._known.get(id(tensor))
        if known is not None and known[0]() is tensor:
            return known[1]
        bits = self._digest(tensor)
        return self._bits.get(bits) if bits is not None else None

    def sources(
        self, tensors: Sequence[Any], made: Sequence[int], outside: tuple[int, ...], foreign: bool
    ) -> tuple[int, ...]:
        """The nodes that inputs come from.

        Args:
            tensors: the inputs.
            made: nodes of the block that it stands in, so far: where no input is known, those whose output nobody
                took yet are the likely ones, or else the last.
            outside: where the block's own inputs come from.
            foreign: whether a guess in this block is to be told.
        """
        found = [origin for tensor in tensors if (origin := self.origin(tensor)) is not None]
        if found or not tensors:
            return tuple(dict.fromkeys(number for origin in found for number in origin))
        self.guessed = self.guessed or foreign
        return tuple(number for number in made if number not in self._taken) or tuple(made[-1:]) or outside

    # -----------------------------------------------------------------------------------------------------------------
    # what lies where

    def above(self, start: Iterable[int]) -> Iterator[Node]:
        """Inputs, and layers with parameters, whose outputs reach these nodes through nothing that has parameters."""
        return self._back(start, lambda node: node.weighs or node.kind == "input")

    def _back(self, start: Iterable[int], ends: Callable[[Node], bool]) -> Iterator[Node]:
        """The first nodes that are an end, on every way back from these nodes."""
        queue, seen = list(start), set()
        while queue:
            number = queue.pop()
            if number in seen:
                continue
            seen.add(number)
            node = self.nodes[number]
            if ends(node):
                yield node
            else:
                queue += node.sources

    def activation(self, start: tuple[int, ...]) -> str | None:
        """The activation whose output reaches these nodes through nothing else."""
        while len(start) == 1:
            node = self.nodes[start[0]]
            if node.activation or node.weighs:
                return node.activation
            start = node.sources
        return None

    def predicts(self, number: int) -> bool:
        """Whether nothing with parameters comes between a site and an output of the model."""
        site = self.nodes[number]
        if site.around is not None and self.nodes[site.around].weighs and not site.ends:
            return False
        queue, seen = [number if site.around is None else site.around], set()
        while queue:
            now = queue.pop()
            if now in self.outputs:
                return True
            if now not in seen:
                seen.add(now)
                queue += [n for n in self.after(now) if not self.nodes[n].weighs]
        return False

    def taken_by(self, number: int, wanted: Callable[[Node], Any]) -> Node | None:
        """The first node of a kind that takes what a site gave, through nothing that has parameters or other inputs."""
        around = self.nodes[number].around
        if around is not None and (self.nodes[around].weighs or not self.nodes[number].ends):
            return None
        queue, seen = [number if around is None else around], set()
        while queue:
            for n in self.after(queue.pop(0)):
                node = self.nodes[n]
                if n in seen or node.weighs or len(node.sources) > 1:
                    continue
                seen.add(n)
                if wanted(node):
                    return node
                queue.append(n)
        return None

    def after(self, number: int) -> list[int]:
        """The nodes that take a node's output."""
        return [n for n, node in enumerate(self.nodes) if number in node.sources]

    def below(self, number: int) -> set[int]:
        """The nodes that a site's output reaches, the layer around it among them."""
        around = self.nodes[number].around
        seen = {number if around is None else around}
        for n in range(len(self.nodes)):  # in order of execution
            if seen & set(self.nodes[n].sources):
                seen.add(n)
        return seen

    def ahead(self, start: Iterable[int]) -> set[int]:
        """The nodes whose outputs reach these nodes, themselves among them."""
        seen = set(start)
        for n in reversed(range(len(self.nodes))):
            if n in seen:
                seen.update(self.nodes[n].sources)
        return seen

    def layers(self, sources: Iterable[int]) -> set[str]:
        """The layers that sources stand for: a site for the layer around it, a function for what it takes."""
        return {node.name for node in self._back(sources, lambda node: node.kind == "layer")}


def tensors_in(structure: Any) -> list[Any]:
    """The tensors in a nest of arguments; of floating ones and others, the floating ones alone."""
    found = [value for value in keras.tree.flatten(structure) if keras.ops.is_tensor(value)]
    floating = [value for value in found if keras.backend.is_float_dtype(value.dtype)]
    return floating or found
