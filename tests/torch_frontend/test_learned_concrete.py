"""Concrete dropout: its gradient, its law, its penalty by the hand formula, and that the rate falls as data grow."""

import copy
import math
from typing import Any

import pytest
import torch
import torch._dynamo.testing
from torch import nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from dropkit import DropkitError
from dropkit.torch import at
from dropkit.torch.learned import ConcreteDropout, SpatialConcreteDropout, rates, regularizer

FIXED: dict[str, Any] = {"seed": 5, "site": "concrete", "step": 2}


@pytest.mark.parametrize("shape", [(), (6,)])
@pytest.mark.parametrize("temperature", [0.1, 2 / 3])
def test_gradients_equal_finite_differences_with_fixed_uniforms(shape: tuple[int, ...], temperature: float) -> None:
    drop = ConcreteDropout(0.3, shape=shape, temperature=temperature, when="always").double().eval()
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    logit = torch.randn(shape, dtype=torch.float64, requires_grad=True)

    def output(logit: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        with at(**FIXED):
            return functional_call(drop, {"logit": logit}, (x,))

    assert torch.autograd.gradcheck(output, (logit, x))
    assert torch.autograd.gradgradcheck(output, (logit, x))


@pytest.mark.parametrize("clamp", [(0.0, 1.0), (0.05, 0.5)])
def test_penalty_gradients_equal_finite_differences(clamp: tuple[float, float]) -> None:
    layer = nn.Linear(6, 3).double()
    drop = ConcreteDropout(0.3, clamp=clamp, layer=layer, length_scale=0.7).double()

    def penalty(logit: torch.Tensor) -> torch.Tensor:
        drop._parameters["logit"] = logit  # type: ignore[assignment]
        return drop.penalty()

    assert torch.autograd.gradcheck(penalty, torch.tensor(-0.6, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize(
    ("p", "temperature", "mean", "variance"),
    [
        (0.02, 0.1, 0.9997, None),
        (0.1, 0.1, 0.9987, 0.0819),
        (0.2, 0.1, 0.9980, None),
        (0.1, 2 / 3, 0.9497, 0.0549),
        (0.5, 2 / 3, 1.0, 0.1183),
    ],
)
def test_law_of_the_relaxed_mask(p: float, temperature: float, mean: float, variance: float | None) -> None:
    n = 1_000_000
    with at(**FIXED), torch.no_grad():
        y = ConcreteDropout(p, temperature=temperature, when="always").eval()(torch.ones(n))
    keep = y * (1 - p)
    error = keep.std().item() / math.sqrt(n) / (1 - p)
    assert abs(y.mean().item() - mean) < 5 * error + 5e-5  # the reference is rounded to four digits
    if variance is not None:
        assert abs(keep.var().item() - variance) < 0.0006
    gone = int((keep < 0.5).sum())
    assert abs(gone - n * p) < 5 * math.sqrt(n * p * (1 - p))  # P(d > 1/2) = p whatever the temperature


def test_penalty_of_a_linear_layer_by_hand() -> None:
    layer = nn.Linear(5, 3)
    drop = ConcreteDropout(0.3, layer=layer, length_scale=0.2)
    entropy = 0.3 * math.log(0.3) + 0.7 * math.log(0.7)
    wanted = 0.2**2 / 2 * layer.weight.pow(2).sum().item() / 0.7 + 5 * entropy  # the bias is free
    assert drop.penalty().item() == pytest.approx(wanted, rel=1e-5)


def test_penalty_of_a_spatial_layer_counts_channels() -> None:
    layer = nn.Conv2d(4, 6, 3)
    drop = SpatialConcreteDropout(0.3, layer=layer, length_scale=0.2)
    entropy = 0.3 * math.log(0.3) + 0.7 * math.log(0.7)
    wanted = 0.2**2 / 2 * layer.weight.pow(2).sum().item() / 0.7 + 4 * entropy
    assert drop.penalty().item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("layer", [nn.Linear(4, 3), nn.Conv2d(4, 6, 3), nn.Conv2d(4, 6, 3, groups=2)])
def test_penalty_with_a_rate_for_each_input(layer: Any) -> None:
    p = torch.tensor([0.1, 0.2, 0.3, 0.4])
    drop = ConcreteDropout(0.3, shape=(4,), layer=layer, length_scale=2.0)
    with torch.no_grad():
        drop.logit.copy_(torch.logit(p))
    wanted = 0.0
    for j in range(4):
        if getattr(layer, "groups", 1) == 2:  # outputs 0-2 see inputs 0 and 1, outputs 3-5 see 2 and 3
            weights = layer.weight[3 * (j // 2) : 3 * (j // 2) + 3, j % 2]
        else:
            weights = layer.weight[:, j]
        q = 1 - p[j].item()
        wanted += 2.0 * weights.pow(2).sum().item() / q + p[j].item() * math.log(p[j]) + q * math.log(q)
    assert drop.penalty().item() == pytest.approx(wanted, rel=1e-5)


def test_regularizer_scales_for_a_mean_loss() -> None:
    layer = nn.Linear(5, 3)
    model = nn.Sequential(ConcreteDropout(0.3, layer=layer), layer)
    penalty = model[0].penalty().item()
    assert regularizer(model, n=50).item() == pytest.approx(penalty / 50)
    assert regularizer(model, n=50, nll_scale=2).item() == pytest.approx(2 * penalty / 50)
    assert regularizer(model, n=50, weight=0.25).item() == pytest.approx(penalty / 200)


def test_evaluation_is_the_identity_unless_monte_carlo() -> None:
    x = torch.randn(3, 4)
    assert ConcreteDropout().eval()(x) is x
    assert ConcreteDropout(when="never")(x) is x
    monte_carlo = ConcreteDropout(0.5, when="always").eval()
    assert not torch.equal(monte_carlo(x), monte_carlo(x))


def test_spatial_noise_is_shared_by_a_channel() -> None:
    y = SpatialConcreteDropout(0.5)(torch.ones(2, 3, 4, 4))
    assert torch.equal(y, y[..., :1, :1].expand_as(y))
    assert y[..., 0, 0].unique().numel() == 6


def test_rows_give_a_sample_its_noise_in_any_batch() -> None:
    drop, x = ConcreteDropout(0.5), torch.ones(4, 6)
    with at(**FIXED, rows=[7, 3, 5, 1]):
        y = drop(x)
    with at(**FIXED, rows=[5]):
        assert torch.equal(drop(x[:1]), y[2:3])


def test_half_types_are_rounded_once() -> None:
    drop, x = ConcreteDropout(0.3), torch.randn(4, 6)
    with at(**FIXED):
        wanted = drop(x.bfloat16().float()).bfloat16()
    with at(**FIXED):
        got = drop(x.bfloat16())
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, wanted)


def test_clamp_lets_the_gradient_in_and_not_out() -> None:
    drop = ConcreteDropout(0.5, clamp=(0.0, 0.5), inputs=1)
    up, down = -drop.rate(), drop.rate()  # descent on -p raises p
    (grad,) = torch.autograd.grad(up, drop.logit)
    assert grad == 0
    (grad,) = torch.autograd.grad(down, drop.logit)
    assert grad == 0.25
    with torch.no_grad():
        drop.logit.fill_(3.0)
    assert drop.rate().item() == pytest.approx(0.5)
    optimizer = torch.optim.SGD(drop.parameters(), 1.0)
    for _ in range(40):
        optimizer.zero_grad()
        (drop.rate() - 0.1).pow(2).mul(50).backward()
        optimizer.step()
    assert drop.rate().item() < 0.5


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_repeats_the_noise(reentrant: bool) -> None:
    part = nn.Sequential(nn.Linear(4, 8), ConcreteDropout(0.3), nn.Linear(8, 1))
    x = torch.randn(5, 4, requires_grad=True)
    grads = []
    for recompute in (False, True):
        part.zero_grad()
        torch.manual_seed(1)
        y = checkpoint(part, x, use_reentrant=reentrant, preserve_rng_state=False) if recompute else part(x)
        torch.manual_seed(77)
        y.sum().backward()
        grads.append([p.grad.clone() for p in part.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


# torch instantiates the Function that it traces, which it deprecates itself
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_compiled_equals_eager_while_the_rate_moves() -> None:
    torch._dynamo.reset()
    model = nn.Sequential(nn.Linear(4, 8), ConcreteDropout(0.3, clamp=(0.0, 0.5)), nn.Linear(8, 1))
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    x = torch.randn(5, 4)
    for step in range(4):
        results = []
        for function in (model, compiled):
            model.zero_grad()
            torch.manual_seed(step)
            with at(seed=1, site="c", step=0):
                y = function(x)
            y.sum().backward()
            results.append((y.detach(), model[1].logit.grad.clone()))
        torch.testing.assert_close(*results)
        with torch.no_grad():
            model[1].logit.sub_(0.1)
    assert counter.frame_count == 1


def test_copies_keep_their_own_layer() -> None:
    layer = nn.Linear(5, 3)
    model = nn.Sequential(ConcreteDropout(layer=layer), layer)
    twin = copy.deepcopy(model)
    assert twin[0].fed[0] is twin[1]
    assert list(model.state_dict()) == ["0.logit", "1.weight", "1.bias"]


def learnt_rate(n: int) -> float:
    torch.manual_seed(0)
    x = torch.randn(n, 1)
    y = 2 * x + 8 + torch.randn(n, 1)
    layers = [nn.Linear(1, 64), nn.Linear(64, 1)]
    model = nn.Sequential(layers[0], nn.ReLU(), ConcreteDropout(0.3, layer=layers[1], length_scale=1e-2), layers[1])
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for step in range(500):
        with at(seed=1, site="toy", step=step):
            loss = 0.5 * (model(x) - y).pow(2).mean()
        optimizer.zero_grad()
        (loss + regularizer(model, n=n)).backward()
        optimizer.step()
    return rates(model)["2"].item()


@pytest.mark.slow
def test_the_learnt_rate_falls_as_data_grow() -> None:
    few, some, many = learnt_rate(10), learnt_rate(100), learnt_rate(1000)
    assert few > some + 0.02 > many + 0.04


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ConcreteDropout(0.0), "p must lie strictly between 0 and 1, where its logit is finite, got 0.0"),
        (lambda: ConcreteDropout(float("nan")), "got nan"),
        (lambda: ConcreteDropout(0.6, clamp=(0.0, 0.5)), r"p = 0.6 lies outside clamp = \(0.0, 0.5\)"),
        (lambda: ConcreteDropout(0.3, clamp=(0.5, 0.2)), "clamp must be two bounds with 0 <= low < high <= 1"),
        (lambda: ConcreteDropout(temperature=0), "temperature must be a positive number, got 0"),
        (lambda: ConcreteDropout(length_scale=-1), "length_scale must be a positive number, got -1"),
        (lambda: ConcreteDropout(layer=nn.ReLU()), "layer must be a Linear or Conv layer"),  # type: ignore[arg-type]
        (lambda: ConcreteDropout(shape=64), r"shape must be a sequence of sizes such as \(64,\), got 64"),  # type: ignore[arg-type]
        (lambda: ConcreteDropout(shape=(0,)), "sizes of at least 1"),
        (lambda: ConcreteDropout(share=2), "share must be a sequence of axis numbers"),  # type: ignore[arg-type]
        (lambda: ConcreteDropout(inputs=0).penalty(), "inputs must be a positive number, got 0"),
        (lambda: ConcreteDropout(when="now"), "when must be one of train, always, never; got 'now'"),
        (lambda: ConcreteDropout().penalty(), "pass layer=, the layer that it feeds, or inputs="),
        (lambda: ConcreteDropout(shape=(3,), layer=nn.Linear(4, 2)).penalty(), "3 rates cannot weigh the 4 inputs"),
    ],
)
def test_bad_input(build: Any, message: str) -> None:
    with pytest.raises(DropkitError, match=message):
        build()
