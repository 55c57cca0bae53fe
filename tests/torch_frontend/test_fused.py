"""Dropout with its neighbours: the masks of `dropout`, the values and gradients of the composed expression."""

import pytest
import torch
from torch.nn import functional

from dropkit import DropkitError, Key
from dropkit.torch import bias_act_dropout, dropout, dropout_add, dropout_add_norm
from dropkit.torch.arithmetic import cpu

KEY = Key(3, "fused", 1)
ACTIVATIONS = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
}
TOLERANCE = {torch.float32: 4e-6, torch.float64: 1e-12, torch.bfloat16: 2e-2, torch.float16: 2e-3}
PLACES = [
    {},
    {"share": (0,)},
    {"share": (1, 2)},
    {"rows": [7, 1, 3]},
    {"offset": (1, 0, 2), "global_shape": (9, 4, 40)},
]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=TOLERANCE[a.dtype], atol=TOLERANCE[a.dtype])


@pytest.mark.parametrize("place", PLACES, ids=lambda place: "-".join(place) or "whole")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("p", [0.1, 0.5, 1.0, 0.0])
def test_dropout_add(p: float, dtype: torch.dtype, place: dict) -> None:
    x, residual = (torch.randn(3, 4, 33, dtype=dtype, requires_grad=True) for _ in range(2))
    y = dropout_add(x, residual, p, training=True, key=KEY, **place)
    wanted = residual + dropout(x, p, training=True, key=KEY, **place)
    close(y, wanted)
    if dtype in (torch.float32, torch.float64):
        assert torch.equal(y, wanted)
    grad = torch.randn_like(y)
    for one, other in zip(
        torch.autograd.grad(y, (x, residual), grad), torch.autograd.grad(wanted, (x, residual), grad), strict=True
    ):
        assert torch.equal(one, other)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: "-".join(place) or "whole")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("with_bias", [True, False])
def test_bias_act_dropout(with_bias: bool, activation: str, dtype: torch.dtype, place: dict) -> None:
    x = torch.randn(3, 4, 33, dtype=dtype, requires_grad=True)
    bias = torch.randn(33, dtype=dtype, requires_grad=True) if with_bias else None
    leaves = (x, bias) if bias is not None else (x,)
    y = bias_act_dropout(x, bias, 0.3, activation=activation, training=True, key=KEY, **place)
    z = x if bias is None else x + bias
    wanted = dropout(ACTIVATIONS[activation](z), 0.3, training=True, key=KEY, **place)
    close(y, wanted)
    grad = torch.randn_like(y)
    for one, other in zip(torch.autograd.grad(y, leaves, grad), torch.autograd.grad(wanted, leaves, grad), strict=True):
        scale = max(1.0, float(other.abs().max()))
        torch.testing.assert_close(one / scale, other / scale, rtol=0, atol=4 * TOLERANCE[dtype])


@pytest.mark.filterwarnings("ignore:`torch.jit.script.*deprecated:DeprecationWarning")
def test_gradients_against_finite_differences() -> None:
    x, r = (torch.randn(3, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    b = torch.randn(5, dtype=torch.float64, requires_grad=True)
    add = lambda x, r: dropout_add(x, r, 0.4, training=True, key=KEY)  # noqa: E731
    assert torch.autograd.gradcheck(add, (x, r))
    assert torch.autograd.gradgradcheck(add, (x, r))
    for activation in ("gelu", "gelu_tanh"):
        act = lambda x, b, a=activation: bias_act_dropout(x, b, 0.4, activation=a, training=True, key=KEY)  # noqa: E731
        assert torch.autograd.gradcheck(act, (x, b))
        assert torch.autograd.gradgradcheck(act, (x, b))


def test_evaluation_and_the_way_without_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    x, residual, bias = torch.randn(4, 8), torch.randn(4, 8), torch.randn(8)
    assert torch.equal(dropout_add(x, residual, 0.5, training=False), x + residual)
    assert torch.equal(bias_act_dropout(x, bias, 0.5, activation="gelu", training=False), functional.gelu(x + bias))
    one = dropout_add(x, residual, 0.5, training=True, key=KEY)
    two = bias_act_dropout(x, bias, 0.5, activation="relu", training=True, key=KEY)
    monkeypatch.setattr(cpu, "_raw", None)
    assert torch.equal(one, dropout_add(x, residual, 0.5, training=True, key=KEY))
    assert torch.equal(two, bias_act_dropout(x, bias, 0.5, activation="relu", training=True, key=KEY))


@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_dropout_add_norm(norm: str) -> None:
    x, residual = (torch.randn(3, 4, 33, requires_grad=True) for _ in range(2))
    weight = torch.rand(33, requires_grad=True)
    bias = torch.randn(33, requires_grad=True) if norm == "layer" else None
    y, z = dropout_add_norm(x, residual, weight, bias, 0.3, training=True, norm=norm, key=KEY)
    assert torch.equal(z, residual + dropout(x, 0.3, training=True, key=KEY))
    square = ((z - z.mean(-1, keepdim=True)) if norm == "layer" else z).square().mean(-1, keepdim=True)
    wanted = (z - z.mean(-1, keepdim=True) if norm == "layer" else z) / (square + 1e-5).sqrt() * weight
    torch.testing.assert_close(y, wanted if bias is None else wanted + bias, rtol=1e-4, atol=1e-5)
    y, z = dropout_add_norm(x, residual, weight, bias, 0.3, training=False, norm=norm)
    assert torch.equal(z, x + residual)


def test_compiled() -> None:
    torch._dynamo.reset()
    x, residual, bias = torch.randn(4, 8), torch.randn(4, 8), torch.randn(8)

    def block(x: torch.Tensor, residual: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        y = bias_act_dropout(x, bias, 0.5, activation="gelu", training=True, key=KEY)
        return dropout_add(y, residual, 0.5, training=True, key=KEY)

    torch.testing.assert_close(
        torch.compile(block, backend="aot_eager", fullgraph=True)(x, residual, bias), block(x, residual, bias)
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda x: dropout_add(x, x[:1], 0.5, training=True),
            r"one shape and dtype, got \(2, 3\) torch.float32 and \(1, 3\)",
        ),
        (lambda x: dropout_add(x, x.double(), 0.5, training=True), r"and \(2, 3\) torch.float64"),
        (lambda x: bias_act_dropout(x, x, 0.5, activation="relu", training=True), r"bias must have shape \(3,\)"),
        (lambda x: bias_act_dropout(x, None, 0.5, activation="reul", training=True), "did you mean 'relu'"),
        (lambda x: dropout_add_norm(x, x, None, x[0], 0.5, training=True, norm="rms"), "an rms norm has no bias"),
        (lambda x: dropout_add_norm(x, x, None, None, 0.5, training=True, norm="batch"), "unknown norm 'batch'"),
        (lambda x: dropout_add_norm(x, x, x, None, 0.5, training=True), r"weight must have shape \(3,\)"),
        (lambda x: dropout_add_norm(x, x[:1], None, None, 0.5, training=True), "one shape and dtype"),
        (lambda x: dropout_add(x, x, 0.5, training=None), "training must be True or False, got None"),
    ],
)
def test_refusals(make: object, message: str) -> None:
    with pytest.raises(DropkitError, match=message):
        make(torch.ones(2, 3))  # type: ignore[operator]


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
def test_integers_are_refused_at_every_p(p: float) -> None:
    x = torch.arange(8).reshape(1, 8)
    for call in (
        lambda: dropout(x, p, training=True),
        lambda: dropout_add(x, x, p, training=True),
        lambda: bias_act_dropout(x, None, p, activation="relu", training=True),
        lambda: dropout_add_norm(x, x, None, None, p, training=True),
    ):
        with pytest.raises(DropkitError, match=r"but x is torch.int64 .* convert with x.float\(\)"):
            call()
    assert torch.equal(dropout_add(x, x, p, training=False), 2 * x)
