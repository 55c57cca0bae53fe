"""Branches and layers that are dropped whole: which, by which bits, and that what is dropped is not computed."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.fx import symbolic_trace

import dropkit
import dropkit.torch as dt
from dropkit import Key
from dropkit.axes.rate import ProgressiveLayerDrop, linear_in_depth
from dropkit.errors import DropkitRuntimeError, DropkitTypeError, DropkitValueError
from dropkit.torch.depth import drop_path, every_other, stochastic_depth

scripts = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
KEY = Key(seed=3, site="depth", step=2)


def here(**more: Any) -> Any:
    return dt.at(seed=KEY.seed, site=KEY.site, step=KEY.step, **more)


class Counted(nn.Module):
    """A branch that knows how many rows it was given."""

    def __init__(self, width: int = 4, p: float = 0.0) -> None:
        super().__init__()
        self.linear, self.drop, self.rows = nn.Linear(width, width), dt.Dropout(p), [0]

    def forward(self, x: torch.Tensor, add: Any = None) -> torch.Tensor:
        self.rows[0] += len(x)
        y = self.drop(torch.tanh(self.linear(x)))
        return y if add is None else y + add


# --- StochasticDepth and DropPath: what torchvision's and timm's own tests assert of theirs


@pytest.mark.parametrize("p", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("mode", ["batch", "row"])
def test_stochastic_depth_drops_as_often_as_asked(mode: str, p: float) -> None:
    torch.manual_seed(0)
    x, layer = torch.ones(5, 3, 4, 4), dt.StochasticDepth(p=p, mode=mode)
    gone = samples = 0
    for _ in range(250):
        kept = int(layer(x).sum(dim=(1, 2, 3)).count_nonzero())
        gone += int(kept == 0) if mode == "batch" else 5 - kept
        samples += 1 if mode == "batch" else 5
        assert mode == "row" or kept in (0, 5)
    assert stats.binomtest(gone, samples, p).pvalue > 0.01


@scripts
@pytest.mark.parametrize("mode", ["batch", "row"])
def test_stochastic_depth_at_its_ends_and_as_a_leaf_of_fx(mode: str) -> None:
    x = torch.randn(5, 3, 4, 4)
    assert dt.StochasticDepth(0, mode)(x).equal(x)
    assert dt.StochasticDepth(1, mode)(x).equal(torch.zeros_like(x))
    assert dt.StochasticDepth(0.5, mode).eval()(x) is x
    traced = symbolic_trace(nn.Sequential(dt.StochasticDepth(0.5, mode)))
    assert [node.op for node in traced.graph.nodes] == ["placeholder", "call_module", "output"]
    scripted = torch.jit.script(dt.StochasticDepth(0.5, mode))
    assert set(scripted(torch.ones(64, 3)).unique().tolist()) <= {0.0, 2.0}


@scripts
def test_drop_path_is_timms() -> None:
    torch.manual_seed(42)
    x = torch.ones(100, 8, 4, 4)
    assert torch.equal(drop_path(x, drop_prob=0.0, training=True), x)
    assert drop_path(x, drop_prob=0.5, training=False) is x
    for scale, value in ((True, 1 / 0.8), (False, 1.0)):
        y = drop_path(x, drop_prob=0.2, training=True, scale_by_keep=scale)
        kept = y[:, 0, 0, 0] != 0
        assert 0 < int(kept.sum()) < 100
        torch.testing.assert_close(y[kept], torch.full_like(y[kept], value), atol=1e-5, rtol=0)
        assert not y[~kept].any()
    module = dt.DropPath(drop_prob=0.5)
    assert torch.equal(module.eval()(x), x) and (module.train()(x) == 0).any()
    assert "0.123" in dt.DropPath(drop_prob=0.123).extra_repr()
    module.drop_prob = 0.25
    assert (module.p, module.drop_prob, module.scale_by_keep) == (0.25, 0.25, True)
    assert set(torch.jit.script(dt.DropPath(0.5))(torch.ones(64, 3)).unique().tolist()) == {0.0, 2.0}
    for other in (dt.DropPath(0.5, scale_by_keep=False), dt.LayerDrop([nn.Identity()]), dt.ResidualDrop(nn.Identity())):
        with pytest.raises(DropkitRuntimeError, match="TorchScript knows"):
            torch.jit.script(other)


@pytest.mark.parametrize("mode", ["batch", "row"])
def test_masks_are_those_of_keep(mode: str) -> None:
    x = torch.ones(7, 3, 2)
    share = (0, 1, 2) if mode == "batch" else (1, 2)
    for p in (0.1, 0.5, 0.77):
        expected = dropkit.keep((7, 3, 2), p, KEY, share=share)
        with here():
            assert np.array_equal(dt.StochasticDepth(p, mode)(x).numpy() != 0, expected)
        with here():
            y = dt.ResidualDrop(nn.Identity(), p, mode)(x).numpy()
        assert np.array_equal(y != 1, expected)
    of_rows = dropkit.keep((7, 3, 2), 0.5, KEY, share=(1, 2))
    with here():
        assert np.array_equal(stochastic_depth(x, 0.5, "row").numpy() != 0, of_rows)


# --- ResidualDrop: the branch runs on what is kept, and nothing else changes


@pytest.mark.parametrize("mode", ["batch", "row"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_wrapped_branch_gives_what_a_computed_one_gives(mode: str, dtype: torch.dtype) -> None:
    """Bit for bit, gradients and the branch's own keyed dropout among it."""

    class Computed(nn.Module):
        def __init__(self, branch: nn.Module) -> None:
            super().__init__()
            self.branch, self.drop = branch, dt.StochasticDepth(0.4, mode)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.drop(self.branch(x))

    torch.manual_seed(0)
    wrapped = nn.Sequential(dt.ResidualDrop(Counted(4, 0.3), 0.4, mode)).to(dtype)
    computed = nn.Sequential(Computed(copy.deepcopy(wrapped[0].branch))).to(dtype)
    dt.bind(wrapped, 1), dt.bind(computed, 1)
    wrapped[0].site.name = computed[0].drop.site.name = "0.same"
    for _ in range(6):
        x = torch.randn(9, 4, dtype=dtype)
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        y, z = wrapped(a), computed(b)
        torch.testing.assert_close(y, z, rtol=1e-6, atol=1e-6)  # a product of fewer rows may round otherwise
        assert torch.equal(y == a, z == b)
        y.sum().backward(), z.sum().backward()
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-2 if dtype is torch.bfloat16 else 1e-5, atol=1e-5)


def test_what_is_dropped_is_not_computed() -> None:
    torch.manual_seed(0)
    row, batch = dt.ResidualDrop(Counted(), 0.5), dt.ResidualDrop(Counted(), 0.5, "batch")
    layers = dt.LayerDrop([Counted() for _ in range(20)], 0.5)
    for number in range(20):
        x = torch.randn(32, 4)
        with dt.at(seed=number, site="here"):
            kept = int((row(x) != x).any(1).sum())
        assert row.branch.rows.pop() == kept
        row.branch.rows.append(0)
        batch(x)
    assert 0 < batch.branch.rows[0] < 20 * 32 and batch.branch.rows[0] % 32 == 0
    layers(x)
    ran = sum(layer.rows[0] == 32 for layer in layers)
    assert 0 < ran < 20 and all(layer.rows[0] in (0, 32) for layer in layers)


def test_batchnorm_of_a_dropped_branch_learns_nothing() -> None:
    block = dt.ResidualDrop(nn.BatchNorm1d(4), 1.0, "batch")
    block(torch.randn(8, 4) + 5)
    assert block.branch.num_batches_tracked == 0 and not block.branch.running_mean.any()


def test_arguments_are_handed_on_and_gathered_where_named() -> None:
    x, add = torch.zeros(6, 4), torch.arange(6.0).reshape(6, 1).expand(6, 4)
    branch = Counted()
    nn.init.zeros_(branch.linear.weight), nn.init.zeros_(branch.linear.bias)
    block = dt.ResidualDrop(branch, 0.5, by_row=("add",))
    with here():
        y = block(x, add=add)
    kept = torch.from_numpy(dropkit.keep((6,), 0.5, KEY).copy()).reshape(6, 1)
    assert torch.equal(y, torch.where(kept, 2 * add, 0.0))
    with pytest.raises(DropkitValueError, match="by_row names 'add', which must be a tensor with one row for each of"):
        block(x, add=add[:2])


# --- LayerDrop


@pytest.mark.parametrize("depth", ["uniform", "linear", "exponential"])
def test_layers_run_by_the_bits_of_one_mask(depth: str) -> None:
    def make(mode: str) -> Any:
        layers = []
        for number in range(5):
            layer = nn.Linear(1, 1)
            nn.init.ones_(layer.weight), nn.init.constant_(layer.bias, 10.0**number)
            layers.append(layer)
        return dt.LayerDrop(layers, 0.6, mode, depth=depth)

    rates = np.array(
        [0.6 * {"uniform": 1, "linear": n / 5, "exponential": 2 ** ((n - 1) / 4) - 1}[depth] for n in range(1, 6)]
    )
    with here():
        y = make("batch")(torch.zeros(3, 1))
    bits = np.array([dropkit.keep((5,), p, KEY)[n] for n, p in enumerate(rates)])
    assert y.detach().numpy().ravel().tolist() == [float(bits @ 10.0 ** np.arange(5))] * 3
    with here():
        y = make("row")(torch.zeros(3, 1))
    bits = np.stack([dropkit.keep((3, 5), p, KEY)[:, n] for n, p in enumerate(rates)], 1)
    assert np.array_equal(y.detach().numpy().ravel(), (bits @ 10.0 ** np.arange(5)).astype(np.float32))
    with here():  # some rows of a data set get their rows of its mask
        y = make("row")(torch.zeros(2, 1))
    with here(rows=[2, 0]):
        again = make("row")(torch.zeros(2, 1))
    assert torch.equal(again[1], y[0])


def test_nothing_is_rescaled_unless_asked() -> None:
    layers = [nn.Linear(1, 1) for _ in range(40)]
    for layer in layers:
        nn.init.ones_(layer.weight), nn.init.ones_(layer.bias)
    torch.manual_seed(0)
    plain, scaled = dt.LayerDrop(layers, 0.5), dt.LayerDrop(layers, 0.5, scale=True)
    assert plain.eval()(torch.zeros(1, 1)).item() == 40
    plain.train()
    counts = torch.stack([plain(torch.zeros(1, 1)) for _ in range(100)]).flatten()
    assert abs(counts.mean().item() - 20) < 5 * math.sqrt(40 * 0.25 / 100)
    counts = torch.stack([scaled(torch.zeros(1, 1)) for _ in range(100)]).flatten()
    assert abs(counts.mean().item() - 40) < 5 * math.sqrt(40 / 100) and set((counts % 2).tolist()) == {0.0}


def test_progressive_layer_dropping_moves_over_depth_and_time() -> None:
    model = nn.Sequential(dt.LayerDrop([nn.Identity() for _ in range(4)], 0.0, depth="linear", scale=True))
    schedule = dt.Schedule(model, {"0": ProgressiveLayerDrop(theta=0.5, gamma=0.01)})
    assert model[0].rates() == [0.0] * 4
    schedule.step(to=100)
    last = 0.5 * (1 - math.exp(-1))
    assert model[0].rates() == pytest.approx([last / 4, last / 2, 3 * last / 4, last])
    names = dt.Schedule(
        nn.Sequential(*[dt.ResidualDrop(nn.Identity()) for _ in range(3)]), {"*": linear_in_depth(0.3, 3)}
    )
    assert list(names.rates().values()) == pytest.approx([0.1, 0.2, 0.3])


def test_a_stack_runs_like_a_sequential_and_can_be_pruned() -> None:
    layers = [Counted() for _ in range(6)]
    stack, plain = dt.LayerDrop(layers, 0.5), nn.Sequential(*layers)
    assert list(stack.state_dict()) == list(plain.state_dict())
    x = torch.randn(2, 4)
    assert torch.equal(stack.eval()(x), plain.eval()(x)) and stack[1] is layers[1] and len(stack) == 6
    assert list(every_other(stack, 3)) == [layers[0], layers[2], layers[4]]
    assert [len(every_other(stack, n)) for n in range(1, 7)] == [1, 2, 3, 4, 5, 6]
    assert stack.kept() == layers
    stack.train().p = 1.0
    assert stack.kept() == [] and stack(x) is x
    with pytest.raises(DropkitValueError, match="keep must be a whole number from 1 to 6, got 7"):
        every_other(stack, 7)


def test_checkpointed_layers_are_decided_once() -> None:
    torch.manual_seed(0)
    model = dt.LayerDrop([Counted(4, 0.5) for _ in range(8)], 0.5)
    x = torch.randn(3, 4, requires_grad=True)
    state = torch.get_rng_state()
    torch.utils.checkpoint.checkpoint(model, x, use_reentrant=False).sum().backward()
    found = x.grad.clone()
    x.grad = None
    torch.set_rng_state(state)
    model(x).sum().backward()
    assert torch.equal(found, x.grad)


def test_a_bound_stack_resumes_its_masks() -> None:
    def run(model: Any, n: int) -> list[torch.Tensor]:
        return [model(torch.ones(4, 4)).detach() for _ in range(n)]

    torch.manual_seed(0)
    model = dt.bind(nn.Sequential(dt.LayerDrop([Counted(4, 0.2) for _ in range(4)], 0.5, "row"), dt.DropPath(0.3)), 5)
    run(model, 3)
    saved = copy.deepcopy(model.state_dict())
    after = run(model, 3)
    model.load_state_dict(saved)
    assert all(map(torch.equal, after, run(model, 3)))


# --- joins and shakes


def test_shakedrop_multiplies_other_factors_backward() -> None:
    x = torch.randn(64, 3, dtype=torch.float64, requires_grad=True)
    with here():
        y = dt.ShakeDrop(0.5)(x)
    y.sum().backward()
    u = dropkit.uniform((64, 3), KEY, share=(1,)).astype(np.float64)
    np.testing.assert_allclose(
        y.detach().numpy(), x.detach().numpy() * np.where(u < 0.5, 1, -1 + 4 * (u - 0.5)), atol=1e-6
    )
    forward, backward = (y / x).detach()[:, 0], x.grad[:, 0]
    kept = torch.from_numpy(u[:, 0] < 0.5)
    assert torch.allclose(backward[kept], torch.ones(()).double()) and not torch.allclose(forward, backward)
    assert (backward[~kept] >= 0).all() and (forward[~kept] < 0).any()
    assert torch.equal(dt.ShakeDrop(0.25).eval()(x), 0.75 * x)


def test_shakedrop_and_shake_shake_keep_their_expectation() -> None:
    torch.manual_seed(0)
    x = torch.ones(4000, 1, requires_grad=True)
    y = dt.ShakeDrop(0.5)(x)
    y.sum().backward()
    assert abs(y.mean().item() - 0.5) < 5 * y.std().item() / 4000**0.5
    assert abs(x.grad.mean().item() - 0.75) < 5 * x.grad.std().item() / 4000**0.5
    a, b = torch.ones(4000, 1, requires_grad=True), torch.zeros(4000, 1, requires_grad=True)
    y = dt.ShakeShake()(a, b)
    y.sum().backward()
    assert abs(y.mean().item() - 0.5) < 5 * (1 / 12 / 4000) ** 0.5
    assert torch.allclose(a.grad + b.grad, torch.ones(4000, 1)) and not torch.allclose(a.grad, y)
    assert abs(float(torch.corrcoef(torch.stack([a.grad.flatten(), y.detach().flatten()]))[0, 1])) < 5 / 4000**0.5


def test_every_one_of_them_runs_wherever_a_dropout_does() -> None:
    """Other shapes, no rows, mixed precision, copies, functions of parameters, vmap."""
    for make in (lambda: dt.LayerDrop([nn.Linear(4, 4)] * 3, 0.5, "row"), lambda: dt.ResidualDrop(nn.Linear(4, 4), 0.5),
                 lambda: dt.ShakeDrop(0.5), lambda: dt.StochasticDepth(0.5, "batch")):  # fmt: skip
        model = dt.bind(nn.Sequential(nn.Linear(4, 4), make()), 1)
        for shape in ((3, 4), (0, 4), (2, 5, 4)):
            assert model(torch.randn(shape)).shape == shape
        with torch.autocast("cpu", torch.bfloat16):
            model(torch.randn(3, 4)).sum().backward()
        x, other = torch.randn(6, 4), copy.deepcopy(model)
        assert torch.equal(model(x), other(x))
        parameters = {name: value.detach() for name, value in model.named_parameters()}
        torch.func.grad(lambda p, m=model, x=x: torch.func.functional_call(m, p, (x,)).sum())(parameters)
        assert torch.vmap(model, randomness="same")(torch.randn(2, 3, 4)).shape == (2, 3, 4)


def test_swapout_keeps_both_by_themselves() -> None:
    torch.manual_seed(0)
    y = dt.Swapout(0.3)(torch.ones(20_000), 2 * torch.ones(20_000))
    for value, p in ((0, 0.09), (1, 0.21), (2, 0.21), (3, 0.49)):
        assert stats.binomtest(int((y == value).sum()), 20_000, p).pvalue > 1e-6
    assert torch.allclose(dt.Swapout(0.3).eval()(torch.ones(1), torch.ones(1)), torch.full((1,), 1.4))


def test_a_join_keeps_one_branch_at_least() -> None:
    torch.manual_seed(0)
    join, branches = dt.FractalJoin(0.6, "row"), [torch.full((6000, 1), float(v)) for v in (0, 3, 9)]
    y = join(*branches).flatten()
    p = 0.6
    for value, chance in ((0.0, p * p * (1 - p) + p**3 / 3), (4.0, (1 - p) ** 3), (6.0, p * (1 - p) ** 2)):
        assert stats.binomtest(int((y == value).sum()), 6000, chance).pvalue > 1e-6
    with pytest.raises(DropkitRuntimeError, match="keeps one column in all joins"):
        dt.FractalJoin(0.1, paths="global", columns=3)(*branches)


def test_a_global_path_is_one_column_in_every_join() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = (dt.FractalJoin(0.1, paths="both", columns=3) for _ in range(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([join(x, x + 1, x + 2) for join in (self.a, self.b)])

    model = dt.bind(Net(), 7)
    single = [y[0].item() for y in (model(torch.zeros(1)).flatten(1) for _ in range(60)) if y[0] == y[1]]
    assert set(single) >= {0.0, 1.0, 2.0} and len(single) >= 30


# --- known by every tool, and refused in words


def everything() -> nn.Sequential:
    return nn.Sequential(dt.LayerDrop([nn.Linear(4, 4)], 0.1), dt.ResidualDrop(nn.Linear(4, 4), 0.1),
                         dt.StochasticDepth(0.1, "row"), dt.DropPath(0.1), dt.ShakeDrop(0.1))  # fmt: skip


def test_the_tools_know_every_one_of_them() -> None:
    model, x = everything(), torch.randn(6, 4)
    found = {site.name: site for site in dt.sites(model, x)}
    shapes = {"0": (1, 1), "1": (6, 1), "2": (6, 1), "3": (6, 1), "4": (6, 1)}
    assert {name: site.mask_shape for name, site in found.items()} == shapes
    assert all(site.train and not site.eval for site in found.values())
    dt.set_rate(model, "*", 0.5)
    assert {site.p for site in dt.sites(model)} == {0.5}
    with dt.disabled(model):
        assert torch.equal(model(x), model(x))
    model.eval()
    with dt.enabled(model):
        assert not torch.equal(model(x), model(x))
    assert "failed" in str(dt.check(model.train(), x)) and "FAILED" not in str(dt.check(model, x))
    assert not [f for f in dropkit.doctor(nn.Sequential(model, nn.Linear(4, 2)), x).findings if f.code == "DK114"]
    shake = nn.Sequential(dt.ShakeShake())
    assert dt.sites(shake)[0].note == "its rate is a constant of the method"
    with pytest.raises(DropkitValueError, match="matches no rate"):
        dt.set_rate(shake, "*", 0.1)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: dt.StochasticDepth(1.5, "row"), DropkitValueError, "1.5"),
        (lambda: dt.StochasticDepth(0.5, "rows"), DropkitValueError, "either 'batch' or 'row', but got 'rows'"),
        (lambda: dt.DropPath(-0.1), DropkitValueError, "-0.1"),
        (lambda: dt.DropPath(0.1, 1), DropkitTypeError, "scale_by_keep must be True or False, got 1"),
        (lambda: dt.LayerDrop([], 0.1), DropkitTypeError, r"one at least, got \[\]"),
        (lambda: dt.LayerDrop([1], 0.1), DropkitTypeError, r"layers must be torch.nn.Modules, one at least, got \[1\]"),
        (lambda: dt.LayerDrop([nn.Identity()], 0.1, depth="log"), DropkitValueError, "'log'"),
        (lambda: dt.LayerDrop([nn.Identity()], 0.1, by_row=3), DropkitTypeError, "names of keyword arguments"),
        (lambda: dt.ResidualDrop(torch.relu), DropkitTypeError, "branch must be a torch.nn.Module"),
        (lambda: dt.ResidualDrop(nn.Linear(4, 2), 0.0)(torch.ones(2, 4)), DropkitValueError, "made .2, 2. of .2, 4."),
        (lambda: dt.LayerDrop([nn.LSTM(4, 4)], 0.0)(torch.ones(2, 4)), DropkitTypeError, "LSTM gave a tuple"),
        (lambda: dt.LayerDrop([nn.Identity()], mode="row").kept(), DropkitValueError, "layers of its own"),
        (lambda: dt.ShakeDrop(0.1, alpha=(1, -1)), DropkitValueError, r"alpha must hold two finite numbers.*\(1, -1\)"),
        (lambda: dt.ShakeDrop(0.1, beta=3), DropkitTypeError, "beta must hold two numbers"),
        (lambda: dt.ShakeDrop(0.1, level="image"), DropkitValueError, "level has to be one of .* got 'image'"),
        (lambda: setattr(dt.ShakeShake(), "p", 0.1), DropkitValueError, "so p cannot be set to 0.1"),
        (lambda: dt.ShakeShake()(torch.ones(1), torch.ones(2)), DropkitValueError, r"got \(1,\) and \(2,\)"),
        (lambda: dt.Swapout()(torch.ones(1), torch.ones(2)), DropkitValueError, "of one shape"),
        (lambda: dt.FractalJoin(paths="all"), DropkitValueError, "paths has to be one of"),
        (lambda: dt.FractalJoin(paths="global"), DropkitValueError, "needs columns"),
        (lambda: dt.FractalJoin()(), DropkitValueError, "is called with its branches"),
    ],
)  # fmt: skip
def test_bad_input_is_named(make: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()
