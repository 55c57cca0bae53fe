"""Dropouts inside a tensor-parallel plan whose activations are plain local tensors."""

from dataclasses import replace
from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor.parallel import ParallelStyle

from ..errors import DropkitTypeError, DropkitValueError
from ..visible import a_type
from .drawing import ranks
from .drawing.coordinates import Sharded
from .layers import Drawn


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
                f"ShardedDropout in the plan meets {a_type(module)} without dropkit dropouts; swap torch's "
                "for dropkit's first, or name another module"
            )
        piece = ranks.piece_of(self.dim, device_mesh)
        for drop in drops:
            site: Any = drop.site if drop.site is not None else Sharded()
            drop.site = replace(site, pieces=(*site.pieces, piece))
        return module

    def __repr__(self) -> str:
        return f"ShardedDropout(dim={self.dim})"
