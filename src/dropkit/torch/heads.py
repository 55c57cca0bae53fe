"""Heads and losses that need several masks of one input."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..errors import DropkitTypeError, DropkitValueError
from .depth.path import Depth
from .layers import as_leaf


class MultiSampleDropout(Depth):
    """A head behind several masks of one input: the trunk runs once, the head, with its one set of weights, for each.

    `loss(criterion, x, *targets)` is the paper's, the mean of the losses of all masks; a call gives the mean of their
    outputs, which is another thing where a loss is not linear. In evaluation the head runs once, without a mask.

    Args:
        head: what runs behind each mask, called with x and all further arguments.
        p: drop probability in [0, 1]; may be assigned at any time.
        samples: how many masks, at least 1.
        when: "train", "always" or "never".

    The masks are those of the site's first call, of "name#1", ...

    Raises:
        DropkitValueError, DropkitTypeError: p outside [0, 1], NaN or no number; a head that is no module; samples that
            are no whole number of at least 1.

    Source: Inoue 2019 (arXiv:1905.09788), which takes 8 and more.

    >>> head = MultiSampleDropout(nn.Linear(8, 3), 0.5, samples=4)
    >>> x, target = torch.ones(2, 8), torch.tensor([0, 2])
    >>> head(x).shape, head.each(x).shape, head.loss(F.cross_entropy, x, target).shape
    (torch.Size([2, 3]), torch.Size([4, 2, 3]), torch.Size([]))
    """

    shows_mask = False  # its output is the head's

    def __init__(self, head: nn.Module, p: float = 0.5, samples: int = 8, *, when: str = "train") -> None:
        super().__init__(p, when=when)
        if not isinstance(head, nn.Module):
            raise DropkitTypeError(f"head must be a torch.nn.Module, got {head!r}")
        if type(samples) is not int or samples < 1:
            raise DropkitValueError(f"samples must be a whole number of at least 1, got {samples!r}")
        self.head, self.samples = head, samples

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The mean of what the head makes of x under each mask."""
        if isinstance(x, torch.fx.Proxy):
            return as_leaf(self, x, *args, **kwargs)
        return self.each(x, *args, **kwargs).mean(0) if self.active else self.head(x, *args, **kwargs)

    def each(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """What the head makes of x under each mask, stacked; in evaluation one entry."""
        number = self.samples if self.active else 1
        return torch.stack([self.head(self._dropped(x, ()), *args, **kwargs) for _ in range(number)])

    def loss(self, criterion: Callable[..., torch.Tensor], x: torch.Tensor, *targets: Any) -> torch.Tensor:
        """The mean over masks of `criterion(head(x), *targets)`, the paper's loss."""
        return torch.stack([criterion(output, *targets) for output in self.each(x)]).mean(0)

    def _more_repr(self) -> str:
        return f", samples={self.samples}{super()._more_repr()}"


def r_drop_loss(
    first: torch.Tensor,
    second: torch.Tensor,
    target: torch.Tensor,
    alpha: float = 1.0,
    *,
    halved: bool = False,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """R-Drop: `CE(a) + CE(b) + alpha / 2 (KL(a || b) + KL(b || a))` of two passes with masks of their own.

    Both terms are means over the positions whose target counts, which is what the paper writes; gradients flow through
    both sides. The authors' scripts differ: sums over tokens (fairseq), a summed KL beside a mean loss (ViT, without
    the 1/2), and the halved cross entropies of their README, which make alpha twice as strong: `halved=True`.

    Args:
        first, second: logits of the two passes, N x C x anything, as `torch.nn.functional.cross_entropy` takes them.
        target: numbers of classes, N x anything.
        alpha: weight of the divergence; the paper has 5 for translation, 1 for language models, 0.5 to 1 for
            fine-tuned encoders, 0.6 for ViT.
        halved: `(CE(a) + CE(b)) / 2` for their sum.
        ignore_index: target of positions that count in neither term, as padding.
        label_smoothing: of the cross entropies.

    Returns:
        A scalar in single precision, or in double for such logits; without a divergence at p = 0.

    Raises:
        DropkitValueError: two shapes; an alpha that is negative or not finite.

    Source: Liang et al. 2021 (arXiv:2106.14448), equations 3 and 4.

    >>> logits, target = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    >>> bool(torch.isclose(r_drop_loss(logits, logits, target), 2 * F.cross_entropy(logits, target)))
    True
    """
    _check(first, second, "alpha", alpha)
    a, b = _logs(first), _logs(second)
    how: dict[str, Any] = {"ignore_index": ignore_index, "label_smoothing": label_smoothing}
    entropy = F.cross_entropy(a, target, **how) + F.cross_entropy(b, target, **how)
    # (KL(a || b) + KL(b || a)) is one product; minus infinity on both sides adds nothing.
    difference = torch.where(a == b, torch.zeros_like(a), a - b)
    both = ((a.exp() - b.exp()) * difference).sum(1)
    return entropy * (0.5 if halved else 1.0) + alpha / 2 * _mean(both, target, ignore_index)


def fraternal_loss(
    first: torch.Tensor,
    second: torch.Tensor,
    target: torch.Tensor,
    kappa: float = 0.15,
    *,
    ignore_index: int = -100,
) -> torch.Tensor:
    """Fraternal dropout: `(CE(a) + CE(b)) / 2 + kappa mean((a - b)^2)` of the logits of two passes with two masks.

    The mean is over classes and over the positions whose target counts; its expectation is 2 kappa times the variance
    of a logit over masks. Gradients flow through both passes.

    Args:
        first, second: logits of the two passes, N x C x anything.
        target: numbers of classes, N x anything.
        kappa: weight of the difference; 0.15 in the paper.
        ignore_index: target of positions that count in neither term.

    Returns:
        A scalar in single precision, or in double for such logits.

    Raises:
        DropkitValueError: two shapes; a kappa that is negative or not finite.

    Source: Zolna et al. 2018 (arXiv:1711.00066).

    >>> a, b, target = torch.zeros(1, 2), torch.tensor([[2.0, 2.0]]), torch.tensor([0])
    >>> round(float(fraternal_loss(a, b, target) - F.cross_entropy(a, target)), 6)  # 0.15 x 4
    0.6
    """
    _check(first, second, "kappa", kappa)
    a, b = (logits.to(torch.promote_types(logits.dtype, torch.float32)) for logits in (first, second))
    entropy = F.cross_entropy(a, target, ignore_index=ignore_index) + F.cross_entropy(
        b, target, ignore_index=ignore_index
    )
    return entropy / 2 + kappa * _mean((a - b).square().mean(1), target, ignore_index)


def _check(first: torch.Tensor, second: torch.Tensor, name: str, weight: float) -> None:
    if first.shape != second.shape or first.dim() < 2:
        raise DropkitValueError(
            f"two passes give logits of one shape, N x C x anything, got {tuple(first.shape)} and {tuple(second.shape)}"
        )
    if not 0 <= weight < float("inf"):
        raise DropkitValueError(f"{name} must be a finite number of at least 0, got {weight!r}")


def _logs(logits: torch.Tensor) -> torch.Tensor:
    return F.log_softmax(logits, 1, dtype=torch.promote_types(logits.dtype, torch.float32))


def _mean(each: torch.Tensor, target: torch.Tensor, ignore_index: int) -> torch.Tensor:
    """The mean over the positions whose target counts."""
    counts = target != ignore_index if not target.is_floating_point() else torch.ones_like(each, dtype=torch.bool)
    return torch.where(counts, each, torch.zeros_like(each)).sum() / counts.sum()
