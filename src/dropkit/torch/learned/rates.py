"""The learned rates of a model: their present values, their parameters, and what is wrong with them."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ...errors import DropkitValueError
from .base import whole
from .regularizer import sites

_NEAR = 1e-3  # of a bound, in probability


def rates(model: nn.Module) -> dict[str, torch.Tensor]:
    """The present drop probability of every learned site, detached, by module path.

    Raises:
        DropkitValueError, DropkitTypeError: a model without learned sites; no module.

    >>> from dropkit.torch.learned import ConcreteDropout
    >>> {name: round(p.item(), 3) for name, p in rates(nn.Sequential(ConcreteDropout(0.2))).items()}
    {'0': 0.2}
    """
    with torch.no_grad():
        return {name: whole(site.rate()).clone() for name, site in sites(model).items()}


def rate_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are rates, by their path: for an optimiser group with a learning rate of its own.

    Raises:
        DropkitValueError, DropkitTypeError: a model without learned sites; no module.

    >>> from dropkit.torch.learned import ConcreteDropout
    >>> list(rate_parameters(nn.Sequential(nn.Linear(2, 2), ConcreteDropout(0.2))))
    ['1.logit']
    """
    return {
        f"{path}.{name}" if path else name: getattr(site, name)
        for path, site in sites(model).items()
        for name in site.rate_names
    }


@dataclass(slots=True)
class _Moments:
    """Mean and variance of a stream, by Welford's recurrence."""

    count: int = 0
    mean: Any = 0.0
    squares: Any = 0.0

    def add(self, value: torch.Tensor) -> None:
        self.count += 1
        step = value - self.mean
        self.mean = self.mean + step / self.count
        self.squares = self.squares + step * (value - self.mean)


class Watch:
    """Records the gradient that reaches every rate: its mean and its noise. Remove it when it has seen enough.

    Args:
        model: a module with learned sites.

    Raises:
        DropkitValueError, DropkitTypeError: a model without learned sites; no module.

    >>> from dropkit.torch.learned import ConcreteDropout
    >>> model = nn.Sequential(ConcreteDropout(0.2))
    >>> watch = Watch(model)
    >>> for _ in range(3):
    ...     model(torch.ones(4, 8)).sum().backward()
    >>> watch.count("0.logit")
    3
    """

    def __init__(self, model: nn.Module) -> None:
        self._moments: dict[str, _Moments] = {}
        self._hooks = []
        for name, parameter in rate_parameters(model).items():
            moments = self._moments[name] = _Moments()
            self._hooks.append(parameter.register_hook(lambda grad, moments=moments: moments.add(grad.detach())))

    def count(self, name: str) -> int:
        """How many gradients of a parameter were seen."""
        return self._moments[name].count

    def mean(self, name: str) -> torch.Tensor:
        """Mean gradient of a parameter, of its shape."""
        return torch.as_tensor(self._moments[name].mean)

    def std(self, name: str) -> torch.Tensor:
        """Standard deviation of the gradient over the backward passes, of the parameter's shape."""
        moments = self._moments[name]
        if moments.count < 2:
            raise DropkitValueError(
                f"the gradient noise of {name!r} needs two backward passes, {moments.count} seen so far"
            )
        return torch.as_tensor(moments.squares / (moments.count - 1)).sqrt()

    def remove(self) -> None:
        """Stop recording."""
        for hook in self._hooks:
            hook.remove()


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What there is to say about one learned site.

    Args:
        low, mean, high: the smallest, mean and largest drop probability of the site.
        at_low, at_high: fraction of its rates within 0.001 of the lower and of the upper bound.
        noise: std of the rate's gradient over the mean's size, averaged over the rates; None unless watched.
        remarks: what deserves a look, in words.

    >>> from dropkit.torch.learned import ConcreteDropout
    >>> found = diagnose(nn.Sequential(ConcreteDropout(0.25)))["0"]
    >>> found.mean, found.noise, found.remarks
    (0.25, None, [])
    """

    low: float
    mean: float
    high: float
    at_low: float
    at_high: float
    noise: float | None = None
    remarks: list[str] = field(default_factory=list)


def diagnose(model: nn.Module, watch: Watch | None = None) -> dict[str, Diagnosis]:
    """For each learned site its rates, whether they are stuck at a bound, and how noisy their gradient is.

    Args:
        model: a module with learned sites.
        watch: a `Watch` of the same model that has seen at least two backward passes.

    Raises:
        DropkitValueError, DropkitTypeError: a model without learned sites; a watch that has seen too little.

    >>> from dropkit.torch.learned import ConcreteDropout
    >>> diagnose(nn.Sequential(ConcreteDropout(0.5, clamp=(0.0, 0.5))))["0"].remarks
    ['all rates at the upper bound 0.5']
    """
    found = {}
    for path, site in sites(model).items():
        p = whole(site.rate()).detach().float()
        low, high = site.bounds()
        at_low, at_high = (p <= low + _NEAR).float().mean().item(), (p >= high - _NEAR).float().mean().item()
        remarks = _stuck(at_low, "lower", low) + _stuck(at_high, "upper", high)
        noise = None
        if watch is not None and site.rate_names:
            names = [f"{path}.{name}" if path else name for name in site.rate_names]
            noise = sum(_relative(watch, name) for name in names) / len(names)
            if noise > 10:
                remarks.append(f"gradient noise is {noise:.0f} times the gradient: use larger batches or smaller steps")
        found[path] = Diagnosis(p.min().item(), p.mean().item(), p.max().item(), at_low, at_high, noise, remarks)
    return found


def _stuck(fraction: float, side: str, bound: float) -> list[str]:
    if fraction == 0:
        return []
    share = "all" if fraction == 1 else f"{fraction:.0%} of the"
    return [f"{share} rates at the {side} bound {bound:g}"]


def _relative(watch: Watch, name: str) -> float:
    mean, std = watch.mean(name).abs(), watch.std(name)
    return (std / mean.clamp_min(torch.finfo(std.dtype).tiny)).mean().item()
