"""Bound models under torch.func: ensembles by stacked states, derivatives, per-sample gradients."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, grad_and_value, hessian, jacfwd, jacrev, stack_module_state, vmap

from dropkit import Key, keep
from dropkit.torch import Dropout, at, bind

X = torch.ones(2, 4)
# torch's own forward-mode formulas are scripted on first use, which it deprecates itself.
forward_mode = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


def make(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return bind(nn.Sequential(nn.Linear(4, 64), Dropout(0.5)), seed=seed)


def ensemble(seeds: range):
    nets = [make(seed) for seed in seeds]
    parameters, buffers = stack_module_state(nets)
    return nets, copy.deepcopy(nets[0]).to("meta"), parameters, buffers


@pytest.mark.parametrize("randomness", ["error", "same", "different"])
def test_each_member_of_an_ensemble_draws_what_it_draws_alone(randomness: str) -> None:
    nets, base, parameters, buffers = ensemble(range(3))
    call = vmap(lambda p, b, x: functional_call(base, (p, b), (x,)), (0, 0, None), randomness=randomness)
    for step in range(2):
        together = call(parameters, buffers, X)
        assert buffers["dropkit_step"].tolist() == [step + 1] * 3
        for y, net in zip(together, nets, strict=True):
            alone = net(X)
            assert torch.equal(y != 0, alone != 0)
            torch.testing.assert_close(y, alone)


def test_the_gradient_of_an_ensemble_has_the_masks_of_its_members() -> None:
    nets, base, parameters, buffers = ensemble(range(3))

    def loss(p, b, x):
        return functional_call(base, (p, b), (x,)).square().sum()

    grads, losses = vmap(grad_and_value(loss), (0, 0, None))(parameters, buffers, X)
    for i, net in enumerate(nets):
        alone = net(X).square().sum()
        alone.backward()
        torch.testing.assert_close(losses[i], alone)
        torch.testing.assert_close(grads["0.weight"][i], net[0].weight.grad)


def test_members_of_one_seed_are_told_apart_where_that_is_asked_for() -> None:
    nets = [bind(nn.Sequential(Dropout(0.5), nn.Linear(4, 4)), seed=1) for _ in range(3)]
    parameters, buffers = stack_module_state(nets)
    x = torch.ones(64, 4)

    def first_dropout(p, b):
        seen = []
        handle = nets[0][0].register_forward_hook(lambda module, args, y: seen.append(y))
        functional_call(nets[0], (p, b), (x,))
        handle.remove()
        return seen[0]

    same, different = (
        vmap(first_dropout, randomness=randomness)(parameters, buffers) for randomness in ("same", "different")
    )
    assert torch.equal(same[0], same[1])
    assert not torch.equal(different[0], different[1])


def test_a_gradient_counts_one_step_and_has_the_mask_of_that_step() -> None:
    net = make(0)
    parameters, buffers = dict(net.named_parameters()), dict(net.named_buffers())
    ways = [
        lambda p: functional_call(net, p, (X,)).sum(),
        lambda p: functional_call(net, (p, buffers), (X,)).sum(),
    ]
    for step, way in enumerate(ways):
        found = grad(way)(parameters)
        kept = torch.from_numpy(keep((2, 64), 0.5, Key(0, "1", step)).copy())
        assert torch.equal(found["0.bias"], kept.float().sum(0) * 2)
        assert int(net.dropkit_step) == step + 1


@forward_mode
@pytest.mark.parametrize("jacobian", [jacrev, jacfwd])
def test_jacobians(jacobian) -> None:
    net = make(0)
    found = jacobian(lambda p: functional_call(net, p, (X,)))(dict(net.named_parameters()))
    kept = torch.from_numpy(keep((2, 64), 0.5, Key(0, "1", 0)).copy())
    assert torch.equal(found["0.bias"], torch.diag_embed(kept.float() * 2))
    assert int(net.dropkit_step) == 1


@forward_mode
def test_a_hessian() -> None:
    net = make(0)
    found = hessian(lambda p: functional_call(net, p, (X,)).square().sum())(dict(net.named_parameters()))
    kept = torch.from_numpy(keep((2, 64), 0.5, Key(0, "1", 0)).copy())
    torch.testing.assert_close(found["0.bias"]["0.bias"], torch.diag(kept.float().sum(0) * 8))


@pytest.mark.parametrize("randomness", ["error", "same", "different"])
def test_per_sample_gradients(randomness: str) -> None:
    net = make(0)
    parameters, samples = dict(net.named_parameters()), torch.randn(5, 4)

    def loss(p, x):
        return functional_call(net, p, (x[None],)).sum()

    found = vmap(grad(loss), (None, 0), randomness=randomness)(parameters, samples)["0.bias"]
    assert int(net.dropkit_step) == 1
    if randomness == "different":  # sample n draws row n of the batch
        kept = torch.from_numpy(keep((5, 64), 0.5, Key(0, "1", 0)).copy())
        assert torch.equal(found, kept.float() * 2)
    else:
        kept = torch.from_numpy(keep((1, 64), 0.5, Key(0, "1", 0)).copy())
        assert torch.equal(found, (kept.float() * 2).expand(5, -1))


def test_a_step_set_by_hand_under_transforms() -> None:
    nets, base, parameters, buffers = ensemble(range(3))
    with at(step=9):
        together = vmap(lambda p, b: functional_call(base, (p, b), (X,)))(parameters, buffers)
        assert all(torch.equal(y != 0, net(X) != 0) for y, net in zip(together, nets, strict=True))
    assert buffers["dropkit_step"].tolist() == [0] * 3
