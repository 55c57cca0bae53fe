"""torch.func and autograd of higher order: a mask is a function of coordinates, so transforms find nothing random."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from dropkit import Key
from dropkit.axes.noise import Alpha
from dropkit.torch import Dropout, at, bind, dropout, functional

from .families import CHANNELS, FUNCTIONS, SHAPES, dropped, function, layer, ones

# torch's own forward-mode formulas are scripted on first use, which it deprecates itself.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script.*deprecated:DeprecationWarning")

each = pytest.mark.parametrize("name", SHAPES)
each_kind = pytest.mark.parametrize("make", [layer, function], ids=["class", "function"])
KEY = Key(4, "transforms", 1)
vmap = torch.func.vmap


def keyed(x: torch.Tensor, p: Any = 0.5, **more: Any) -> torch.Tensor:
    return dropout(x, p, training=True, key=KEY, **more)


def slices(name: str, in_dim: int = 0, count: int = 3) -> torch.Tensor:
    """Ones to be mapped over: `count` inputs that suit one of the six, along an axis."""
    return torch.stack([ones(name)] * count, dim=in_dim)


# ---------------------------------------------------------------------------------------------------------------------
# vmap


@each
@each_kind
@pytest.mark.parametrize("randomness", ["error", "same"])
def test_vmap_with_one_mask_for_all_slices(name: str, make: Callable, randomness: str) -> None:
    """Also where torch's dropout raises "vmap: called random operation while in randomness error mode"."""
    y = vmap(make(name), randomness=randomness)(slices(name))
    assert 0 < dropped(y).float().mean() < 1
    assert (y == y[0]).all()


def test_torchs_own_vmap_refuses_dropout() -> None:
    with pytest.raises(RuntimeError, match="called random operation while in randomness error mode"):
        vmap(nn.functional.dropout)(torch.ones(3, 8))


@each
@each_kind
@pytest.mark.parametrize("in_dim", [0, 1, -1])
def test_vmap_with_a_mask_for_each_slice(name: str, make: Callable, in_dim: int) -> None:
    y = vmap(make(name), in_dims=in_dim, randomness="different")(slices(name, in_dim))
    gone = dropped(y)
    assert 0.25 < gone.float().mean() < 0.75
    assert len(torch.unique(gone.flatten(1), dim=0)) == len(gone)
    whole = gone.flatten(3)
    assert bool((whole == whole[..., :1]).all()) == (name in CHANNELS)


@each
def test_vmap_over_something_else(name: str) -> None:
    """The input of the dropout is not mapped (in_dims None): its mask is, where the slices are to differ."""
    x, other = ones(name), torch.zeros(3)
    for randomness, masks in (("different", 3), ("same", 1), ("error", 1)):
        y = vmap(lambda x, o: function(name)(x) + o, in_dims=(None, 0), randomness=randomness)(x, other)
        assert len(torch.unique(dropped(y).flatten(1), dim=0)) == masks


def test_vmap_different_continues_the_mask_from_slice_to_slice() -> None:
    """Along axis 0 it is the mask of all slices together, so it follows from coordinates alone."""
    x = torch.ones(5, 4, 8)
    for share in ((), (1,)):
        y = vmap(lambda one, share=share: keyed(one, share=share), randomness="different")(x)
        assert torch.equal(y, keyed(x, share=[axis + 1 for axis in share]))
    assert torch.equal(vmap(keyed, randomness="same")(x), torch.stack([keyed(one) for one in x]))


def test_nested_vmap() -> None:
    x = torch.ones(3, 4, 64)
    both = vmap(vmap(functional.dropout, randomness="different"), randomness="different")(x)
    assert len(torch.unique(both.reshape(12, 64), dim=0)) == 12
    inner = vmap(vmap(functional.dropout, randomness="different"), randomness="same")(x)
    assert len(torch.unique(inner.reshape(12, 64), dim=0)) == 4
    assert (inner == inner[0]).all()
    outer = vmap(vmap(functional.dropout, randomness="same"), randomness="different")(x)
    assert len(torch.unique(outer.reshape(12, 64), dim=0)) == 3
    assert (outer == outer[:, :1]).all()


def test_vmap_over_rates() -> None:
    x, rates = torch.ones(3, 500), torch.tensor([0.1, 0.5, 0.9])
    y = vmap(keyed)(x, rates)
    assert torch.equal(y, torch.stack([keyed(one, p) for one, p in zip(x, rates, strict=True)]))


def test_vmap_follows_the_seed() -> None:
    call, x = vmap(functional.dropout, randomness="different"), torch.ones(3, 64)
    torch.manual_seed(0)
    first, second = call(x), call(x)
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(first, call(x))


@each
def test_vmap_in_place(name: str) -> None:
    x = slices(name)
    y = vmap(lambda one: FUNCTIONS[name](one, 0.5, True, True), randomness="different")(x)
    assert torch.equal(x, y)
    assert len(torch.unique(dropped(y).flatten(1), dim=0)) == 3


# ---------------------------------------------------------------------------------------------------------------------
# derivatives


LAWS = {"bernoulli": {}, "alpha": {"noise": Alpha()}, "channels": {"share": (1,)}}
each_law = pytest.mark.parametrize("more", LAWS.values(), ids=LAWS)


def cubed(x: torch.Tensor, **more: Any) -> torch.Tensor:
    return keyed(x**3, **more)


def slope(x: torch.Tensor, **more: Any) -> torch.Tensor:
    """What the dropout multiplies its input's derivative by."""
    leaf = torch.ones_like(x).requires_grad_()
    return torch.autograd.grad(keyed(leaf, **more).sum(), leaf)[0]


@each_law
def test_grad(more: dict) -> None:
    x = torch.randn(4, 6, dtype=torch.float64)
    gradient = torch.func.grad(lambda x: cubed(x, **more).sum())(x)
    torch.testing.assert_close(gradient, 3 * x**2 * slope(x, **more))


@each_law
def test_jvp(more: dict) -> None:
    x, v = torch.randn(2, 4, 6, dtype=torch.float64)
    y, tangent = torch.func.jvp(lambda x: cubed(x, **more), (x,), (v,))
    assert torch.equal(y, cubed(x, **more))
    torch.testing.assert_close(tangent, 3 * x**2 * v * slope(x, **more))


@each_law
@pytest.mark.parametrize("jacobian", [torch.func.jacrev, torch.func.jacfwd])
def test_jacobians(jacobian: Callable, more: dict) -> None:
    x = torch.randn(4, 6, dtype=torch.float64)
    j = jacobian(lambda x: cubed(x, **more))(x).reshape(24, 24)
    torch.testing.assert_close(j, torch.diag((3 * x**2 * slope(x, **more)).flatten()))


@each_law
def test_hessian(more: dict) -> None:
    x = torch.randn(4, 6, dtype=torch.float64)
    h = torch.func.hessian(lambda x: cubed(x, **more).sum())(x).reshape(24, 24)
    torch.testing.assert_close(h, torch.diag((6 * x * slope(x, **more)).flatten()))


@each_law
@pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node:UserWarning")  # linearize's, with any constant
def test_vjp_and_linearize(more: dict) -> None:
    x = torch.randn(4, 6)
    y, vjp = torch.func.vjp(lambda x: keyed(x, **more), x)
    z, linear = torch.func.linearize(lambda x: keyed(x, **more), x)
    assert torch.equal(y, z)
    assert torch.equal(vjp(torch.ones_like(x))[0], slope(x, **more))
    assert torch.equal(linear(torch.ones_like(x)), slope(x, **more))


@each
def test_a_vectorised_vjp_keeps_the_forwards_mask(name: str) -> None:
    """With randomness="different" too: the mask was drawn outside the map, in the forward."""
    for call in (function(name), lambda x: keyed(x, noise=Alpha()) if "Alpha" in name else keyed(x)):
        y, vjp = torch.func.vjp(call, ones(name))
        gradients = vmap(lambda g, vjp=vjp: vjp(g)[0], randomness="different")(slices(name))
        for gradient in gradients:
            assert torch.equal(gradient == 0, dropped(y))


@each
def test_gradients_of_each_sample(name: str) -> None:
    """vmap over grad, the per-sample gradients of private training: each has the mask of its own forward."""

    def loss(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = function(name)(x)
        return y.sum(), y

    gradients, y = vmap(torch.func.grad(loss, has_aux=True), randomness="different")(slices(name))
    assert torch.equal(gradients == 0, dropped(y))
    assert len(torch.unique(dropped(y).flatten(1), dim=0)) == 3


@each
def test_ambient_functional_gradients(name: str) -> None:
    y, tangent = torch.func.jvp(function(name), (ones(name),), (ones(name),))
    assert torch.equal(tangent == 0, dropped(y))
    x = ones(name).double()

    def call(x: torch.Tensor) -> torch.Tensor:
        with at(seed=1, site="drop"):
            return function(name)(x)

    _, vjp = torch.func.vjp(call, x)
    assert torch.equal(torch.func.jvp(call, (x,), (x,))[1], vjp(x)[0])


def test_an_ensemble_of_stacked_parameters() -> None:
    model = nn.Sequential(nn.Linear(4, 64), Dropout(0.5), nn.Flatten())
    parameters = {name: torch.stack([value, value, value]) for name, value in model.named_parameters()}

    def forward(parameters: dict, x: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(model, parameters, (x,))

    x = torch.randn(5, 4)
    y = vmap(forward, in_dims=(0, None), randomness="different")(parameters, x)
    assert len(torch.unique(y == 0, dim=0)) == 3
    y = vmap(forward, in_dims=(0, None), randomness="same")(parameters, x)
    assert (y == y[0]).all()


def test_functional_call_of_a_bound_model() -> None:
    model = bind(nn.Sequential(nn.Linear(4, 64), Dropout(0.5)), seed=2)
    x = torch.randn(5, 4)
    with at(step=3):
        expected = model(x)
        actual = torch.func.functional_call(model, dict(model.named_parameters()), (x,))
        gradient = torch.func.grad(
            lambda weights: torch.func.functional_call(model, weights, (x,)).sum()
        )(dict(model.named_parameters()))  # fmt: skip
        expected.sum().backward()
    assert torch.equal(actual, expected)
    torch.testing.assert_close(gradient["0.weight"], model[0].weight.grad)


# ---------------------------------------------------------------------------------------------------------------------
# autograd


@each
def test_gradcheck_to_the_second_order(name: str) -> None:
    x = torch.randn(2, 3, *[2] * (len(SHAPES[name]) - 2), dtype=torch.float64, requires_grad=True)

    def call(x: torch.Tensor) -> torch.Tensor:
        with at(seed=1, site="drop"):
            return function(name, 0.4)(x)

    assert torch.autograd.gradcheck(call, x, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(call, x, check_batched_grad=True)


@each
def test_double_backward(name: str) -> None:
    """A gradient penalty: the second derivative runs through the same mask as the first."""
    x = ones(name).requires_grad_()
    y = function(name)(x**3)
    (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad((first**2).sum(), x)
    assert torch.equal(first == 0, dropped(y))
    assert torch.equal(second == 0, dropped(y))


@each
def test_batched_gradients_of_the_older_kind(name: str) -> None:
    """`autograd.grad(is_grads_batched=True)` and `autograd.functional.jacobian(vectorize=True)`."""
    x = ones(name).requires_grad_()
    y = function(name)(x)
    (gradients,) = torch.autograd.grad(y, x, slices(name), is_grads_batched=True)
    assert all(torch.equal(gradient == 0, dropped(y)) for gradient in gradients)

    def call(x: torch.Tensor) -> torch.Tensor:
        with at(seed=1, site="drop"):
            return function(name)(x)

    x = torch.ones(2, 3, *[1] * (len(SHAPES[name]) - 2))
    for strategy in ("reverse-mode", "forward-mode"):
        j = torch.autograd.functional.jacobian(call, x, vectorize=True, strategy=strategy)
        assert torch.equal(j.reshape(6, 6).diagonal() == 0, dropped(call(x)).flatten())


# ---------------------------------------------------------------------------------------------------------------------
# traced and compiled transforms


@each
def test_compiled_gradients(name: str) -> None:
    torch._dynamo.reset()

    def loss(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = function(name)(x)
        return y.sum(), y

    fast = torch.compile(torch.func.grad(loss, has_aux=True), backend="aot_eager", fullgraph=True)
    gradient, y = fast(ones(name))
    assert torch.equal(gradient == 0, dropped(y))


@pytest.mark.parametrize("name", ["Dropout", "Dropout2d", "FeatureAlphaDropout"])
def test_compiled_vmap(name: str) -> None:
    for randomness, masks in (("same", 1), ("different", 3)):
        torch._dynamo.reset()
        fast = torch.compile(vmap(function(name), randomness=randomness), backend="aot_eager", fullgraph=True)
        gone = dropped(fast(slices(name))).flatten(3)
        assert len(torch.unique(gone.flatten(1), dim=0)) == masks
        assert bool((gone == gone[..., :1]).all()) == (name in CHANNELS)


@pytest.mark.parametrize("randomness", ["same", "different"])
def test_compiled_vmap_equals_eager(randomness: str) -> None:
    torch._dynamo.reset()
    call = vmap(keyed, randomness=randomness)
    x, rates = torch.randn(3, 5, 7), torch.tensor([0.1, 0.5, 0.9])
    assert torch.equal(torch.compile(call, backend="aot_eager", fullgraph=True)(x, rates), call(x, rates))


def test_make_fx_of_transforms() -> None:
    x = torch.ones(3, 64)
    graph = make_fx(vmap(lambda x: functional.dropout(x), randomness="different"))(x)
    assert len(torch.unique(graph(x) == 0, dim=0)) == 3
    graph = make_fx(torch.func.grad(lambda x: functional.dropout(x).sum()))(x)
    assert set(graph(x).unique().tolist()) == {0.0, 2.0}
