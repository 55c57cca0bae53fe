"""Standout: a unit is kept with a probability that grows with its own activation."""

import math
from collections.abc import Callable

import torch
from torch import nn

from ...errors import DropkitTypeError, DropkitValueError
from ..arithmetic import continuous
from .base import Learned


class Standout(Learned):
    """An activation and its dropout in one, with a rate for every unit and every input; takes the pre-activation a.

        keep(a) = sigmoid(alpha a + beta),   y = m f(a) in training,   y = keep(a) f(a) otherwise

    m is Bernoulli with probability keep(a). The belief network shares the layer's weights, so the rate moves as they
    do; no gradient flows through keep(a). Evaluation is the expectation, not the identity, and m is not divided by
    keep(a), which depends on the input.

    Args:
        activation: f, a module or a function of a tensor.
        alpha: how much the activation decides; 0 is dropout at a constant rate.
        beta: larger keeps more: sigmoid(beta) at a = 0.
        when: "train", "always" or "never"; where the noise is off the expectation is returned.

    Shapes: any, output as input.

    Raises:
        DropkitTypeError, DropkitValueError: an activation that cannot be called; alpha or beta not finite; a bad when.

    Source: Ba and Frey 2013 (NeurIPS), "Adaptive dropout for training deep neural networks", algorithm 2.

    >>> layer = nn.Sequential(nn.Linear(4, 8), Standout())
    >>> layer(torch.randn(2, 4)).shape
    torch.Size([2, 8])
    """

    last_rate: torch.Tensor

    def __init__(
        self,
        activation: Callable[[torch.Tensor], torch.Tensor] | None = None,
        *,
        alpha: float = 1.0,
        beta: float = 0.0,
        when: str = "train",
    ) -> None:
        super().__init__(when)
        self.activation = nn.ReLU() if activation is None else activation
        if not callable(self.activation):
            raise DropkitTypeError(f"activation must be a module or a function of a tensor, got {activation!r}")
        for name, value in (("alpha", alpha), ("beta", beta)):
            if not math.isfinite(value):
                raise DropkitValueError(f"{name} must be finite, got {value!r}")
        self.alpha, self.beta = float(alpha), float(beta)
        self.register_buffer("last_rate", torch.sigmoid(torch.tensor(-self.beta)), persistent=False)

    def rate(self) -> torch.Tensor:
        """The mean drop probability of the last forward; that of a zero activation before the first."""
        return self.last_rate

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The activation with units dropped, or its expectation."""
        wide = input.detach().to(torch.promote_types(input.dtype, torch.float32))
        keep = torch.sigmoid(self.alpha * wide + self.beta)
        with torch.no_grad():
            self.last_rate.copy_(1 - keep.mean())
        y = self.activation(input)
        if not self.active:
            return y * keep.to(y.dtype)
        key, place = self.draw(input)
        return y * (continuous.uniform(key, place, input.device) < keep)

    def extra_repr(self) -> str:
        """alpha and beta."""
        return f"alpha={self.alpha}, beta={self.beta}"
