"""The first weights of a torch model: a function of (seed, parameter name) alone."""

from math import prod

import torch
from torch import nn

from ..order import first_weights


@torch.no_grad()
def set_first_weights(model: nn.Module, seed: int, std: float | None) -> nn.Module:
    """Give every weight its first value, and every bias zero; returns the model.

    Args:
        model: of layers whose parameters are called "weight" and "bias".
        seed: the experiment.
        std: standard deviation; None for He's sqrt(2 / fan-in).

    >>> model = set_first_weights(nn.Sequential(nn.Linear(2, 3)), seed=0, std=0.5)
    >>> torch.equal(model[0].weight, torch.from_numpy(first_weights((3, 2), 0, "0.weight", 0.5)))
    True
    """
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
        else:
            spread = (2 / prod(parameter.shape[1:])) ** 0.5 if std is None else std
            parameter.copy_(torch.from_numpy(first_weights(tuple(parameter.shape), seed, name, spread)))
    return model
