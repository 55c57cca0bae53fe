"""Plain tensors that are a rank's part of a whole, as tensor-parallel plans leave them, in dropouts told nothing of it.

A plan's styles hand plain tensors on, which do not say what they are. Where they come from does: the graph of autograd
leads back to the DTensor that the tensor was taken out of.
"""

import sys
import warnings
from collections import deque
from collections.abc import Iterable
from typing import Any

import torch

from ..drawing import coordinates

_MOST = 256  # nodes of a graph that are looked at
_GATHERING = ("AllReduce", "AllGather", "ReduceScatter", "AllToAll", "ModelParallel", "TensorParallel")


def look(site: Any, x: torch.Tensor) -> None:
    """Note a bound site whose input is a part of a whole; once, at the first draw that tells."""
    if torch.compiler.is_compiling() or "torch.distributed.tensor" not in sys.modules:
        return
    if x.grad_fn is None or hasattr(x, "device_mesh") or torch._C._current_graph_task_id() != -1:
        return  # no graph, a DTensor, or a checkpoint's recomputation
    at = coordinates.current()
    if at.split or at.offset is not None or at.global_shape is not None:
        return  # said by hand
    site.origin_known = True
    if is_part(x, (piece.ranks for piece in (*site.pieces, *site.clock.pieces(at)))):
        site.clock.unplaced.append(site.name)


def is_part(x: torch.Tensor, known: Iterable[frozenset[int]]) -> bool:
    """Whether x was computed from shards of DTensors, on ranks of which no set of `known` ones holds all."""
    told = list(known)
    pending: deque[Any] = deque([x.grad_fn])
    seen: set[Any] = set()
    while pending and len(seen) < _MOST:
        node = pending.popleft()
        if node is None or node in seen:
            continue
        seen.add(node)
        spec = getattr(node, "dtensor_spec", None)
        if spec is not None:
            if any(not any(line <= ranks_ for ranks_ in told) for line in _cut(spec)):
                return True
        elif not any(word in node.name() for word in _GATHERING):
            pending += [following for following, _ in node.next_functions]
    return False


def _cut(spec: Any) -> list[frozenset[int]]:
    """The ranks of each axis of a mesh over which a DTensor is split."""
    place = spec.mesh.get_coordinate()
    if place is None:
        return []
    lines = []
    for axis, placement in enumerate(spec.placements):
        if placement.is_shard() and spec.mesh.size(axis) > 1:
            line = spec.mesh.mesh[tuple(slice(None) if i == axis else at for i, at in enumerate(place))]
            lines.append(frozenset(line.tolist()))
    return lines


def tell(clock: Any) -> None:
    """Warn of the sites that were noted."""
    names = ", ".join(map(repr, clock.unplaced))
    clock.unplaced = []
    warnings.warn(
        f"a bound {clock.kind} runs under a tensor-parallel plan, which leaves each rank another part of what is "
        f"dropped at {names}, as plain tensors that do not say so: all parts get one mask. Name these dropouts in the "
        "plan, with dropkit.torch.ShardedDropout(dim) for the axis that is split, or SequenceParallel() where that is "
        "time; or call them under dropkit.torch.at(split={axis: (rank, ranks)})",
        stacklevel=2,
    )
