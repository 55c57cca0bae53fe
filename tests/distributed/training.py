"""The transformer under every way of spreading it, against one process."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from dropkit.torch import bind

from .transformer import (
    BATCH,
    SEED,
    alone,
    compare_losses,
    compare_masks,
    fresh,
    optimizer,
    sequence_parallel,
    tensor_parallel,
    train,
)


def rows(rank: int, ranks: int) -> slice:
    each = BATCH // ranks
    return slice(rank * each, (rank + 1) * each)


def mean(loss: torch.Tensor) -> torch.Tensor:
    dist.all_reduce(loss, dist.ReduceOp.SUM)
    return loss / dist.get_world_size()


def data_parallel(model: nn.Module, rank: int, ranks: int, steps: int = 20) -> dict[str, Any]:
    whole_losses, whole = alone()
    losses, masks = train(model, range(steps), rows(rank, ranks), mean)
    bits = compare_masks(masks, whole, lambda site, mask: mask[rows(rank, ranks)])
    return {"sites": len(masks), "bits": bits, "worst": compare_losses(losses, whole_losses[:steps])}


def ddp(rank: int, ranks: int, folder: Path) -> Any:
    return data_parallel(DistributedDataParallel(bind(fresh(), SEED)), rank, ranks)


def ddp_bound_outside(rank: int, ranks: int, folder: Path) -> Any:
    return data_parallel(bind(DistributedDataParallel(fresh()), SEED), rank, ranks, steps=4)


def sharded(model: Any) -> Any:
    for block in model.blocks:
        fully_shard(block)
    return fully_shard(model)


def fsdp(rank: int, ranks: int, folder: Path) -> Any:
    return data_parallel(sharded(bind(fresh(), SEED)), rank, ranks)


def fsdp_bound_after(rank: int, ranks: int, folder: Path) -> Any:
    return data_parallel(bind(sharded(fresh()), SEED), rank, ranks, steps=4)


def model_parallel(model: nn.Module, rank: int, ranks: int, steps: int = 20) -> dict[str, Any]:
    whole_losses, whole = alone()
    losses, masks = train(model, range(steps))

    def slices(site: str, mask: torch.Tensor) -> torch.Tensor:
        axis = {"attention.drop": 1, "mlp.drop": -1}.get(site.partition(".")[2].partition(".")[2])
        return mask if axis is None else mask.chunk(ranks, axis)[rank]

    bits = compare_masks(masks, whole, slices)
    return {"sites": len(masks), "bits": bits, "worst": compare_losses(losses, whole_losses[:steps])}


def tp(rank: int, ranks: int, folder: Path) -> Any:
    mesh = init_device_mesh("cpu", (ranks,))
    return model_parallel(tensor_parallel(bind(fresh(), SEED), mesh), rank, ranks)  # type: ignore[arg-type]


def tp_bound_after(rank: int, ranks: int, folder: Path) -> Any:
    mesh = init_device_mesh("cpu", (ranks,))
    return model_parallel(bind(tensor_parallel(fresh(), mesh), SEED), rank, ranks, steps=4)


def sp(rank: int, ranks: int, folder: Path) -> Any:
    mesh = init_device_mesh("cpu", (ranks,))
    return model_parallel(bind(sequence_parallel(fresh(), mesh), SEED), rank, ranks)


def fsdp_and_tp(rank: int, ranks: int, folder: Path) -> Any:
    """Two ways at once: pairs of ranks share samples, and each of a pair holds half of the heads and hidden units."""
    pairs = 2 if ranks > 1 else 1
    mesh = init_device_mesh("cpu", (ranks // pairs, pairs), mesh_dim_names=("data", "model"))
    model = tensor_parallel(bind(fresh(), SEED), mesh["model"])
    fully_shard(model, mesh=mesh["data"])
    mine, half = rows(rank // pairs, ranks // pairs), rank % pairs
    whole_losses, whole = alone()
    losses, masks = train(model, range(20), mine, mean)

    def slices(site: str, mask: torch.Tensor) -> torch.Tensor:
        axis = {"attention.drop": 1, "mlp.drop": -1}.get(site.partition(".")[2].partition(".")[2])
        return mask[mine] if axis is None else mask[mine].chunk(pairs, axis)[half]

    bits = compare_masks(masks, whole, slices)
    return {"sites": len(masks), "bits": bits, "worst": compare_losses(losses, whole_losses)}


def resumed(rank: int, ranks: int, folder: Path) -> Any:
    """Four ranks train steps 0 to 9, two go on to 14, one to 19; each starts from what more ranks have saved."""
    first, last = {4: (0, 10), 2: (10, 15), 1: (15, 20)}[ranks]
    model = bind(fresh(), seed=99 if first else SEED)  # the checkpoint knows better
    if ranks > 1:
        sharded(model)
    use = optimizer(model)
    if first:
        state = dict(zip(("model", "optimizer"), get_state_dict(model, use), strict=True))
        dcp.load(state, checkpoint_id=folder / f"step{first}", no_dist=False)
        set_state_dict(model, use, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    whole_losses, whole = alone()
    losses, masks = train(model, range(first, last), rows(rank, ranks), mean, use)
    if ranks > 1:
        state = dict(zip(("model", "optimizer"), get_state_dict(model, use), strict=True))
        dcp.save(state, checkpoint_id=folder / f"step{last}")
    bits = compare_masks(masks, whole, lambda site, mask: mask[rows(rank, ranks)])
    worst = compare_losses(losses, whole_losses[first:last])
    clock = [int(model.dropkit_seed), int(model.dropkit_step)]
    return {"sites": len(masks), "bits": bits, "worst": worst, "clock": clock}


def told_wrongly(rank: int, ranks: int, folder: Path) -> Any:
    """The comparison can fail: a model that is told that every rank has the whole batch draws no slices of it."""
    _, whole = alone()
    model = DistributedDataParallel(bind(fresh(), SEED, data_parallel=False))
    _, masks = train(model, range(1), rows(rank, ranks), mean)
    try:
        compare_masks(masks, whole, lambda site, mask: mask[rows(rank, ranks)])
    except AssertionError:
        return "differ"
    return "agree"


CHECKS = [told_wrongly, ddp, ddp_bound_outside, fsdp, fsdp_bound_after, tp, tp_bound_after, sp, fsdp_and_tp, resumed]
