"""Reports about masks: recomputed, elsewhere, in pieces. Wrong with torch's dropout, right with ours.

Where dropout is on or off by mistake, and log-probabilities that do not match: `test_known_issues_modes.py`. What needs
several processes: `tests/distributed`. Not here, for want of a GPU: pytorch#198333 (Triton code for CUDA gives groups
of four channels one mask), pytorch PR 165545 (Triton code that is to draw as CUDA's eager kernels do).
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch._functorch.config
from functorch.compile import make_boxed_func
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import dropkit.torch as dt
from dropkit import Key, keep
from dropkit.torch.arithmetic import cpu

pytestmark = [
    # torch scripts functions of its own at first use, which it deprecates itself
    pytest.mark.filterwarnings("ignore:`torch.jit.script.*deprecated:DeprecationWarning"),
    # its compiler looks at what a hook is given
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor"),
]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def masks(call: Callable[[Tensor], Tensor], shape: tuple[int, ...] = (64, 64)) -> tuple[Tensor, Tensor]:
    """What the forward dropped and what the backward did: ones in, ones as the gradient that arrives."""
    x = torch.ones(*shape, requires_grad=True)
    y = call(x)
    y.backward(torch.ones_like(y))
    assert x.grad is not None
    return y.detach() == 0, x.grad == 0


def gradients(model: nn.Module, call: Callable[[Tensor], Tensor], x: Tensor) -> list[Tensor]:
    model.zero_grad()
    call(x).square().sum().backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def close(ours: list[Tensor], others: list[Tensor]) -> bool:
    return all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(ours, others, strict=True))


class Layers(nn.Module):
    """Two layers, each with a dropout of the given kind between product and activation."""

    def __init__(self, drop: type[nn.Module]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(16, 16), nn.Linear(16, 16)
        self.drop_first, self.drop_second = drop(), drop()

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.drop_second(self.second(torch.tanh(self.drop_first(self.first(x))))))


def data() -> Tensor:
    return torch.randn(8, 16, generator=torch.Generator().manual_seed(1))


# ---------------------------------------------------------------------------------------------------------------------
# recomputed forwards


@pytest.mark.parametrize("reentrant", [True, False])
def test_olmo_core_828_checkpoint_without_the_generator_state(reentrant: bool) -> None:
    """`preserve_rng_state=False` cost 0.3 of cross entropy after 150 steps."""
    way = {"use_reentrant": reentrant, "preserve_rng_state": False}
    forward, backward = masks(lambda x: checkpoint(nn.Dropout(), x, **way))
    assert 0.4 < (forward != backward).float().mean() < 0.6  # two masks that have nothing to do with each other
    for ours in (dt.Dropout(), dt.bind(dt.Dropout())):
        forward, backward = masks(lambda x, ours=ours: checkpoint(ours, x, **way))  # type: ignore[misc]
        assert torch.equal(forward, backward)

    def checkpointed(model: Layers, x: Tensor) -> list[Tensor]:
        return gradients(model, lambda x: checkpoint(model, x, **way), x.requires_grad_())

    theirs, ours_ = Layers(nn.Dropout), dt.bind(Layers(dt.Dropout))
    torch.manual_seed(3)
    plain = gradients(theirs, theirs, data())
    torch.manual_seed(3)
    assert not close(checkpointed(theirs, data()), plain)
    with dt.at(step=0):
        plain = gradients(ours_, ours_, data())
    assert all(torch.equal(a, b) for a, b in zip(checkpointed(ours_, data()), plain, strict=True))


class WithoutState(torch.autograd.Function):
    """A checkpoint as diffusion models have it: run without gradient, and once more in backward, from any state."""

    @staticmethod
    def forward(ctx: Any, function: Any, count: int, *args: Tensor) -> Tensor:
        ctx.function, ctx.inputs, ctx.parameters = function, args[:count], args[count:]
        with torch.no_grad():
            return function(*ctx.inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        inputs = [x.detach().requires_grad_() for x in ctx.inputs]
        with torch.enable_grad():
            y = ctx.function(*[x.view_as(x) for x in inputs])
        return None, None, *torch.autograd.grad(y, [*inputs, *ctx.parameters], grads, allow_unused=True)


def test_guided_diffusion_167_checkpoint_of_ones_own() -> None:
    def run(drop: nn.Module) -> tuple[Tensor, Tensor]:
        return masks(lambda x: WithoutState.apply(drop, 1, x))

    forward, backward = run(nn.Dropout())
    assert 0.4 < (forward != backward).float().mean() < 0.6
    forward, backward = run(dt.Dropout())
    assert torch.equal(forward, backward)
    model = dt.bind(Layers(dt.Dropout))
    with dt.at(step=0):
        plain = gradients(model, model, data())
    again = gradients(model, lambda x: WithoutState.apply(model, 1, x, *model.parameters()), data())
    assert all(torch.equal(a, b) for a, b in zip(again, plain, strict=True))


@pytest.fixture
def compilers() -> Any:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("compilers")
def test_pytorch_190717_no_memory_for_activations() -> None:
    """Budget 0: everything is recomputed, random operators too."""
    with torch._functorch.config.patch(activation_memory_budget=0.0):
        theirs = torch.compile(nn.Sequential(nn.Dropout()), backend="aot_eager", fullgraph=True)
        forward, backward = masks(theirs)
        assert 0.4 < (forward != backward).float().mean() < 0.6
        ours = torch.compile(dt.bind(dt.Dropout()), backend="aot_eager", fullgraph=True)
        for _ in range(2):
            forward, backward = masks(ours)
            assert torch.equal(forward, backward)
        unbound = torch.compile(nn.Sequential(dt.Dropout()), backend="aot_eager", fullgraph=True)
        with pytest.raises(RuntimeError, match=r"Bind the model with dropkit\.torch\.bind"):
            unbound(torch.ones(4))


@pytest.mark.usefixtures("compilers")
@pytest.mark.usefixtures("compilers")
def test_pytorch_190717_with_the_count_of_steps_inside_the_graph() -> None:
    """As above, where the compiled code holds the model's call, so that the clock ticks in the graph itself."""
    model = dt.bind(nn.Sequential(dt.Dropout()))
    with torch._functorch.config.patch(activation_memory_budget=0.0):
        forward, backward = masks(torch.compile(lambda x: model(x), backend="aot_eager", fullgraph=True))
    assert torch.equal(forward, backward)


@pytest.mark.usefixtures("compilers")
def test_pytorch_190758_half_the_memory_for_activations() -> None:
    """Between 0 and 1 the partitioner may take random operators among those that it recomputes."""
    theirs, ours = Layers(nn.Dropout), dt.bind(Layers(dt.Dropout))
    torch.manual_seed(3)
    eager = gradients(theirs, theirs, data())
    with torch._functorch.config.patch(activation_memory_budget=0.5):
        torch.manual_seed(3)
        compiled = torch.compile(theirs, backend="aot_eager", fullgraph=True)
        assert torch.equal(compiled(data()), _from(3, theirs))  # the forward is the same
        torch.manual_seed(3)
        assert not close(gradients(theirs, compiled, data()), eager)
        actual = gradients(ours, torch.compile(ours, backend="aot_eager", fullgraph=True), data())
    with dt.at(step=0):
        assert close(actual, gradients(ours, ours, data()))


def _from(seed: int, model: nn.Module) -> Tensor:
    torch.manual_seed(seed)
    return model(data())


def cached_gradients(model: nn.Module, where: Callable[[Tensor], Any]) -> list[Tensor]:
    """A contrastive loss of the whole batch, by way of embeddings without graph and their gradients, chunk by chunk."""
    rows = torch.arange(8)
    x = data()
    with torch.no_grad(), where(rows):
        embeddings = model(x)
    embeddings.requires_grad_()
    contrast(embeddings).backward()
    model.zero_grad()
    for chunk in rows.split(3):
        with where(chunk):
            y = model(x[chunk])
        assert embeddings.grad is not None
        y.backward(embeddings.grad[chunk])
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def contrast(embeddings: Tensor) -> Tensor:
    return F.cross_entropy(embeddings @ embeddings.T, torch.arange(8))


def test_gc_dpr_12_gradient_caching() -> None:
    """The gradient of one mask's embeddings, applied to those of another."""

    def whole(model: nn.Module) -> list[Tensor]:
        model.zero_grad()
        contrast(model(data())).backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    theirs, ours = Layers(nn.Dropout), dt.bind(Layers(dt.Dropout))
    torch.manual_seed(3)
    expected = whole(theirs)
    torch.manual_seed(3)
    assert not close(cached_gradients(theirs, lambda rows: nullcontext()), expected)
    with dt.at(step=5):
        expected = whole(ours)
    assert close(cached_gradients(ours, lambda rows: dt.at(step=5, rows=rows)), expected)


# ---------------------------------------------------------------------------------------------------------------------
# the same seed on another device, under another compiler, in another order


def formula_mask(model: nn.Module, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """What a device without kernels draws: torch operations only."""
    with monkeypatch.context() as patch:
        patch.setattr(cpu, "usable", lambda *args: False)
        return model(x)


def test_pytorch_2976_cpu_and_gpu_draw_differently(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPU and GPU have generators of their own; here the mask is arithmetic that all do alike."""
    torch.manual_seed(5)
    theirs = nn.Dropout()(torch.ones(3, 100)) != 0
    expected = torch.tensor(keep((3, 100), 0.5, Key(5, "drop", 0)))
    assert not torch.equal(theirs, expected)  # nor is it any function of the seed that is written down
    model = dt.bind(nn.ModuleDict({"drop": dt.Dropout()}), seed=5)["drop"]
    for mask in (model, lambda x: formula_mask(model, x, monkeypatch), lambda x: model(x.double())):
        with dt.at(step=0):
            assert torch.equal(mask(torch.ones(3, 100)) != 0, expected)


def test_pytorch_25690_gpu_models_draw_differently(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report's own program: its sum was 999826 on a P100 and 999100 on a K80."""
    torch.manual_seed(0)
    assert float(nn.Dropout(0.5)(torch.ones(1000, 1000)).abs().sum()) not in (999826.0, 999100.0)
    drop, x = dt.Dropout(0.5), torch.ones(1000, 1000)
    torch.manual_seed(0)
    first = drop(x)
    torch.manual_seed(0)
    assert torch.equal(formula_mask(drop, x, monkeypatch), first)  # unbound too: keys are drawn on the host
    with dt.at(seed=0, site="dropout"):
        assert float(drop(x).sum()) == float(formula_mask(drop, x, monkeypatch).sum()) == THE_SUM


THE_SUM = 999352.0  # on every device


@pytest.mark.usefixtures("compilers")
def test_pytorch_118735_compiled_code_draws_differently() -> None:
    """`torch.manual_seed` before each, default settings of `torch.compile`."""
    x = torch.ones(1024)
    for drop, alike in ((nn.Dropout(), False), (dt.Dropout(), True)):
        torch.manual_seed(0)
        eager = drop(x)
        torch.manual_seed(0)
        assert torch.equal(torch.compile(drop, fullgraph=True)(x), eager) is alike


@pytest.mark.usefixtures("compilers")
def test_pytorch_172206_compiled_models_train_differently() -> None:
    """With the decompositions of the default backend, but without its code generator: they make the difference."""
    for model, alike in ((Layers(nn.Dropout), False), (Layers(dt.Dropout), True)):
        torch.manual_seed(0)
        eager = gradients(model, model, data())
        torch.manual_seed(0)
        fast = torch.compile(model, backend="aot_eager_decomp_partition", fullgraph=True)
        assert close(gradients(model, fast, data()), eager) is alike


def last_first(module: torch.fx.GraphModule, inputs: Any) -> Any:
    """A scheduler that sees data dependencies and nothing else: of what is ready, the last comes first."""
    graph = module.graph
    waiting = [n for n in graph.nodes if n.op not in ("placeholder", "output")]
    writes = [n for n in waiting if n.target is torch.ops.aten.copy_.default]
    waiting = [n for n in waiting if n not in writes]
    done = {n for n in graph.nodes if n.op == "placeholder"}
    end = graph.output_node()
    while waiting:
        node = next(n for n in reversed(waiting) if done.issuperset(n.all_input_nodes))
        end.prepend(node)
        done.add(node)
        waiting.remove(node)
    for node in writes:
        end.prepend(node)
    module.recompile()
    return make_boxed_func(module.forward)


class Branches(nn.Module):
    """Two branches that do not depend on each other until they are added."""

    def __init__(self, drop: type[nn.Module]) -> None:
        super().__init__()
        self.encoder, self.decoder = drop(), drop()

    def forward(self, encoder: Tensor, decoder: Tensor) -> Tensor:
        large = self.encoder(encoder).sum()
        return self.decoder(decoder) + 0.0 * large


@pytest.mark.usefixtures("compilers")
def test_pytorch_192635_reordered_calls_draw_differently() -> None:
    """Calls are put in another order to save memory. (torch 2.13 keeps the order of those that it knows.)"""
    x, y = torch.ones(256), torch.ones(64)
    theirs, ours = Branches(nn.Dropout), dt.bind(Branches(dt.Dropout))
    backend = aot_autograd(fw_compiler=last_first)
    torch.manual_seed(0)
    eager = theirs(x, y)
    torch.manual_seed(0)
    assert not torch.equal(torch.compile(theirs, backend=backend, fullgraph=True)(x, y), eager)
    fast = torch.compile(ours, backend=backend, fullgraph=True)(x, y)
    with dt.at(step=0):
        assert torch.equal(fast, ours(x, y))


def test_pytorch_177077_strides_decide() -> None:
    """The mask follows the memory: a compiler that picks another layout gets another mask."""
    x = torch.ones(4, 8, 6, 6)
    layouts = [x, x.to(memory_format=torch.channels_last), x.transpose(1, 3).contiguous().transpose(1, 3)]
    for drop, alike in ((nn.Dropout(), False), (dt.Dropout(), True)):
        drawn = []
        for layout in layouts:
            torch.manual_seed(0)
            drawn.append(drop(layout))
        assert all(torch.equal(one, drawn[0]) for one in drawn[1:]) is alike


def test_pytorch_76580_a_generator_for_dropout() -> None:
    """The randomness of dropout kept, that of everything else changed."""
    with pytest.raises(TypeError, match="generator"):
        F.dropout(torch.ones(64), generator=torch.Generator())  # type: ignore[call-arg]
    theirs, ours = [], []
    for others in (0, 3):
        torch.manual_seed(0)
        torch.rand(others)
        theirs.append(F.dropout(torch.ones(64)))
        ours.append(dt.dropout(torch.ones(64), 0.5, training=True, key=Key(seed=0, site="study")))
    assert not torch.equal(*theirs)
    assert torch.equal(*ours)


# ---------------------------------------------------------------------------------------------------------------------
# pieces of one tensor: what the processes of a group would do, one after the other


def test_megatron_lm_1256_sequence_parallel_in_the_wrong_context() -> None:
    """Pieces of a sequence on ranks of one seed, without the context that tells them apart."""
    x = torch.ones(2, 16, 8)
    pieces = []
    for _ in range(4):
        torch.manual_seed(0)
        pieces.append(nn.Dropout()(x[:, :4]))
    assert all(torch.equal(piece, pieces[0]) for piece in pieces)  # time repeats after every quarter
    model = dt.bind(dt.Dropout(), seed=0)
    with dt.at(step=0):
        whole = model(x)
        for rank in range(4):
            with dt.at(split={1: (rank, 4)}):
                assert torch.equal(model(x[:, :4]), whole[:, 4 * rank : 4 * rank + 4])


def test_megatron_lm_4828_context_parallel_recomputed() -> None:
    """Each of two ranks has an early and a late piece of the sequence, under a checkpoint that keeps no state."""
    model, way = dt.bind(dt.Dropout(), seed=0), {"use_reentrant": False, "preserve_rng_state": False}

    def piece(drop: nn.Module, at: int) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)  # one stream of random numbers for all ranks
        with dt.at(step=0, split={1: (at, 4)}):
            return masks(lambda x: checkpoint(drop, x, **way), (2, 4, 8))

    theirs = [piece(nn.Dropout(), at) for at in (0, 3, 1, 2)]
    assert torch.equal(theirs[0][0], theirs[2][0])  # both ranks alike,
    assert not torch.equal(*theirs[0])  # and not what backward takes
    with dt.at(step=0):
        whole = model(torch.ones(2, 16, 8)) == 0
    for at in (0, 3, 1, 2):
        forward, backward = piece(model, at)
        assert torch.equal(forward, backward)
        assert torch.equal(forward, whole[:, 4 * at : 4 * at + 4])
