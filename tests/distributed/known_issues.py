"""Reports of others that need several processes: torch's dropout as described there, and ours."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from dropkit.torch import Dropout, bind


class Net(nn.Module):
    def __init__(self, drop: nn.Module) -> None:
        super().__init__()
        self.linear, self.drop = nn.Linear(16, 16), drop
        nn.init.zeros_(self.linear.weight)
        nn.init.ones_(self.linear.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(self.linear(x))


def bits(x: torch.Tensor) -> list[bool]:
    return (x.detach() != 0).flatten().tolist()


def transformers_31412(rank: int, ranks: int, folder: Path) -> Any:
    """One seed on all ranks of DistributedDataParallel, as a trainer sets it."""
    torch.manual_seed(40)
    theirs = DistributedDataParallel(Net(nn.Dropout(0.5)))(torch.ones(2, 16))
    torch.manual_seed(40)
    ours = DistributedDataParallel(bind(Net(Dropout(0.5)), seed=40))(torch.ones(2, 16))
    whole = bind(Net(Dropout(0.5)), seed=40, data_parallel=False)(torch.ones(2 * ranks, 16))
    return {"theirs": bits(theirs), "ours": bits(ours), "slice": bits(whole[2 * rank : 2 * rank + 2])}


def accelerate_114(rank: int, ranks: int, folder: Path) -> Any:
    """Seeds of their own, which a data loader then synchronises with those of the first rank at each epoch."""
    masks: dict[str, Any] = {"theirs": [], "ours": []}
    models = {"theirs": Net(nn.Dropout(0.5)), "ours": bind(Net(Dropout(0.5)), seed=1)}
    wrapped = {name: DistributedDataParallel(model) for name, model in models.items()}
    torch.manual_seed(100 + rank)
    for _ in range(2):
        state = torch.get_rng_state()
        torch.distributed.broadcast(state, 0)
        torch.set_rng_state(state)
        for name, model in wrapped.items():
            masks[name].append(bits(model(torch.ones(2, 16))))
    return masks


def pytorch_168058(rank: int, ranks: int, folder: Path) -> Any:
    """A DTensor's random numbers depend on how it is sharded."""
    mesh = init_device_mesh("cpu", (ranks,))
    masks: dict[str, Any] = {}
    for name, layout in {"replicated": Replicate(), "rows": Shard(0), "columns": Shard(1)}.items():
        x = distribute_tensor(torch.ones(8, 16), mesh, [layout])
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says that random operators on this device may not be complete
            theirs = nn.Dropout(0.5)(x)
        ours = bind(Dropout(0.5), seed=0)(x)
        masks[name] = {"theirs": bits(theirs.full_tensor()), "ours": bits(ours.full_tensor())}
    return masks


def tt_metal_55947(rank: int, ranks: int, folder: Path) -> Any:
    """Data and tensor parallelism at once: equal within a group that shares samples, different between them."""
    pairs = 2 if ranks > 1 else 1
    mesh = init_device_mesh("cpu", (ranks // pairs, pairs), mesh_dim_names=("data", "model"))
    masks = {}
    for name, model in {"theirs": Net(nn.Dropout(0.5)), "ours": bind(Net(Dropout(0.5)), seed=2)}.items():
        torch.manual_seed(7)
        masks[name] = bits(fully_shard(model, mesh=mesh["data"])(torch.ones(2, 16)))
    return masks


CHECKS = [transformers_31412, accelerate_114, pytorch_168058, tt_metal_55947]
