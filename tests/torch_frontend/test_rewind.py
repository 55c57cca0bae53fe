"""replay: every forward in the block has the masks of the first."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import dropkit.torch as dt
from dropkit.errors import DropkitTypeError, DropkitValueError
from dropkit.torch.changing.rewind import _later, replay

from .architectures import Bert, encoder

X = torch.linspace(-1, 1, 2 * 5 * 8).view(2, 5, 8)


def mixed() -> nn.Module:
    """torch's and dropkit's, the latter bindable."""
    return nn.Sequential(nn.Linear(8, 32), nn.Dropout(0.5), dt.Dropout(0.5), nn.Linear(32, 8))


def bound(seed: int = 1) -> Any:
    return dt.bind(nn.Sequential(nn.Linear(8, 32), dt.Dropout(0.5), dt.Dropout(0.25)), seed=seed)


@pytest.mark.parametrize("make", [mixed, bound, Bert, encoder, lambda: nn.LSTM(8, 8, 2, dropout=0.5)])
def test_all_forwards_draw_as_the_first(make: Any) -> None:
    """trl#3500: old and new log-probabilities of one policy, under one mask."""
    model = make()

    def run() -> torch.Tensor:
        y = model(X)
        return y[0] if isinstance(y, tuple) else y

    with replay(model):
        first = run()
        torch.rand(3)  # what is drawn between does not matter
        with torch.no_grad():
            second = run()
        third = run()
    torch.testing.assert_close(first, second)  # an LSTM sums in another order without gradient
    assert torch.equal(first, third)
    assert not torch.allclose(first, run())
    with replay(model):
        assert not torch.allclose(first, run())  # another block, other masks


def test_everything_goes_on_as_after_one_forward() -> None:
    model = bound()
    model.append(nn.Dropout(0.5))
    twin = copy.deepcopy(model)
    torch.manual_seed(0)
    expected = [twin(X), torch.rand(3), twin(X)]
    torch.manual_seed(0)
    with replay(model):
        first = model(X)
        model(X)
        between = torch.rand(3)
        model(X)
    assert int(model.dropkit_step) == 1
    for a, b in zip([first, between, model(X)], expected, strict=True):
        assert torch.equal(a, b)


def test_a_block_without_training_forwards_moves_nothing() -> None:
    model = bound().eval()
    state = torch.get_rng_state()
    with replay(model):
        model(X)
        model(X)
    assert int(model.dropkit_step) == 0
    assert torch.equal(torch.get_rng_state(), state)
    model.train()
    with replay(model):
        first = model(X)
        model.eval()
        model(X)
        model.train()
        assert torch.equal(model(X), first)
        model.eval()
        model(X)
    assert int(model.dropkit_step) == 1


def test_the_generator_goes_on_behind_the_furthest_forward() -> None:
    class Sizes(nn.Module):
        def forward(self, n: int) -> torch.Tensor:
            return torch.rand(n)

    model = Sizes()
    for lengths in ([10, 3000, 20], [3000, 10], [5, 9, 7]):
        torch.manual_seed(1)
        stream = torch.rand(4000)
        torch.manual_seed(1)
        with replay(model):
            for n in lengths:
                assert torch.equal(model(n), stream[:n])
        assert torch.equal(torch.rand(5), stream[max(lengths) : max(lengths) + 5])


def test_the_later_of_two_states_of_an_accelerator() -> None:
    def state(seed: int, offset: int) -> torch.Tensor:
        return torch.tensor([seed, offset]).view(torch.uint8)

    assert torch.equal(_later("cuda", state(1, 4), state(1, 8)), state(1, 8))
    assert torch.equal(_later("cuda", state(1, 8), state(1, 4)), state(1, 8))
    assert torch.equal(_later("cuda", state(1, 4), state(2, 8)), state(1, 4))


@pytest.mark.parametrize("make", [mixed, bound])
@pytest.mark.parametrize("reentrant", [True, False])
def test_with_checkpointing_gradients_are_those_of_the_masks(make: Any, reentrant: bool) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = make() if make is mixed else dt.unbind(make())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return checkpoint(self.inner, x, use_reentrant=reentrant)

    model = Checkpointed()
    if make is bound:
        dt.bind(model, seed=3)
    plain = model.inner
    torch.manual_seed(0)
    gradients = []
    with replay(model):
        for _ in range(2):
            x = X.clone().requires_grad_()
            model(x).sum().backward()
            gradients.append(x.grad)
        late = X.clone().requires_grad_()
        y = model(late).sum()
    y.backward()
    assert all(torch.equal(gradient, gradients[0]) for gradient in [*gradients, late.grad])
    if make is mixed:
        torch.manual_seed(0)
        x = X.clone().requires_grad_()
        plain(x).sum().backward()
        torch.testing.assert_close(x.grad, gradients[0])


@pytest.mark.parametrize("make", [mixed, bound])
def test_after_an_exception_the_next_forward_replays(make: Any) -> None:
    model = make()
    with replay(model):
        first = model(X)
        with pytest.raises(RuntimeError):
            model(torch.ones(2, 3))
        assert torch.equal(model(X), first)
    hooks = [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules()]
    with pytest.raises(ZeroDivisionError), replay(model):
        raise ZeroDivisionError
    assert [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules()] == hooks


@pytest.mark.parametrize("make", [mixed, bound])
def test_blocks_nest(make: Any) -> None:
    model = make()
    with replay(model):
        first = model(X)
        with replay(model):
            assert torch.equal(model(X), first)
            assert torch.equal(model(X), first)
        assert torch.equal(model(X), first)
    assert not torch.equal(model(X), first)


def test_a_bound_part_of_a_larger_model() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.g, self.d = bound(1), bound(2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([F.dropout(self.g(x)), self.d(x)])

    model: Any = Pair()
    model.d(X)
    with replay(model):
        first = model(X)
        assert torch.equal(model(X), first)
    assert (int(model.g.dropkit_step), int(model.d.dropkit_step)) == (1, 2)


@pytest.mark.parametrize("make", [mixed, bound])
def test_a_policy_and_its_reference(make: Any) -> None:
    policy = make()
    reference = copy.deepcopy(policy)
    for _ in range(3):
        policy(X)  # the clocks differ now
    with replay(policy, reference):
        y = policy(X)
        assert torch.equal(reference(X), y)
        assert torch.equal(policy(X), y)
    if make is bound:
        assert (int(policy.dropkit_step), int(reference.dropkit_step)) == (4, 1)
    with replay(policy, reference):
        y = reference(X)  # whoever comes first
        assert torch.equal(policy(X), y)


def test_a_step_that_is_set_by_hand_wins() -> None:
    model = bound()
    with dt.at(step=7):
        expected = model(X)
    with replay(model):
        first = model(X)
        with dt.at(step=7):
            assert torch.equal(model(X), expected)
        assert torch.equal(model(X), first)
    assert int(model.dropkit_step) == 1


@pytest.mark.parametrize("make", [mixed, bound])
def test_compiled_models(make: Any) -> None:
    torch.compiler.reset()
    model = make()
    compiled: Any = torch.compile(model, backend="eager", fullgraph=True)
    compiled(X)
    with replay(compiled):
        first = compiled(X)
        assert torch.equal(compiled(X), first)
    assert not torch.equal(compiled(X), first)


def test_refusals() -> None:
    with pytest.raises(DropkitValueError, match="replay needs a model"):
        replay().__enter__()
    with pytest.raises(DropkitTypeError, match=r"replay needs torch.nn.Modules, got int"):
        replay(3).__enter__()  # type: ignore[arg-type]
    with pytest.raises(DropkitValueError, match=r"cannot draw the same masks.*bind all of them with one seed, or none"):
        replay(bound(1), bound(2)).__enter__()
    with pytest.raises(DropkitValueError, match="another is unbound"):
        replay(bound(1), mixed()).__enter__()
    model = bound()
    with pytest.raises(DropkitValueError, match=r"is a part of a bound Sequential.*replay that model"):
        replay(model[1]).__enter__()
    model.compile(backend="eager")
    with pytest.raises(DropkitValueError, match="was compiled in place; compile with"):
        replay(model).__enter__()
