"""The operator for compilers: one node, no graph break, the same mask as eager, recognised by torch's own checks."""

from typing import Any

import pytest
import torch
import torch._dynamo.testing
from torch import nn

from dropkit import Key, keep
from dropkit.layout import layout
from dropkit.torch import Dropout, at, bind, dropout
from dropkit.torch.arithmetic import registered

# torch's own forward-mode formulas are scripted on first use, which it deprecates itself.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script.*deprecated:DeprecationWarning")

KEY = Key(4, "compiled", 1)


def call(x: torch.Tensor, p: Any = 0.3, **coordinates: Any) -> torch.Tensor:
    return dropout(x, p, training=True, key=KEY, **coordinates)


@pytest.mark.parametrize(
    "coordinates",
    [{}, {"share": (1,)}, {"rows": torch.tensor([5, 2, 9, 5])}, {"offset": (2, 3), "global_shape": (9, 20)}],
    ids=["plain", "share", "rows", "shard"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_equals_eager(dtype: torch.dtype, coordinates: dict) -> None:
    torch._dynamo.reset()
    x = torch.randn(4, 7, dtype=dtype)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return call(x * 2, **coordinates) * 3

    results = []
    for function in (loss, torch.compile(loss, fullgraph=True, backend="aot_eager")):
        leaf = x.clone().requires_grad_()
        y = function(leaf)
        y.sum().backward()
        results.append((y.detach(), leaf.grad))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_compiled_bound_model_ticks_and_recompiles_nothing() -> None:
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    make = lambda: bind(nn.Sequential(nn.Linear(8, 8), Dropout(0.5), Dropout(0.25)), seed=3)  # noqa: E731
    torch.manual_seed(0)
    plain = make()
    torch.manual_seed(0)
    compiled = make()
    fast = torch.compile(compiled, backend=counter, fullgraph=True)
    x = torch.randn(4, 8)
    for _ in range(5):
        assert torch.equal(plain(x), fast(x))
    assert counter.frame_count == 1
    assert int(compiled.dropkit_step) == 5


def test_compiled_ambient_draws_afresh() -> None:
    torch._dynamo.reset()
    drop, x = Dropout(0.5), torch.ones(1000)
    fast = torch.compile(drop, backend="aot_eager", fullgraph=True)
    assert not torch.equal(fast(x), fast(x))


@pytest.mark.slow
def test_inductor() -> None:
    torch._dynamo.reset()
    model = bind(nn.Sequential(nn.Linear(16, 16), nn.ReLU(), Dropout(0.5)), seed=3)
    x = torch.randn(4, 16, requires_grad=True)
    fast = torch.compile(model, fullgraph=True)
    with at(step=2):
        expected = model(x)
        actual = fast(x)
    assert torch.equal(expected == 0, actual == 0)
    (grad,) = torch.autograd.grad(actual.sum(), x)
    (wanted,) = torch.autograd.grad(expected.sum(), x)
    torch.testing.assert_close(grad, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("p", [torch.tensor(0.3), torch.tensor([0.1, 0.5, 0.0, 1.0, 0.25])], ids=["scalar", "each"])
def test_opcheck(dtype: torch.dtype, p: torch.Tensor) -> None:
    for x in (torch.randn(4, 5), torch.randn(5, 4).T, torch.randn(4, 10)[:, ::2], torch.randn(1, 5).expand(4, 5)):
        for share in ((), (0,)):
            place = layout((4, 5), share)
            inputs = (x.to(dtype).requires_grad_(), p, torch.tensor(KEY.words), place.strides, place.base, None)
            torch.library.opcheck(torch.ops.dropkit.dropout.default, inputs)
    rows = (torch.randn(4, 5), p, torch.tensor(KEY.words), (5, 1), 0, torch.tensor([3, 1, 2, 9]))
    torch.library.opcheck(torch.ops.dropkit.dropout.default, rows)


def test_any_device_formula_is_bit_equal_to_the_kernel() -> None:
    x = torch.randn(4, 5)
    for p in (torch.tensor(0.3), torch.tensor([0.1, 0.5, 0.0, 1.0, 0.25])):
        place = layout((4, 5), ())
        args = (x, p, torch.tensor(KEY.words), place.strides, place.base, None)
        assert torch.equal(torch.ops.dropkit.dropout(*args), registered._anywhere(*args))


def test_fake_tensors() -> None:
    with torch._subclasses.FakeTensorMode():
        y = Dropout(0.5)(torch.empty(3, 4, dtype=torch.bfloat16))
    assert (y.shape, y.dtype) == ((3, 4), torch.bfloat16)


def test_dynamic_shapes() -> None:
    torch._dynamo.reset()
    fast = torch.compile(call, backend="aot_eager", fullgraph=True, dynamic=True)
    for shape in ((4, 7), (5, 9), (64, 3)):
        x = torch.ones(shape)
        assert ((fast(x) != 0).numpy() == keep(shape, 0.3, KEY)).all()


def test_vmap_and_functional_gradients() -> None:
    x = torch.randn(3, 4, 5)
    batched = torch.func.vmap(call)(x)
    assert torch.equal(batched, torch.stack([call(one) for one in x]))
    grad = torch.func.grad(lambda x: call(x).sum())(x[0])
    assert torch.equal(grad, call(torch.ones(4, 5)))
    _, tangent = torch.func.jvp(call, (x[0],), (torch.ones(4, 5),))
    assert torch.equal(tangent, grad)
