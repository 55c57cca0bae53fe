"""What is said around the forwards of several passes: which of them runs, one after the other or side by side."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from ...axes.share import Refining
from .coordinates import current, enter, leave
from .lanes import Lanes, NotInLanes, split


@contextmanager
def in_turn(number: int) -> Iterator[None]:
    """Inside, every named site draws for this of several passes: pass 0 as ever, others as `site@number`."""
    outside = enter(replace(current(), turn=number))
    try:
        yield
    finally:
        leave(outside)


@contextmanager
def in_lanes(lanes: Lanes, rows: torch.Tensor | None) -> Iterator[None]:
    """Inside, the batch holds these lanes, each of these rows."""
    outside = enter(replace(current(), lanes=lanes, lane=None, rows=rows))
    try:
        yield
    finally:
        leave(outside)


@contextmanager
def in_lane(lanes: Lanes, number: int) -> Iterator[None]:
    """Inside, one lane draws, at its step; -1 is what is drawn once for all rows of a single lane."""
    here = current()
    rows = here.rows if number >= 0 else None
    outside = enter(replace(here, lanes=None, lane=max(number, 0), step=lanes.steps[max(number, 0)], rows=rows))
    try:
        yield
    finally:
        leave(outside)


def by_lanes(
    lanes: Lanes,
    x: torch.Tensor,
    other: torch.Tensor | None,
    share: Sequence[int] | Refining,
    apply: Callable[[torch.Tensor, torch.Tensor | None, Any, Any], Any],
) -> torch.Tensor:
    """A tensor of several passes, each dropped with the draw of its step.

    Args:
        lanes: of the forward that runs.
        x, other, share: as dropout has them.
        apply: (part, part of other, share, what it gave for the lane before) -> anything; writes into the part.
    """
    refining = share if isinstance(share, Refining) else None
    if refining is not None and lanes.alone is not None and x.shape[0] != len(lanes.steps) * lanes.rows:
        raise NotInLanes  # its axes are counted from the batch
    given: Any = None

    def run(lane: int, part: torch.Tensor, second: torch.Tensor | None, axes: Any) -> None:
        nonlocal given
        with in_lane(lanes, lane):
            given = apply(part, second, axes if refining is None else refining, given)

    # whoever listens to functions has heard of this call, of which the rest is parts
    with torch._C.DisableTorchFunction():
        return split(lanes, x, other, () if isinstance(share, Refining) else share, run)
