"""The gradient of a validation loss in the rates, through steps of the training itself."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from ...errors import DropkitRuntimeError, DropkitValueError
from . import reduction
from .base import Learned, positive
from .bernoulli import LearnableBernoulli
from .rates import rate_parameters
from .regularizer import sites

Loss = Callable[[], torch.Tensor]


def hypergradient_backward(
    model: nn.Module, train: Loss, validation: Loss, *, lr: float, steps: int = 1
) -> torch.Tensor:
    """Adds d L_V(w') / d rates to the `.grad` of the rates, where w' is the model after steps of gradient descent.

        w' = w - lr grad_w L_T(w, rates)      once for each step
        dL_V(w')/drates = -lr (grad L_V)' d^2 L_T / dw drates + (direct)      for one step

    Exact for that many steps of plain gradient descent. The weights stay as they are and get no gradient: step them as
    usual. Under DistributedDataParallel, or in the group that `bind(data_parallel=)` names, L_T and L_V are the means
    over the ranks.

    Args:
        model: in training mode, with learned sites; its parameters are swapped while `train` and `validation` run.
        train: runs the model on a training batch and returns the loss, regulariser and all; called `steps` times.
        validation: runs the model on validation data and returns the loss; called once, in evaluation mode.
        lr: learning rate of the inner steps.
        steps: how many; memory grows with it.

    Returns:
        The validation loss at w', detached.

    Raises:
        DropkitValueError: no learned rate; a lr that is not positive; steps below 1; a site with hard masks, whose
            training loss has no derivative in the rate.
        DropkitRuntimeError: called under torch.no_grad; sharded parameters.

    Source: Luketina et al. 2016 (ICML), "Scalable Gradient-Based Tuning of Continuous Regularization
    Hyperparameters"; Maclaurin et al. 2015 (ICML) for several steps.

    >>> from dropkit.torch.learned import ConcreteDropout
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), ConcreteDropout(0.2), nn.Linear(8, 1))
    >>> x, y = torch.randn(2, 16, 4), torch.randn(2, 16, 1)
    >>> def train():
    ...     return (model(x[0]) - y[0]).pow(2).mean()
    >>> def validation():
    ...     return (model(x[1]) - y[1]).pow(2).mean()
    >>> loss = hypergradient_backward(model, train, validation, lr=0.1)
    >>> model[2].logit.grad is not None, model[0].weight.grad is None
    (True, True)
    """
    rates = {name: p for name, p in rate_parameters(model).items() if p.requires_grad}
    _check(model, rates, lr, steps)
    weights = {name: p for name, p in model.named_parameters() if p.requires_grad and name not in rates}
    now: dict[str, torch.Tensor] = dict(weights)
    for _ in range(steps):
        loss = _with(model, now, train)
        own = torch.autograd.grad(loss, list(now.values()), create_graph=True, allow_unused=True)
        slopes = _over_ranks(model, own)
        now = {
            name: value if slope is None else value - lr * slope
            for (name, value), slope in zip(now.items(), slopes, strict=True)
        }
    with _evaluation(model):
        result = _with(model, now, validation)
    gradients = torch.autograd.grad(result, list(rates.values()), allow_unused=True)
    places = _places(model)
    for (name, _), gradient in zip(rates.items(), gradients, strict=True):
        if gradient is not None:
            parameter, gradient = reduction.reduced(model, *places[name], gradient.detach().clone())
            # not by backward: DistributedDataParallel would wait for the gradients of the weights, too
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
    return result.detach()


def _places(model: nn.Module) -> dict[str, tuple[Learned, str]]:
    """The site of each rate and its name there."""
    return {
        f"{path}.{name}" if path else name: (site, name)
        for path, site in sites(model).items()
        for name in site.rate_names
    }


def _over_ranks(model: nn.Module, slopes: Sequence[torch.Tensor | None]) -> list[torch.Tensor | None]:
    """The mean of the slopes over data-parallel ranks: each takes the step that all of them take together."""
    site = next(site for site in sites(model).values() if site.rate_names)
    averaged = iter(reduction.mean(model, site, [slope for slope in slopes if slope is not None]))
    return [None if slope is None else next(averaged) for slope in slopes]


def _check(model: nn.Module, rates: dict[str, nn.Parameter], lr: float, steps: int) -> None:
    if not rates:
        raise DropkitValueError(f"no learned rate in this {type(model).__name__} that requires a gradient")
    positive("lr", lr)
    if steps < 1:
        raise DropkitValueError(f"steps must be at least 1, got {steps}")
    hard = [
        name or "the model itself"
        for name, site in sites(model).items()
        if isinstance(site, LearnableBernoulli) and site.coupled
    ]
    if hard:
        raise DropkitValueError(
            f"hard masks at {', '.join(hard)}: the training loss has no derivative in their rate; use ConcreteDropout, "
            "or estimator='straight-through'"
        )
    if not torch.is_grad_enabled():
        raise DropkitRuntimeError("hypergradient_backward under torch.no_grad can compute no gradient; leave no_grad")
    reduction.check(model, "hypergradient_backward", sharded=False)


class _Run(nn.Module):
    """Runs a function, so that torch swaps the parameters of a model for as long as it runs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Loss) -> Any:
        return function()


def _with(model: nn.Module, weights: dict[str, torch.Tensor], loss: Loss) -> torch.Tensor:
    return functional_call(_Run(model), {f"model.{name}": value for name, value in weights.items()}, (loss,))


@contextmanager
def _evaluation(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and afterwards each part's own mode again."""
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
