"""The probe: runs a model and tells what dropout does to each of its layers."""

from typing import Any

from ..errors import DropkitTypeError
from ..frontends import is_keras, is_torch
from .explanation import Explanation as Explanation
from .explanation import Layer as Layer
from .explanation import Site as Site


def explain(model: Any, *inputs: Any, **kwargs: Any) -> Explanation:
    """What dropout does in a model: which layers it zeroes, whose outputs and gradients it changes, and when it is on.

    Runs the model a handful of times forward and backward, dropout on, off and with other masks, and follows the data
    from each dropout. Modes, buffers, gradients, generators and hooks are as before, after exceptions too.

    Args:
        model: a `torch.nn.Module` or a Keras model.
        inputs, kwargs: what its forward takes; a batch of two or more samples tells more than one. `loss=`, of torch
            models, is a function of the output whose gradients are looked at; without it the model's own loss, or a
            mean square error against random targets.

    Returns:
        An `Explanation`: plain values for the tree, the page and the findings of `dropkit.doctor`.

    Raises:
        DropkitTypeError: no such model, or no inputs.
        DropkitRuntimeError: the model fails with these inputs; the cause is kept.
        DropkitValueError: parameters of lazy modules are not there yet.

    >>> from torch import nn, ones
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2))
    >>> site = explain(model, ones(3, 4)).site("2")
    >>> site.zeroes, site.changes, site.gradients
    (('0',), ('', '3'), ('0', '3'))
    """
    if is_keras(model):
        from .keras import explain_keras

        return explain_keras(model, *inputs, **kwargs)
    if is_torch(model):
        from .torch import explain_torch

        return explain_torch(model, *inputs, **kwargs)
    raise DropkitTypeError(f"explain needs a torch.nn.Module or a keras model, got {type(model).__name__}")
