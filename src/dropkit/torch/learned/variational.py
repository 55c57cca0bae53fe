"""Variational Gaussian dropout: multiplicative Gaussian noise whose variance alpha is learned."""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from ...axes.share import Share
from ...errors import DropkitValueError, UnknownNameError
from ..arithmetic import continuous
from .base import Learned, positive, sizes, widened
from .kl import kl as kl_of
from .logit import Clamp, Layer, fed_layers, input_count

PER = ("layer", "unit", "weight")


class _Alpha(Learned):
    """Abstract: ln alpha as a parameter, at most ln max_alpha; rate p = alpha / (1 + alpha)."""

    rate_names = ("log_alpha",)

    def __init__(self, alpha: float, shape: Sequence[int], max_alpha: float, kl: str, when: str) -> None:
        super().__init__(when)
        kl_of(kl)  # validates
        if not 0 < positive("alpha", alpha) <= positive("max_alpha", max_alpha):
            raise DropkitValueError(f"alpha must lie in (0, max_alpha], got alpha={alpha}, max_alpha={max_alpha}")
        if kl == "polynomial" and max_alpha > 1:
            raise DropkitValueError(
                f"the polynomial KL holds for alpha <= 1, got max_alpha={max_alpha}; take 'sigmoidal'"
            )
        self.max_alpha = float(max_alpha)
        self.kl = kl
        self.hold("log_alpha", torch.full(sizes(shape), alpha).log())

    log_alpha: nn.Parameter

    def effective_log_alpha(self) -> torch.Tensor:
        """ln alpha inside its bound."""
        return Clamp.apply(self.held("log_alpha"), -math.inf, math.log(self.max_alpha))

    def rate(self) -> torch.Tensor:
        """`alpha / (1 + alpha)`: the Bernoulli rate whose noise has the same variance."""
        return torch.sigmoid(self.effective_log_alpha())

    def bounds(self) -> tuple[float, float]:
        """0 and the rate of max_alpha."""
        return 0.0, self.max_alpha / (1 + self.max_alpha)


class VariationalGaussianDropout(_Alpha):
    """Gaussian dropout of activations with a learned variance: `y = x (1 + sqrt(alpha) e)`, e standard normal.

    Args:
        alpha: initial variance; p / (1 - p) for the variance of Bernoulli dropout at p.
        shape: of ln alpha, which broadcasts against the input: () one for the site, (D,) one for each unit.
        share: axes along which one draw is shared.
        max_alpha: upper bound; 1 is a rate of 1/2, past which the variational approximation is not trusted.
        kl: "polynomial" (the paper's), "sigmoidal" or "ard", see `dropkit.torch.learned.kl`.
        when: "train", "always" or "never".
        layer: the Linear or Conv layer, or layers, that this dropout feeds: for the number of its inputs.
        inputs: how many inputs get independent noise; the penalty is counted once for each of them.

    Shapes: any, output as input. Dtypes: floating; half types are computed in float32 and rounded once.

    Raises:
        DropkitValueError, UnknownNameError: alpha outside (0, max_alpha]; a polynomial KL past alpha = 1; a bad kl.

    Source: Kingma, Salimans, Welling 2015 (NeurIPS), section 3.2 (correlated weight noise).

    >>> drop = VariationalGaussianDropout(0.25, inputs=16)
    >>> round(drop.rate().item(), 3)
    0.2
    """

    def __init__(
        self,
        alpha: float = 0.5,
        *,
        shape: Sequence[int] = (),
        share: Sequence[int] = (),
        max_alpha: float = 1.0,
        kl: str = "polynomial",
        when: str = "train",
        layer: Layer | Sequence[Layer] | None = None,
        inputs: int | None = None,
    ) -> None:
        super().__init__(alpha, shape, max_alpha, kl, when)
        self.share = tuple(Share(share).axes)
        self.fed = fed_layers(layer)
        self.inputs = inputs

    def penalty(self) -> torch.Tensor:
        """The KL summed over the inputs, in nats.

        Raises:
            DropkitValueError: neither `layer` nor `inputs` was given.
        """
        log_alpha = self.effective_log_alpha()
        return kl_of(self.kl)(log_alpha).sum() * (input_count(self, self.inputs, self.fed) / log_alpha.numel())

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The input times the noise, or the input itself where no noise is on."""
        if not self.active:
            return input
        key, place = self.draw(input, self.share)
        e = continuous.normal(key, place, input.device).to(torch.promote_types(input.dtype, torch.float32))
        return (input * (1 + (self.effective_log_alpha() / 2).exp() * e)).to(input.dtype)


class VariationalLinear(_Alpha):
    """A Linear layer with weights N(theta, alpha theta^2), by local reparameterisation.

        y ~ N(x theta' + b, x^2 (alpha theta^2)')   in training;   y = x theta' + b   otherwise

    Args:
        in_features, out_features, bias: as `torch.nn.Linear`.
        alpha: initial variance ratio.
        per: "layer" (one alpha), "unit" (one for each input) or "weight".
        max_alpha, kl, when: as `VariationalGaussianDropout`.

    Shapes: (..., in_features) to (..., out_features).

    Raises:
        UnknownNameError, DropkitValueError: another `per`, kl or when; alpha outside (0, max_alpha].

    Source: Kingma, Salimans, Welling 2015 (NeurIPS), sections 2.3 and 3.1 (independent weight noise).

    >>> layer = VariationalLinear(8, 2, per="unit")
    >>> layer(torch.randn(3, 8)).shape, layer.rate().shape
    (torch.Size([3, 2]), torch.Size([8]))
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        alpha: float = 0.5,
        per: str = "layer",
        max_alpha: float = 1.0,
        kl: str = "polynomial",
        when: str = "train",
    ) -> None:
        if per not in PER:
            raise UnknownNameError("per", per, PER)
        shapes: dict[str, tuple[int, ...]] = {
            "layer": (),
            "unit": (in_features,),
            "weight": (out_features, in_features),
        }
        super().__init__(alpha, shapes[per], max_alpha, kl, when)
        self.in_features, self.out_features = in_features, out_features
        plain = nn.Linear(in_features, out_features, bias)
        self.weight = plain.weight
        self.register_parameter("bias", plain.bias)

    bias: nn.Parameter | None

    def penalty(self) -> torch.Tensor:
        """The KL summed over the weights, in nats."""
        log_alpha = self.effective_log_alpha()
        return kl_of(self.kl)(log_alpha).sum() * (self.weight.numel() / log_alpha.numel())

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """A draw of the output in training, its mean otherwise."""
        mean = functional.linear(input, self.weight, self.bias)
        if not self.active:
            return mean
        ratio = self.effective_log_alpha().exp()
        variance = functional.linear(input * input, (ratio * self.weight**2).to(self.weight.dtype))
        key, place = self.draw(mean)
        deviation = torch.sqrt(widened(variance) + 1e-8)  # 0 in float16
        return mean + (deviation * continuous.normal(key, place, input.device)).to(mean.dtype)

    def extra_repr(self) -> str:
        """As torch's Linear."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
