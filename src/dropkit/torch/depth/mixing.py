"""Joins of several branches: Swapout, and FractalNet's."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ...axes.noise import Raw
from ...errors import DropkitRuntimeError, DropkitValueError
from ...mask import UNIFORM, uniform_block
from ...threshold import ONE, threshold
from .. import ops
from ..arithmetic import continuous
from ..bound.clock import BoundSite
from ..draw import Draw
from ..drawing.coordinates import current
from ..layers import as_leaf
from . import decided, running
from .path import Depth, checked_mode
from .shake import ANY

PATHS = ("local", "global", "both")
COLUMN = "fractal column"  # the site of what the joins of a model have in common


class Swapout(Depth):
    """Keep each unit of a branch and of its skip connection by itself: `y = m1 x + m2 branch(x)`, called with both.

    m1 and m2 are 1 with probability 1 - p, independently, so that a unit is 0, x, the branch or their sum. In
    evaluation `y = (1 - p) (x + branch(x))`; the authors average 30 passes instead, `dropkit.torch.enabled(model)`,
    since after BatchNorm the mean of the passes is not the pass of the means.

    Args:
        p: drop probability of each unit in [0, 1].
        when: "train", "always" or "never".

    Shapes: two tensors of one shape. Dtypes: float16, bfloat16, float32, float64.

    Raises:
        DropkitValueError, DropkitTypeError: p outside [0, 1], NaN or no number; when it runs, two shapes.

    A forward draws twice: the site's first call is the mask of x, its second, "name#1", that of the branch.

    Source: Singh, Hoiem and Forsyth 2016 (arXiv:1605.06465).

    >>> sorted(set(Swapout(0.5)(torch.ones(99), 2 * torch.ones(99)).tolist()))
    [0.0, 1.0, 2.0, 3.0]
    """

    shows_mask = False

    def __init__(self, p: float = 0.5, *, when: str = "train") -> None:
        super().__init__(p, when=when)
        self.noise = Raw()
        self.p = p

    def forward(self, x: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
        """Skip connection and branch, each with its mask."""
        if isinstance(x, torch.fx.Proxy):
            return as_leaf(self, x, branch)
        if x.shape != branch.shape:
            raise DropkitValueError(
                f"Swapout takes x and branch(x) of one shape, got {tuple(x.shape)} and {tuple(branch.shape)}"
            )
        return self._dropped(x, ()) + self._dropped(branch, ())


class FractalJoin(Depth):
    """The mean of the branches that are kept, at least one: FractalNet's join, whose only scale is that mean.

    "local": each branch is dropped with probability p by itself; where all would be, one of them stays, each as likely.
    "global": one column is kept in all joins of the model, each of `columns` as likely; a join that this column does
    not enter is not on the path, and gives the mean of all. "both": each forward is global with probability 1/2, as in
    the paper. In evaluation the mean of all branches.

    Args:
        p: drop probability of a branch in [0, 1].
        mode: "batch", one decision for all samples; "row", each sample by itself, of local joins.
        paths: "local", "global" or "both".
        columns: of the network, the deepest first, as the branches of every join are given; of global joins.
        when: "train", "always" or "never".

    Called with the branches: `join(deep, shallow)`, tensors of one shape with the batch as axis 0.

    Raises:
        DropkitValueError, DropkitTypeError: p outside [0, 1], NaN or no number; another mode or paths; global paths
            without columns. When it runs, no branch, or several shapes.
        DropkitRuntimeError: global paths in a model that is not bound: what joins have in common is its seed and step.

    Source: Larsson, Maire and Shakhnarovich 2017 (arXiv:1605.07648), p = 0.15.

    >>> FractalJoin(0.15).eval()(torch.zeros(2), torch.ones(2))
    tensor([0.5000, 0.5000])
    >>> FractalJoin(1.0)(torch.zeros(1), torch.ones(1)).item() in (0.0, 1.0)
    True
    """

    law_known = shows_mask = False  # the mean of what is kept
    effect = "joins"

    def __init__(
        self, p: float = 0.15, mode: str = "batch", *, paths: str = "local", columns: int = 0, when: str = "train"
    ) -> None:
        super().__init__(p, when=when)
        self.mode = checked_mode(mode)
        if paths not in PATHS:
            raise DropkitValueError(f"paths has to be one of {', '.join(map(repr, PATHS))}, but got {paths!r}")
        if paths != "local" and (type(columns) is not int or columns < 1):
            raise DropkitValueError(f"paths={paths!r} needs columns, how many the network has, got {columns!r}")
        if paths != "local" and mode == "row":
            raise DropkitValueError(f"paths={paths!r} keeps one column for the batch: leave mode='row' to local joins")
        self.paths, self.columns = paths, columns

    def mask_shape(self, input: torch.Tensor) -> None:
        """Not known from one branch."""
        return

    def forward(self, *branches: torch.Tensor) -> torch.Tensor:
        """The mean of the branches that are kept."""
        if branches and isinstance(branches[0], torch.fx.Proxy):
            return as_leaf(self, *branches)
        if not branches or len({branch.shape for branch in branches}) != 1:
            raise DropkitValueError(
                "FractalJoin is called with its branches, tensors of one shape, got "
                f"{[tuple(branch.shape) for branch in branches]}"
            )
        stacked = torch.stack(branches)
        if not self.active:
            return stacked.mean(0)
        column = None if self.paths == "local" else self._column()
        if column is not None:
            return branches[column] if column < len(branches) else stacked.mean(0)
        kept = self._kept(branches[0], len(branches)).to(stacked.dtype)
        weights = kept / kept.sum(-1, keepdim=True)  # rows or 1, branches
        return (stacked * weights.t().reshape(len(branches), -1, *[1] * (branches[0].dim() - 1))).sum(0)

    def _kept(self, x: torch.Tensor, count: int) -> torch.Tensor:
        """Which branches stay: of each row, or of all, in one row."""
        x = x.reshape(1, *x.shape) if self.mode == "batch" or x.dim() == 0 else x
        like = torch.zeros(x.shape[0], count, device=x.device)
        draw, place = ops.prepare(like, ANY, self.fresh, (0,) if self.mode == "batch" else ())
        u = continuous.uniform(draw.key, place, x.device)  # type: ignore[arg-type]
        # The last to go is the one with the largest number, so one draw decides all.
        p = self._rate.to(x.device) if torch.compiler.is_compiling() else 1 - threshold(self._p) / ONE
        return (u >= p) | (u == u.amax(-1, keepdim=True))

    def _column(self) -> int | None:
        """The column of this forward, the same in every join of the model; None where this one is local."""
        site = self.site
        if not isinstance(site, BoundSite):
            raise DropkitRuntimeError(
                f"paths={self.paths!r} keeps one column in all joins, which they know by the model's seed and step: "
                "dropkit.torch.bind(model) it, or take paths='local'"
            )
        return self._decided()

    @running.outside_graphs
    def _decided(compiler: Any, self: "FractalJoin") -> int | None:
        key = decided.host_words(Draw(self.site.words(replace(current(), site=COLUMN)), None))  # type: ignore[union-attr]
        first, second, *_ = uniform_block(np.zeros(1, np.uint64), key, UNIFORM)
        if self.paths == "both" and int(second[0]) < 1 << 22:
            return None
        return int(first[0]) * self.columns >> 23

    def _more_repr(self) -> str:
        columns = f", columns={self.columns}" if self.columns else ""
        return f", mode={self.mode}, paths={self.paths}{columns}{super()._more_repr()}"
