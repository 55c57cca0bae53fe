"""Pipelines: a batch that is cut into microbatches is one step, each microbatch some rows of its masks."""

import functools
from collections.abc import Iterable
from typing import Any, TypeVar

import torch

from ..errors import DropkitTypeError, DropkitValueError
from .bound.bond import STEP
from .bound.clock import BoundSite, Clock
from .drawing import ranks
from .drawing.coordinates import at, current
from .layers import Drawn

Schedule = TypeVar("Schedule")


def pipelined(schedule: Schedule) -> Schedule:
    """Make the masks of a pipeline those of the whole model: one step for each batch, rows for each microbatch.

    Wraps `schedule.step`, and with it `eval`: microbatch i of n of a batch of B samples draws rows i * B/n to
    (i + 1) * B/n of the masks of the step, whatever the order in which the schedule runs forward and backward. What a
    stage runs to infer shapes draws nothing that counts. Data parallelism of the stages (DistributedDataParallel,
    `fully_shard`, `bind(data_parallel=)`) is taken into account.

    Args:
        schedule: of `torch.distributed.pipelining`, any of them; its stages hold bound models or parts of one. Call it
            on every rank, and save the models as always: the step is theirs.

    Returns:
        The same schedule.

    Raises:
        DropkitTypeError: no schedule.
        DropkitValueError: a schedule that is pipelined already; dropouts in a stage that are not bound. When it runs:
            stages of one rank that are at different steps.

    Under `at(step=...)` the step is that one, and nothing counts. Batches have to be multiples of n samples, as the
    stages themselves demand.

    >>> from torch import distributed, nn
    >>> from torch.distributed.pipelining import PipelineStage, ScheduleGPipe
    >>> from dropkit.torch import Dropout, bind
    >>> distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    >>> model, x = bind(nn.Sequential(nn.Linear(4, 4), Dropout(0.5)), seed=1), torch.ones(8, 4)
    >>> schedule = pipelined(ScheduleGPipe(PipelineStage(model, 0, 1, torch.device("cpu")), n_microbatches=2))
    >>> y = schedule.step(x)
    >>> with at(step=0):
    ...     torch.equal(y, model(x))
    True
    >>> distributed.destroy_process_group()
    """
    stages = getattr(schedule, "_stages", None) or [getattr(schedule, "_stage", None)]
    if not all(hasattr(stage, "forward_one_chunk") for stage in stages):
        raise DropkitTypeError(
            f"pipelined needs a schedule of torch.distributed.pipelining such as ScheduleGPipe, got {schedule!r}"
        )
    if "step" in vars(schedule):
        raise DropkitValueError(f"this {type(schedule).__name__} is pipelined already")
    count: int = schedule._n_microbatches  # type: ignore[attr-defined]
    drops, clocks = _bound(stages)
    for stage in stages:
        stage.forward_one_chunk = _placed(stage, count)
    run = schedule.step  # type: ignore[attr-defined]

    @functools.wraps(run)
    def step(*args: Any, **kwargs: Any) -> Any:
        counts = current().step is None and any(drop.active for drop in drops)
        now = _now(clocks)
        # a split for the forwards in which stages infer their shapes, which say nothing of a microbatch
        with at(step=now if current().step is None else None, split={0: (0, count)}):
            result = run(*args, **kwargs)
        for clock in clocks if counts else ():
            with torch.no_grad():
                clock.model._buffers[STEP].add_(1)  # type: ignore[union-attr]
        return result

    schedule.step = step  # type: ignore[attr-defined]
    return schedule


def _bound(stages: Iterable[Any]) -> tuple[list[Drawn], list[Clock]]:
    """The dropouts in the stages, and the clocks of their models, each once."""
    drops: list[Drawn] = []
    clocks: dict[int, Clock] = {}
    for stage in stages:
        for name, drop in stage.submod.named_modules():
            if not isinstance(drop, Drawn):
                continue
            if not isinstance(drop.site, BoundSite):
                raise DropkitValueError(
                    f"dropout {name!r} of stage {stage.stage_index} is not bound, and would draw for each microbatch "
                    "anew: call dropkit.torch.bind(model, seed) before the model is cut into stages"
                )
            drops.append(drop)
            clocks[id(drop.site.clock)] = drop.site.clock
    return drops, list(clocks.values())


def _now(clocks: list[Clock]) -> int | None:
    steps = {clock.step for clock in clocks}
    if len(steps) > 1:
        raise DropkitValueError(
            f"the stages of this rank are at steps {sorted(steps)}; load one checkpoint into all of them"
        )
    return steps.pop() if steps else None


def _placed(stage: Any, count: int) -> Any:
    """A stage's forward, for the rows of its microbatch."""
    forward = stage.forward_one_chunk

    @functools.wraps(forward)
    def one_chunk(number: int, *args: Any, **kwargs: Any) -> Any:
        part, parts = _batch(stage)
        with at(split={0: (part * count + number, parts * count)}):
            return forward(number, *args, **kwargs)

    return one_chunk


def _batch(stage: Any) -> tuple[int, int]:
    """Which piece of the batch the pipeline of this rank gets, of how many."""
    sites = [drop.site for drop in stage.submod.modules() if isinstance(drop, Drawn)]
    told = next((site.clock.batch.told for site in sites if isinstance(site, BoundSite)), None)
    pieces = ranks.pieces_within(stage.submod) if told is None and ranks.several() else told or ()
    return next(((piece.part, piece.parts) for piece in pieces), (0, 1))
