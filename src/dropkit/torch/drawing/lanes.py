"""Several passes in one batch: a tensor that holds the same rows once for each pass, each pass at a step of its own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

Shape = tuple[int, ...]


class InLanes(BaseException):
    """A call is to be drawn lane by lane, and only who has its tensor can do that.

    No Exception: code of the user's that handles those must not see it.
    """

    def __init__(self, lanes: "Lanes") -> None:
        super().__init__("drawn lane by lane")
        self.lanes = lanes


class NotInLanes(BaseException):
    """The tensor of a call has no rows that could be told apart, so several passes cannot share one batch."""


@dataclass(eq=False)
class Lanes:
    """What the batch of a forward holds, and who hears of each draw in it.

    Args:
        steps: of each lane.
        rows: how many each lane has; their numbers are said around it.
        alone: the shapes that a forward of one row of one lane dropped, in order; None while that forward runs.
        heard: called before each draw with its site, or None.
        apart: False where the passes come one by one: nothing is split then.
    """

    steps: Sequence[int]
    rows: int
    alone: Sequence[Shape] | None = None
    heard: Callable[[Any], None] = lambda site: None
    apart: bool = True
    shapes: list[Shape] = field(default_factory=list)  # of what was dropped so far

    def rows_in(self, shape: Shape) -> tuple[int, int]:
        """Along which axis of the next tensor the rows lie, and how many entries there each of them has.

        Raises:
            NotInLanes: none, or several could be meant.
        """
        count, number = len(self.steps) * self.rows, len(self.shapes)
        self.shapes.append(shape)
        if self.alone is None:
            return 0, int(bool(shape) and shape[0] == 1)
        if number < len(self.alone) and len(self.alone[number]) == len(shape):
            alone = self.alone[number]
            found = [axis for axis, size in enumerate(shape) if size != alone[axis] or (count == 1 and axis == 0)]
            if not found and len(self.steps) == 1:
                return 0, 0
            if len(found) == 1 and shape[found[0]] == alone[found[0]] * count:
                return found[0], alone[found[0]]
        elif shape and shape[0] == count:
            return 0, 1
        raise NotInLanes


def split(
    lanes: Lanes,
    x: torch.Tensor,
    other: torch.Tensor | None,
    share: Sequence[int],
    run: Callable[[int, torch.Tensor, torch.Tensor | None, Sequence[int]], None],
) -> torch.Tensor:
    """A tensor dropped lane by lane; one whose rows lie elsewhere is drawn as if they came first.

    Args:
        lanes: of the forward that runs.
        x, other: what is dropped, and the second tensor of a law that has one.
        share: axes of x that share a draw.
        run: (lane, part of x, part of other, axes of the part); writes into the part. Lane -1 is of no row.
    """
    axis, each = lanes.rows_in(tuple(x.shape))
    if not each:  # nothing here depends on the row
        y = x.clone()
        run(-1, y, other, share)
        return y
    y = _rows_first(x, axis, each).clone()
    count = len(lanes.steps)
    seconds = [None] * count if other is None else _rows_first(other.expand(x.shape), axis, each).chunk(count)
    axes = [_moved(a % x.dim(), axis, each) for a in share]
    for lane, (part, second) in enumerate(zip(y.chunk(count), seconds, strict=True)):
        run(lane, part, second, axes)
    return (y if each == 1 else y.flatten(0, 1)).movedim(0, axis)


def _rows_first(x: torch.Tensor, axis: int, each: int) -> torch.Tensor:
    first = x.movedim(axis, 0)
    return first if each == 1 else first.unflatten(0, (-1, each))


def _moved(axis: int, rows: int, each: int) -> int:
    """Where an axis lies once the rows come first, and what each has after them."""
    if axis == rows:
        return 0
    return axis + (axis < rows) + (each > 1)
