"""L0 regularisation with hard-concrete gates: a rate for each input that can end at exactly 0 or 1."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from ...axes.share import Share
from ...errors import DropkitTypeError, DropkitValueError
from ..arithmetic import continuous
from .base import Learned, positive, probability, sizes
from .logit import Clamp, Layer, fed_layers

LOW, HIGH = -0.1, 1.1  # gamma and zeta: how far the stretched gate reaches past 0 and 1
_BOUNDS = (math.log(1e-2), math.log(1e2))  # of ln alpha, as in the authors' code


class HardConcrete(Learned):
    """Gates in [0, 1] with mass at both ends, and a penalty on how many are open.

        v = sigmoid((logit(u) + ln a) / t),   z = clip(1.2 v - 0.1, 0, 1),   y = x z
        P(z > 0) = sigmoid(ln a - t ln(0.1 / 1.1)),   penalty = strength sum_j size_j P(z_j > 0)

    Evaluation takes the gate of `sigmoid(ln a)`: many are exactly 0, and their inputs can be cut out.

    Args:
        shape: of the gates, which broadcasts against the input: (D,) one for each of the last axis's units, (C, 1, 1)
            one for each channel.
        p: initial drop rate that sets ln a = ln((1 - p) / p), with normal noise of 0.01 from torch's generator.
        share: axes along which one draw is shared; (0,) takes one gate for the whole batch.
        strength: the penalty of one open weight, in nats for the whole data set.
        layer: the Linear or Conv layer that this feeds: a gate's size is the number of weights behind it; 1 without.
        temperature: t.
        when: "train", "always" or "never".

    Shapes: any, output as input. Dtypes: floating.

    Raises:
        DropkitValueError: p outside (0, 1), a strength or temperature that is not positive, a layer with another
            number of inputs than there are gates.

    Source: Louizos, Welling, Kingma 2018 (ICLR), "Learning Sparse Neural Networks through L0 Regularization".

    >>> gates = HardConcrete((16,), strength=0.1)
    >>> gates(torch.ones(2, 16)).shape, gates.eval().gate().shape
    (torch.Size([2, 16]), torch.Size([16]))
    """

    rate_names = ("log_alpha",)

    def __init__(
        self,
        shape: Sequence[int] = (),
        p: float = 0.5,
        *,
        share: Sequence[int] = (),
        strength: float = 1.0,
        layer: Layer | None = None,
        temperature: float = 2 / 3,
        when: str = "train",
    ) -> None:
        super().__init__(when)
        self.share = tuple(Share(share).axes)
        self.strength = positive("strength", strength)
        self.temperature = positive("temperature", temperature)
        middle = -math.log(probability("p", p)) + math.log1p(-p)
        self.hold("log_alpha", middle + 0.01 * torch.randn(sizes(shape)))
        self.size = 1
        if layer is not None:
            if len(fed_layers(layer)) != 1:
                raise DropkitTypeError(f"layer must be one Linear or Conv layer, got {layer!r}")
            inputs = layer.weight.shape[1] * getattr(layer, "groups", 1)
            if self.log_alpha.numel() != inputs:
                raise DropkitValueError(
                    f"{self.log_alpha.numel()} gates for the {inputs} inputs of {layer}: give one gate for each"
                )
            self.size = layer.weight.numel() // inputs

    log_alpha: nn.Parameter

    def effective_log_alpha(self) -> torch.Tensor:
        """ln a inside its bounds."""
        return Clamp.apply(self.held("log_alpha"), *_BOUNDS)

    def open(self) -> torch.Tensor:
        """`P(z > 0)` of every gate."""
        return torch.sigmoid(self.effective_log_alpha() - self.temperature * math.log(-LOW / HIGH))

    def rate(self) -> torch.Tensor:
        """`P(z = 0)` of every gate."""
        return 1 - self.open()

    def bounds(self) -> tuple[float, float]:
        """The rates at the bounds of ln a."""
        shift = self.temperature * math.log(-LOW / HIGH)
        low, high = (1 / (1 + math.exp(end - shift)) for end in _BOUNDS)
        return high, low

    def penalty(self) -> torch.Tensor:
        """`strength sum_j size_j P(z_j > 0)`: the expected number of open weights, weighed."""
        return self.strength * self.size * self.open().sum()

    def gate(self) -> torch.Tensor:
        """The gates of evaluation."""
        return _stretch(torch.sigmoid(self.effective_log_alpha()))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The input times the gates: drawn in training, fixed otherwise."""
        if not self.active:
            return (input * self.gate()).to(input.dtype)
        key, place = self.draw(input, self.share)
        u = continuous.uniform(key, place, input.device).to(torch.promote_types(input.dtype, torch.float32))
        v = torch.sigmoid((torch.log(u) - torch.log1p(-u) + self.effective_log_alpha()) / self.temperature)
        return (input * _stretch(v)).to(input.dtype)


def _stretch(v: torch.Tensor) -> torch.Tensor:
    return (v * (HIGH - LOW) + LOW).clamp(0, 1)
