"""Learnable Bernoulli dropout: hard masks, whose rate gets its gradient from an estimator."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from ...errors import UnknownNameError
from ..arithmetic import continuous
from ..drawing import recomputation
from .base import warn_once
from .logit import Layer, LogitDropout

ESTIMATORS = ("disarm", "arm", "straight-through")


class Record(NamedTuple):
    """What the estimator needs of one call: its uniforms, of the noise shape."""

    u: torch.Tensor


class LearnableBernoulli(LogitDropout):
    """Dropout with hard masks and a learned rate: `y = x m / (1 - p)`, or `y = x m` without scaling.

    A hard mask has no derivative. "arm" and "disarm" are unbiased: each step runs the loss under two coupled masks,
    m = [u > p] and m~ = [u < 1 - p], by `antithetic_backward`. "straight-through" takes dm/dp = -1: one ordinary
    backward, and biased. With scaling, p also enters through 1 / (1 - p); that path-wise term is part of the
    gradient here, without it the estimate is wrong even in sign.

    Args:
        p: initial drop probability, in (0, 1).
        shape: of the logit, which broadcasts against the input: () one rate for the site, (D,) one for each of the
            last axis's units, (C, 1, 1) one for each channel of N x C x H x W.
        share: axes along which one draw is shared; (2, 3) drops whole channels.
        estimator: "disarm" (the least variance), "arm" or "straight-through".
        scale: divide by 1 - p in training (evaluation is the identity), or multiply by it in evaluation.
        clamp: bounds of p, such as (0.0, 0.5); at a bound the gradient passes only inwards.
        when: "train", "always" or "never".
        layer, inputs, length_scale: of the penalty, as `ConcreteDropout`.

    Shapes: any, output as input. Dtypes: floating.

    Raises:
        UnknownNameError: another estimator.
        DropkitValueError, DropkitTypeError: as `ConcreteDropout`.

    Source: Boluki et al. 2020 (AISTATS), "Learnable Bernoulli Dropout"; Yin and Zhou 2019 (ICLR), "ARM"; Dong, Mnih,
    Tucker 2020 (NeurIPS), "DisARM"; Bengio et al. 2013 (arXiv:1308.3432) for straight-through.

    >>> from torch import nn
    >>> from dropkit.torch.learned import antithetic_backward
    >>> model = nn.Sequential(LearnableBernoulli(0.3), nn.Linear(4, 1))
    >>> x = torch.randn(8, 4)
    >>> loss = antithetic_backward(model, lambda: model(x).squeeze(1) ** 2)
    >>> model[0].logit.grad.shape, model[1].weight.grad.shape
    (torch.Size([1]), torch.Size([1, 4]))
    """

    def __init__(
        self,
        p: float = 0.5,
        *,
        shape: Sequence[int] = (),
        share: Sequence[int] = (),
        estimator: str = "disarm",
        scale: bool = True,
        clamp: tuple[float, float] = (0.0, 1.0),
        when: str = "train",
        layer: Layer | Sequence[Layer] | None = None,
        inputs: int | None = None,
        length_scale: float = 1e-2,
    ) -> None:
        super().__init__(p, shape, share, clamp, when, layer, inputs, length_scale)
        if estimator not in ESTIMATORS:
            raise UnknownNameError("estimator", estimator, ESTIMATORS)
        self.estimator = estimator
        self.scale = bool(scale)
        self.second: bool | None = None  # which of two coupled passes is running; None outside them
        self.records: list[Record] = []  # of the first pass

    @property
    def coupled(self) -> bool:
        """Whether the rate's gradient takes two coupled passes.

        >>> LearnableBernoulli(estimator="straight-through").coupled
        False
        """
        return self.estimator != "straight-through"

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The input with elements dropped; in evaluation the input, times 1 - p where masks are not scaled."""
        logit = self.effective_logit()
        if not self.active:
            return input if self.scale else (input * torch.sigmoid(-logit)).to(input.dtype)
        key, place = self.draw(input, self.share)
        u = continuous.uniform(key, place, input.device)
        return (self._coupled(input, u, logit) if self.coupled else self._through(input, u, logit)).to(input.dtype)

    def _through(self, input: torch.Tensor, u: torch.Tensor, logit: torch.Tensor) -> torch.Tensor:
        p = torch.sigmoid(logit)
        keep = (u > p) + (p.detach() - p)
        return input * (keep * (1 + logit.exp()) if self.scale else keep)

    def _coupled(self, input: torch.Tensor, u: torch.Tensor, logit: torch.Tensor) -> torch.Tensor:
        if self.second is None:
            self._alone()
            logit = logit.detach()  # the path-wise term without the other one would be no gradient at all
        p = torch.sigmoid(logit.detach())
        keep = u < 1 - p if self.second else u > p
        if self.second is False and not recomputation.in_backward():
            self.records.append(Record(u))
        y = input * (1 + logit.exp()) if self.scale else input
        return torch.where(keep, y, 0)

    def _alone(self) -> None:
        if self.training and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            warn_once(
                "antithetic",
                f"a LearnableBernoulli with estimator={self.estimator!r} trains outside antithetic_backward, where its "
                "rate gets no gradient from the loss: use dropkit.torch.learned.antithetic_backward(model, losses), "
                "or estimator='straight-through'",
            )

    def _notice(self, x: torch.Tensor) -> None:
        if not self.second:  # the second pass may run without gradient, and is no forward of its own
            super()._notice(x)
