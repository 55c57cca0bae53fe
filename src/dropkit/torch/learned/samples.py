"""Whether the n of `regularizer` can be the number of samples in the data set: it cannot if a model sees more."""

import weakref
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from .base import Learned, warn_once

_FORWARDS = 8  # after which the count is taken to be right: as many batches show a number of batches, or a batch's size


def watch(model: nn.Module, sites: list[Learned], n: int) -> None:
    """Count different samples in the next forwards of a model whose n is that of a few batches.

    Warns:
        UserWarning: once, if there were more than n.
    """
    seen = _watches.get(model)
    if seen is None:
        if n >= _FORWARDS * max(site.batch for site in sites):
            return  # the count would end before it could show anything
        seen = _watches[model] = Samples(model)
    if len(seen.samples) > n:
        seen.end()
        warn_once(
            "samples",
            f"regularizer(model, n={n}), but the model has been given {len(seen.samples)} different samples (rows of "
            "its input) already: n is the number of samples in the data set, len(data), not the size of a batch or the "
            "number of batches; a penalty divided by too small a number drives rates up",
        )


class Samples:
    """The different rows that a model is given in its next training forwards.

    A row is told from others by two sums over it, so that the data need not be kept. The input is that of whatever
    part of the model is called first.
    """

    def __init__(self, model: nn.Module) -> None:
        self.samples: set[tuple[str, str]] = set()
        self.left = _FORWARDS
        self.first: weakref.ref[nn.Module] | None = None
        self.hooks = [part.register_forward_pre_hook(self._see, with_kwargs=True) for part in model.modules()]

    def __reduce__(self) -> Any:
        return _ended, ()  # a copy of the model watches nothing

    def _see(self, part: nn.Module, args: Any, kwargs: Any) -> None:
        if torch.compiler.is_compiling() or not (self.left and part.training and torch.is_grad_enabled()):
            return
        if self.first is None:
            self.first = weakref.ref(part)
        if self.first() is not part:
            return
        tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if tensors and tensors[0].dim():
            self.samples.update(_told(tensors[0]))
        self.left -= 1
        if not self.left:
            self.end()

    def end(self) -> None:
        """Look no more."""
        for hook in self.hooks:
            hook.remove()
        self.left, self.hooks = 0, []


def _ended() -> Samples:
    seen = Samples(nn.Identity())
    seen.end()
    return seen


def _told(x: torch.Tensor) -> list[tuple[str, str]]:
    """Two numbers for each row, the same for the same row, to ten digits, wherever it lies in whatever batch."""
    with torch.no_grad():
        rows = x.detach().reshape(len(x), -1).double()
        weights = torch.arange(1, rows.shape[1] + 1, dtype=torch.float64, device=rows.device).sqrt()
        sums = zip(rows.sum(1).tolist(), (rows * weights).sum(1).tolist(), strict=True)
        return [(f"{plain:.10g}", f"{weighed:.10g}") for plain, weighed in sums]


_watches: "weakref.WeakKeyDictionary[nn.Module, Samples]" = weakref.WeakKeyDictionary()
