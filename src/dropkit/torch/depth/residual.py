"""A residual branch that is computed only where it is kept."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from ...drop import Lowered, lower
from ...errors import DropkitTypeError
from ...threshold import threshold
from ..drawing import ranks
from ..layers import as_leaf
from . import decided, running
from .path import Depth, checked_mode, of_samples
from .rows import Rows, checked_names, checked_output


class ResidualDrop(Depth):
    """`x + m * branch(x) / (1 - p)`, where the branch is not computed for what is dropped.

    A residual block with stochastic depth. In mode "batch" the whole branch runs or does not; in mode "row" it runs on
    the rows that are kept, which are gathered before and added back behind. Its mask is that of
    `StochasticDepth(p, mode)` on the branch's output, and so are values and gradients, but for what the branch does
    across samples: BatchNorm sees the kept samples alone. Dropouts in the branch that are dropkit's draw for the rows
    that run what they draw for them in a whole batch.

    Args:
        branch: called with x, or with its kept rows, and with all further arguments.
        p: drop probability in [0, 1].
        mode: "row", each sample by itself, or "batch", all together.
        by_row: names of keyword arguments that hold one row for each sample, as padding masks do: gathered too.
        when: "train", "always" or "never".

    Shapes: x with the batch as axis 0; the branch gives the shape that it gets.

    Raises:
        DropkitValueError, DropkitTypeError: p outside [0, 1], NaN or no number; another mode; a branch that is no
            module. When it runs, a branch that changes the shape of its input.
        DropkitRuntimeError: in a CUDA graph, under vmap over models, or exported in training.

    On several processes mode "batch" decides alike everywhere. A branch that was dropped has no gradients, so
    DistributedDataParallel needs `find_unused_parameters=True`.

    Source: Huang et al. 2016 (arXiv:1603.09382), inverted.

    >>> block = ResidualDrop(nn.Linear(4, 4), 0.5)
    >>> block.eval()(torch.ones(2, 4)).shape
    torch.Size([2, 4])
    >>> ResidualDrop(nn.Linear(4, 4), 1.0)(torch.ones(1, 4))  # the branch did not run
    tensor([[1., 1., 1., 1.]])
    """

    decides = True
    law_known = shows_mask = False  # what is dropped is the branch, not x

    def __init__(
        self, branch: nn.Module, p: float = 0.5, mode: str = "row", *, by_row: Sequence[str] = (), when: str = "train"
    ) -> None:
        super().__init__(p, when=when)
        if not isinstance(branch, nn.Module):
            raise DropkitTypeError(f"branch must be a torch.nn.Module, got {branch!r}")
        self.mode, self.by_row = checked_mode(mode), checked_names(by_row)
        self.branch = branch

    def mask_shape(self, input: torch.Tensor) -> tuple[int, ...]:
        """One bit for the batch, or one for each sample."""
        return of_samples(input, self.mode)

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """x and its branch, where that is kept."""
        if isinstance(x, torch.fx.Proxy):
            return as_leaf(self, x, *args, **kwargs)
        if not self.active:
            return x + self.branch(x, *args, **kwargs)
        return self._run(x, args, kwargs)

    @running.outside_graphs
    def _run(compiler: Any, self: "ResidualDrop", x: torch.Tensor, args: Any, kwargs: Any) -> torch.Tensor:
        law = lower(self.noise, threshold(self._p))
        draw = decided.drawn(self, [law])
        law = draw.lowered[0]  # in a forward that is run again, that of the first time
        if self.mode == "batch":
            if not decided.kept(draw, law, np.zeros(1, np.uint64))[0]:
                return x
            y = running.call(compiler, self.branch, (x, *args), kwargs)
            checked_output(self.branch, x, y)
            return x + scaled(y, law)
        if ranks.several() and self.site is not None:
            self.site.seen(x)
        numbers = decided.rows_of(x, draw.part)
        rows = Rows(numbers, decided.kept(draw, law, numbers), self.by_row)
        if rows.none:
            return x
        return rows.added(x, scaled(rows.run(compiler, self.branch, x, args, kwargs), law))

    def _more_repr(self) -> str:
        return f", mode={self.mode}{super()._more_repr()}"


def scaled(y: torch.Tensor, law: Lowered | None) -> torch.Tensor:
    """A kept branch, divided by 1 - p."""
    return y if law is None or law.a == 1.0 else y * law.a
