"""Which samples a rank has: found from what wraps the model, told to bind, or said by `at`."""

import copy
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from dropkit.torch import Dropout, at, bind

EACH = 3


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 5), Dropout(0.5))
        self.drop = Dropout(0.5)
        nn.init.zeros_(self.body[0].weight)
        nn.init.ones_(self.body[0].bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(self.body(x))


def whole(ranks: int) -> torch.Tensor:
    return bind(Net(), seed=6, data_parallel=False)(torch.ones(EACH * ranks, 5)).detach()


def of(rank: int) -> slice:
    return slice(EACH * rank, EACH * rank + EACH)


def wrappers(rank: int, ranks: int, folder: Path) -> Any:
    """The model, a part of it, or something around it is wrapped, before bind or after it."""
    expected, x = whole(ranks)[of(rank)], torch.ones(EACH, 5)
    world, mesh = torch.distributed.group.WORLD, init_device_mesh("cpu", (ranks,))

    def inner_ddp() -> nn.Module:
        net = Net()
        net.body = DistributedDataParallel(net.body)
        return bind(net, seed=6)

    def inner_shard() -> nn.Module:
        net = bind(Net(), seed=6)
        fully_shard(net.body)
        return net

    def outer_shard() -> nn.Module:
        return fully_shard(nn.Sequential(bind(Net(), seed=6)), mesh=mesh)

    def compiled_outside() -> nn.Module:
        return bind(torch.compile(Net(), backend="eager", fullgraph=True), seed=6, data_parallel=world)

    found = {
        "ddp of bound": DistributedDataParallel(bind(Net(), seed=6)),
        "ddp bound": bind(DistributedDataParallel(Net()), seed=6),
        "ddp inside": inner_ddp(),
        "ddp around": DistributedDataParallel(nn.Sequential(bind(Net(), seed=6))),
        "shard inside": inner_shard(),
        "shard of bound": fully_shard(bind(Net(), seed=6)),
        "shard bound": bind(fully_shard(Net()), seed=6),
        "shard around": outer_shard(),
        "group": bind(Net(), seed=6, data_parallel=world),
        "mesh": bind(Net(), seed=6, data_parallel=mesh),
        "copy": copy.deepcopy(bind(Net(), seed=6, data_parallel=mesh)),
        "compiled": compiled_outside(),
    }
    for name, model in found.items():
        assert torch.equal(model(x), expected), name
    return sorted(found)


def later_wrapper(rank: int, ranks: int, folder: Path) -> Any:
    """A model that ran by itself is wrapped afterwards."""
    model = bind(Net(), seed=6)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model(torch.ones(EACH, 5))
        model(torch.ones(EACH, 5))
    texts = [str(warning.message) for warning in caught]
    wrapped = DistributedDataParallel(model)
    with at(step=0):
        assert torch.equal(wrapped(torch.ones(EACH, 5)), whole(ranks)[of(rank)])
    del wrapped
    fully_shard(model)
    with at(step=0):
        assert torch.equal(model(torch.ones(EACH, 5)), whole(ranks)[of(rank)])
    return texts


def said_by_hand(rank: int, ranks: int, folder: Path) -> Any:
    """`at` overrules the wrapper, axis by axis; DTensors that are split over the same ranks say it themselves."""
    reference = bind(nn.Sequential(Dropout(0.5)), seed=6, data_parallel=False)
    model = DistributedDataParallel(bind(nn.Sequential(nn.Linear(4, 4), Dropout(0.5)), seed=6)).module
    model = bind(nn.Sequential(Dropout(0.5)), seed=6, data_parallel=torch.distributed.group.WORLD)
    x, rows = torch.ones(EACH, 8, 4), torch.arange(EACH) * 7 + rank
    many = torch.ones(EACH * ranks * 7, 8 * ranks, 4)
    with at(step=3):
        all_samples = reference(many[:, :8])
        with at(rows=rows):
            assert torch.equal(model(x), all_samples[rows])
        with at(offset=(5, 0, 0), global_shape=(9, 8, 4)):
            assert torch.equal(model(x), all_samples[5 : 5 + EACH])
        with at(split={0: (1, 2)}):
            assert torch.equal(model(x), all_samples[EACH : 2 * EACH])
        long = reference(many)
        with at(split={1: (rank, ranks)}):  # a chunk of the sequence as in context parallelism; the batch as before
            assert torch.equal(model(x), long[of(rank), 8 * rank : 8 * rank + 8])
            with at(split={0: (0, 1)}):  # inner blocks add up
                assert torch.equal(model(x), long[:EACH, 8 * rank : 8 * rank + 8])
        mesh = init_device_mesh("cpu", (ranks,))
        everything = torch.ones(EACH * ranks, 8, 4)
        sharded = model(distribute_tensor(everything, mesh, [Shard(0)]))
        assert torch.equal(sharded.full_tensor(), all_samples[: EACH * ranks])
    return True


def accumulation(rank: int, ranks: int, folder: Path) -> Any:
    """Micro-batches of any size, in any order, on any rank: a sample keeps its mask."""
    model = bind(nn.Sequential(Dropout(0.5)), seed=6)
    one = bind(nn.Sequential(Dropout(0.5)), seed=6, data_parallel=False)
    with at(step=9):
        expected = one(torch.ones(24, 5))
    order = torch.randperm(24, generator=torch.Generator().manual_seed(1)).chunk(ranks)[rank]
    for size in (1, 2, 5):
        for rows in order.split(size):
            with at(step=9, rows=rows):
                assert torch.equal(model(torch.ones(len(rows), 5)), expected[rows])
    return True


def on_a_square(rank: int, ranks: int, folder: Path) -> Any:
    """A mesh of two axes, replicated and sharded: ranks in its C order."""
    if ranks != 4:
        return None
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
    x, expected = torch.ones(EACH, 5), whole(ranks)[of(rank)]
    assert torch.equal(fully_shard(bind(Net(), seed=6), mesh=mesh)(x), expected)
    assert torch.equal(bind(Net(), seed=6, data_parallel=mesh)(x), expected)
    row = bind(Net(), seed=6, data_parallel=mesh["shard"])(x)
    assert torch.equal(row, whole(2)[of(rank % 2)])
    return True


def refused(rank: int, ranks: int, folder: Path) -> Any:
    others = torch.distributed.new_group([0])
    texts = []
    for wrong in (4, others if rank else "no group"):
        try:
            bind(Net(), data_parallel=wrong)
        except (TypeError, ValueError) as error:
            texts.append(f"{type(error).__name__}: {error}")
    return texts


def sizes(rank: int, ranks: int, folder: Path) -> Any:
    """What is said, on all ranks together, of batches of these sizes, several forwards for each step of the optimizer.

    Ranks meet after each forward, so that the last one of a difference is not the end of the run.
    """
    found = {}

    def told(name: str, batches: list[int], say: Any = lambda size: nullcontext(), wrap: Any = None) -> None:
        net = Net()
        model = DistributedDataParallel(bind(net, seed=6)) if wrap is None else wrap(net)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for size in batches:
                with say(size):
                    model(torch.ones(size, 5)).sum().backward()
                torch.distributed.barrier()
        texts: list[Any] = [None] * ranks
        torch.distributed.all_gather_object(texts, [str(each.message) for each in caught])
        found[name] = texts

    def mine(*sizes: int) -> list[int]:
        """The last rank's batches are one sample smaller where it is negative."""
        return [abs(size) - (size < 0 and rank == ranks - 1) for size in sizes]

    def group(net: Net) -> nn.Module:
        return bind(net, seed=6, data_parallel=torch.distributed.group.WORLD)

    def by_rows(size: int) -> Any:
        return at(rows=torch.arange(size) + 4 * rank)

    told("equal", [4] * 20)
    told("all smaller at the end of an epoch", [4, 4, 2, 4, 4, 2])
    told("the last batch", mine(4, 4, -4, 4, 4, 4))
    told("from the first", mine(-4, -4, -4))
    told("once", mine(4, -4, 4, -4, -4, -4, 4))
    told("late", mine(*[4] * 20, -4, *[4] * 20))
    told("sharded", mine(4, -4, 4), wrap=lambda net: fully_shard(bind(net, seed=6)))
    told("group", mine(4, -4, 4), wrap=group)
    told("rows", mine(4, -4, 4), by_rows)
    told("split", mine(4, -4, 4), lambda size: at(split={0: (rank, ranks)}))
    told("whole", mine(4, -4, 4), wrap=lambda net: bind(net, seed=6, data_parallel=False))
    told("replayed", mine(4, -4, 4), lambda size: at(step=3))
    return found


CHECKS = [wrappers, later_wrapper, said_by_hand, accumulation, on_a_square, refused, sizes]
