"""Concrete dropout with its own backward pass: against finite differences, against torch, and that it learns."""

import numpy as np
import pytest
import torch

import dropkit.torch
from dropkit import DropkitError
from dropkit.numpy import ConcreteDropout
from dropkit.torch.learned import ConcreteDropout as TorchConcrete
from dropkit.torch.learned import regularizer


def layer(p: float = 0.3, **more: object) -> ConcreteDropout:
    return ConcreteDropout(p, seed=3, site="drop", **more)  # type: ignore[arg-type]


def test_gradients_are_those_of_finite_differences() -> None:
    rng = np.random.Generator(np.random.Philox(1))
    x, grad = rng.normal(size=(6, 5)), rng.normal(size=(6, 5))
    drop = layer(temperature=0.5)
    drop.forward(x, training=True)
    dx = drop.backward(grad)

    def loss(x: np.ndarray, logit: float) -> float:
        other = layer(temperature=0.5)
        other.logit = logit
        return float((other.forward(x, training=True) * grad).sum())

    h = 1e-6
    slope = (loss(x, drop.logit + h) - loss(x, drop.logit - h)) / (2 * h)
    assert drop.logit_grad == pytest.approx(slope, rel=1e-7)
    bump = np.zeros_like(x)
    bump[2, 3] = h
    assert dx[2, 3] == pytest.approx((loss(x + bump, drop.logit) - loss(x - bump, drop.logit)) / (2 * h), rel=1e-6)


def test_equals_torch() -> None:
    """Same uniform numbers, so outputs, gradients and penalty agree within rounding."""
    rng = np.random.Generator(np.random.Philox(2))
    x, grad = rng.normal(size=(4, 7)).astype(np.float32), rng.normal(size=(4, 7)).astype(np.float32)
    drop = layer()
    y = drop.forward(x, training=True)
    dx = drop.backward(grad)
    head = torch.nn.Linear(7, 2)
    twin = TorchConcrete(0.3, layer=head)
    leaf = torch.tensor(x, requires_grad=True)
    with dropkit.torch.at(seed=3, site="drop", step=0):
        theirs = twin(leaf)
    theirs.backward(torch.tensor(grad))
    np.testing.assert_allclose(y, theirs.detach().numpy(), rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(dx, leaf.grad.numpy(), rtol=2e-5, atol=1e-6)
    assert drop.logit_grad == pytest.approx(twin.logit.grad.item(), rel=1e-4)
    twin.logit.grad = None
    penalty = regularizer(twin, n=50)
    penalty.backward()
    weight = head.weight.detach().numpy()
    assert drop.penalty(50, weight) == pytest.approx(penalty.item(), rel=1e-5)
    assert drop.penalty_grad(50, weight) == pytest.approx(twin.logit.grad.item(), rel=1e-5)


def test_the_penalty_alone_drives_the_rate_to_a_half_and_a_clamp_holds_it() -> None:
    for clamp, end in (((0.0, 1.0), 0.5), ((0.0, 0.4), 0.4)):
        drop = layer(0.2, clamp=clamp, inputs=10)
        for _ in range(2000):
            drop.sgd(1.0, n=10)
        assert drop.p == pytest.approx(end, abs=1e-6)


def test_identity_where_it_is_off() -> None:
    drop, x = layer(), np.ones((2, 3), np.float32)
    assert drop.forward(x, training=False) is x
    assert drop.backward(x) is x
    assert drop.logit_grad == 0
    assert drop.step == 0
    assert not np.array_equal(layer(when="always").forward(x, training=False), x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"p": 0.0}, "p must lie in .0, 1. and inside clamp"),
        ({"p": float("nan")}, "got nan"),
        ({"p": "0.5"}, "p must be a number"),
        ({"p": 0.6, "clamp": (0.0, 0.5)}, "inside clamp"),
        ({"clamp": (0.5, 0.1)}, "0 <= low < high <= 1"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"when": "sometimes"}, "when must be one of"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(DropkitError, match=message):
        ConcreteDropout(**arguments)


def test_bad_calls() -> None:
    with pytest.raises(DropkitError, match="backward comes after a forward"):
        layer().backward(np.ones(3))
    with pytest.raises(DropkitError, match="at least 1, got 0"):
        layer(inputs=3).penalty(0)
    with pytest.raises(DropkitError, match="pass inputs="):
        layer().penalty(10)
