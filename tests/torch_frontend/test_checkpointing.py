"""Recomputed forwards draw what they drew at first: gradients equal the run without checkpointing, exactly."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from dropkit.torch import Dropout, at, bind
from dropkit.torch.drawing import recomputation

# A reentrant checkpoint inside another one runs without gradient at first; torch warns of that.
pytestmark = pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")

WAYS = [
    pytest.param(
        {"use_reentrant": reentrant, "preserve_rng_state": preserve}, id=f"reentrant={reentrant}-rng={preserve}"
    )
    for reentrant in (True, False)
    for preserve in (True, False)
]


class Block(nn.Module):
    def __init__(self, drop: nn.Module):
        super().__init__()
        self.linear = nn.Linear(16, 16)
        self.drop = drop

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # The shared dropout is called twice in a block, so that the calls have to be told apart.
        return x + self.drop(torch.tanh(self.linear(self.drop(x))))


class Net(nn.Module):
    """Four blocks, the last two under a checkpoint of their own inside a checkpoint; one dropout may serve all."""

    def __init__(self, shared: bool, way: dict | None):
        super().__init__()
        one = Dropout(0.4)
        self.blocks = nn.ModuleList(Block(one if shared else Dropout(0.4)) for _ in range(4))
        self.way = way

    def call(self, function: Callable, x: torch.Tensor) -> torch.Tensor:
        return function(x) if self.way is None else checkpoint(function, x, **self.way)

    def tail(self, x: torch.Tensor) -> torch.Tensor:
        return self.call(self.blocks[3], self.call(self.blocks[2], x) * 1.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.call(self.blocks[0], x)
        x = self.call(self.blocks[1], x)
        return self.call(self.tail, x)


def make(shared: bool, way: dict | None) -> Net:
    torch.manual_seed(0)
    return bind(Net(shared, way), seed=5)


def gradients(model: nn.Module) -> list[torch.Tensor]:
    return [parameter.grad.clone() for parameter in model.parameters()]


def inputs(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(8, 16, generator=generator, requires_grad=True) for _ in range(count)]


def two_forwards_then_backward(model: Net) -> list[torch.Tensor]:
    a, b, c = inputs(3)
    model(a)  # a forward whose backward never comes
    first = model(b).square().sum()
    second = model(c).square().sum()
    first.backward()  # in the order that a stack of draws would get wrong
    second.backward()
    return [*gradients(model), b.grad, c.grad]


@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
@pytest.mark.parametrize("way", WAYS)
def test_two_forwards_before_backward(way: dict, shared: bool) -> None:
    expected = two_forwards_then_backward(make(shared, None))
    actual = two_forwards_then_backward(make(shared, way))
    assert all(torch.equal(one, other) for one, other in zip(expected, actual, strict=True))


def backward_outside_at(model: Net) -> list[torch.Tensor]:
    (x,) = inputs(1)
    with at(rows=torch.arange(100, 108)):
        loss = model(x).square().sum()
    for block in model.blocks:
        block.drop.p = 0.1  # a schedule moved on before backward
    loss.backward()
    return [*gradients(model), x.grad]


@pytest.mark.parametrize("way", WAYS)
def test_backward_after_the_block_and_with_another_rate(way: dict) -> None:
    expected = backward_outside_at(make(False, None))
    actual = backward_outside_at(make(False, way))
    assert all(torch.equal(one, other) for one, other in zip(expected, actual, strict=True))


@pytest.mark.parametrize("way", WAYS)
def test_whole_model_checkpointed_ticks_once(way: dict) -> None:
    plain, recomputed = make(False, None), make(False, None)
    x, y = inputs(1)[0], inputs(1)[0]
    plain(x).sum().backward()
    checkpoint(recomputed, y, **way).sum().backward()
    assert int(recomputed.dropkit_step) == int(plain.dropkit_step) == 1
    assert torch.equal(x.grad, y.grad)


@pytest.mark.parametrize("reentrant", [True, False])
def test_ambient_survives_checkpointing_even_without_the_generator_state(reentrant: bool) -> None:
    def run(way: dict | None) -> torch.Tensor:
        torch.manual_seed(0)
        model = Net(shared=True, way=way)
        (x,) = inputs(1)
        torch.manual_seed(3)
        model(x).square().sum().backward()
        return x.grad

    assert torch.equal(run(None), run({"use_reentrant": reentrant, "preserve_rng_state": False}))


class HandWritten(torch.autograd.Function):
    """A reentrant checkpoint as code bases write it, which never restores a generator."""

    @staticmethod
    def forward(ctx, function, x):
        ctx.function = function
        ctx.save_for_backward(x)
        with torch.no_grad():
            return function(x)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            y = ctx.function(x)
        torch.autograd.backward(y, grad)
        return None, x.grad


def test_hand_written_checkpoint() -> None:
    def run(recompute: bool) -> list[torch.Tensor]:
        model = make(True, None)
        if recompute:
            model.call = lambda function, x: HandWritten.apply(function, x)
        return two_forwards_then_backward(model)

    assert all(torch.equal(one, other) for one, other in zip(run(False), run(True), strict=True))


def test_inference_mode_looks_for_no_checkpoint_on_the_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it can be run again in a backward."""
    looked = []
    monkeypatch.setattr(recomputation, "_in_a_function", lambda: looked.append(1) or False)
    drop = Dropout(0.5, when="always")
    with torch.no_grad():
        drop(torch.ones(4))
    assert looked
    looked.clear()
    with torch.inference_mode():
        drop(torch.ones(4))
    assert not looked
