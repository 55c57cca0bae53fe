"""Follows where each tensor of a forward comes from: the layers whose output it is, and what was done to it since."""

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch.utils.weak import WeakTensorKeyDictionary

from .flow import Flow, Place
from .operators import Operator
from .watch import tensors

INPUT = 1  # the bit of the model's input among the producers


class Origin(NamedTuple):
    """Where a tensor comes from; layers and sites are bits of integers.

    data: it depends on the model's input; all else is constants and parameters.
    weights: the modules whose parameters it was made of, where nothing else went into it.
    producers: the layers with parameters whose output it is, through nothing that has parameters.
    sources: the layers whose output it is, through nothing that is a layer.
    dropped: the sites that dropped elements of it, through nothing that has parameters or brings in what is undropped.
    masks: the sites by hand (DropPath written out) whose random numbers it consists of.
    activation: the activation whose output it is, and when that ran.
    through: functions that it went through since the producers.
    """

    data: bool = False
    weights: int = 0
    producers: int = 0
    sources: int = 0
    dropped: int = 0
    masks: int = 0
    activation: tuple[str, int] | None = None
    through: tuple[str, ...] = ()


_CONSTANT = Origin()


class Origins(Flow):
    """A `Flow` that knows the origin of each tensor, too.

    Args:
        weights: modules by the address of the storage of their parameters, as bits.
        masked: told of a tensor that is multiplied with a mask drawn by hand: the sites, and the tensor.
        drew: as in `Flow`.
        used: told of a tensor's storage that an operator reads.
        free: told of random numbers that no site under way has drawn, and of tensors made of arrays and numbers.
    """

    def __init__(
        self,
        weights: Mapping[Place, int],
        masked: Callable[[int, torch.Tensor], None],
        drew: Callable[[int, torch.Tensor], None],
        used: Callable[[Place], None],
        free: Callable[[Operator, torch.Tensor], None],
    ):
        super().__init__(drew)
        self.used, self.free = used, free
        self.weights, self.masked = weights, masked
        self.applied: Callable[[Operator, Origin, torch.Tensor], None] | None = None  # told of functions with f(0) != 0
        self.time = 0  # operators so far
        self._origins: Any = WeakTensorKeyDictionary()  # origin, and how often its storage had been written into
        self._last: dict[Place, Origin] = {}  # of what was last written into a storage
        self._writes: dict[Place, int] = {}

    def origin(self, x: torch.Tensor) -> Origin:
        """Where a tensor comes from."""
        place = self._place(x)
        found = self._origins.get(x)
        if found is not None and found[1] == self._writes.get(place, 0):
            known: Origin = found[0]
            return known
        if place in self.weights:
            return Origin(weights=self.weights[place])
        return self._last.get(place, _CONSTANT)

    def set_origin(self, x: torch.Tensor, origin: Origin) -> None:
        """Where it comes from is known better than from its operators."""
        place = self._place(x)
        if place in self.weights:  # a parameter stays what it is
            return
        self._origins[x] = (origin, self._writes.get(place, 0))
        if place:
            self._last.setdefault(place, origin)

    def writes(self, x: torch.Tensor) -> int:
        """How often something was written into what a tensor shows."""
        return self._writes.get(self._place(x), 0)

    def _place(self, x: torch.Tensor) -> Place:
        """The first storage behind a tensor; 0 if there is none."""
        return next(iter(self.places(x)), 0)

    def follow(self, op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Note what an operator gave and wrote."""
        super().follow(op, args, kwargs, result)
        if torch._C._current_graph_task_id() != -1:  # in backward nobody asks
            return
        self.time += 1
        given = tensors([args, kwargs])
        for x in given:
            if (place := self._place(x)) in self.weights:
                self.used(place)
        read = [] if op.new else given
        if op.overwrites:
            read = given[1:]
        origin = self._combined(op, read)
        written = [x for n in op.writes for x in tensors(args[n] if n < len(args) else kwargs.get(op.names[n]))]
        for x in written:
            self._wrote(x, origin)
        for x in tensors(result):
            if not any(x is other for other in written):
                self.set_origin(x, origin)
            if op.at_zero and self.applied is not None and origin.data:
                self.applied(op, origin, x)
        if (op.random or op.name == "lift_fresh") and not self.running:
            for x in tensors(result):
                self.free(op, x)

    def _wrote(self, x: torch.Tensor, origin: Origin) -> None:
        for place in self.places(x):
            if place in self.weights:
                continue
            before = self._last.get(place)
            partial = before is not None and before.data and not origin.data
            self._writes[place] = self._writes.get(place, 0) + 1
            self._last[place] = origin if before is None or not before.data or not x._is_view() else (
                before if partial else _merged([before, origin]))  # fmt: skip
        self.set_origin(x, origin)

    def _combined(self, op: Operator, given: Sequence[torch.Tensor]) -> Origin:
        """The origin of what an operator makes of tensors."""
        all_of_them = [(x, self.origin(x)) for x in given]
        data = [(x, origin) for x, origin in all_of_them if origin.data]
        constant = [origin for _, origin in all_of_them if not origin.data]
        weights, masks = _bits(constant, "weights"), _bits(constant, "masks")
        if not data:
            return Origin(weights=weights, masks=masks)
        floating = [origin for x, origin in data if x.is_floating_point()]
        carriers = floating or [origin for _, origin in data]
        merged = _merged(carriers)
        if op.function and op.function not in merged.through[-1:]:
            merged = merged._replace(through=(*merged.through, op.function))
        merged = merged._replace(sources=_bits([origin for _, origin in data], "sources"))
        if masks and op.masking:
            for x, _ in data:
                if x.is_floating_point():
                    self.masked(masks, x)
            return merged._replace(dropped=merged.dropped | masks)
        if not op.passes:
            merged = merged._replace(activation=None)
        if op.contraction and len(carriers) > 1:
            return merged._replace(producers=0, dropped=0, through=())
        if not weights:
            return merged
        kept = merged.producers if op.elementwise and not op.contraction else 0
        return merged._replace(producers=kept or weights, dropped=0, through=merged.through if kept else ())


def _merged(origins: Sequence[Origin]) -> Origin:
    """Of several tensors that go into one."""
    first = origins[0]
    same = all(origin.activation == first.activation for origin in origins)
    return Origin(
        True,
        0,
        _bits(origins, "producers"),
        _bits(origins, "sources"),
        reduce(lambda sites, origin: sites & origin.dropped, origins, first.dropped),
        0,
        first.activation if same else None,
        first.through if all(origin.through == first.through for origin in origins) else (),
    )


def _bits(origins: Sequence[Origin], what: str) -> int:
    return reduce(lambda bits, origin: bits | getattr(origin, what), origins, 0)
