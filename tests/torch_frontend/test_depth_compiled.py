"""Compiled models whose layers are left out: one compilation for all masks and rates, and nothing else than eager."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

import dropkit.torch as dt
from dropkit.errors import DropkitRuntimeError

pytestmark = pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor",  # torch.compile looks at what a graph is given
    "ignore:<class 'torch.autograd.function.Function'> should not be instantiated",  # which the compiler does
    "ignore:`torch.jit.script.*deprecated:DeprecationWarning",  # in torch.compile itself
)
LAYERS = 9  # more than a compiler keeps of one function


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear, self.drop = nn.LayerNorm(4), nn.Linear(4, 4), dt.Dropout(0.2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(torch.tanh(self.linear(self.norm(x))))


def stack(kind: str) -> nn.Module:
    blocks = [Block() for _ in range(LAYERS)]
    if kind.startswith("residual"):
        return nn.Sequential(*[dt.ResidualDrop(block, 0.5, kind.partition(" ")[2]) for block in blocks])
    return nn.Sequential(dt.LayerDrop(blocks, 0.5, kind.partition(" ")[2], depth="linear"))


class Counting:
    """A backend that counts its graphs."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.graphs += 1
        return graph.forward


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "keyed"),
    [("layers batch", True), ("layers row", False), ("residual row", True), ("residual batch", False)],
)
def test_one_compilation_serves_all_masks_and_rates(kind: str, keyed: bool) -> None:
    torch.compiler.reset()
    torch.manual_seed(0)
    model = stack(kind)
    if keyed:
        dt.bind(model, 1)
    twin, backend = copy.deepcopy(model), Counting()
    compiled = torch.compile(model, backend=backend)
    graphs, switches = (
        [],
        [[m for m in net.modules() if isinstance(m, dt.LayerDrop | dt.ResidualDrop)] for net in (model, twin)],
    )
    for step in range(8):
        for switch in (switch for both in switches for switch in both):
            switch.p = 0.0 if step == 0 else 0.1 * step
        x = torch.randn(5, 4)
        state = torch.get_rng_state()
        y = compiled(x)
        y.sum().backward()
        torch.set_rng_state(state)
        z = twin(x)
        z.sum().backward()
        torch.testing.assert_close(y, z)
        graphs.append(backend.graphs)
    # all ran in the first step; layers without keyed sites are one program, those with them one each, and the clock
    assert graphs == [LAYERS + 1 if keyed else 1] * 8
    for mine, its in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, its.grad)
    torch.compiler.reset()


@pytest.mark.slow
def test_in_evaluation_there_is_one_graph_and_in_training_no_export() -> None:
    torch.compiler.reset()
    model, backend = stack("layers batch"), Counting()
    torch.compile(model.eval(), backend=backend, fullgraph=True)(torch.ones(2, 4))
    assert backend.graphs == 1
    torch.export.export(model, (torch.ones(2, 4),))
    with pytest.raises(DropkitRuntimeError, match="an exported graph has one answer for ever"):
        torch.export.export(model.train(), (torch.ones(2, 4),))
    torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.parametrize("make", [dt.DropPath, dt.ShakeDrop, dt.Swapout, dt.ShakeShake, dt.FractalJoin])
def test_what_needs_no_decision_compiles_whole(make: Any) -> None:
    torch.compiler.reset()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = make() if make is dt.ShakeShake else make(0.3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.drop(x) if make in (dt.DropPath, dt.ShakeDrop) else self.drop(x, 2 * x)

    model, backend = dt.bind(Net(), 2), Counting()
    twin, graphs = copy.deepcopy(model), []
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    for step in range(4):
        if make is not dt.ShakeShake:
            model.drop.p = twin.drop.p = 0.1 + step / 10
        a, b = (torch.ones(64, 4, requires_grad=True) for _ in range(2))
        y = compiled(a)
        y.sum().backward()
        z = twin(b)
        z.sum().backward()
        torch.testing.assert_close(y, z)
        torch.testing.assert_close(a.grad, b.grad)
        graphs.append(backend.graphs)
    assert len(set(graphs[1:])) == 1  # the first forward of a bound model is a program of its own
    torch.compiler.reset()
