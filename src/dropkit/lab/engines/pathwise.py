"""Rates moved by the path-wise gradient alone, which is half of the true one: what a tutorial's rule comes to."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...torch.arithmetic import continuous
from ...torch.learned import Learned


class Pathwise(Learned):
    """Inverted dropout whose rate gets the gradient through 1 / (1 - p) and none through the mask, which hides it.

    Args:
        p: the first rate.
        clamp: between which its optimizer holds it.
        layer: taken as the other learned rates take it, and of no use: there is no regulariser.

    >>> site = Pathwise(0.5)
    >>> site(torch.ones(1000)).sum().backward()
    >>> site.probability.grad.item() > 0  # larger p, larger kept values; that fewer are kept it does not see
    True
    """

    rate_names = ("probability",)
    probability: nn.Parameter

    def __init__(self, p: float, *, clamp: tuple[float, float] = (0.0, 0.5), layer: Any = None) -> None:
        super().__init__()
        self.clamp = clamp
        self.hold("probability", torch.tensor(p))

    def rate(self) -> Tensor:
        """The parameter itself."""
        return self.held("probability")

    def bounds(self) -> tuple[float, float]:
        """The clamp."""
        return self.clamp

    def forward(self, input: Tensor) -> Tensor:
        """The input with elements dropped; the values are those of any inverted dropout at this rate."""
        if not self.active:
            return input
        key, place = self.draw(input)
        p = self.rate()
        u = continuous.uniform(key, place, input.device)
        return torch.where(u > p.detach(), input / (1 - p), 0).to(input.dtype)


class ClippedAdam(torch.optim.Adam):
    """Adam, and after each step the rates are put back into their bounds: what the tutorial set out to do."""

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One step."""
        loss = super().step(closure)
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    p.clamp_(*group["bounds"])
        return loss


class Literal(torch.optim.Optimizer):
    """The tutorial's assignment as it stands: `p = clip(start - new, low, high)`, new Adam's first value after start.

    Adam's first step is `lr sign(gradient)`, so new is start -+ lr and p is lr or 0, whatever the loss.

    >>> p = nn.Parameter(torch.tensor([0.5]))
    >>> p.grad = torch.tensor([123.0])
    >>> Literal([{"params": [p], "lr": 0.001, "start": 0.5, "bounds": (0.0, 0.5)}]).step()
    >>> round(p.item(), 6)
    0.001
    """

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One assignment; a rate without gradient stays."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    new = group["start"] - group["lr"] * p.grad / (p.grad.abs() + 1e-8)
                    p.copy_((group["start"] - new).clamp(*group["bounds"]))
