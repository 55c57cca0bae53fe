"""One forward and backward of a torch model in which every site is followed: what it drops and how far that reaches."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn

from ...torch.drawing import coordinates
from ...torch.drawing.recomputation import in_backward
from ...torch.finding.inventory import Site
from ..activation import of_class
from .flow import Place
from .handmade import Draw, Key, caller
from .operators import Operator
from .origin import INPUT, Origin, Origins
from .sample import Sample, Taken, zeroes
from .watch import Given, Listener, tensors

RECURRENT = {"lstm", "gru", "rnn_tanh", "rnn_relu"}
ATTENTION = {"scaled_dot_product_attention", "multi_head_attention_forward"}
_AUXILIARY = {"past_key_values", "hidden_states", "attentions", "cross_attentions", "encoder_hidden_states",
              "encoder_attentions", "decoder_hidden_states", "decoder_attentions", "encoder_last_hidden_state",
              "loss"}  # fmt: skip


@dataclass
class Dropped:
    """What was seen of a site's calls."""

    zeroes: int = 0  # layers
    input: bool = False
    weights: bool = False
    follows: str | None = None
    through: tuple[str, ...] = ()  # functions between these layers and the site
    rank: int | None = None
    shape: tuple[int, ...] | None = None
    inside: int = 0  # layers that made with their own weights what is dropped, and were still running
    shapes: list[tuple[int, ...] | None] = field(default_factory=list)  # of what was dropped, call by call
    producers: list[int] = field(default_factory=list)  # layers, call by call
    masks: list[Sample] = field(default_factory=list)  # call by call
    taken: list[torch.Tensor] = field(default_factory=list)  # elements of what these were put on
    turns: set[int] = field(default_factory=set)  # of several passes on purpose
    draws: list[Sample] = field(default_factory=list)  # random numbers
    unlike: str = ""  # a recomputation that drew otherwise
    into: tuple[str, Key, float] | None = None  # the function with f(0) != 0 that took it, where, and its mean


class _Before(NamedTuple):
    """A tensor before a site drops elements of it."""

    writes: int
    origin: Origin
    elements: Taken


class Follower(Listener):
    """Hears a forward and backward and keeps what follows from it.

    Args:
        model: the module.
        sites: its sites.
        active: numbers of the sites that drop in training.
        leaves: paths of modules that run no other module: what the drawing has as layers.
        by_hand: sites that are random operations, by where these are.
    """

    def __init__(
        self,
        model: nn.Module,
        sites: Sequence[Site],
        active: set[int],
        leaves: set[str],
        by_hand: Mapping[Draw, int] | None = None,
    ):
        self.model, self.sites, self.active, self.leaves = model, sites, active, leaves
        self.by_hand = by_hand or {}
        named = list(model.named_modules())
        self.paths = [path for path, _ in named]
        self.bits = {path: 2 << number for number, path in enumerate(self.paths)}  # the lowest is INPUT
        self.origins = Origins(_places_of_weights(named, self.bits), self._masked, self._drew, self._used, self._free)
        self.origins.applied = self._applied
        self._counts: Counter[tuple[str, str]] = Counter()
        self.holders: dict[Place, list[str]] = {}
        for path, module in named:
            for parameter in module.parameters(recurse=False):
                for place in self.origins.places(parameter)[:1]:
                    self.holders.setdefault(place, []).append(path)
        self.used_by: dict[str, dict[str, None]] = {}  # modules whose parameters others read, and these
        self.dropped = [Dropped() for _ in sites]
        self.reach: dict[str, int] = {}  # of outputs
        self.gradients: dict[str, int] = {}  # of parameters
        self.sources: dict[str, int] = {}
        self.activations: dict[str, str | None] = {}
        self.order: dict[int, None] = {}  # sites, as they began
        self.predicted = 0  # sites that drop elements of the prediction itself
        self.hidden = [hides(site, model) for site in sites]
        self.alike = [_alike(number, sites) for number in range(len(sites))]
        self._opaque = [False] * len(sites)  # sites whose draws no operator shows
        self._running: list[tuple[str, int, list[tuple[torch.Tensor, int]]]] = []  # path, time, inputs and their writes
        self._before: list[_Before | None] = []  # of the sites under way

    # What the whole run gives

    def started(self, inputs: Any) -> None:
        """The model's inputs, before it runs."""
        for x in tensors(inputs):
            self.origins.set_origin(x, Origin(data=True, producers=INPUT))

    def finished(self, output: Any) -> None:
        """The model's outputs."""
        for x in predictions(output):
            self.predicted |= self.origins.origin(x).dropped

    def differentiated(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """On which sites the gradients depend, that of an opaque site's own parameters on itself, too."""
        opaque = {site.name: 1 << n for n, site in enumerate(self.sites) if self._opaque[n]}
        for name, parameter in parameters.items():
            if parameter.grad is not None:
                own = opaque.get(name.rpartition(".")[0], 0)
                self.gradients[name] = self.origins.reach(parameter.grad) | own

    def named(self, layers: int) -> list[str]:
        """The paths of layers given as bits."""
        return [path for path in self.paths if self.bits[path] & layers]

    # What is heard

    def entered(self, path: str, module: nn.Module, given: Given) -> None:
        """Note from which layers the inputs come."""
        if in_backward():
            return
        inputs = tensors(given)
        for x in inputs:
            self.sources[path] = self.sources.get(path, 0) | self.origins.origin(x).sources
        self.origins.time += 1  # what ran before is not its own
        self._running.append((path, self.origins.time, [(x, self.origins.writes(x)) for x in inputs]))

    def left(self, path: str, module: nn.Module, given: Given, output: Any) -> Any:
        """Note what reaches the output, and make a leaf's output its own."""
        if in_backward():
            return output
        while self._running and self._running[-1][0] != path:  # cut short by an exception that the model caught
            self._running.pop()
        _, since, inputs = self._running.pop()
        outputs = tensors(output)
        for x in outputs:
            self.reach[path] = self.reach.get(path, 0) | self.origins.reach(x)
            self._came_out(path, x)
        if path in self.leaves:
            untouched = {id(x): x for x, writes in inputs if writes == self.origins.writes(x)}
            output = _replaced(output, untouched)
            outputs = tensors(output)
            for x in outputs:
                self._own(path, module, x, since)
        if outputs:
            activation = self.origins.origin(outputs[0]).activation
            self.activations[path] = activation[0] if activation and activation[1] >= since else None
        return output

    def _came_out(self, path: str, x: torch.Tensor) -> None:
        """What was dropped inside a module that made it with weights of its own, and is its output."""
        dropped = self.origins.origin(x).dropped
        for number, seen in enumerate(self.dropped):
            if seen.inside & self.bits[path] and dropped >> number & 1:
                seen.zeroes |= self.bits[path]

    def _own(self, path: str, module: nn.Module, x: torch.Tensor, since: int) -> None:
        """A leaf's output comes from that leaf, and no further back."""
        origin, bit = self.origins.origin(x), self.bits[path]
        origin = origin._replace(sources=bit)
        if any(True for _ in module.parameters()):
            kept = origin.activation if origin.activation and origin.activation[1] >= since else None
            origin = origin._replace(data=True, weights=0, producers=bit, masks=0, activation=kept, through=())
        if (name := of_class(type(module).__name__)) is not None:
            origin = origin._replace(activation=(name, self.origins.time))
        self.origins.set_origin(x, origin)

    def activated(self, result: Any, name: str) -> None:
        """The result is an activation's output."""
        if not in_backward():
            for x in tensors(result):
                origin = self.origins.origin(x)
                self.origins.set_origin(x, origin._replace(activation=(name, self.origins.time)))

    def drew(self, site: int, drawn: torch.Tensor) -> None:
        """Random numbers that a module will make a mask of."""
        self.order.setdefault(site)
        if site not in self.active:
            return
        self.origins.add(drawn, 1 << site)
        self._drew(site, drawn)
        if not in_backward():
            self.origins.set_origin(drawn, Origin(masks=1 << site))

    def _used(self, place: Place) -> None:
        """A parameter is read: by the module that has it, or by another."""
        if not self._running or in_backward():
            return
        inside = self._running[-1][0]
        holders = self.holders[place]
        if inside not in holders:
            for holder in holders:
                self.used_by.setdefault(holder, {}).setdefault(inside)

    def _free(self, op: Operator, drawn: torch.Tensor) -> None:
        """Random numbers of an operation that is a site of its own."""
        if self.by_hand and self._running:
            file, line = caller()
            draw = Draw(self._running[-1][0], file, line, "random array" if op.name == "lift_fresh" else op.name)
            if draw in self.by_hand:
                self.drew(self.by_hand[draw], drawn)

    def _applied(self, op: Operator, origin: Origin, result: torch.Tensor) -> None:
        """A function with f(0) != 0 was applied, and to zeros of these sites if they dropped to zero."""
        path = self._running[-1][0] if self._running else ""
        key = (path, f"f {op.name}", self._counts[path, f"f {op.name}"])
        self._counts[key[:2]] += 1
        for number, seen in enumerate(self.dropped):
            if origin.dropped >> number & 1 and seen.into is None and zeroes(self.sites[number]):
                seen.into = op.at_zero, key, result.detach().double().mean().item()

    def _drew(self, site: int, drawn: torch.Tensor) -> None:
        """Random numbers of a site; those of a recomputation must have been drawn in the forward."""
        seen, sample = self.dropped[site], Sample.of_values(drawn)
        if not in_backward():
            seen.draws.append(sample)
        else:
            self._compare(site, sample, [other for number in self.alike[site] for other in self.dropped[number].draws])

    def _masked(self, sites: int, x: torch.Tensor) -> None:
        for number, dropped in enumerate(self.dropped):
            if sites >> number & 1:
                producers = self._note(dropped, x)
                if number in self.by_hand.values() and not in_backward():
                    dropped.shapes.append(tuple(x.shape))
                    dropped.producers.append(producers)

    def begun(self, site: int, dropped: Any, other: Any = None) -> None:
        """A site's call begins."""
        self.order.setdefault(site)
        if site not in self.active:
            return
        self.origins.running.append(site)
        if not in_backward():
            if (turn := coordinates.current().turn) is not None:
                self.dropped[site].turns.add(turn)
            self.dropped[site].shapes.append(tuple(dropped.shape) if isinstance(dropped, torch.Tensor) else None)
        if not isinstance(dropped, torch.Tensor):
            self._before.append(None)
            return
        origins = self.origins
        elements = Taken.of(dropped, self.sites[site], other)
        self._before.append(_Before(origins.writes(dropped), origins.origin(dropped), elements))
        if not in_backward():
            seen = self.dropped[site]
            seen.producers += [0] * (len(seen.shapes) - 1 - len(seen.producers))  # calls without a tensor
            seen.producers.append(self._note(seen, dropped))

    def _note(self, seen: Dropped, x: torch.Tensor) -> int:
        """Whose output it is that a site drops."""
        origin = self.origins.origin(x)
        around = 0
        for path, _, _ in self._running:
            around |= self.bits[path]
        zeroes = origin.producers & ~around & ~INPUT
        seen.zeroes |= zeroes
        seen.inside |= origin.producers & around
        seen.input |= origin.producers == INPUT
        seen.weights |= not origin.data and bool(origin.weights)
        if seen.rank is None:
            seen.rank, seen.shape = x.dim(), tuple(x.shape)
            seen.follows = origin.activation[0] if origin.activation else None
            seen.through = origin.through
        return zeroes

    def ended(self, site: int, dropped: Any, result: Any) -> None:
        """A site's call has ended: its output depends on it, in backward as well."""
        if site not in self.active:
            return
        self.origins.running.pop()
        before = self._before.pop()
        outputs = tensors(result)
        untouched = before is not None and self.origins.writes(dropped) == before.writes
        if not outputs or (outputs[0] is dropped and untouched):
            return  # this call dropped nothing
        bit, y = 1 << site, outputs[0]
        opaque = not self.origins.reach(y) & bit
        for x in outputs:
            self.origins.add(x, bit)
        if before is None or self.hidden[site]:
            return
        if self.sites[site].place is None:
            self._opaque[site] = self._opaque[site] or opaque
            if untouched and dropped.grad_fn is not None and torch.is_grad_enabled():
                dropped.register_hook(lambda gradient: self._reached(gradient, bit))
        if y.shape != dropped.shape:
            return
        self._keep(site, before.elements.made(y), before.elements.x)
        if not in_backward():
            self.origins.set_origin(y, before.origin._replace(dropped=before.origin.dropped | bit))

    def _reached(self, gradient: torch.Tensor, bit: int) -> torch.Tensor:
        """The gradient in a storage of its own, which other branches do not share."""
        own = gradient.clone()
        self.origins.add(own, self.origins.reach(gradient) | bit)
        return own

    def _keep(self, site: int, sample: Sample, taken: torch.Tensor) -> None:
        """A mask for comparison; that of a recomputation must be one of the forward's."""
        if not in_backward():
            self.dropped[site].masks.append(sample)
            self.dropped[site].taken.append(taken)
        else:
            self._compare(site, sample, [other for number in self.alike[site] for other in self.dropped[number].masks])

    def _compare(self, site: int, again: Sample, before: Sequence[Sample]) -> None:
        if any(again.same(other) for other in before):
            return
        wrong, compared = min((again.differences(other) for other in before), default=(0, 0))
        self.dropped[site].unlike = f"{wrong} of {compared}"

    def broken_off(self, site: int) -> None:
        """A checkpoint stops as soon as it has what the backward needs, in the midst of a dropout if that is last."""
        if site in self.active:
            self.origins.running.pop()
            self._before.pop()


def _alike(number: int, sites: Sequence[Site]) -> list[int]:
    """The sites of one line of code that a loop repeats: a recomputation does not tell which round it is in."""
    site = sites[number]
    if site.place is None:
        return [number]
    here = (site.name.partition(":")[0], site.kind, site.place[:3])
    return [
        n
        for n, other in enumerate(sites)
        if other.place is not None and (other.name.partition(":")[0], other.kind, other.place[:3]) == here
    ]


def hides(site: Site, model: nn.Module) -> bool:
    """Whether it drops something inside, so that its output is something else than its input with elements dropped."""
    layer = model.get_submodule(site.name) if site.place is None and site.kind != "number" else None
    return site.kind in RECURRENT | ATTENTION or isinstance(layer, nn.RNNBase | nn.MultiheadAttention)


def predictions(output: Any) -> list[torch.Tensor]:
    """The tensors that a model gives as its result, without those that it gives to look at or for the next call."""
    if isinstance(output, Mapping):
        kept = {name: value for name, value in output.items() if name not in _AUXILIARY}
        return [x for value in kept.values() for x in predictions(value)]
    return [x for x in tensors(output) if x.is_floating_point()]


def _replaced(output: Any, untouched: Mapping[int, torch.Tensor]) -> Any:
    """The output, with another name for each tensor in it that is one of the inputs.

    A layer that hands on its very input would otherwise be taken for the source of that input wherever else it goes.
    """
    if isinstance(output, torch.Tensor):
        plain = output.layout is torch.strided and not output.is_nested
        return output.view_as(output) if plain and id(output) in untouched else output
    if type(output) in (tuple, list):
        return type(output)(_replaced(part, untouched) for part in output)
    return output


def _places_of_weights(named: Sequence[tuple[str, nn.Module]], bits: Mapping[str, int]) -> dict[Place, int]:
    places: dict[Place, int] = {}
    for path, module in named:
        for parameter in module.parameters(recurse=False):
            try:
                places.setdefault(parameter.untyped_storage()._cdata, bits[path])
            except (NotImplementedError, RuntimeError):
                continue
    return places
