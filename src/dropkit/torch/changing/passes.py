"""Several passes on purpose at one step, each with masks of its own: SimCSE, R-Drop."""

import operator
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from ...errors import DropkitTypeError, DropkitValueError
from ...turns import NESTED, passes_checked
from ..bound.bond import STEP
from ..bound.clock import Clock
from ..drawing import coordinates
from ..drawing.around import in_turn
from .rewind import clocks_of


@contextmanager
def passes(model: nn.Module, n: int) -> Iterator[Iterator[int]]:
    """n passes through a bound model at one step, whose masks differ: two views of a batch, as SimCSE and R-Drop ask.

    Pass 0 draws what the step draws without this; pass j > 0 draws at the site `name@j`, so each is a function of
    (seed, site, pass, step) and repeats after a resume, at any number of ranks and under `at(step=...)`. A forward with
    a step of its own for each view would do as well, but would make of n forwards n steps. After the block the clock
    has moved on by one pass: a forward more in each pass is a step more.

    Args:
        model: bound by `dropkit.torch.bind`. Its dropouts are meant, and all others that the passes run and that have a
            seed and a site; calls with a key of their own are left alone.
        n: how many, at least 1.

    Returns:
        A context whose value yields 0, 1, ... n - 1; the forwards of pass j belong into turn j of the loop.

    Raises:
        DropkitTypeError: not a module; n is no integer.
        DropkitValueError: n below 1; a model that is not bound, whose forwards differ anyway, or a part of a bound one.

    Sources: Gao et al. 2021 (SimCSE, arXiv:2104.08821); Liang et al. 2021 (R-Drop, arXiv:2106.14448).

    >>> import torch
    >>> from dropkit.torch import Dropout, bind
    >>> model, x = bind(nn.Sequential(Dropout(0.5)), seed=1), torch.ones(64)
    >>> with passes(model, 2) as each:
    ...     first, second = [model(x) for _ in each]
    >>> torch.equal(first, second), int(model.dropkit_step)
    (False, 1)
    """
    turns = [_Turns(clock) for clock in _checked(model, n)]
    each = _each(turns, operator.index(n))
    try:
        yield each
    finally:
        each.close()  # a loop that was left early is still in its pass
        for turn in turns:
            turn.end()


def _each(turns: "list[_Turns]", n: int) -> Generator[int, None, None]:
    for number in range(n):
        for turn in turns:
            turn.begin()
        with in_turn(number):
            yield number


class _Turns:
    """The clock of a bound model: each pass begins at the step where the first one began."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.start = self._buffer.clone()
        self.furthest = self.start.clone()

    @property
    def _buffer(self) -> Any:
        return self.clock.buffers[STEP]

    def begin(self) -> None:
        """Back to where the first pass began."""
        self._keep()
        self._buffer.copy_(self.start)

    def end(self) -> None:
        """On to where the longest pass ended."""
        self._keep()
        self._buffer.copy_(self.furthest)

    def _keep(self) -> None:
        self.furthest = self.furthest.maximum(self._buffer)


def _checked(model: Any, n: Any) -> list[Clock]:
    if not isinstance(model, nn.Module):
        raise DropkitTypeError(f"passes needs a torch.nn.Module, got {type(model).__name__}")
    passes_checked(n)
    if coordinates.current().turn is not None:  # one name would be two draws
        raise DropkitValueError(NESTED.format(what="model"))
    clocks = clocks_of(model)
    if not clocks:
        raise DropkitValueError(
            f"this {type(model).__name__} is not bound, so that every forward has masks of its own anyway: "
            "dropkit.torch.bind(model, seed=0) makes passes repeatable"
        )
    return clocks
