"""Sharded tensors: where a rank's part of a DTensor lies in the whole, and dropouts inside a tensor-parallel plan."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate
from torch.distributed.tensor.parallel import ParallelStyle

from ..errors import DropkitTypeError, DropkitValueError
from . import ranks
from .coordinates import Sharded, draw_together
from .elsewhere import Fresh, Parts
from .formula import BERNOULLI
from .layers import Drawn
from .recomputation import Draw


class ShardedDropout(ParallelStyle):
    """The place of a dropout in a `parallelize_module` plan whose activations are plain local tensors.

    Between `ColwiseParallel` and `RowwiseParallel` every rank of the mesh holds an equal slice of the activation, as a
    tensor that does not say so. This style says so for the dropouts in the module, which then draw their slice of the
    single-device mask. Inputs that are DTensors say it themselves and are not affected.

    Args:
        dim: the axis that is split, -1 for the features of an MLP, 1 for the heads of batch x heads x time x time.

    Raises:
        DropkitTypeError: dim is no int.
        DropkitValueError: applied to a module without dropkit dropouts.

    Source: Shoeybi et al. 2019 (arXiv:1909.08053), section 3.

    >>> ShardedDropout(dim=1)
    ShardedDropout(dim=1)

    A plan: `{"mlp.up": ColwiseParallel(), "mlp.drop": ShardedDropout(), "mlp.down": RowwiseParallel()}`.
    """

    def __init__(self, dim: int = -1):
        super().__init__()
        if not isinstance(dim, int) or isinstance(dim, bool):
            raise DropkitTypeError(f"dim must be the number of an axis, got {dim!r}")
        self.dim = dim

    def _apply(self, module: torch.nn.Module, device_mesh: DeviceMesh) -> torch.nn.Module:
        drops = [part for part in module.modules() if isinstance(part, Drawn)]
        if not drops:
            raise DropkitValueError(
                f"ShardedDropout in the plan meets a {type(module).__name__} without dropkit dropouts; swap torch's "
                "for dropkit's first, or name another module"
            )
        piece = ranks.piece_of(self.dim, device_mesh)
        for drop in drops:
            site: Any = drop.site if drop.site is not None else Sharded()
            drop.site = replace(site, pieces=(*site.pieces, piece))
        return module

    def __repr__(self) -> str:
        return f"ShardedDropout(dim={self.dim})"


def parts_of(x: DTensor, law: str | None) -> Parts:
    """The local part of a DTensor, which draws its slice of the whole tensor's mask."""
    x = _one_box(x, law)
    mesh, placements, shape, stride = x.device_mesh, x.placements, tuple(x.shape), x.stride()
    local = x.to_local()

    def rebuilt(y: torch.Tensor) -> torch.Tensor:
        return DTensor.from_local(y, mesh, placements, run_check=False, shape=x.shape, stride=stride)

    if mesh.get_coordinate() is None:  # nothing of it lies on this rank
        return Parts(local, rebuilt, lambda fresh: fresh, lambda share: ())
    start = first_element(shape, mesh, placements)
    members = _members(mesh)

    def placed(fresh: Fresh) -> Fresh:
        return lambda rate: _placed(draw_together(fresh, rate, members), shape, start, tuple(local.shape))

    return Parts(local, rebuilt, placed, lambda share: share)


def first_element(shape: Sequence[int], mesh: DeviceMesh, placements: Sequence[Placement]) -> tuple[int, ...]:
    """Where this rank's part of a tensor of `shape` begins; placements cut as `torch.chunk`, from left to right."""
    start, size = [0] * len(shape), list(shape)
    coordinate = mesh.get_coordinate()
    assert coordinate is not None
    for i, placement in enumerate(placements):
        if placement.is_shard():
            axis: int = placement.dim  # type: ignore[attr-defined]
            chunk = -(-size[axis] // mesh.size(i))
            before = min(chunk * coordinate[i], size[axis])
            start[axis] += before
            size[axis] = min(chunk, size[axis] - before)
    return tuple(start)


def _one_box(x: DTensor, law: str | None) -> DTensor:
    """x with one box of the whole on each rank, of which dropout is dropout; itself if that is so."""
    target = [placement if _cuts_boxes(placement, law) else Replicate() for placement in x.placements]
    cut = [placement.dim for placement in target if placement.is_shard()]  # type: ignore[attr-defined]
    # a compiler does not see the order in which several mesh axes cut one axis, so it is asked only where there is one
    if len(set(cut)) < len(cut) and not x._spec.is_default_device_order(x._spec.shard_order):
        target = [Replicate() for _ in target]
    return x if target == list(x.placements) else x.redistribute(placements=target)


def _cuts_boxes(placement: Placement, law: str | None) -> bool:
    if type(placement) is Partial:  # one mask on all the terms of a sum is that mask on the sum
        return law == BERNOULLI and placement.reduce_op in ("sum", "avg")
    return placement.is_shard() or placement.is_replicate()


def _members(mesh: DeviceMesh) -> frozenset[int]:
    return frozenset(mesh.mesh.flatten().tolist())


_members._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _placed(draw: Draw, shape: tuple[int, ...], start: tuple[int, ...], local: tuple[int, ...]) -> Draw:
    """The draw of a whole tensor as that of the box which begins at `start`."""
    rows, rate = draw.rows, draw.rate
    first = start if draw.offset is None else tuple(map(sum, zip(draw.offset, start, strict=True)))
    if rows is not None:
        if tuple(rows.shape) != shape[:1]:
            raise DropkitValueError(
                f"rows must hold one row number for each entry of axis 0 of the whole DTensor of shape {shape}, got "
                f"shape {tuple(rows.shape)}"
            )
        rows = rows[start[0] : start[0] + local[0]]
        first = (0, *first[1:])
    if isinstance(rate, DTensor):
        rate = rate.full_tensor()
    if isinstance(rate, torch.Tensor):
        for axis in range(1, rate.dim() + 1):
            if rate.shape[-axis] != 1:
                rate = rate.narrow(-axis, start[-axis], local[-axis])
    return Draw(draw.key, rate, first, shape if draw.global_shape is None else draw.global_shape, rows, draw.split)
