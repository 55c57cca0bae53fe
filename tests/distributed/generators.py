"""Ambient draws on several ranks: an accident is named, a contradiction refused."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from dropkit.torch import Dropout
from dropkit.torch.drawing import coordinates
from dropkit.torch.drawing import ranks as several


def scenario(name: str) -> None:
    """What a new process would find, and other processes with it."""
    coordinates._watch = several.RankComparison(name)
    torch.distributed.barrier()


def texts(draws: int = 2) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(draws):
            Dropout(0.5)(torch.ones(8))
    return [str(warning.message) for warning in caught]


def same_seed(rank: int, ranks: int, folder: Path) -> Any:
    scenario("same")
    torch.manual_seed(0)
    return texts()


def own_seeds(rank: int, ranks: int, folder: Path) -> Any:
    scenario("own")
    torch.manual_seed(rank)
    return texts()


def some_alike(rank: int, ranks: int, folder: Path) -> Any:
    """The first two ranks share a seed, and not all ranks draw at all."""
    scenario("some")
    torch.manual_seed(max(rank, 1))
    return texts() if rank < 3 else []


def sharded_alike(rank: int, ranks: int, folder: Path) -> Any:
    scenario("sharded alike")
    coordinates._watch.waiting = False  # what one process draws is drawn here by all
    torch.manual_seed(0)
    whole = Dropout(0.5)(torch.ones(6, 5))
    mesh = init_device_mesh("cpu", (ranks,))
    for layout in (Shard(0), Shard(1), Replicate()):
        x = distribute_tensor(torch.ones(6, 5), mesh, [layout])
        torch.manual_seed(0)
        assert torch.equal(Dropout(0.5)(x).full_tensor(), whole)
    return True


def sharded_apart(rank: int, ranks: int, folder: Path) -> Any:
    """Ranks that hold one tensor and would draw two masks for it; who comes last is sure to see it."""
    scenario("sharded apart")
    x = distribute_tensor(torch.ones(6, 5), init_device_mesh("cpu", (ranks,)), [Shard(0)])
    torch.manual_seed(rank)
    if rank == ranks - 1:
        torch.distributed.barrier()
    try:
        Dropout(0.5)(x)
        return None
    except RuntimeError as error:
        return str(error)
    finally:
        if rank != ranks - 1:
            torch.distributed.barrier()


CHECKS = [same_seed, own_seeds, some_alike, sharded_alike, sharded_apart]
