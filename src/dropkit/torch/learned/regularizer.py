"""One call that collects what the learned sites of a model add to the loss."""

import operator

import torch
from torch import nn

from ...errors import DropkitRuntimeError, DropkitTypeError, DropkitValueError
from . import samples
from .base import Learned, positive, whole
from .optimizers import Penalties, penalties


def sites(model: nn.Module) -> dict[str, Learned]:
    """Every learned site of a model by its module path.

    Raises:
        DropkitTypeError: not a module.
        DropkitValueError: a model without learned sites.

    >>> from dropkit.torch.learned import ConcreteDropout
    >>> list(sites(nn.Sequential(nn.Linear(2, 2), ConcreteDropout())))
    ['1']
    """
    if not isinstance(model, nn.Module):
        raise DropkitTypeError(f"a model must be a torch.nn.Module, got {type(model).__name__}")
    found = {name: part for name, part in model.named_modules() if isinstance(part, Learned)}
    if not found:
        raise DropkitValueError(
            f"no learned dropout in this {type(model).__name__}: put a module of dropkit.torch.learned, such as "
            "ConcreteDropout, where a rate is to be learned"
        )
    return found


def regularizer(model: nn.Module, n: int, nll_scale: float = 1.0, weight: float = 1.0) -> torch.Tensor:
    """The learned sites' penalties, scaled for a loss that is a mean over samples: `nll_scale weight / n sum KL`.

    Args:
        model: a module with learned sites in it.
        n: number of samples in the data set, not in the batch: `len(data)`.
        nll_scale: how many times the negative log-likelihood the data term is: 1 for cross-entropy and for a Gaussian
            NLL with its 1/2; 2 for `exp(-s) (y - mu)^2 + s`; 2 / tau for a squared error of known precision tau.
        weight: a factor such as a warm-up.

    Returns:
        0-dim tensor with a gradient. A site that is called several times in a step counts once, as it should. Where
        gradients are accumulated over k micro-batches divide it as the data term: `(loss + regularizer(model, n)) / k`.
        Under `fully_shard` it is a collective: every rank has to call it.

    Raises:
        DropkitValueError: a model without learned sites; n that is not positive; a site that lacks `layer` or
            `inputs`; a scale that is not positive.
        DropkitTypeError: n that is no integer, a model that is no module.
        DropkitRuntimeError: called under torch.no_grad for a model in training mode, where it would teach nothing.

    Warns:
        UserWarning: once in a process each: the model has seen more samples than n; the penalty goes in full into
            several micro-batches of one step.

    Source: Gal, Hron, Kendall 2017; Kingma, Salimans, Welling 2015; Molchanov et al. 2017; Louizos et al. 2018.

    >>> from dropkit.torch.learned import ConcreteDropout
    >>> head = nn.Linear(4, 1)
    >>> model = nn.Sequential(ConcreteDropout(0.5, layer=head, length_scale=1e-6), head)
    >>> round(regularizer(model, n=100).item(), 6)  # 4 inputs, each -ln 2 nats, over 100 samples
    -0.027726
    """
    found = sites(model)
    count = _size(n)
    positive("nll_scale", nll_scale)
    if weight < 0:
        raise DropkitValueError(f"weight must not be negative, got {weight!r}")
    if model.training and not torch.is_grad_enabled():
        raise DropkitRuntimeError(
            "regularizer of a model in training mode under torch.no_grad: it has no gradient there and no rate would "
            "learn; call it where the loss is computed, or model.eval() first if it is for a log only"
        )
    terms = []
    for site in found.values():
        if not torch.compiler.is_compiling():
            site.since = 0
        term = site.penalty()
        if term is not None:
            terms.append(whole(term))
    if not terms:
        return torch.zeros((), requires_grad=True)
    total = torch.stack(terms).sum() * (nll_scale * weight / count)
    if model.training and not torch.compiler.is_compiling():
        samples.watch(model, list(found.values()), count)
        penalties.setdefault(model, Penalties()).watch(total, list(found.values()))
    return total


def _size(n: int) -> int:
    try:
        if isinstance(n, bool):
            raise TypeError
        count = operator.index(n)
    except TypeError:
        raise DropkitTypeError(
            f"n must be the number of samples in the data set, an integer such as len(data), got {n!r}"
        ) from None
    if count <= 0:
        raise DropkitValueError(
            f"n must be the number of samples in the data set, at least 1, got {count}; the penalties are divided by it"
        )
    return count
