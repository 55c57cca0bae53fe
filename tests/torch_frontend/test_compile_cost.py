"""What a bound model costs a compiler: nodes for each site, graphs for new shapes and rates. Counts, no times."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch._dynamo.testing
from torch import nn

from dropkit import Key, keep
from dropkit.counter import fold, site_id
from dropkit.numpy import dropout
from dropkit.torch import AlphaDropout, Dropout, Dropout2d, at, bind
from dropkit.torch.arithmetic import registered
from dropkit.torch.draw import Unfolded

pytestmark = [
    # dynamo looks at the output of a compiled model that has hooks, as a bound one has
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
    # torch's own formulas for symbolic shapes are scripted on first use, which it deprecates itself
    pytest.mark.filterwarnings("ignore:`torch.jit.script.*deprecated:DeprecationWarning"),
]
SEEDS = [(0, 0), (1, 7), ((1 << 64) - 1, (1 << 64) - 1), (1 << 63, 1 << 32)]
SITES = [0, 5, (1 << 64) - 1, site_id("encoder.layers.0.dropout")]


@pytest.fixture(autouse=True)
def forget_compilations() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Layers(nn.Module):
    """Linear, relu and a dropout, some times over."""

    def __init__(self, count: int, make: Callable[[], nn.Module] = lambda: Dropout(0.5)) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.ModuleList(nn.Linear(8, 8) for _ in range(count))
        self.drop = nn.ModuleList(make() for _ in range(count))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for linear, drop in zip(self.linear, self.drop, strict=True):
            x = drop(torch.relu(linear(x)))
        return x


def traced_nodes(model: nn.Module, x: torch.Tensor) -> tuple[int, int]:
    """How many calls the compiler wrote down, and how many AOTAutograd made of them for the forward."""
    counts = []

    def backend(graph: Any, inputs: Any) -> Any:
        counts.append(sum(node.op.startswith("call") for node in graph.graph.nodes))

        def forward(graph: Any, inputs: Any) -> Any:
            counts.append(sum(node.op.startswith("call") for node in graph.graph.nodes))
            return torch._functorch.aot_autograd.make_boxed_func(graph.forward)

        return torch._dynamo.backends.common.aot_autograd(fw_compiler=forward, bw_compiler=lambda graph, _: graph)(
            graph, inputs
        )

    torch.compile(model, backend=backend, fullgraph=True)(x)
    return counts[-2], counts[-1]


# ---------------------------------------------------------------------------------------------------------------------
# how much there is to trace


@pytest.mark.parametrize("make", [Dropout, AlphaDropout])
def test_a_bound_site_is_one_node(make: Callable[[float], nn.Module]) -> None:
    """Each more layer costs one node more than without dropout, and a constant that AOTAutograd throws away."""
    x, counts = torch.randn(4, 8), []
    for model in (
        Layers(2, nn.Identity),
        Layers(6, nn.Identity),
        *(bind(Layers(n, lambda: make(0.5)), seed=1) for n in (2, 6)),
    ):
        torch._dynamo.reset()
        counts.append(traced_nodes(model, x))
    none = [b - a for a, b in zip(*counts[:2], strict=True)]
    ours = [b - a for a, b in zip(*counts[2:], strict=True)]
    assert ours[0] <= none[0] + 2 * 4
    assert ours[1] == none[1] + 4


@pytest.mark.slow
def test_new_batches_and_lengths_compile_as_often_as_with_torchs_dropout() -> None:
    graphs = []
    for model in (Layers(1, lambda: nn.Dropout(0.5)), Layers(1), bind(Layers(1), seed=1)):
        torch._dynamo.reset()
        counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
        fast, seen = torch.compile(model, backend=counter, fullgraph=True), []
        for batch, length in ((4, 5), (6, 5), (7, 5), (4, 9), (4, 11), (3, 12)):
            fast(torch.randn(batch, length, 8)).sum().backward()
            seen.append(counter.frame_count)
        graphs.append([count - seen[0] for count in seen])
    assert graphs[0] == graphs[1] == graphs[2] == [0, 1, 1, 2, 2, 2]


def test_a_new_p_of_a_bound_model_compiles_nothing_again_and_is_used() -> None:
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled, plain = bind(Layers(3), seed=1), bind(Layers(3), seed=1)
    fast, x = torch.compile(compiled, backend=counter, fullgraph=True), torch.randn(4, 8)
    seen = []
    for p in (0.5, 0.1, 0.2, 0.0, 1.0, 0.3):
        for drop in [*compiled.drop, *plain.drop]:
            drop.p = p
        assert torch.equal(fast(x), plain(x))
        seen.append(counter.frame_count)
    assert seen[0] == seen[-1]


# ---------------------------------------------------------------------------------------------------------------------
# the same masks


def test_compiled_masks_of_a_bound_model_are_numpys() -> None:
    model = bind(nn.ModuleDict({"drop": Dropout(0.3), "channels": Dropout2d(0.3)}), seed=(1 << 64) - 3)
    model.forward = lambda x: (model["drop"](x), model["channels"](x), model["drop"](x))  # type: ignore[method-assign]
    fast, x = torch.compile(model, backend="aot_eager", fullgraph=True), torch.ones(2, 5, 3, 7)
    for step in range(3):
        first, channels, again = fast(x)
        for y, site, share in ((first, "drop", ()), (channels, "channels", (2, 3)), (again, "drop#1", ())):
            key = Key((1 << 64) - 3, site, step)
            assert np.array_equal(y.numpy(), dropout(x.numpy(), 0.3, training=True, key=key, share=share))


@pytest.mark.parametrize(
    "place", [{"seed": 9}, {"step": 3}, {"site": "other"}, {"seed": 1 << 63, "site": 4, "step": 2}]
)
def test_at_around_and_inside_of_compiled_code(place: dict) -> None:
    compiled, plain = bind(Layers(2), seed=1), bind(Layers(2), seed=1)
    fast, x = torch.compile(compiled, backend="aot_eager", fullgraph=True), torch.randn(4, 8)

    def inside(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        with at(**place):
            return model(x)

    for _ in range(2):
        assert torch.equal(fast(x), plain(x))
        with at(**place):
            assert torch.equal(fast(x), plain(x))
    again = torch.compile(inside, backend="aot_eager", fullgraph=True)
    assert torch.equal(again(compiled, x), inside(plain, x))


def test_two_forwards_in_one_graph_are_two_steps_and_have_gradients() -> None:
    """As R-Drop runs them: what backward has of the first is not what the second writes."""

    def both(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return (model(x) * model(x)).sum()

    gradients = []
    for call in (both, torch.compile(both, backend="aot_eager", fullgraph=True)):
        model = bind(Layers(2), seed=1)
        call(model, torch.ones(4, 8)).backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
        assert int(model.dropkit_step) == 2
    assert gradients[0].any()
    torch.testing.assert_close(gradients[1], gradients[0])


def test_two_compiled_forwards_before_one_backward() -> None:
    """Also where the model is compiled in part, and the clock counts outside of the graph."""
    for part in (False, True):
        gradients = []
        for compiled in (False, True):
            torch._dynamo.reset()
            model = nn.Sequential(Layers(2), nn.Identity())
            if compiled and part:
                model[0].compile(backend="aot_eager")
            bind(model, seed=1)
            if compiled and not part:
                model.compile(backend="aot_eager")
            (model(torch.ones(4, 8)) * model(torch.ones(4, 8))).sum().backward()
            gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
        torch.testing.assert_close(gradients[1], gradients[0])


def test_reseeding_between_forward_and_backward_leaves_the_gradient_alone() -> None:
    model = bind(nn.Sequential(Dropout(0.5)), seed=1)
    fast, x = torch.compile(model, backend="aot_eager"), torch.ones(64, requires_grad=True)
    y = fast(x)
    model.dropkit_seed.fill_(2)
    model.dropkit_step.fill_(20)
    y.sum().backward()
    assert torch.equal(x.grad, y)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_part_of_a_compiled_model(reentrant: bool) -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Layers(2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.utils.checkpoint.checkpoint(self.inner, x, use_reentrant=reentrant)

    results = []
    for compiled in (False, True):
        model, x = bind(Outer(), seed=1), torch.ones(4, 8, requires_grad=True)
        y = (torch.compile(model, backend="aot_eager") if compiled else model)(x)
        y.sum().backward()
        results.append((y.detach(), x.grad))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_a_graph_break_in_the_middle() -> None:
    class Broken(Layers):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.drop[0](x)
            torch._dynamo.graph_break()
            return self.drop[1](x)

    compiled, plain = bind(Broken(2), seed=1), bind(Broken(2), seed=1)
    fast, x = torch.compile(compiled, backend="aot_eager"), torch.ones(4, 8)
    for _ in range(3):
        assert torch.equal(fast(x), plain(x))
    saved = copy.deepcopy(compiled)
    assert torch.equal(saved(x), plain(x))


def test_an_exported_bound_model_counts_and_draws_its_masks() -> None:
    model, plain = bind(Layers(2), seed=1), bind(Layers(2), seed=1)
    batch = torch.export.Dim("batch", min=2, max=64)
    graph = torch.export.export(model, (torch.randn(4, 8),), dynamic_shapes=({0: batch},)).module()
    for n in (4, 9):
        x = torch.randn(n, 8)
        assert torch.equal(graph(x) == 0, plain(x) == 0)


# ---------------------------------------------------------------------------------------------------------------------
# the operators


@pytest.mark.parametrize("site", SITES)
def test_fold_key_is_the_fold_on_every_device(site: int) -> None:
    for seed, step in SEEDS:
        state = torch.tensor([registered.signed(seed), registered.signed(step)])
        key = Unfolded(state, registered.signed(site))
        expected = torch.tensor(fold(seed, site, step))
        assert torch.equal(registered.fold_key(key), expected)
        assert torch.equal(registered._fold_anywhere(*key), expected)
    states = torch.tensor([[registered.signed(a), registered.signed(b)] for a, b in SEEDS])
    stacked = torch.func.vmap(lambda state: registered.fold_key(Unfolded(state, registered.signed(site))))(states)
    assert torch.equal(stacked, torch.tensor([fold(seed, site, step) for seed, step in SEEDS]))


def test_opcheck() -> None:
    state = torch.tensor([3, 4])
    torch.library.opcheck(torch.ops.dropkit.fold_key.default, (state, -5))
    for x in (torch.randn(4, 5), torch.randn(()), torch.randn(0, 3), torch.randn(5, 4).T):
        inputs = (x.requires_grad_(), torch.tensor(0.3), state, [], 0, None, "bernoulli", -5)
        torch.library.opcheck(torch.ops.dropkit.dropout.default, inputs)


@pytest.mark.parametrize("shape", [(4, 5), (), (1, 3), (0, 3)])
def test_a_whole_tensor_needs_no_place_and_a_key_no_folding(shape: tuple[int, ...]) -> None:
    x, p, site = torch.ones(shape), torch.tensor(0.3), registered.signed(SITES[-1])
    state = torch.tensor([3, 4])
    expected = torch.tensor(keep(shape, 0.3, Key(3, SITES[-1], 4)))
    inputs = (x, p, state, [], 0, None, "bernoulli", site)
    for y in (torch.ops.dropkit.dropout(*inputs), registered._anywhere(*inputs)):
        assert torch.equal(y != 0, expected)
