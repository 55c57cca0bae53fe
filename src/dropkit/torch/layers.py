"""Modules: torch's own classes, drawn by dropkit."""

from collections.abc import Sequence

import torch

from ..drop import Drop
from . import ops
from .coordinates import Site, draw_for
from .formula import Rate
from .replay import Draw


class Dropout(torch.nn.Dropout):
    """`torch.nn.Dropout` whose mask is a function of coordinates: `y = x * keep / (1 - p)` in training, x in eval.

    Args:
        p: drop probability in [0, 1]; may be assigned at any time.
        inplace: write into the input.
        share: axes along which one draw is shared; (2, 3) drops whole channels of N x C x H x W.
        when: "train" (only in training mode), "always" (Monte Carlo dropout) or "never".

    Shapes: any, output as input. Dtypes: float16, bfloat16, float32, float64.

    Raises:
        DropkitValueError, DropkitTypeError: p outside [0, 1], NaN or no number; a bad share or when.

    Unbound, it draws a key from torch's default generator at each forward (`torch.manual_seed` governs it); bound by
    `dropkit.torch.bind`, its mask follows from the model's seed, its module path and the step.

    Source: Srivastava et al. 2014 (JMLR 15:1929).

    >>> Dropout(0.3)
    Dropout(p=0.3, inplace=False)
    >>> Dropout(0.3, share=(2, 3))
    Dropout(p=0.3, inplace=False, share=(2, 3))
    """

    site: Site | None = None  # set by bind

    def __init__(
        self, p: float = 0.5, inplace: bool = False, *, share: Sequence[int] = (), when: str = "train"
    ) -> None:
        spec = Drop(p, share=share, when=when)
        super().__init__(p, inplace)
        self.share = spec.axes
        self.when = when

    @property
    def drop(self) -> Drop:
        """This dropout as a point on the four axes.

        >>> Dropout(0.3).drop.p()
        0.3
        """
        return Drop(self.p, share=self.share, when=self.when)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The input with elements dropped, or the input itself where nothing is dropped."""
        rate = ops.lower(input, self.p, self.active)
        return input if rate is None else ops.apply(input, rate, self._draw, self.share, self.inplace)

    @property
    def active(self) -> bool:
        """Whether a forward now would drop.

        >>> Dropout(0.3).eval().active, Dropout(0.3, when="always").eval().active
        (False, True)
        """
        return self.when == "always" or (self.training and self.when == "train")

    def _draw(self, rate: Rate) -> Draw:
        return draw_for(rate, site=self.site)

    def extra_repr(self) -> str:
        """torch's own, and the axes that torch does not have where they are set."""
        extra = super().extra_repr()
        if self.share:
            extra += f", share={self.share}"
        if self.when != "train":
            extra += f", when={self.when!r}"
        return extra
