"""The first weights of a torch model: a function of (seed, parameter name) alone."""

from math import prod

import torch
from torch import nn

from .spread import first_bias, first_weight


@torch.no_grad()
def set_first_weights(model: nn.Module, seed: int, std: float | None, kind: str = "normal") -> nn.Module:
    """Give every weight and every bias its first value; returns the model.

    Args:
        model: of layers whose parameters are called "weight" and "bias".
        seed: the experiment.
        std: standard deviation of kind "normal"; None for He's sqrt(2 / fan-in).
        kind: see `first_weight`; biases are zero but for "torch".

    >>> from dropkit.lab.order import first_weights
    >>> model = set_first_weights(nn.Sequential(nn.Linear(2, 3)), seed=0, std=0.5)
    >>> torch.equal(model[0].weight, torch.from_numpy(first_weights((3, 2), 0, "0.weight", 0.5)))
    True
    """
    parameters = dict(model.named_parameters())
    for name, parameter in parameters.items():
        shape = tuple(parameter.shape)
        if name.endswith("bias"):
            inputs = prod(parameters[name.removesuffix("bias") + "weight"].shape[1:])
            value = first_bias(shape, seed, name, inputs=inputs, kind=kind)
        else:
            fans = prod(shape[1:]), shape[0] * prod(shape[2:])
            value = first_weight(shape, seed, name, fans=fans, kind=kind, std=std)
        parameter.copy_(torch.from_numpy(value))
    return model
