"""The optimizer of the weights of a torch model, by name, and its learning rate at each step."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.nn import Parameter

from ...errors import DropkitTypeError, DropkitValueError, UnknownNameError
from ..imported import failed, imported, is_named
from ..recipes.recipe import Settings

OPTIMIZERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
}


def family(name: str) -> Callable[..., torch.optim.Optimizer]:
    """The class of an optimizer, by its name or its `module:name`.

    Raises:
        UnknownNameError: there is none of that name.
        DropkitTypeError: it is no optimizer.

    >>> family("torch.optim:NAdam").__name__
    'NAdam'
    """
    if not is_named(name):
        if name not in OPTIMIZERS:
            raise UnknownNameError("optimizer", str(name), OPTIMIZERS)
        return OPTIMIZERS[name]
    found: Any = imported(name)
    if not inspect.isclass(found) or not issubclass(found, torch.optim.Optimizer):
        raise DropkitTypeError(
            f"optimizer {name} is no class of torch's optimizers: give one such as torch.optim:NAdam"
        )
    return found


def optimizer(settings: Settings, named: Mapping[str, Parameter]) -> torch.optim.Optimizer:
    """Of the weights, in the model's order; with L2, weights before biases.

    Args:
        settings: optimizer, learning rate, weight decay and L2.
        named: the parameters, without learned rates.
    """
    groups: Any = list(named.values())
    if settings.l2:
        decay = settings.weight_decay + 2 * settings.l2  # torch's is of the gradient, l2 of the loss
        weights = penalized(named)
        biases = [parameter for name, parameter in named.items() if name not in weights]
        groups = [{"params": list(weights.values()), "weight_decay": decay}, {"params": biases}]
    made, words = family(settings.optimizer), {"lr": settings.learning_rate}
    decayed = settings.weight_decay or settings.optimizer != "adamw"  # which has a default that is meant
    if decayed and "weight_decay" in inspect.signature(made).parameters:
        words["weight_decay"] = settings.weight_decay
    try:
        return made(groups, **words)
    except Exception as error:
        raise DropkitValueError(failed(f"optimizer {settings.optimizer}", error)) from error


def penalized(parameters: Mapping[str, Parameter]) -> dict[str, Parameter]:
    """Those that L2 is about: weights, not biases.

    >>> list(penalized(dict(torch.nn.Linear(2, 3).named_parameters())))
    ['weight']
    """
    return {name: parameter for name, parameter in parameters.items() if not name.endswith("bias")}


def set_rate(optimizers: Iterable[torch.optim.Optimizer], rate: float) -> None:
    """Give the weights' optimizer another learning rate."""
    for each in optimizers:
        for group in each.param_groups:
            group["lr"] = rate
