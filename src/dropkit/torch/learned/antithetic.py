"""ARM and DisARM: the gradient of a rate from the losses under two coupled masks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ...errors import DropkitRuntimeError, DropkitTypeError, DropkitValueError
from ..drawing import ranks
from . import reduction
from .bernoulli import LearnableBernoulli, Record
from .regularizer import sites

STEP = "dropkit_step"  # of a bound model


def antithetic_backward(model: nn.Module, losses: Callable[[], torch.Tensor], *, both: bool = True) -> torch.Tensor:
    """`backward` for a model with ARM or DisARM sites: adds to the `.grad` of its weights and of its rates.

    Runs `losses` under m = [u > p] and again under m~ = [u < 1 - p], where u, every other mask of the model, torch's
    generators and a bound model's step are the same. With k = -logit(p) the gradients in k are

        ARM     (f(m) - f(m~)) (u - 1/2)
        DisARM  (f(m) - f(m~)) / 2 * (-1)^m~ [m != m~] sigmoid(|k|)

    plus the ordinary, path-wise gradient through 1 / (1 - p). All sites share the two passes. Of several ranks under
    DistributedDataParallel or `fully_shard`, or in the group that `bind(data_parallel=)` names, each gets their mean.

    Args:
        model: in training mode, with active LearnableBernoulli sites.
        losses: computes the loss of each sample, shape (batch,), or one scalar. With one loss for each sample a
            sample's masks answer for its own loss only, which has far less variance; that needs samples that do not
            see each other (no batch norm in training mode). It must not use random numbers other than torch's and
            dropkit's. What it adds from `regularizer` gets its ordinary gradient.
        both: average the ordinary gradient over the two passes; otherwise the second runs without one, at about half
            the cost of a step and more variance.

    Returns:
        The mean loss, over both passes where `both`; 0-dim, detached.

    Raises:
        DropkitValueError: no coupled site in the model, none active, or losses of another shape than scalar or
            (batch,); a noise tensor whose first axis is not the batch, with one loss for each sample.
        DropkitTypeError: losses that is no function or returns no tensor.
        DropkitRuntimeError: called under torch.no_grad; a model in FullyShardedDataParallel, the older class.

    Batch norm's running statistics see the batch twice.

    Source: Yin and Zhou 2019 (ICLR); Dong, Mnih, Tucker 2020 (NeurIPS); Yin, Ho, Yan, Qian, Zhou 2020.

    >>> from dropkit.torch import at
    >>> model = nn.Sequential(LearnableBernoulli(0.5, estimator="arm"))
    >>> with at(seed=0, site="drop"):
    ...     loss = antithetic_backward(model, lambda: model(torch.ones(1000, 1)).squeeze(1))
    >>> model[0].logit.grad.abs().item() < 0.1  # the expectation does not depend on the rate
    True
    """
    found = _coupled_sites(model, losses)
    state = _State(model)
    share = 0.5 if both else 1.0
    with _passes(found, second=False):
        first = _run(losses)
        _backward(first, share)
    state.restore()
    with _passes(found, second=True), torch.set_grad_enabled(both):
        again = _run(losses)
        if both:
            _backward(again, share)
    for site in () if both else found:
        ranks.reshard(site)
    difference = (first - again).detach()
    try:
        for site in found:
            if site.logit.requires_grad:  # also of a site that did not run here: it may have run on other ranks
                logit, gradient = reduction.reduced(model, site, "logit", _estimate(site, difference))
                torch.autograd.backward([logit], [gradient])  # and no assignment, so that hooks of the rate see it
    finally:
        for site in found:
            site.records.clear()
    mean = (first.mean() + again.mean()) / 2 if both else first.mean()
    return mean.detach()


def _backward(values: torch.Tensor, share: float) -> None:
    if values.requires_grad:  # raw masks before frozen weights leave nothing for an ordinary gradient
        (values.mean() * share).backward()


def _coupled_sites(model: nn.Module, losses: Any) -> list[LearnableBernoulli]:
    found = [site for site in sites(model).values() if isinstance(site, LearnableBernoulli) and site.coupled]
    if not found:
        raise DropkitValueError(
            f"no LearnableBernoulli with estimator 'arm' or 'disarm' in this {type(model).__name__}: other learned "
            "rates get their gradient from loss.backward()"
        )
    if not any(site.active and site.logit.requires_grad for site in found):
        raise DropkitValueError("no LearnableBernoulli is active and learning here: call model.train() first")
    if not callable(losses):
        raise DropkitTypeError(f"losses must be a function without arguments that runs the model, got {losses!r}")
    if not torch.is_grad_enabled():
        raise DropkitRuntimeError("antithetic_backward under torch.no_grad can compute no gradient; leave no_grad")
    reduction.check(model, "antithetic_backward")
    return found


def _run(losses: Callable[[], torch.Tensor]) -> torch.Tensor:
    value = losses()
    if not isinstance(value, torch.Tensor):
        raise DropkitTypeError(f"losses must return a tensor, got {value!r}")
    if value.dim() > 1:
        raise DropkitValueError(
            f"losses must return one scalar or one loss for each sample, shape (batch,), got shape {tuple(value.shape)}"
        )
    return value


@contextmanager
def _passes(found: list[LearnableBernoulli], second: bool) -> Iterator[None]:
    for site in found:
        site.second = second
        if not second:
            site.records.clear()
    try:
        yield
    finally:
        for site in found:
            site.second = None


def _estimate(site: LearnableBernoulli, difference: torch.Tensor) -> torch.Tensor:
    """The gradient in the logit that ordinary backward does not see, this rank's."""
    logit = site.held("logit").detach().requires_grad_()
    terms = [_term(site, site.bounded(logit), record, difference) for record in site.records]
    return torch.autograd.grad(torch.stack(terms).sum(), logit)[0] if terms else torch.zeros_like(logit)


def _term(site: LearnableBernoulli, logit: torch.Tensor, record: Record, difference: torch.Tensor) -> torch.Tensor:
    """A scalar whose gradient in the logit is the estimate."""
    u = record.u
    p = torch.sigmoid(logit.detach())
    if site.estimator == "arm":
        weight = u - 0.5
    else:
        second = u < 1 - p
        sign = torch.where(second, -1.0, 1.0) * ((u > p) != second)
        weight = sign * torch.sigmoid(logit.detach().abs()) / 2
    # The formulas are gradients in the logit of keeping, which is minus ours.
    return -(_for_each_element(difference, u) * weight * logit).sum()


def _for_each_element(difference: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """The difference of the mean losses that each element of the noise answers for."""
    if difference.dim() == 0 or u.dim() == 0 or u.shape[0] == 1:
        return difference.mean()
    if u.shape[0] != len(difference):
        raise DropkitValueError(
            f"{len(difference)} losses for noise of shape {tuple(u.shape)}, whose first axis is not the batch: return "
            "the mean loss instead of one for each sample"
        )
    return difference.reshape(-1, *[1] * (u.dim() - 1)) / len(difference)


class _State:
    """What decides all masks but the coupled ones, so that a second pass repeats the first."""

    def __init__(self, model: nn.Module) -> None:
        clocks = {id(clock): clock for part in model.modules() if (clock := _clock(part)) is not None}
        buffers = [clock.buffers[STEP] for clock in clocks.values()]
        self.steps = [(buffer, buffer.clone()) for buffer in buffers]
        self.cpu = torch.get_rng_state()
        devices = {tensor.device for tensor in model.parameters() if tensor.is_cuda}
        self.cuda = [(device, torch.cuda.get_rng_state(device)) for device in devices]

    def restore(self) -> None:
        with torch.no_grad():
            for buffer, value in self.steps:
                buffer.copy_(value)
        torch.set_rng_state(self.cpu)
        for device, state in self.cuda:
            torch.cuda.set_rng_state(state, device)


def _clock(part: nn.Module) -> Any:
    return getattr(getattr(part, "site", None), "clock", None)
