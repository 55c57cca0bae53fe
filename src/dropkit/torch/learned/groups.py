"""The parameter groups of an optimizer that suit learned rates."""

from typing import Any

from torch import nn

from .base import positive
from .rates import rate_parameters


def groups(model: nn.Module, rate_lr: float | None = None) -> list[dict[str, Any]]:
    """The parameter groups of an optimizer: weights as it treats them, rates without weight decay.

    Args:
        model: a module with learned sites; as it will be trained, so after `fully_shard`.
        rate_lr: learning rate of the rates, which often want a larger step than weights; the optimizer's own if None.

    Returns:
        One group of the weights, if there are any, and one of the rates, of those parameters that require a gradient.

    Raises:
        DropkitValueError, DropkitTypeError: a model without learned sites; no module; a learning rate that is not
            positive.

    >>> import torch
    >>> from dropkit.torch.learned import ConcreteDropout
    >>> model = nn.Sequential(nn.Linear(4, 8), ConcreteDropout(0.2), nn.Linear(8, 1))
    >>> optimizer = torch.optim.AdamW(groups(model, rate_lr=0.01), lr=0.001, weight_decay=0.1)
    >>> [(len(group["params"]), group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    [(4, 0.001, 0.1), (1, 0.01, 0.0)]
    """
    rates = [parameter for parameter in rate_parameters(model).values() if parameter.requires_grad]
    own = set(map(id, rates))
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad and id(parameter) not in own]
    of_rates: dict[str, Any] = {"params": rates, "weight_decay": 0.0}
    if rate_lr is not None:
        of_rates["lr"] = positive("rate_lr", rate_lr)
    return [group for group in ({"params": weights}, of_rates) if group["params"]]
