"""Squares that are cut out of images."""

from typing import Any

import torch

from ...axes.noise import Fill
from ...drop import lower
from ...errors import DropkitTypeError, DropkitValueError
from ...place import Place, place_of
from ...threshold import threshold
from .. import ops
from ..arithmetic import continuous, laws, transforms
from ..depth.path import Depth
from ..drawing import ranks
from ..layers import as_leaf


class Cutout(Depth):
    """Set squares of an image to 0 while training, in all channels: their centres are pixels, each as likely.

    A square whose centre is near the border is clipped there, so that less is cut, as published. Nothing is rescaled;
    in evaluation images stay whole. Stands on images that are normalised, so that 0 is their mean.

    Args:
        length: side of a square in pixels, from `length // 2` before its centre on.
        n_holes: squares of an image; they may overlap.
        p: probability that an image is cut at all, each by itself; 1.0 is the published form. It is no share of pixels.
        when: "train", "always" or "never".

    Shapes: N x C x H x W, output as input. Dtypes: float16, bfloat16, float32, float64.

    Raises:
        DropkitValueError, DropkitTypeError: p outside [0, 1], NaN or no number; a length or a number of squares that is
            no whole number of at least 1; an input of other than four axes, or one that is a part of larger images.

    Of the numbers `dropkit.uniform((N, 1 + 2 n_holes), key)` the first says whether an image is cut, u >= 1 - p, and
    two say where each square is, row `floor(u H)` and column `floor(u W)`.

    Source: DeVries and Taylor 2017 (arXiv:1708.04552): side 16 on CIFAR-10, 8 on CIFAR-100.

    >>> int((Cutout(3, p=1.0)(torch.ones(1, 2, 1, 9))[0, 0] == 0).sum()) in (2, 3)
    True
    """

    law_known = shows_mask = False  # p is of images
    takes_out = "square"

    def __init__(self, length: int, n_holes: int = 1, p: float = 0.5, *, when: str = "train") -> None:
        super().__init__(p, when=when)
        self.length, self.n_holes = _at_least_one("length", length), _at_least_one("n_holes", n_holes)
        self.noise = Fill(0.0)
        self.p = p

    def mask_shape(self, input: torch.Tensor) -> tuple[int, ...]:
        """One for each pixel of an image, for all channels."""
        return (input.shape[0], 1, *input.shape[2:])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The images, some of them with squares of 0."""
        if isinstance(x, torch.fx.Proxy):
            return as_leaf(self, x)
        if x.dim() != 4:
            raise DropkitValueError(f"Cutout takes images, N x C x H x W, got shape {tuple(x.shape)}")
        if not self.active:
            return x
        compiling = torch.compiler.is_compiling() and not torch.compiler.is_exporting()
        lowered = laws.lowered_at(self.noise, self._rate) if compiling else lower(self.noise, threshold(self._p))
        if lowered is None or not ops.droppable(x, lowered):
            return x
        q = 1 - self._rate.to(x.device)
        u = self._numbers_of(x, lowered)
        hole = torch.zeros(1, dtype=torch.bool, device=x.device)
        for number in range(self.n_holes):
            rows, columns = (self._inside(u[:, 2 * number + 1 + axis], x.shape[2 + axis]) for axis in (0, 1))
            hole = hole | (rows[:, :, None] & columns[:, None, :])
        return x.masked_fill((hole & (u[:, 0] >= q)[:, None, None])[:, None], 0)

    def _numbers_of(self, x: torch.Tensor, lowered: Any) -> torch.Tensor:
        """The keyed numbers of each image."""
        if ranks.several() and self.site is not None:
            self.site.seen(x)
        draw, count = self.fresh(lowered), 1 + 2 * self.n_holes
        if not draw.part.whole and draw.part.in_whole(x.shape)[1][2:] != tuple(x.shape[2:]):
            raise DropkitValueError(f"Cutout needs whole images, got a part of {tuple(x.shape)}: gather them before")
        rows = place_of(x.shape, (1, 2, 3), draw.part)
        place = Place((x.shape[0], count), (count, 1), rows.base * count, rows.rows)
        if torch._C._are_functorch_transforms_active():
            place = transforms.told_apart(place, draw.key)
        return continuous.uniform(draw.key, place, x.device)

    def _inside(self, u: torch.Tensor, size: int) -> torch.Tensor:
        """Which of so many rows or columns lie in a square, for each image."""
        first = (u * size).long().clamp(max=size - 1)[:, None] - self.length // 2
        here = torch.arange(size, device=u.device)
        return (here >= first) & (here < first + self.length)

    def _more_repr(self) -> str:
        return f", length={self.length}, n_holes={self.n_holes}{super()._more_repr()}"


def _at_least_one(name: str, value: Any) -> int:
    if type(value) is not int:
        raise DropkitTypeError(f"{name} must be a whole number, got {value!r}")
    if value < 1:
        raise DropkitValueError(f"{name} must be at least 1, got {value}")
    return value
