"""Sparse variational dropout: a Gaussian dropout rate for each weight, learned so high that most weights can go."""

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ..arithmetic import continuous
from .base import Learned, outside, widened
from .kl import kl

THRESHOLD = 3.0  # ln alpha from which a weight counts as noise: a Bernoulli rate of 0.95
_LIMIT = 10.0  # |ln alpha| past which the KL is taken as flat


class SparseLayer(Learned):
    """Abstract: weights N(theta, sigma^2) with sigma^2 a parameter of its own, so that its gradient has little noise.

        ln alpha = ln sigma^2 - ln theta^2,   rate = alpha / (1 + alpha)

    Where noise is off the weights with ln alpha >= threshold are taken as 0.
    """

    rate_names = ("log_sigma2",)
    weight: nn.Parameter
    log_sigma2: nn.Parameter
    bias: nn.Parameter | None

    def _start(self, shape: tuple[int, ...], bias: bool, log_sigma2: float, kl_kind: str, threshold: float) -> None:
        self.kl = kl_kind
        kl(kl_kind)  # validates
        self.threshold = float(threshold)
        self.weight = nn.Parameter(torch.empty(shape))
        self.hold("log_sigma2", torch.full(shape, float(log_sigma2)))
        self.register_parameter("bias", nn.Parameter(torch.zeros(shape[0])) if bias else None)
        bound = 1 / math.sqrt(math.prod(shape[1:]))  # as torch's own Linear and Conv
        nn.init.uniform_(self.weight, -bound, bound)

    def log_alpha(self) -> torch.Tensor:
        """ln alpha of every weight, of the weight's shape."""
        weight = widened(outside(self.weight))
        return widened(outside(self.log_sigma2)) - 2 * torch.log(weight.abs() + 1e-16)

    def rate(self) -> torch.Tensor:
        """`alpha / (1 + alpha)` of every weight."""
        return torch.sigmoid(self.log_alpha())

    def penalty(self) -> torch.Tensor:
        """The KL summed over the weights, in nats."""
        return kl(self.kl)(self.log_alpha().clamp(-_LIMIT, _LIMIT)).sum()

    def kept(self, threshold: float | None = None) -> torch.Tensor:
        """Which weights stay: `ln alpha < threshold`, bool of the weight's shape."""
        return self.log_alpha() < (self.threshold if threshold is None else threshold)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """`N(mean, variance)` of the noisy weights' output in training; the thresholded weights' output otherwise."""
        if not self.active:
            return self._map(input, self.weight * self.kept(), self.bias)
        mean = self._map(input, self.weight, self.bias)
        # Local reparameterisation: the output's own noise, independent for each sample, instead of the weights'.
        variance = widened(self.log_sigma2).exp().to(self.weight.dtype)
        deviation = torch.sqrt(widened(self._map(input * input, variance, None)) + 1e-8)  # 0 in float16
        key, place = self.draw(mean)
        return mean + (deviation * continuous.normal(key, place, input.device)).to(mean.dtype)

    def _map(self, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        raise NotImplementedError


class SparseVariationalLinear(SparseLayer):
    """A Linear layer whose weights have each their own Gaussian dropout rate; most rates go to 1 in training.

        y ~ N(x theta' + b, x^2 (sigma^2)')        in training, by local reparameterisation
        y = x (theta [ln alpha < threshold])' + b   otherwise

    Args:
        in_features, out_features, bias: as `torch.nn.Linear`.
        log_sigma2: initial ln sigma^2.
        threshold: ln alpha from which a weight is taken as 0.
        kl: "sigmoidal" (the paper's), "ard" or "polynomial", see `dropkit.torch.learned.kl`.
        when: "train", "always" or "never".

    Shapes: (..., in_features) to (..., out_features).

    Raises:
        UnknownNameError, DropkitValueError: another kl or when.

    Source: Molchanov, Ashukha, Vetrov 2017 (ICML), "Variational Dropout Sparsifies Deep Neural Networks".

    >>> layer = SparseVariationalLinear(784, 300)
    >>> layer(torch.randn(2, 784)).shape, layer.kept().shape
    (torch.Size([2, 300]), torch.Size([300, 784]))
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        log_sigma2: float = -10.0,
        threshold: float = THRESHOLD,
        kl: str = "sigmoidal",
        when: str = "train",
    ) -> None:
        super().__init__(when)
        self.in_features, self.out_features = in_features, out_features
        self._start((out_features, in_features), bias, log_sigma2, kl, threshold)

    def _map(self, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return functional.linear(input, weight, bias)

    def dense(self, threshold: float | None = None) -> nn.Linear:
        """A plain Linear with the weights that stay, 0 elsewhere.

        >>> SparseVariationalLinear(4, 2).dense()
        Linear(in_features=4, out_features=2, bias=True)
        """
        plain = nn.Linear(self.in_features, self.out_features, self.bias is not None)
        return _filled(plain, self, threshold)

    def extra_repr(self) -> str:
        """As torch's Linear."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class SparseVariationalConv2d(SparseLayer):
    """A Conv2d layer whose weights have each their own Gaussian dropout rate; as `SparseVariationalLinear`.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias: as `torch.nn.Conv2d`, zeros
            as padding.
        log_sigma2, threshold, kl, when: as `SparseVariationalLinear`.

    Shapes: those of `torch.nn.Conv2d`.

    Source: Molchanov, Ashukha, Vetrov 2017 (ICML).

    >>> SparseVariationalConv2d(3, 8, 3, padding=1)(torch.randn(2, 3, 5, 5)).shape
    torch.Size([2, 8, 5, 5])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: str | int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        log_sigma2: float = -10.0,
        threshold: float = THRESHOLD,
        kl: str = "sigmoidal",
        when: str = "train",
    ) -> None:
        super().__init__(when)
        with torch.random.fork_rng(devices=[]):  # its weights are not ours
            plain = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        self.settings: dict[str, Any] = {
            name: getattr(plain, name) for name in ("stride", "padding", "dilation", "groups")
        }
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, plain.kernel_size
        self._start(tuple(plain.weight.shape), bias, log_sigma2, kl, threshold)

    def _map(self, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return functional.conv2d(input, weight, bias, **self.settings)

    def dense(self, threshold: float | None = None) -> nn.Conv2d:
        """A plain Conv2d with the weights that stay, 0 elsewhere.

        >>> SparseVariationalConv2d(3, 8, 3).dense()
        Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1))
        """
        bias = self.bias is not None
        kernel = (self.kernel_size[0], self.kernel_size[1])
        plain = nn.Conv2d(self.in_channels, self.out_channels, kernel, bias=bias, **self.settings)
        return _filled(plain, self, threshold)

    def extra_repr(self) -> str:
        """Channels, kernel and settings."""
        settings = ", ".join(f"{name}={value}" for name, value in self.settings.items())
        return f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, {settings}"


def _filled(plain: Any, layer: SparseLayer, threshold: float | None) -> Any:
    with torch.no_grad():
        plain.weight = nn.Parameter(layer.weight * layer.kept(threshold))
        if layer.bias is not None:
            plain.bias = nn.Parameter(layer.bias.clone())
    return plain.train(layer.training)
