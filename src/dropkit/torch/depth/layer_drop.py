"""Layers that are left out whole."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn

from ...axes.noise import Fill
from ...axes.rate import exponential_in_depth, linear_in_depth, uniform_in_depth
from ...drop import Lowered, lower
from ...errors import DropkitTypeError, DropkitValueError, UnknownNameError
from ...threshold import ONE, threshold
from ..drawing import ranks
from ..layers import as_leaf
from . import decided, running
from .path import Depth, checked_mode, of_samples
from .rows import Rows, checked_names, checked_output

DEPTHS = {"uniform": uniform_in_depth, "linear": linear_in_depth, "exponential": exponential_in_depth}


class LayerDrop(nn.Sequential, Depth):
    """Layers one after the other, each left out with probability p and then not computed: `x = layer(x) if m else x`.

    Runs like an `nn.Sequential`, with its paths and keys. Nothing is rescaled, in training or evaluation, as published,
    so that single layers can be pruned afterwards. All decisions of a forward are bits of one mask, `dropkit.keep` of
    shape (layers,), or of (samples, layers) in mode "row", and known before anything runs.

    Args:
        layers: modules, each called with the output of the one before and with all further arguments.
        p: drop probability in [0, 1]; may be assigned at any time.
        mode: "batch", a layer runs for all samples or for none, as in the paper; "row", each sample leaves layers out
            by itself, and a layer runs on the rows that are kept.
        depth: "uniform", all layers have p, or "linear", layer l of L has l/L of it; "exponential", it has
            2^((l - 1) / (L - 1)) - 1 of it.
        scale: rescale what a kept layer adds, `x + (layer(x) - x) / (1 - p)`, so that the mean stays.
        by_row: in mode "row", names of keyword arguments that hold one row for each sample: they are gathered too.
        when: "train", "always" or "never".

    Progressive layer dropping is `LayerDrop(layers, 0.0, depth="linear", scale=True)` with
    `dropkit.torch.Schedule(model, {"encoder": dropkit.rates.ProgressiveLayerDrop()})`; LayerSkip's curriculum is
    `LayerDrop(layers, 0.0, "row", depth="exponential")` with `dropkit.rates.LayerSkip(0.1, steps)`.

    Raises:
        DropkitValueError, DropkitTypeError: p outside [0, 1], NaN or no number; no layers; another mode or depth. When
            it runs, a layer whose output is no tensor of the shape of its input.
        DropkitRuntimeError: in a CUDA graph, under vmap over models, or exported in training.

    On several processes mode "batch" decides alike everywhere. A layer that was left out has no gradients, so
    DistributedDataParallel needs `find_unused_parameters=True`.

    Source: Fan, Grave and Joulin 2020 (arXiv:1909.11556), p = 0.2; "linear" and scale: Zhang and He 2020
    (arXiv:2010.13369); "exponential": Elhoushi et al. 2024 (arXiv:2404.16710).

    >>> encoder = LayerDrop([nn.Linear(4, 4) for _ in range(3)], 0.2)
    >>> encoder(torch.ones(2, 4)).shape, list(encoder.state_dict())[:2]
    (torch.Size([2, 4]), ['0.weight', '0.bias'])
    """

    decides = True
    law_known = shows_mask = False  # a dropped layer gives x, not 0

    def __init__(
        self,
        layers: Iterable[nn.Module],
        p: float = 0.2,
        mode: str = "batch",
        *,
        depth: str = "uniform",
        scale: bool = False,
        by_row: Iterable[str] = (),
        when: str = "train",
    ) -> None:
        held = list(layers.children()) if isinstance(layers, nn.Module) else list(layers)
        if not held or not all(isinstance(layer, nn.Module) for layer in held):
            raise DropkitTypeError(f"layers must be torch.nn.Modules, one at least, got {held!r}")
        if depth not in DEPTHS:
            raise UnknownNameError("depth", str(depth), tuple(DEPTHS))
        Depth.__init__(self, p, when=when)
        self.mode, self.depth, self.by_row = checked_mode(mode), depth, checked_names(by_row)
        self.scale = bool(scale)
        self.noise = Fill(0.0)
        self.p = p
        for number, layer in enumerate(held):
            self.add_module(str(number), layer)

    def mask_shape(self, input: torch.Tensor) -> tuple[int, ...]:
        """One bit for each layer, or for each sample and layer."""
        return of_samples(input, self.mode, len(self))

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """What the layers that are kept make of x."""
        if isinstance(x, torch.fx.Proxy):
            return as_leaf(self, x, *args, **kwargs)
        if self.active:
            return self._run(x, args, kwargs)
        for layer in self:
            x = layer(x, *args, **kwargs)
        return x

    def rates(self) -> list[float]:
        """The present drop probability of each layer.

        >>> LayerDrop([nn.Identity(), nn.Identity()], 0.5, depth="linear").rates()
        [0.25, 0.5]
        """
        return [rate.at(0) for rate in DEPTHS[self.depth](self._p, len(self))]

    def kept(self) -> list[nn.Module]:
        """The layers that run in this forward, for a loop by hand; all of them where nothing is dropped.

        Raises:
            DropkitValueError: in mode "row", where no list of layers says who runs.

        >>> [type(layer).__name__ for layer in LayerDrop([nn.Identity()], 0.5).eval().kept()]
        ['Identity']
        """
        if self.mode == "row":
            raise DropkitValueError("kept() is for mode='batch': in mode 'row' each sample has layers of its own")
        if not self.active:
            return list(self)
        return self._kept()

    @running.outside_graphs
    def _kept(compiler: Any, self: "LayerDrop") -> list[nn.Module]:
        laws, draw = self._drawn()
        return [layer for n, (layer, law) in enumerate(zip(self, laws, strict=True)) if self._runs(draw, law, n)]

    @running.outside_graphs
    def _run(compiler: Any, self: "LayerDrop", x: Any, args: Any, kwargs: Any) -> Any:
        if self.mode == "row" and ranks.several() and self.site is not None:
            self.site.seen(x)
        laws, draw = self._drawn()
        for n, (layer, law) in enumerate(zip(self, laws, strict=True)):
            factor = ONE / law.t if self.scale and law is not None and law.t else 1.0
            if self.mode == "row":
                rows = self._rows(x, draw, law, n)
                if not rows.none:
                    x = rows.replaced(x, rows.run(compiler, layer, x, args, kwargs), factor)
            elif self._runs(draw, law, n):
                y = running.call(compiler, layer, (x, *args), kwargs)
                checked_output(layer, x, y)
                x = y if factor == 1.0 else x + (y - x) * factor
        return x

    def _rows(self, x: torch.Tensor, draw: Any, law: Lowered | None, number: int) -> Rows:
        """Whose samples a layer keeps: entry (sample, layer) of a mask of all samples and layers."""
        numbers = decided.rows_of(x, draw.part)
        index = numbers * np.uint64(len(self)) + np.uint64(number)
        return Rows(numbers, decided.kept(draw, law, index), self.by_row)

    def _drawn(self) -> tuple[list[Lowered | None], Any]:
        """Each layer's law at its rate, and the draw for all of them."""
        laws = [lower(self.noise, threshold(p)) for p in self.rates()]
        draw = decided.drawn(self, laws)
        return list(draw.lowered), draw  # in a forward that is run again, those of the first time

    @staticmethod
    def _runs(draw: Any, law: Lowered | None, number: int) -> bool:
        return bool(decided.kept(draw, law, np.full(1, number, np.uint64))[0])

    def _more_repr(self) -> str:
        depth = "" if self.depth == "uniform" else f", depth={self.depth}"
        scale = ", scale=True" if self.scale else ""
        return f", mode={self.mode}{depth}{scale}{super()._more_repr()}"


def every_other(layers: nn.Module, keep: int) -> nn.Sequential:
    """What is left of a stack that was trained with LayerDrop, pruned evenly to `keep` layers: "every other" of them.

    Layer d of L goes where `floor((d + 1) (L - keep) / L)` grows: for half of the layers, every second one.

    Args:
        layers: a `LayerDrop`, `nn.Sequential` or `nn.ModuleList`.
        keep: how many layers stay, from 1 to all.

    Returns:
        The layers that stay, the same modules, one after the other.

    Raises:
        DropkitValueError: keep is no whole number from 1 to the number of layers.

    Source: Fan, Grave and Joulin 2020 (arXiv:1909.11556), section 3.2.

    >>> len(every_other(LayerDrop([nn.Identity() for _ in range(12)]), 6))
    6
    """
    held = list(layers.children())
    total = len(held)
    if type(keep) is not int or not 1 <= keep <= total:
        raise DropkitValueError(f"keep must be a whole number from 1 to {total}, got {keep!r}")
    gone = [(d + 1) * (total - keep) // total - d * (total - keep) // total for d in range(total)]
    return nn.Sequential(*[layer for layer, out in zip(held, gone, strict=True) if not out])
