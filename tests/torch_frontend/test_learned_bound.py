"""Learned sites of a bound model: named, clocked, resumable, replayed by coordinates."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from dropkit import Key, uniform
from dropkit.torch import Dropout, at, bind, unbind
from dropkit.torch.learned import (
    ConcreteDropout,
    HardConcrete,
    LearnableBernoulli,
    SparseVariationalLinear,
    Standout,
    VariationalGaussianDropout,
    VariationalLinear,
    antithetic_backward,
)

X = torch.ones(6, 8)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        ConcreteDropout(0.3),
        SparseVariationalLinear(8, 8, log_sigma2=-2.0),
        Standout(),
        HardConcrete((8,)),
        LearnableBernoulli(0.4, estimator="straight-through"),
        VariationalGaussianDropout(0.3),
        VariationalLinear(8, 8),
        Dropout(0.2),
    )


def test_noise_follows_seed_path_and_step() -> None:
    model = bind(nn.Sequential(nn.Identity(), LearnableBernoulli(0.4, estimator="straight-through")), seed=7)
    for step in range(3):
        keep = torch.from_numpy(uniform(X.shape, Key(7, "1", step)) > 0.4)
        torch.testing.assert_close(model(X).detach(), keep / 0.6)
    assert int(model.dropkit_step) == 3


@pytest.mark.parametrize("place", range(7))
def test_each_family_repeats_under_its_coordinates(place: int) -> None:
    model = bind(nn.Sequential(net()[place]), seed=1)
    first, second = model(X), model(X)
    with at(step=0):
        again = model(X)
    assert not torch.equal(first, second)
    assert torch.equal(first, again)


def test_a_resumed_run_draws_what_it_would_have_drawn() -> None:
    model = bind(net(), seed=3)
    model(X), model(X)
    state = copy.deepcopy(model.state_dict())
    wanted = model(X)
    resumed = bind(net(), seed=99)
    resumed.load_state_dict(state)
    assert torch.equal(resumed(X), wanted)
    assert not [name for name in unbind(model).state_dict() if "dropkit" in name]


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_parts_repeat_their_draws(reentrant: bool) -> None:
    grads = []
    for recompute in (False, True):

        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.body = net()

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return checkpoint(self.body, x, use_reentrant=reentrant) if recompute else self.body(x)  # noqa: B023

        model = bind(Model(), seed=1)
        model(X.clone().requires_grad_()).sum().backward()
        grads.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_an_antithetic_step_is_one_step_of_the_clock() -> None:
    model = bind(nn.Sequential(Dropout(0.5), LearnableBernoulli(1e-7)), seed=1)
    seen = []

    def losses() -> torch.Tensor:
        y = model(X)
        seen.append(y.detach())
        return y.sum(1)

    antithetic_backward(model, losses)
    assert int(model.dropkit_step) == 1
    assert torch.equal(*seen)  # the rate of 1e-7 keeps all in both passes, and the other dropout repeats
    antithetic_backward(model, losses)
    assert int(model.dropkit_step) == 2
    assert not torch.equal(seen[0], seen[2])
