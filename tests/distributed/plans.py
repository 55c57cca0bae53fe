"""Tensor-parallel plans that do not name a dropout, or need not."""

import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from dropkit.torch import Dropout, ShardedDropout, at, bind

from .transformer import MLP, TIME, WIDTH, Attention, Block

PLAN: dict[str, Any] = {
    "attention.q": ColwiseParallel(),
    "attention.k": ColwiseParallel(),
    "attention.v": ColwiseParallel(),
    "attention.out": RowwiseParallel(),
    "mlp.up": ColwiseParallel(),
    "mlp.down": RowwiseParallel(),
}
DROPS: dict[str, Any] = {"attention.drop": ShardedDropout(1), "mlp.drop": ShardedDropout(-1)}
TIMEWISE: dict[str, Any] = PLAN | {
    "norm1": SequenceParallel(),
    "attention": PrepareModuleInput(input_layouts=(Shard(1),), desired_input_layouts=(Replicate(),)),
    "attention.out": RowwiseParallel(output_layouts=Shard(1)),
    "norm2": SequenceParallel(),
    "mlp": PrepareModuleInput(input_layouts=(Shard(1),), desired_input_layouts=(Replicate(),)),
    "mlp.down": RowwiseParallel(output_layouts=Shard(1)),
}


class ByHand(nn.Module):
    """Takes its part out of a weight by itself."""

    def __init__(self, back: Any) -> None:
        super().__init__()
        self.linear, self.drop, self.back = nn.Linear(WIDTH, WIDTH), Dropout(0.5), back

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(self.back(self.linear.weight) @ x.transpose(-1, -2))


def unplaced(rank: int, ranks: int, folder: Path) -> Any:
    """What is said in two forwards and backwards of blocks under plans."""
    if ranks == 1:
        return {}
    mesh = init_device_mesh("cpu", (ranks,))
    found = {}

    def told(name: str, model: nn.Module, x: torch.Tensor, here: Any = nullcontext) -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(2):
                with here():
                    y = model(x)
                (y.to_local() if isinstance(y, DTensor) else y).sum().backward()
        found[name] = [str(each.message) for each in caught if "tensor-parallel plan" in str(each.message)]

    def block(plan: dict[str, Any]) -> nn.Module:
        return bind(parallelize_module(Block(), mesh, plan), seed=3)

    x = torch.ones(2, TIME, WIDTH)
    told("none named", block(PLAN), x)
    told("one named", block(PLAN | {"mlp.drop": DROPS["mlp.drop"]}), x)
    told("all named", block(PLAN | DROPS), x)
    told("time", block(TIMEWISE | DROPS), x.chunk(ranks, 1)[rank])
    timewise = {drop: SequenceParallel(use_local_output=True) for drop in ("drop1", "drop2")}
    told("time named", block(TIMEWISE | DROPS | timewise), x.chunk(ranks, 1)[rank])
    mlp = parallelize_module(MLP(), mesh, {"up": ColwiseParallel(), "down": RowwiseParallel()})
    told("by at", bind(mlp, seed=3), x, lambda: at(split={-1: (rank, ranks)}))
    told("no plan", bind(Block(), seed=3, data_parallel=False), x)
    told("sharded parameters", fully_shard(bind(Block(), seed=3)), x)
    apart = {"up": ColwiseParallel(use_local_output=False), "down": RowwiseParallel()}
    told("dtensors", bind(parallelize_module(MLP(), mesh, apart), seed=3), x)
    heads = parallelize_module(
        Attention(), mesh, {name: ColwiseParallel() for name in "qkv"} | {"out": RowwiseParallel()}
    )
    told("a part", nn.Sequential(bind(heads, seed=3)), x)
    for name, back in {"local": DTensor.to_local, "whole": DTensor.full_tensor}.items():
        hand = parallelize_module(ByHand(back), mesh, {"linear": ColwiseParallel()})
        told(f"by hand, {name}", bind(hand, seed=3), x)
    rows = bind(
        ByHand(lambda weight: DTensor.from_local(weight, mesh, [Shard(0)]).to_local()), seed=3, data_parallel=mesh
    )
    told("samples", rows, x)
    return found


CHECKS = [unplaced]
