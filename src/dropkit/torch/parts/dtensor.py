"""Sharded tensors: where a rank's part of a DTensor lies in the whole."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate

from ...drop import Lowered
from ...errors import DropkitTypeError, DropkitValueError
from ...place import Part
from ..draw import Draw, Fresh
from ..drawing.coordinates import draw_together
from .value import Parts


def parts_of(x: DTensor, linear: bool) -> Parts:
    """The local part of a DTensor, which draws its slice of the whole tensor's mask."""
    x = _one_box(x, linear)
    mesh, placements, shape, stride = x.device_mesh, x.placements, tuple(x.shape), x.stride()
    local = x.to_local()

    def rebuilt(y: torch.Tensor) -> torch.Tensor:
        return DTensor.from_local(y, mesh, placements, run_check=False, shape=x.shape, stride=stride)

    if mesh.get_coordinate() is None:  # nothing of it lies on this rank
        return Parts(local, rebuilt, lambda fresh: fresh, lambda share: (), lambda other: local)
    start = first_element(shape, mesh, placements)
    members = _members(mesh)

    def placed(fresh: Fresh) -> Fresh:
        return lambda lowered: _placed(draw_together(fresh, lowered, members), shape, start, tuple(local.shape))

    def matched(other: torch.Tensor) -> torch.Tensor:
        if not isinstance(other, DTensor):
            raise DropkitTypeError(
                f"x is a DTensor, so other must be one too, got {type(other).__name__}; use distribute_tensor"
            )
        whole: Any = other.expand(shape)
        local: torch.Tensor = whole.redistribute(mesh, placements).to_local()
        return local

    return Parts(local, rebuilt, placed, lambda share: share, matched)


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


def _one_box(x: DTensor, linear: bool) -> DTensor:
    """x with one box of the whole on each rank, of which dropout is dropout; itself if that is so."""
    target = [placement if _cuts_boxes(placement, linear) else Replicate() for placement in x.placements]
    cut = [placement.dim for placement in target if placement.is_shard()]  # type: ignore[attr-defined]
    # a compiler does not see the order in which several mesh axes cut one axis, so it is asked only where there is one
    if len(set(cut)) < len(cut) and not x._spec.is_default_device_order(x._spec.shard_order):
        target = [Replicate() for _ in target]
    return x if target == list(x.placements) else x.redistribute(placements=target)


def _cuts_boxes(placement: Placement, linear: bool) -> bool:
    if type(placement) is Partial:  # one mask on all the terms of a sum is that mask on the sum
        return linear and placement.reduce_op in ("sum", "avg")
    return placement.is_shard() or placement.is_replicate()


def _members(mesh: DeviceMesh) -> frozenset[int]:
    return frozenset(mesh.mesh.flatten().tolist())


_members._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _placed(draw: Draw, shape: tuple[int, ...], start: tuple[int, ...], local: tuple[int, ...]) -> Draw:
    """The draw of a whole tensor as that of the box which begins at `start`."""
    part, rows = draw.part, draw.part.rows
    first = start if part.offset is None else tuple(map(sum, zip(part.offset, start, strict=True)))
    if rows is not None:
        if tuple(rows.shape) != shape[:1]:
            raise DropkitValueError(
                f"rows must hold one row number for each entry of axis 0 of the whole DTensor of shape {shape}, got "
                f"shape {tuple(rows.shape)}"
            )
        rows = rows[start[0] : start[0] + local[0]]
        first = (0, *first[1:])
    lowered = draw.lowered
    if isinstance(lowered, Lowered) and isinstance(lowered.t, torch.Tensor) and lowered.t.dim():
        lowered = Lowered(*(_narrowed(field, start, local) for field in lowered))
    whole = shape if part.global_shape is None else part.global_shape
    return Draw(draw.key, lowered, Part(first, whole, rows, part.split))


def _narrowed(field: Any, start: tuple[int, ...], local: tuple[int, ...]) -> Any:
    """The part of a tensor of rates, or of a law's numbers at these rates, that is meant for a box."""
    if isinstance(field, DTensor):
        field = field.full_tensor()
    if isinstance(field, torch.Tensor):
        for axis in range(1, field.dim() + 1):
            if field.shape[-axis] != 1:
                field = field.narrow(-axis, start[-axis], local[-axis])
    return field
