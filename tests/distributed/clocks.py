"""The step of a bound model on several ranks, however its buffers are written."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from dropkit.torch import Dropout, at, bind

EACH = 4


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1, bias=False)
        self.drop = Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(x) + 0 * self.linear.weight.sum()


class Redirected(Net):
    """As a Lightning module under DDP: the wrapper's call is a training step, which calls the model."""

    inside = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.inside:
            return super().forward(x)
        self.inside = True
        try:
            return self(x)
        finally:
            self.inside = False


def drawn(model: nn.Module, rank: int, ranks: int) -> int | None:
    """The step whose mask a call of the model draws, of the part of the batch that is this rank's."""
    y = model(torch.ones(EACH, 64)) != 0
    one = bind(Net(), seed=2, data_parallel=False)
    for step in range(12):
        with at(step=step):
            if torch.equal(one(torch.ones(EACH * ranks, 64))[EACH * rank : EACH * rank + EACH] != 0, y):
                return step
    return None


def follows_a_broadcast(rank: int, ranks: int, folder: Path) -> Any:
    """One rank alone calls the bare model; the wrapper then gives its buffers to all."""
    model = DistributedDataParallel(bind(Net(), seed=2, data_parallel=torch.distributed.group.WORLD))
    model(torch.ones(EACH, 64))
    if rank == 0:
        model.module(torch.ones(EACH, 64))
    return [[drawn(model, rank, ranks), int(model.module.dropkit_step)] for _ in range(2)]


def follows_any_writer(rank: int, ranks: int, folder: Path) -> Any:
    """Rank 0's step is broadcast by hand, in ways that leave more or less of a trace."""
    model = bind(Net(), seed=2, data_parallel=torch.distributed.group.WORLD)
    steps = []
    for number, write in enumerate((torch.distributed.broadcast, _coalesced, _under_data)):
        model(torch.ones(EACH, 64))
        if rank == 0:
            model.dropkit_step.fill_(3 * number + 3)
        write(model.dropkit_step, 0)
        steps.append(drawn(model, rank, ranks))
    return steps


def _coalesced(buffer: torch.Tensor, source: int) -> None:
    torch.distributed._broadcast_coalesced(torch.distributed.group.WORLD, [buffer], 1 << 20, source)


def _under_data(buffer: torch.Tensor, source: int) -> None:
    torch.distributed.broadcast(buffer.data, source)


def a_redirected_forward_counts_once(rank: int, ranks: int, folder: Path) -> Any:
    model = DistributedDataParallel(bind(Redirected(), seed=2))
    return [drawn(model, rank, ranks) for _ in range(3)]


def bound_before_it_has_memory(rank: int, ranks: int, folder: Path) -> Any:
    with torch.device("meta"):
        model = bind(Net(), seed=2)
    fully_shard(model)
    model.to_empty(device="cpu")
    nn.init.ones_(model.linear.weight)
    return [drawn(model, rank, ranks) for _ in range(2)]


CHECKS = [follows_a_broadcast, follows_any_writer, a_redirected_forward_counts_once, bound_before_it_has_memory]
