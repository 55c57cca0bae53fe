"""From a trained sparse variational network to a plain and smaller one with the same outputs."""

import copy
import itertools
from typing import Any

import torch
from torch import nn

from ...errors import DropkitTypeError, DropkitValueError
from .sparse import SparseLayer, SparseVariationalConv2d, SparseVariationalLinear

# Functions of single elements: a unit that is constant before one is constant behind it.
ELEMENTWISE = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid,
    nn.Softplus, nn.Softsign, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.LogSigmoid, nn.Identity,
)  # fmt: skip


class Select(nn.Module):
    """Keeps the listed features of the last axis: `y = x[..., index]`.

    Args:
        index: which, int64, one-dimensional.
        size: how many features come in.

    >>> Select(torch.tensor([2, 0]), 3)(torch.tensor([[1.0, 2.0, 3.0]]))
    tensor([[3., 1.]])
    """

    index: torch.Tensor

    def __init__(self, index: torch.Tensor, size: int) -> None:
        super().__init__()
        self.register_buffer("index", index)
        self.size = size

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The kept features."""
        if input.shape[-1] != self.size:
            raise DropkitValueError(f"Select of {self.size} features got a tensor of shape {tuple(input.shape)}")
        return input.index_select(-1, self.index)

    def extra_repr(self) -> str:
        """How many of how many."""
        return f"{len(self.index)} of {self.size}"


def sparsify(model: nn.Module, threshold: float | None = None) -> nn.Module:
    """A plain copy of a model without the weights that sparse variational dropout found to be noise.

    Every sparse layer becomes torch's own Linear or Conv2d with 0 where `ln alpha >= threshold`. In a Sequential of
    Linear layers and elementwise activations, units are then cut out: those that nothing reads, and those that nothing
    reaches, whose constant goes into the next bias; inputs that nothing reads are left out by a `Select` in front.
    Outputs are those of the thresholded model in evaluation, to float rounding.

    Args:
        model: a sparse layer, or a model that holds some; it stays as it is.
        threshold: ln alpha from which a weight goes; each layer's own (3.0) where None.

    Returns:
        A new module in evaluation mode.

    Raises:
        DropkitTypeError: not a module.
        DropkitValueError: a model without sparse variational layers.

    Source: Molchanov, Ashukha, Vetrov 2017 (ICML).

    >>> net = nn.Sequential(SparseVariationalLinear(4, 3), nn.ReLU(), SparseVariationalLinear(3, 2))
    >>> with torch.no_grad():
    ...     _ = net[2].log_sigma2[:, 0].fill_(10.0)  # nothing reads hidden unit 0
    >>> sparsify(net)[0]
    Linear(in_features=4, out_features=2, bias=True)
    """
    if not isinstance(model, nn.Module):
        raise DropkitTypeError(f"sparsify needs a torch.nn.Module, got {type(model).__name__}")
    if not any(isinstance(part, SparseLayer) for part in model.modules()):
        raise DropkitValueError(
            f"no sparse variational layer in this {type(model).__name__}: train it with SparseVariationalLinear or "
            "SparseVariationalConv2d first"
        )
    with torch.no_grad():
        return _plain(copy.deepcopy(model).eval(), threshold)


def _plain(module: nn.Module, threshold: float | None) -> nn.Module:
    if isinstance(module, SparseVariationalLinear | SparseVariationalConv2d):
        return module.dense(threshold)
    sparse = any(isinstance(child, SparseVariationalLinear) for child in module.children())
    for name, child in module.named_children():
        setattr(module, name, _plain(child, threshold))
    if sparse and type(module) is nn.Sequential and not _shared(module):
        return _cut(module)
    return module


def _shared(module: nn.Sequential) -> bool:
    return len(set(map(id, module.children()))) < len(module)


def _cut(chain: nn.Sequential) -> nn.Sequential:
    """Cut units between each two Linear layers that have only elementwise activations between them."""
    parts = list(chain.named_children())
    linear = [place for place, (_, part) in enumerate(parts) if type(part) is nn.Linear]
    changed = True
    while changed:  # a unit that goes may be the only reader of another before it
        changed = False
        for first, second in itertools.pairwise(linear):
            between = [part for _, part in parts[first + 1 : second]]
            if all(_elementwise(part) for part in between):
                changed |= _cut_between(parts[first][1], between, parts[second][1])
    named = dict(parts)
    if linear and all(_elementwise(part) for _, part in parts[: linear[0]]):
        head: Any = parts[linear[0]][1]
        read = head.weight.any(0)
        if not read.all():
            named = {"select": Select(read.nonzero().flatten(), head.in_features), **named}
            _keep_inputs(head, read)
    if list(chain._modules) == [str(number) for number in range(len(chain))]:
        return nn.Sequential(*named.values()).eval()
    result = nn.Sequential()
    for name, part in named.items():
        result.add_module(name, part)
    return result.eval()


def _elementwise(part: nn.Module) -> bool:
    inert = isinstance(part, nn.modules.dropout._DropoutNd) and not getattr(part, "active", False)  # in evaluation
    return inert or isinstance(part, ELEMENTWISE)


def _cut_between(first: Any, between: list[nn.Module], second: Any) -> bool:
    """Take out the units between two layers that nothing reads or nothing reaches; whether there were any."""
    read, reached = second.weight.any(0), first.weight.any(1)
    stay = read & reached
    if stay.all():
        return False
    constant = first.bias if first.bias is not None else first.weight.new_zeros(first.out_features)
    for part in between:
        constant = part(constant)
    shift = second.weight[:, ~reached] @ constant[~reached]
    if second.bias is not None:
        second.bias = nn.Parameter(second.bias + shift)
    elif shift.any():
        second.bias = nn.Parameter(shift)
    first.weight = nn.Parameter(first.weight[stay])
    if first.bias is not None:
        first.bias = nn.Parameter(first.bias[stay])
    first.out_features = int(stay.sum())
    _keep_inputs(second, stay)
    return True


def _keep_inputs(layer: Any, stay: torch.Tensor) -> None:
    layer.weight = nn.Parameter(layer.weight[:, stay])
    layer.in_features = int(stay.sum())
