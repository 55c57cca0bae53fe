"""A linear layer whose weights drop."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ...axes.noise import Noise
from ...axes.when import When
from ...drop import lower
from ...errors import DropkitValueError
from ...threshold import ONE, threshold
from ..draw import Draw
from ..layers import Drawn, as_leaf, checked_rate
from .drop import Weights

MODES = ("batch", "row")


class DropConnect(Weights, nn.Linear):
    """`torch.nn.Linear` whose weights drop: `y = x (w m / (1 - p))^T + b`, with a mask for each weight.

    In mode "batch" all samples see one mask, for which nothing but the weight is computed again; in mode "row" each
    sample has a mask of its own, as in the paper, at the cost of batch x out x in products. The bias is not dropped.

    Args:
        in_features, out_features, bias, device, dtype: as of `torch.nn.Linear`, whose `state_dict` it has.
        p: drop probability in [0, 1]; may be assigned at any time.
        mode: "batch" or "row"; of rows the batch is axis 0.
        noise: a value of `dropkit.axes.noise`; `Raw()` is the paper's form, `y = x (w m)^T + b`, and (1 - p) w in
            evaluation. Mixout and shakeout are `WeightDrop`'s.
        when: "train", "always" or "never".

    Raises:
        DropkitValueError, DropkitTypeError: p outside [0, 1], NaN or no number; another mode; a noise that needs a
            second tensor; in mode "row" an input without a batch.

    Source: Wan et al. 2013 (ICML), p = 0.5. EfficientNet's "drop_connect" is stochastic depth, `DropPath`.

    >>> DropConnect(8, 4, p=0.5)
    DropConnect(in_features=8, out_features=4, bias=True, p=0.5, mode=batch)
    >>> DropConnect(8, 4, p=0.5, mode="row")(torch.ones(3, 8)).shape
    torch.Size([3, 4])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        p: float = 0.5,
        mode: str = "batch",
        *,
        noise: Noise | None = None,
        when: str = "train",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        checked_rate(p)
        nn.Linear.__init__(self, in_features, out_features, bias, device=device, dtype=dtype)
        if mode not in MODES:
            raise DropkitValueError(f"mode has to be either 'batch' or 'row', but got {mode!r}")
        self.mode, self.inplace, self.when = mode, False, When.of(when).value
        self.of_batch = mode == "row"
        self._set(p, noise)
        if self.noise.needs_other:
            raise DropkitValueError(
                f"{self.noise!r} needs a second tensor: WeightDrop(nn.Linear(...), 'weight') has it"
            )

    def fresh(self, lowered: Any) -> Draw:
        """The draw of its next call: of the weight, or of the weights of these samples."""
        return Drawn.fresh(self, lowered) if self.of_batch else super().fresh(lowered)

    def mask_shape(self, input: torch.Tensor) -> tuple[int, ...]:
        """One bit for each weight, or for each weight of each sample."""
        shape = (self.out_features, self.in_features)
        return (input.shape[0], *shape) if self.of_batch and input.dim() > 1 else shape

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The layer with the weights that are left."""
        if isinstance(input, torch.fx.Proxy):
            return as_leaf(self, input)
        if not self.of_batch or not self.active:
            return F.linear(input, self._dropped(self.weight, ()), self.bias)
        if input.dim() < 2:
            raise DropkitValueError(f"mode='row' needs a batch as axis 0, got an input of shape {tuple(input.shape)}")
        weights = self._dropped(self.weight.expand(input.shape[0], -1, -1), ())
        flat = input.reshape(input.shape[0], -1, self.in_features)
        y = torch.bmm(flat, weights.mT).reshape(*input.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias

    def moments(self, input: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and variance over masks of what the layer gives in training, for the paper's Gaussian inference.

        With the law's scale a and q = 1 - p: mean `a q x w^T + b`, variance `a^2 q p (x^2) (w^2)^T`. The paper draws
        samples of this normal, applies the activation and takes their mean.

        Raises:
            DropkitValueError: a law that does more than scale what is kept.

        >>> layer = DropConnect(2, 1, bias=False, p=0.5)
        >>> _ = nn.init.ones_(layer.weight)
        >>> [value.item() for value in layer.moments(torch.ones(1, 2))]
        [2.0, 2.0]
        """
        q = threshold(self._p) / ONE
        law = lower(self.noise, threshold(self._p))
        a = 1.0 if law is None else law.a
        if law is not None and (law.soft or law.b or law.c):
            raise DropkitValueError(f"moments are those of masks that scale, got {self.noise!r}: take many passes")
        mean = F.linear(input, self.weight * (a * q), self.bias)
        return mean, F.linear(input.square(), self.weight.square()) * (a * a * q * (1 - q))

    def extra_repr(self) -> str:
        """torch's own, and the rate."""
        return f"{nn.Linear.extra_repr(self)}, {super().extra_repr()}"

    def _more_repr(self) -> str:
        return f", mode={self.mode}{super()._more_repr()}"
