"""Rate gradients of several processes: the mean over the ranks, as data parallelism makes it of those of `backward`."""

import sys
import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ...errors import DropkitRuntimeError
from ..drawing import ranks

# the DistributedDataParallel in which a site ran last; beside the modules, since a reference cannot be saved with them
_wrappers: "weakref.WeakKeyDictionary[nn.Module, weakref.ref[DistributedDataParallel]]" = weakref.WeakKeyDictionary()


def remember(site: nn.Module) -> None:
    """Note what wraps the model in whose forward a site runs now."""
    active = DistributedDataParallel._active_ddp_module
    if active is not None:
        _wrappers[site] = weakref.ref(active)


def check(model: nn.Module, what: str, *, sharded: bool = True) -> None:
    """Refuse wrappers whose reduction of gradients cannot be joined.

    Args:
        model: the model that the user hands over.
        what: the function that refuses.
        sharded: whether parameters under `fully_shard` will do.

    Raises:
        DropkitRuntimeError: FullyShardedDataParallel around the model or in it; sharded parameters that will not do.
    """
    older: Any = getattr(sys.modules.get("torch.distributed.fsdp"), "FullyShardedDataParallel", ())
    if older and any(isinstance(part, older) for part in model.modules()):
        raise DropkitRuntimeError(
            f"{what} cannot reduce rate gradients under FullyShardedDataParallel, the older class: use fully_shard or "
            "DistributedDataParallel"
        )
    if not sharded and any(hasattr(parameter, "device_mesh") for parameter in model.parameters()):
        raise DropkitRuntimeError(
            f"{what} cannot differentiate through the updates of sharded parameters, which this {type(model).__name__} "
            "has: use DistributedDataParallel, or a rate that learns without it, such as ConcreteDropout by "
            "loss.backward()"
        )


def reduced(model: nn.Module, site: nn.Module, name: str, gradient: torch.Tensor) -> tuple[Any, torch.Tensor]:
    """A parameter, and a gradient of it that `backward` did not make as the mean of those of all ranks.

    Args:
        model: what holds the site, with or without a wrapper around it or in it.
        site: the module whose parameter it is.
        name: of that parameter, which may be sharded by `fully_shard`.
        gradient: this rank's, whole; it is written over.

    Under `no_sync` of DistributedDataParallel the ranks keep their own, as they do those of `backward`.
    """
    parameter = ranks.sharded_parameter(site, name)
    if hasattr(parameter, "device_mesh"):
        mesh: Any = parameter.device_mesh
        for axis in range(mesh.ndim):
            _sum(gradient, mesh.get_group(axis))
        whole = (gradient / mesh.size()).to(parameter.dtype).reshape(parameter.shape)
        gradient = _sharded(whole, parameter)
    else:
        for group in _groups(model, site, parameter):
            _sum(gradient, group)
            gradient = gradient / torch.distributed.get_world_size(group)
        gradient = gradient.to(parameter.dtype).reshape(parameter.shape)
    return parameter, gradient


def mean(model: nn.Module, site: nn.Module, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """Tensors averaged over the ranks that reduce the gradients of a site's model, with a derivative."""
    for group in _groups(model, site, next(site.parameters())):
        flat = _Mean.apply(torch.cat([tensor.reshape(-1) for tensor in tensors]), group)
        parts = flat.split([tensor.numel() for tensor in tensors])
        tensors = [part.reshape(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
    return tensors


class _Mean(torch.autograd.Function):
    """The mean over a group. The derivative of the mean is the mean, since every rank has a loss of its own."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, group: Any) -> torch.Tensor:
        ctx.group = group
        x = x.detach().clone()
        _sum(x, group)
        return x / torch.distributed.get_world_size(group)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
        return _Mean.apply(grads[0], ctx.group), None


def _sum(tensor: torch.Tensor, group: Any) -> None:
    torch.distributed.all_reduce(tensor, group=group)


def _sharded(whole: torch.Tensor, like: Any) -> torch.Tensor:
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)


def _groups(model: nn.Module, site: nn.Module, parameter: torch.Tensor) -> Iterable[Any]:
    """The group over which the gradient of a plain parameter is averaged, if there is one."""
    if not ranks.several():
        return ()
    wrapper = _wrapper(model, site, parameter)
    if wrapper is not None:
        return (wrapper.process_group,) if wrapper.require_backward_grad_sync else ()
    told = getattr(getattr(getattr(getattr(site, "site", None), "clock", None), "batch", None), "told", None) or ()
    return [group for piece in told for group in ranks.groups_of(piece)]


def _wrapper(model: nn.Module, site: nn.Module, parameter: torch.Tensor) -> DistributedDataParallel | None:
    """The DistributedDataParallel that reduces a parameter."""
    ran = _wrappers.get(site)
    around = [ran()] if ran is not None else []
    inside = [part for part in model.modules() if isinstance(part, DistributedDataParallel)]
    for found in (*around, *inside):
        if found is not None and any(
            other is parameter and name not in found.parameters_to_ignore
            for name, other in found.module.named_parameters()
        ):
            return found
    return None
