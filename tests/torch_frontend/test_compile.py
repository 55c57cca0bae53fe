"""torch.compile: whole graphs, both passes, moving shapes, a moving p, and less memory than the compiler would take."""

from collections.abc import Callable, Iterator

import pytest
import torch
import torch._dynamo.testing
import torch._functorch.config
from torch import nn

from dropkit import DropkitError, Key
from dropkit.mask import scale, threshold
from dropkit.torch import Dropout, at, bind, dropout, functional

from .families import FUNCTIONS, SHAPES, Family, dropped, function, layer, ones, whole

each = pytest.mark.parametrize("name", SHAPES)
# dynamo looks at the output of a compiled model that has hooks, as a bound one has
output_looked_at = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
KEY = Key(4, "compiled", 1)


@pytest.fixture(autouse=True)
def forget_compilations() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def counting() -> torch._dynamo.testing.CompileCounterWithBackend:
    return torch._dynamo.testing.CompileCounterWithBackend("aot_eager")


def both_passes(call: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    leaf = x.clone().requires_grad_()
    y = call(leaf)
    (gradient,) = torch.autograd.grad(y.sum(), leaf)
    return y.detach(), gradient


# ---------------------------------------------------------------------------------------------------------------------
# one graph, both passes


@each
@pytest.mark.parametrize("make", [layer, function], ids=["class", "function"])
def test_compiled_draws_afresh_and_the_gradient_has_the_forwards_mask(name: str, make: Callable) -> None:
    fast = torch.compile(make(name), backend="aot_eager", fullgraph=True)
    torch.manual_seed(0)
    first, gradient = both_passes(fast, ones(name))
    second, _ = both_passes(fast, ones(name))
    assert torch.equal(dropped(first), gradient == 0)
    assert 0 < dropped(first).float().mean() < 1
    assert whole(name, dropped(first))
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(first, both_passes(fast, ones(name))[0])


@pytest.mark.parametrize(("name", "make"), [("Dropout", layer), ("Dropout2d", function), ("AlphaDropout", layer)])
def test_compiled_equals_eager_in_both_passes(name: str, make: Callable) -> None:
    """Under given coordinates, bit for bit."""
    call, x = make(name), torch.randn(SHAPES[name])
    fast = torch.compile(call, backend="aot_eager", fullgraph=True)
    with at(seed=3, site="drop", step=2):
        for actual, expected in zip(both_passes(fast, x), both_passes(call, x), strict=True):
            assert torch.equal(actual, expected)


@each
def test_compiled_in_place(name: str) -> None:
    def double_then_drop(x: torch.Tensor) -> torch.Tensor:
        return FUNCTIONS[name](x * 2, 0.5, True, True)

    fast = torch.compile(double_then_drop, backend="aot_eager", fullgraph=True)
    y, gradient = both_passes(fast, ones(name))
    assert torch.equal(dropped(y), gradient == 0)
    x = ones(name)
    assert torch.compile(lambda x: FUNCTIONS[name](x, 0.5, True, True), backend="aot_eager")(x) is x
    assert dropped(x).any()


# torch's own formulas for symbolic shapes are scripted on first use, which it deprecates itself
@pytest.mark.filterwarnings("ignore:`torch.jit.script.*deprecated:DeprecationWarning")
def test_inductor() -> None:
    """All six and a functional call, through the compiler's own code generator."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.family = Family()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return functional.dropout(self.family(x), 0.25, self.training)

    model = Model()
    x = model.family.inputs()
    fast = torch.compile(model, fullgraph=True)
    torch.manual_seed(0)
    y = fast(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(y > 0, gradient > 0)
    assert 0.5 < (y <= 0).float().mean() < 0.75  # 1 - 1/2 * 3/4
    torch.manual_seed(0)
    assert torch.equal(y, fast(x))
    model.eval()
    assert torch.equal(fast(x), x)


def test_flips_between_train_and_eval_compile_one_graph_each() -> None:
    counter, model = counting(), Family()
    fast = torch.compile(model, backend=counter, fullgraph=True)
    for i in range(10):
        model.train(i % 2 == 0)
        assert bool(dropped(fast(model.inputs())).any()) == model.training
    assert counter.frame_count == 2


# ---------------------------------------------------------------------------------------------------------------------
# dynamic shapes


@pytest.mark.parametrize("dynamic", [None, True])
def test_a_changing_batch_compiles_at_most_once_again(dynamic: bool | None) -> None:
    counter, model, first = counting(), Family(), 0
    fast = torch.compile(model, backend=counter, fullgraph=True, dynamic=dynamic)
    for batch in (4, 5, 9, 32, 3, 2):
        x = model.inputs(batch)
        model.check(x, fast(x))
        first = counter.frame_count if batch == 4 else first
    assert counter.frame_count - first <= (0 if dynamic else 1)


def test_a_changing_batch_of_a_bound_model_draws_eagers_masks() -> None:
    counter = counting()
    compiled, plain = (bind(nn.Sequential(Dropout(0.5), nn.Identity()), seed=5) for _ in range(2))
    fast = torch.compile(compiled, backend=counter, fullgraph=True)
    for batch in (4, 5, 9, 32):
        x = torch.ones(batch, 16)
        assert torch.equal(fast(x), plain(x))
    assert counter.frame_count <= 2


# ---------------------------------------------------------------------------------------------------------------------
# a changed p


def test_a_thousand_changes_of_p_compile_nothing_again() -> None:
    """On all six at once; at each rate that is looked at, the values are that rate's."""
    counter, model = counting(), Family()
    x = model.inputs(2).detach()
    fast = torch.compile(model, backend=counter, fullgraph=True)
    for i in range(1000):
        for drop in model.layers.values():
            drop.p = i / 999  # 0 and 1 among them
        if i % 100 == 0 or i == 999:
            y, expected = fast(x), scale(threshold(i / 999))
            for name in ("Dropout", "Dropout1d", "Dropout2d", "Dropout3d"):
                one = y[list(model.layers).index(name)]
                assert ((one == 0) | (one == torch.tensor(expected))).all()
            assert dropped(y).float().mean() == pytest.approx(i / 999, abs=0.2)
        else:
            fast(x)
    assert counter.frame_count == 1


def test_a_schedule_of_a_bound_models_p_compiles_nothing_again() -> None:
    """The same masks and values as without a compiler, alpha's constants included."""
    counter = counting()
    compiled, plain = (bind(Family(("Dropout", "AlphaDropout")), seed=5) for _ in range(2))
    fast = torch.compile(compiled, backend=counter, fullgraph=True)
    x, frames = plain.inputs(2).detach(), 0
    for i in range(40):
        for model in (compiled, plain):
            for drop in model.layers.values():
                drop.p = i / 39
        assert torch.equal(fast(x), plain(x))
        frames = frames or counter.frame_count
    assert counter.frame_count == frames


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_p_changed_before_backward_leaves_the_gradient_alone(compiled: bool) -> None:
    model = Family(("Dropout", "Dropout2d"))
    call = torch.compile(model, backend="aot_eager", fullgraph=True) if compiled else model
    x = model.inputs()
    y = call(x)
    for drop in model.layers.values():
        drop.p = 0.9
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(gradient, y)  # of ones: the same mask and the same scale
    call(x)
    assert (call(x) == 0).float().mean() > 0.7


def test_a_changing_float_p_of_a_function_compiles_at_most_once_again() -> None:
    counter = counting()
    fast = torch.compile(lambda x, p: functional.dropout(x, p), backend=counter, fullgraph=True)
    x = torch.ones(1000)
    for i in range(1, 30):
        y = fast(x, i / 30)
        assert ((y == 0) | (y == torch.tensor(scale(threshold(i / 30))))).all()
        assert (y == 0).float().mean() == pytest.approx(i / 30, abs=0.1)
    assert counter.frame_count <= 2


def test_a_tensor_p_compiles_once() -> None:
    counter = counting()
    fast = torch.compile(lambda x, p: dropout(x, p, training=True, key=KEY), backend=counter, fullgraph=True)
    x = torch.ones(100)
    for i in range(30):
        p = torch.tensor(i / 29)
        assert torch.equal(fast(x, p), dropout(x, p, training=True, key=KEY))
    assert counter.frame_count == 1


# ---------------------------------------------------------------------------------------------------------------------
# less memory than the compiler would take: pytorch#190717, pytorch#190758


class Twice(nn.Module):
    """Two dropouts with something between them that the compiler may compute again in backward."""

    def __init__(self, make: Callable[[float], nn.Module]) -> None:
        super().__init__()
        self.first, self.second = make(0.5), make(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.sin(self.first(x)) + 2)


def mismatches(model: nn.Module) -> int:
    """Elements that are dropped, and have a gradient all the same."""
    x = torch.ones(64, 64, requires_grad=True)
    y = torch.compile(model, backend="aot_eager_decomp_partition", fullgraph=True)(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    return int(((y == 0) & (gradient != 0)).sum())


@output_looked_at
@pytest.mark.parametrize("budget", [0.0, 0.5])
def test_pytorch_190717_a_small_activation_memory_budget(budget: float) -> None:
    """torch's dropout draws another mask in backward; a keyed mask is computed again, and an ambient one refused."""
    with torch._functorch.config.patch(activation_memory_budget=budget):
        torch.manual_seed(0)
        assert mismatches(Twice(nn.Dropout)) > 0
        torch._dynamo.reset()
        assert mismatches(bind(Twice(Dropout), seed=3)) == 0
        torch._dynamo.reset()
        with pytest.raises(Exception, match="ambient dropout cannot be compiled with activation_memory_budget below 1"):
            mismatches(Twice(Dropout))


def test_the_full_activation_memory_budget() -> None:
    assert torch._functorch.config.activation_memory_budget == 1
    for model in (Twice(nn.Dropout), Twice(Dropout)):
        assert mismatches(model) == 0


def test_a_refused_budget_says_what_to_do() -> None:
    with (
        torch._functorch.config.patch(activation_memory_budget=0.5),
        pytest.raises((DropkitError, torch._dynamo.exc.Unsupported)) as caught,
    ):
        torch.compile(Dropout(0.5), backend="aot_eager", fullgraph=True)(torch.ones(4, requires_grad=True))
    assert "Bind the model with dropkit.torch.bind: keyed masks are recomputed exactly" in str(caught.value)
