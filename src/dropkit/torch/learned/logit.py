"""The logit of a drop probability as a parameter, kept inside bounds, and the penalty of dropout as inference."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ...axes.share import Share
from ...errors import DropkitTypeError, DropkitValueError
from .base import Learned, outside, positive, probability, sizes, whole, widened

Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


class Clamp(torch.autograd.Function):
    """`clamp` whose gradient still passes at a bound when descent would lead back inside."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: torch.Tensor, low: float, high: float) -> torch.Tensor:
        return x.clamp(low, high)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        x, ctx.low, ctx.high = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
        (x,) = ctx.saved_tensors
        outward = ((x >= ctx.high) & (grads[0] < 0)) | ((x <= ctx.low) & (grads[0] > 0))
        return grads[0].masked_fill(outward, 0), None, None


class LogitDropout(Learned):
    """Abstract: a drop probability p = sigmoid(logit) for a layer, a unit or a channel, learned with a penalty.

        penalty = l^2/2 sum_j ||W_j||^2 / (1 - p_j) - sum_j H(p_j)          nats, for the whole data set

    W_j is what leaves input j of the layers that this dropout feeds, H the entropy. The division by 1 - p is there
    because inverted dropout stores W = (1 - p) M of the paper's M.

    Args:
        p: initial drop probability, in (0, 1).
        shape: of the logit, which broadcasts against the input: () one rate for the site, (D,) one for each of the
            last axis's units, (C, 1, 1) one for each channel of N x C x H x W.
        share: axes along which one draw is shared.
        clamp: bounds of p; at a bound the gradient passes only inwards.
        when: as `Learned`.
        layer: the Linear or Conv layer, or layers, whose input this is: for the penalty.
        inputs: how many inputs are dropped independently, if not the layer's fan-in or channels in.
        length_scale: the prior's l.
    """

    rate_names = ("logit",)

    def __init__(
        self,
        p: float,
        shape: Sequence[int],
        share: Sequence[int],
        clamp: tuple[float, float],
        when: str,
        layer: Layer | Sequence[Layer] | None,
        inputs: int | None,
        length_scale: float,
    ) -> None:
        super().__init__(when)
        low, high = clamp
        if not 0 <= low < high <= 1:
            raise DropkitValueError(f"clamp must be two bounds with 0 <= low < high <= 1, got {clamp!r}")
        if not low <= probability("p", p) <= high:
            raise DropkitValueError(f"p = {p} lies outside clamp = {clamp!r}")
        self.clamp = (float(low), float(high))
        self.share = tuple(Share(share).axes)
        self.inputs = inputs
        self.length_scale = positive("length_scale", length_scale)
        # In a tuple, which torch does not search: the layer has its own place in the model.
        self.fed = fed_layers(layer)
        self.hold("logit", torch.full(sizes(shape), logit_of(p)))

    logit: nn.Parameter

    def effective_logit(self) -> torch.Tensor:
        """The logit inside its bounds."""
        return self.bounded(self.held("logit"))

    def bounded(self, logit: torch.Tensor) -> torch.Tensor:
        """A logit inside the bounds of p."""
        return logit if self.clamp == (0.0, 1.0) else Clamp.apply(logit, *map(logit_of, self.clamp))

    def rate(self) -> torch.Tensor:
        """The drop probability, of the logit's shape."""
        return torch.sigmoid(self.effective_logit())

    def bounds(self) -> tuple[float, float]:
        """The clamp."""
        return self.clamp

    def penalty(self) -> torch.Tensor:
        """The regulariser in nats for the whole data set.

        Raises:
            DropkitValueError: neither `layer` nor `inputs` was given, so the number of inputs is unknown; or a layer
                with another number of inputs than there are rates.
        """
        logit = self.effective_logit().flatten()
        entropy = -negative_entropy(logit)
        total = -(input_count(self, self.inputs, self.fed) / logit.numel()) * entropy.sum()
        for layer in self.fed:
            squares = _squares(layer)
            if logit.numel() not in (1, squares.numel()):
                raise DropkitValueError(
                    f"{logit.numel()} rates cannot weigh the {squares.numel()} inputs of {layer}: give a shape with "
                    "one rate, or with one for each input"
                )
            # 1 / (1 - p) = 1 + exp(logit)
            total = total + self.length_scale**2 / 2 * (squares * (1 + logit.exp())).sum()
        return total

    def _more_repr(self) -> str:
        text = f", share={self.share}" if self.share else ""
        text += f", clamp={self.clamp}" if self.clamp != (0.0, 1.0) else ""
        return text + super()._more_repr()


def input_count(site: Learned, inputs: int | None, fed: tuple[Layer, ...]) -> int:
    """How many inputs a site drops independently: as given, or those of the layer that it feeds.

    Raises:
        DropkitValueError: neither is known.
    """
    if inputs is not None:
        return int(positive("inputs", inputs))
    if fed:
        return fed[0].weight.shape[1] * getattr(fed[0], "groups", 1)
    raise DropkitValueError(
        f"the penalty of {type(site).__name__} needs to know how many inputs it drops: pass layer=, the layer that "
        "it feeds, or inputs="
    )


def negative_entropy(logit: torch.Tensor) -> torch.Tensor:
    """`p ln p + (1 - p) ln(1 - p)` from the logit of p, stable at both ends.

    >>> round(negative_entropy(torch.tensor(0.0)).item(), 6)
    -0.693147
    """
    p = torch.sigmoid(logit)
    log = nn.functional.logsigmoid
    return p * log(logit) + (1 - p) * log(-logit)


def logit_of(p: float) -> float:
    """`ln p - ln(1 - p)`, infinite at 0 and 1."""
    if p in (0, 1):
        return -math.inf if p == 0 else math.inf
    return math.log(p) - math.log1p(-p)


def fed_layers(layer: Layer | Sequence[Layer] | None) -> tuple[Layer, ...]:
    """The layers as a tuple.

    Raises:
        DropkitTypeError: something else than Linear or Conv layers.
    """
    layers = () if layer is None else (layer,) if isinstance(layer, nn.Module) else tuple(layer)
    for one in layers:
        if not isinstance(one, Layer):
            raise DropkitTypeError(f"layer must be a Linear or Conv layer, or a sequence of them, got {one!r}")
    return layers


def _squares(layer: Layer) -> torch.Tensor:
    """The squared norm of the weights that leave each input of a layer: the units in, or the channels in."""
    weight = widened(outside(layer.weight))
    per_input = weight.pow(2).flatten(2).sum(-1) if weight.dim() > 2 else weight.pow(2)
    groups = getattr(layer, "groups", 1)
    if groups == 1:
        return whole(per_input.sum(0))
    return whole(per_input).unflatten(0, (groups, -1)).sum(1).flatten()  # each group of outputs sees its own inputs
