"""Layers that are left out, under DistributedDataParallel."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dropkit.torch import LayerDrop, ResidualDrop, bind


class Counted(nn.Module):
    """A layer that knows how often it ran."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.runs = nn.Linear(4, 4), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.runs += 1
        return torch.tanh(self.linear(x))


def net() -> nn.Module:
    torch.manual_seed(0)
    rows = [ResidualDrop(Counted(), 0.4) for _ in range(2)]
    return nn.Sequential(LayerDrop([Counted() for _ in range(6)], 0.5), *rows, nn.Linear(4, 1))


def trained(model: Any, rows: slice) -> list[float]:
    """Parameters after five steps of SGD."""
    data = torch.randn(5, 8, 4, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for x in data:
        optimizer.zero_grad()
        model(x[rows]).square().mean().backward()
        optimizer.step()
    return [float(value) for p in model.parameters() for value in p.detach().flatten()]


def layers_left_out(rank: int, ranks: int, folder: Path) -> Any:
    """What ran on this rank, and how far the parameters are from those of one process with the whole batch."""
    alone = trained(bind(net(), 3, data_parallel=False), slice(None))
    model = net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says where a step used all parameters after all
        wrapped = DistributedDataParallel(bind(model, 3), find_unused_parameters=True)
        each = 8 // ranks
        spread = trained(wrapped, slice(rank * each, (rank + 1) * each))
    worst = max(abs(a - b) for a, b in zip(alone, spread, strict=True))
    return {"runs": [layer.runs for layer in model[0]], "worst": worst}


CHECKS = [layers_left_out]
