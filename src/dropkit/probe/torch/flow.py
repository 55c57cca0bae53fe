"""Follows data through every operator that torch runs, forward and backward: which sites it depends on.

Each storage has a set of sites, as the bits of an integer. What an operator gives depends on all that it was given;
what is written into a storage adds to it. Random numbers that are drawn while a site runs depend on that site: from
there on its mask, what is dropped, the gradients that the mask multiplies and those of every later layer follow.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from .operators import Operator, of
from .watch import tensors

Place = int  # the address of a storage, which no other takes while we hold a weak reference


class Flow(TorchDispatchMode):
    """Inside the block, `reach(tensor)` tells which sites a tensor depends on.

    Args:
        drew: told of a site whose call is under way and a tensor of random numbers that it drew.

    >>> flow = Flow()
    >>> with flow:
    ...     flow.running.append(3)
    ...     mask = torch.empty(2, 4).bernoulli_(0.5)
    ...     _ = flow.running.pop()
    ...     y = torch.ones(2, 4) * mask + 1
    >>> flow.reach(y) == 1 << 3, flow.reach(torch.ones(2))
    (True, 0)
    """

    def __init__(self, drew: Callable[[int, torch.Tensor], None] | None = None) -> None:
        super().__init__()
        self.drew = drew
        self.running: list[int] = []  # sites whose calls are under way
        self._reach: dict[Place, int] = {}
        self._held: dict[Place, Any] = {}

    def reach(self, x: torch.Tensor) -> int:
        """The sites that a tensor depends on, as bits."""
        number = 0
        for place in self.places(x):
            number |= self._reach.get(place, 0)
        return number

    def add(self, x: torch.Tensor, sites: int) -> None:
        """From now on a tensor depends on these sites, too."""
        if not sites:
            return
        for place in self.places(x):
            self._reach[place] = self._reach.get(place, 0) | sites

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        self.follow(of(func), args, kwargs, result)
        return result

    def follow(self, op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Note what an operator gave and wrote."""
        named = {op.names.index(name): value for name, value in kwargs.items() if name in op.names}
        given = {**dict(enumerate(args)), **named}
        drawn = 1 << self.running[-1] if self.running and op.random else 0
        if self.running and op.name == "dropout" and "key" in op.names:  # ours: a mask by its key, in backward again
            drawn = 1 << self.running[-1]
            self.add(given[op.names.index("key")], drawn)
        reads = {n: self._of(value) for n, value in given.items() if n not in op.unread and not op.new}
        overwritten = op.overwrites and 0 in given
        if overwritten:
            reads.pop(0, None)
        everything = drawn
        for sites in reads.values():
            everything |= sites
        for number in op.writes:
            for x in tensors(given.get(number)):
                self._write(x, everything, overwritten and _whole(x))
        if drawn and op.random and self.drew is not None:
            for x in tensors(result):
                self.drew(self.running[-1], x)
        if op.parts is None:
            for x in tensors(result):
                self.add(x, everything)
            return
        for x, part in zip(result, op.parts, strict=False):
            if isinstance(x, torch.Tensor):
                self.add(x, everything if part is None else _union(reads.get(n, 0) for n in part))

    def _of(self, value: Any) -> int:
        return _union(self.reach(x) for x in tensors(value))

    def _write(self, x: torch.Tensor, sites: int, all_of_it: bool) -> None:
        for place in self.places(x):
            self._reach[place] = sites if all_of_it else sites | self._reach.get(place, 0)

    def places(self, x: torch.Tensor) -> list[Place]:
        """The storages behind a tensor; several behind one that wraps others."""
        parts = _inside(x)
        if parts:
            return [place for part in parts for place in self.places(part)]
        try:
            storage = x.untyped_storage()
        except (NotImplementedError, RuntimeError):
            return []
        place: Place = storage._cdata
        if place not in self._held:
            self._held[place] = StorageWeakRef(storage)
        return [place]


def _inside(x: torch.Tensor) -> Sequence[torch.Tensor]:
    """The plain tensors that a sparse or nested one wraps."""
    if x.layout is torch.sparse_coo:
        return x._indices(), x._values()
    if x.is_nested:
        return (x.values(),) if x.layout is torch.jagged else ()
    local = getattr(x, "_local_tensor", None)
    return () if local is None else (local,)


def _whole(x: torch.Tensor) -> bool:
    """Whether a tensor is all that its storage holds."""
    return x.layout is torch.strided and x.numel() * x.element_size() == x.untyped_storage().nbytes()


def _union(many: Iterable[int]) -> int:
    result = 0
    for sites in many:
        result |= sites
    return result
