"""Concrete dropout: a relaxed mask through which the rate gets an ordinary gradient."""

from collections.abc import Sequence

import torch

from ..arithmetic import continuous
from .base import positive
from .logit import Layer, LogitDropout


class ConcreteDropout(LogitDropout):
    """Dropout whose rate is learned by gradient through a relaxed mask.

        d = sigmoid((logit(p) + logit(u)) / t),   y = x (1 - d) / (1 - p)

    The gradient in p flows through the gate d, through 1 / (1 - p), and through `regularizer`. P(d > 1/2) = p for any
    temperature; E[1 - d] is 1 - p only for p = 1/2, so a deterministic evaluation sees activations about 0.1 % larger
    (t = 0.1, p = 0.1) or 5 % larger (t = 2/3) than training.

    Args:
        p: initial drop probability, in (0, 1).
        shape: of the logit, which broadcasts against the input: () one rate for the site, (D,) one for each of the
            last axis's units, (C, 1, 1) one for each channel of N x C x H x W.
        share: axes along which one draw is shared; (2, 3) relaxes whole channels.
        temperature: t, above 0.
        clamp: bounds of p, such as (0.0, 0.5); at a bound the gradient passes only inwards.
        when: "train", "always" (Monte Carlo dropout: the paper's own evaluation) or "never".
        layer: the Linear or Conv layer, or layers, that this dropout feeds: for the penalty.
        inputs: how many inputs are dropped independently, if not the layer's fan-in or channels in.
        length_scale: the prior's l in `l^2/2 ||W||^2 / (1 - p)`.

    Shapes: any, output as input. Dtypes: floating; half types are computed in float32 and rounded once.

    Raises:
        DropkitValueError, DropkitTypeError: p outside (0, 1) or outside clamp, bounds out of order, a temperature or
            length scale that is not positive, a layer that is no Linear or Conv.

    Source: Gal, Hron, Kendall 2017 (NeurIPS), "Concrete Dropout".

    >>> from torch import nn
    >>> from dropkit.torch.learned import regularizer
    >>> head = nn.Linear(16, 1)
    >>> model = nn.Sequential(ConcreteDropout(0.1, layer=head), head)
    >>> loss = model(torch.randn(8, 16)).pow(2).mean() + regularizer(model, n=1000)
    >>> loss.backward()
    >>> model[0].logit.grad.shape
    torch.Size([1])
    """

    def __init__(
        self,
        p: float = 0.1,
        *,
        shape: Sequence[int] = (),
        share: Sequence[int] = (),
        temperature: float = 0.1,
        clamp: tuple[float, float] = (0.0, 1.0),
        when: str = "train",
        layer: Layer | Sequence[Layer] | None = None,
        inputs: int | None = None,
        length_scale: float = 1e-2,
    ) -> None:
        super().__init__(p, shape, share, clamp, when, layer, inputs, length_scale)
        self.temperature = positive("temperature", temperature)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The input times the relaxed mask, or the input itself where no noise is on."""
        if not self.active:
            return input
        key, place = self.draw(input, self.share)
        u = continuous.uniform(key, place, input.device).to(torch.promote_types(input.dtype, torch.float32))
        logit = self.effective_logit()
        keep = torch.sigmoid(-(logit + torch.log(u) - torch.log1p(-u)) / self.temperature)
        return (input * (keep * (1 + logit.exp()))).to(input.dtype)  # 1 / (1 - p) = 1 + exp(logit)


class SpatialConcreteDropout(ConcreteDropout):
    """Concrete dropout of whole channels of N x C x H x W: one draw for all of `share`, temperature 2/3.

    Arguments, shapes and errors are those of `ConcreteDropout`.

    Source: Gal, Hron, Kendall 2017 (NeurIPS) and the authors' code.

    >>> from torch import nn
    >>> conv = nn.Conv2d(3, 8, 3)
    >>> SpatialConcreteDropout(0.2, layer=conv)
    SpatialConcreteDropout(p=0.2, share=(2, 3))
    """

    def __init__(
        self,
        p: float = 0.1,
        *,
        shape: Sequence[int] = (),
        share: Sequence[int] = (2, 3),
        temperature: float = 2 / 3,
        clamp: tuple[float, float] = (0.0, 1.0),
        when: str = "train",
        layer: Layer | Sequence[Layer] | None = None,
        inputs: int | None = None,
        length_scale: float = 1e-2,
    ) -> None:
        super().__init__(
            p,
            shape=shape,
            share=share,
            temperature=temperature,
            clamp=clamp,
            when=when,
            layer=layer,
            inputs=inputs,
            length_scale=length_scale,
        )
