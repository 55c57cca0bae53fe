"""passes(model, n): n draws of one step, each a function of its number; pass 0 is the ordinary draw."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import dropkit
import dropkit.torch as dt
from dropkit import DropkitError, Key

X = torch.ones(4, 64)


def bound() -> Any:
    return dt.bind(nn.Sequential(dt.Dropout(0.5), nn.Identity()), seed=7)


def test_pass_zero_is_the_ordinary_draw_and_others_are_named_sites() -> None:
    model, alone = bound(), bound()
    with dt.passes(model, 3) as each:
        found = [model(X) for _ in each]
    assert torch.equal(found[0], alone(X))
    for number in (1, 2):
        keep = dropkit.keep((4, 64), 0.5, Key(7, f"0@{number}", 0))
        assert torch.equal(found[number] != 0, torch.from_numpy(keep.copy()))


def test_all_passes_are_one_step_and_the_next_forward_is_the_next() -> None:
    model, alone = bound(), bound()
    for _ in range(2):
        with dt.passes(model, 2) as each:
            views = [model(X) for _ in each]
        assert torch.equal(views[0], alone(X))
    assert int(model.dropkit_step) == 2 and torch.equal(model(X), alone(X))


def test_several_forwards_of_a_pass_are_several_steps() -> None:
    model, alone = bound(), bound()
    with dt.passes(model, 2) as each:
        found = [(model(X), model(X)) for _ in each]
    for y in found[0]:
        assert torch.equal(y, alone(X))
    assert int(model.dropkit_step) == 2 and not torch.equal(*found[1])


def test_a_second_forward_at_one_step_without_passes_draws_the_same() -> None:
    model = bound()
    with dt.at(step=5):
        assert torch.equal(model(X), model(X))
        with dt.passes(model, 2) as each:
            first, second = [model(X) for _ in each]
        assert torch.equal(first, model(X)) and not torch.equal(first, second)
    assert int(model.dropkit_step) == 0


def test_an_exception_or_an_early_end_leaves_everything_in_order() -> None:
    model, alone = bound(), bound()
    with pytest.raises(KeyError), dt.passes(model, 2) as each:
        for number in each:
            model(X)
            if number:
                raise KeyError
    with dt.passes(model, 3) as each:
        for _ in each:
            model(X)
            break
        del each
    for _ in range(2):
        alone(X)
    assert torch.equal(model(X), alone(X))


def test_gradients_and_checkpoints_have_the_mask_of_their_pass() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = dt.Dropout(0.5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return checkpoint(lambda x: self.drop(x * x), x, use_reentrant=False)

    model = dt.bind(Model(), seed=1)
    x = X.clone().requires_grad_()
    with dt.passes(model, 2) as each:
        found = [model(x) for _ in each]
    for y in found:
        (grad,) = torch.autograd.grad(y.sum(), x)
        assert torch.equal(grad != 0, y != 0)


def test_compiled_it_draws_the_same() -> None:
    model, alone = bound(), bound()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for _ in range(2):
        with dt.passes(model, 2) as each:
            found = [compiled(X) for _ in each]
        with dt.passes(alone, 2) as each:
            wanted = [alone(X) for _ in each]
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_what_does_not_fit_is_told() -> None:
    model = bound()
    for call, words in (
        (lambda: dt.passes(nn.Linear(2, 2), 2), "not bound.*bind"),
        (lambda: dt.passes(model, 0), "n=0"),
        (lambda: dt.passes(model, True), "n=True"),
        (lambda: dt.passes(model, 1.5), "1.5"),
        (lambda: dt.passes(3, 2), "int"),  # type: ignore[arg-type]
        (lambda: dt.passes(model[0], 2), "part of a bound"),
    ):
        with pytest.raises(DropkitError, match=words), call():
            pass
    with dt.passes(model, 2) as each:
        next(each)
        with pytest.raises(DropkitError, match="one"), dt.passes(model, 2):
            pass
