"""Pipelines of two stages or four: the outputs, masks and gradients of the model without a pipeline."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe, ScheduleInterleaved1F1B
from torch.utils.checkpoint import checkpoint

from dropkit.torch import Dropout, at, bind, pipelined

BATCH, WIDTH, DEPTH = 16, 6, 4
X = torch.randn(BATCH, WIDTH, generator=torch.Generator().manual_seed(1))
CPU = torch.device("cpu")


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.drop, self.more = nn.Linear(WIDTH, WIDTH), Dropout(0.4), Dropout(0.2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return checkpoint(lambda x: self.more(self.linear(self.drop(x))), x, use_reentrant=False)  # type: ignore[no-any-return]


class Net(nn.Module):
    """Its blocks by their number in the whole, so that a stage names its dropouts as the whole does."""

    def __init__(self, numbers: range = range(DEPTH)) -> None:
        super().__init__()
        torch.manual_seed(0)
        blocks = {str(number): Block() for number in range(DEPTH)}
        self.blocks = nn.ModuleDict({name: block for name, block in blocks.items() if int(name) in numbers})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks.values():
            x = block(x)
        return x


def loss(y: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (y - target).square().mean()


def alone(steps: int, x: torch.Tensor = X) -> tuple[nn.Module, list[torch.Tensor]]:
    """The model without a pipeline after some steps, with the gradients of the last."""
    model = bind(Net(), seed=5, data_parallel=False)
    outputs = []
    for _ in range(steps):
        model.zero_grad()
        outputs.append(model(x))
        loss(outputs[-1], x).backward()
    return model, [y.detach() for y in outputs]


def run(schedule: Any, first: bool, last: bool, x: torch.Tensor = X) -> Any:
    for stage in getattr(schedule, "_stages", None) or [schedule._stage]:
        stage.submod.zero_grad()
    return schedule.step(*[x] if first else [], target=x if last else None)


def compare(part: nn.Module, whole: nn.Module) -> None:
    gradients = {name: p.grad for name, p in whole.named_parameters()}
    for name, p in part.named_parameters():
        wanted, found = gradients[name.removeprefix("module.")], p.grad
        found = found.full_tensor() if hasattr(found, "full_tensor") else found
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def two_stages(rank: int, ranks: int, folder: Path) -> Any:
    """GPipe and 1F1B, two and four microbatches; bound before it is cut, or each stage by itself."""
    if ranks != 2:
        return None
    steps = 3
    model, outputs = alone(steps)
    for kind in (ScheduleGPipe, Schedule1F1B):
        for count in (2, 4):
            for cut in (False, True):
                half = range(rank * DEPTH // 2, (rank + 1) * DEPTH // 2)
                part: Any = bind(Net(half) if cut else Net(), seed=5)
                if not cut:
                    for number in set(range(DEPTH)) - set(half):
                        del part.blocks[str(number)]
                stage = PipelineStage(part, rank, 2, CPU)
                schedule = pipelined(kind(stage, n_microbatches=count, loss_fn=loss))
                found = [run(schedule, rank == 0, rank == 1) for _ in range(steps)]
                assert rank == 0 or all(map(torch.equal, found, outputs))
                compare(part, model)
                assert int(part.dropkit_step) == steps
                with at(step=1):
                    again = run(schedule, rank == 0, rank == 1)
                assert rank == 0 or torch.equal(again, outputs[1])
                part.eval()
                schedule.eval(*[X] if rank == 0 else [], target=X if rank == 1 else None)
                assert int(part.dropkit_step) == steps
    return [y.sum().item() for y in outputs]


def interleaved(rank: int, ranks: int, folder: Path) -> Any:
    """Each rank has two stages of one model that is bound as a whole and called in parts."""
    if ranks != 2:
        return None
    model, outputs = alone(2)
    mine: Any = bind(Net(), seed=5)
    stages = [PipelineStage(mine.blocks[str(number)], number, DEPTH, CPU) for number in (rank, rank + 2)]
    schedule = pipelined(ScheduleInterleaved1F1B(stages, n_microbatches=4, loss_fn=loss))
    for step in range(2):
        y = run(schedule, rank == 0, rank == 1)
        assert rank == 0 or torch.equal(y, outputs[step])
    wanted = dict(model.named_parameters())
    for number in (rank, rank + 2):
        for name, p in mine.blocks[str(number)].named_parameters():
            torch.testing.assert_close(p.grad, wanted[f"blocks.{number}.{name}"].grad, rtol=1e-4, atol=1e-6)
    return int(mine.dropkit_step)


def replicated(rank: int, ranks: int, folder: Path) -> Any:
    """Two pipelines of two stages, each with half of the batch."""
    if ranks != 4:
        return None
    model, outputs = alone(2)
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "pipe"))
    data, pipe = mesh["data"].get_local_rank(), mesh["pipe"].get_local_rank()
    x = X[8 * data : 8 * data + 8]
    half = range(pipe * DEPTH // 2, (pipe + 1) * DEPTH // 2)
    for how in ("fsdp", "told"):  # torch 2.13's DistributedDataParallel fails after a stage has inferred its shapes
        part: Any = bind(Net(half), seed=5, data_parallel=mesh["data"] if how == "told" else None)
        if how == "fsdp":
            fully_shard(part, mesh=mesh["data"])
        stage = PipelineStage(part, pipe, 2, CPU, group=mesh["pipe"].get_group())
        schedule = pipelined(ScheduleGPipe(stage, n_microbatches=2, loss_fn=loss))
        for step in range(2):
            y = run(schedule, pipe == 0, pipe == 1, x)
            assert pipe == 0 or torch.equal(y, outputs[step][8 * data : 8 * data + 8])
        if how != "told":
            compare(part, model)
    return True


def pipeline_mistakes(rank: int, ranks: int, folder: Path) -> Any:
    if ranks != 2:
        return None
    texts = []
    half = range(rank * DEPTH // 2, (rank + 1) * DEPTH // 2)
    schedule = ScheduleGPipe(PipelineStage(bind(Net(half), seed=5), rank, 2, CPU), n_microbatches=2, loss_fn=loss)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(schedule, rank == 0, rank == 1)
    texts.append(str(caught[0].message))
    pipelined(schedule)
    unbound = ScheduleGPipe(PipelineStage(Net(half), rank, 2, CPU), n_microbatches=2, loss_fn=loss)
    for wrong in (schedule, unbound, nn.Linear(2, 2)):
        try:
            pipelined(wrong)
        except (TypeError, ValueError) as error:
            texts.append(str(error))
    return texts


CHECKS = [two_stages, interleaved, replicated, pipeline_mistakes]
