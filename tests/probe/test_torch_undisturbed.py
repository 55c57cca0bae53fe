"""Being explained leaves a model and everything around it as it was, also when the model fails on the way."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import _get_current_function_mode_stack
from torch.utils.checkpoint import checkpoint

import dropkit.torch as ours
from dropkit.errors import DropkitRuntimeError
from dropkit.probe import explain

_DICTS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks",
          "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs", "_forward_hooks_always_called")  # fmt: skip


class FailsBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, fails: Callable[[], bool]) -> torch.Tensor:
        ctx.fails = fails
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        if ctx.fails():
            raise ValueError("on the way back")
        return grads[0], None


class Net(nn.Module):
    """Writes into its input, counts its forwards, keeps an activation, normalises, and drops in several ways."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.drop, self.ours = (
            nn.Linear(4, 8),
            nn.BatchNorm1d(8),
            nn.Dropout(0.5),
            ours.Dropout(0.3),
        )
        self.part, self.last, self.rate = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.2)), nn.Linear(8, 2), 0.1
        self.average: torch.Tensor
        self.register_buffer("average", torch.zeros(8))
        self.count, self.kept, self.random = 0, torch.zeros(1), np.random.default_rng(0)
        self.fails_at, self.fails_back_at, self.backwards = 0, 0, 0
        self.frozen = nn.Parameter(torch.ones(8), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        FORWARDS.append(1)
        if len(FORWARDS) == self.fails_at:
            raise ValueError("on the way")
        x.add_(1)
        self.count += 1
        x = self.ours(self.drop(self.norm(self.first(x)))) * self.frozen
        self.average.copy_(x.detach().mean(0))
        self.kept = x
        if self.training and random.random() < 2 and np.random.rand() < 2:  # noqa: NPY002
            x = F.dropout(x, self.rate)
        x = checkpoint(self.part, x, use_reentrant=False)
        y: torch.Tensor = self.last(FailsBackward.apply(x, self._fails))
        return y

    def _fails(self) -> bool:
        BACKWARDS.append(1)
        return len(BACKWARDS) == self.fails_back_at


FORWARDS: list[int] = []
BACKWARDS: list[int] = []


def state(model: nn.Module) -> dict[str, Any]:
    """Everything that must be as before; tensors as (identity, values)."""

    def pinned(x: Any) -> Any:
        return (id(x), x.detach().clone().tolist(), x.requires_grad) if isinstance(x, torch.Tensor) else x

    numpys = np.random.get_state()  # noqa: NPY002
    found: dict[str, Any] = {
        "generators": (random.getstate(), repr(numpys), torch.get_rng_state().tolist()),
        "modes": (torch._C._len_torch_dispatch_stack(), len(_get_current_function_mode_stack())),
        "grad mode": torch.is_grad_enabled(),
        "engine": id(torch.autograd._engine_run_backward),  # type: ignore[attr-defined]
        "global hooks": [
            list(getattr(nn.modules.module, name)) for name in dir(nn.modules.module) if name.startswith("_global_")
            and isinstance(getattr(nn.modules.module, name), dict)
        ],
    }  # fmt: skip
    for path, module in model.named_modules():
        found[f"{path} training"] = module.training
        found[f"{path} hooks"] = {name: list(getattr(module, name)) for name in _DICTS}
        found[f"{path} attributes"] = {
            name: pinned(value) for name, value in vars(module).items() if not name.startswith("_")
        }
        found[f"{path} names"] = set(vars(module))
        found[f"{path} buffers"] = {name: pinned(value) for name, value in module.named_buffers(recurse=False)}
    for name, parameter in model.named_parameters():
        found[name] = pinned(parameter), pinned(parameter.grad), parameter._version
        found[f"{name} hooks"] = [list(hooks or ()) for hooks in _hooks(parameter)]
    return found


def _hooks(parameter: Any) -> tuple[Any, Any]:
    return parameter._backward_hooks, parameter._post_accumulate_grad_hooks


def made(bound: bool = True) -> tuple[Net, torch.Tensor]:
    torch.manual_seed(0)
    FORWARDS.clear()
    BACKWARDS.clear()
    model = Net()
    if bound:
        with pytest.warns(UserWarning, match="bind leaves torch's own dropouts unbound"):
            ours.bind(model, seed=1)
    model(torch.randn(6, 4)).sum().backward()
    FORWARDS.clear()
    BACKWARDS.clear()
    return model, torch.randn(6, 4)


@pytest.mark.parametrize("bound", [True, False])
@pytest.mark.parametrize("mode", ["train", "eval", "mixed"])
def test_everything_is_as_before(mode: str, bound: bool) -> None:
    model, x = made(bound)
    model.train(mode == "train")
    if mode == "mixed":
        model.norm.train()
    stepped: list[int] = []
    model.last.weight.register_post_accumulate_grad_hook(lambda parameter: stepped.append(1))
    heard: list[int] = []
    model.first.register_forward_hook(lambda *given: heard.append(1))
    before, given = state(model), x.clone()
    explanation = explain(model, x)
    assert state(model) == before
    assert torch.equal(x, given)
    assert len(FORWARDS) == explanation.forwards
    assert len(BACKWARDS) == explanation.backwards == 2
    assert not stepped  # an optimiser in such a hook would have moved the weights
    assert heard
    assert len(explanation.sites) == 4


def _number_of_forwards() -> int:
    model, x = made()
    model.norm.eval()
    return explain(model, x).forwards


@pytest.mark.parametrize("number", range(1, 11))
def test_everything_is_as_before_when_a_forward_fails(number: int) -> None:
    model, x = made()
    model.norm.eval()  # with mixed modes there is one run more
    model.fails_at = number
    before = state(model)
    with pytest.raises(DropkitRuntimeError, match=r"\(ValueError: on the way\)"):
        explain(model, x)
    assert state(model) == before
    assert number <= _number_of_forwards() == 10


@pytest.mark.parametrize("number", [1, 2])
def test_everything_is_as_before_when_a_backward_fails(number: int) -> None:
    model, x = made()
    model.fails_back_at = number
    before = state(model)
    with pytest.raises(DropkitRuntimeError, match=r"\(ValueError: on the way back\)"):
        explain(model, x)
    assert state(model) == before


def test_everything_is_as_before_when_the_loss_fails() -> None:
    model, x = made()
    before = state(model)
    with pytest.raises(DropkitRuntimeError, match="KeyError"):
        explain(model, x, loss=lambda y: {}[y])
    assert state(model) == before


def test_a_graph_that_waits_for_its_backward_is_not_spoilt() -> None:
    model, x = made()
    y = model(x.clone())
    explain(model, x)
    y.sum().backward()


def test_inside_no_grad_and_with_grads_of_inputs() -> None:
    model, x = made()
    x.requires_grad_()
    model.first.weight.grad = None
    with torch.no_grad():
        explanation = explain(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), model.first), x)
    assert explanation.backwards == 2
    assert x.grad is None
    assert model.first.weight.grad is None


def test_the_state_comparison_can_fail() -> None:
    model, x = made()
    before = state(model)
    model(x.clone())
    after = state(model)
    changed = {name for name in before if before[name] != after[name]}
    assert {"generators", " attributes", "norm buffers", " buffers"} <= changed
    model.norm.eval()
    model.first.register_forward_hook(lambda *given: None)
    assert {"norm training", "first hooks"} <= {name for name in before if before[name] != state(model)[name]}
