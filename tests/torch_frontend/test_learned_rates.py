"""Gates, standout, hypergradient; and what looks after all learned sites: regularizer, rates, diagnosis, warnings."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._dynamo.testing
from torch import nn
from torch.utils.checkpoint import checkpoint

from dropkit import DropkitError
from dropkit.torch import at
from dropkit.torch.learned import (
    ConcreteDropout,
    HardConcrete,
    LearnableBernoulli,
    SparseVariationalLinear,
    Standout,
    VariationalGaussianDropout,
    VariationalLinear,
    Watch,
    base,
    diagnose,
    hypergradient_backward,
    rate_parameters,
    rates,
    regularizer,
)

FIXED: dict[str, Any] = {"seed": 5, "site": "learned", "step": 2}


@pytest.fixture(autouse=True)
def _nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_warned", set())


# ---------------------------------------------------------------------------------------------------------------------
# hard concrete


@pytest.mark.parametrize("log_alpha", [-2.0, 0.0, 1.5])
def test_gates_open_with_the_probability_of_the_formula(log_alpha: float) -> None:
    n = 400_000
    gates = HardConcrete(when="always").eval()
    with torch.no_grad(), at(**FIXED):
        gates.log_alpha.fill_(log_alpha)
        z = gates(torch.ones(n))
    p = 1 / (1 + math.exp(-(log_alpha + 1.598597)))
    assert gates.open().item() == pytest.approx(p, abs=1e-6)
    assert abs(int((z > 0).sum()) - n * p) < 5 * math.sqrt(n * p * (1 - p))
    assert (z == 1).any()


def test_evaluation_gates_and_mean_gates() -> None:
    gates = HardConcrete((2,))
    with torch.no_grad():
        gates.log_alpha.copy_(torch.tensor([-2.0, 2.0]))
    torch.testing.assert_close(gates.gate(), torch.tensor([0.0430, 0.9570]), atol=5e-5, rtol=0)
    with at(**FIXED), torch.no_grad():
        gates.when = "always"
        z = gates.eval()(torch.ones(400_000, 2))
    torch.testing.assert_close(z.mean(0), torch.tensor([0.1426, 0.8574]), atol=0.0025, rtol=0)  # > 5 standard errors


def test_gate_penalty_counts_the_weights_behind() -> None:
    gates = HardConcrete((4,), strength=0.3, layer=nn.Conv2d(4, 6, 3))
    assert gates.penalty().item() == pytest.approx(0.3 * 6 * 9 * gates.open().sum().item(), rel=1e-5)


def test_gate_gradients_equal_finite_differences() -> None:
    gates = HardConcrete((6,), when="always").double().eval()
    x = torch.randn(4, 6, dtype=torch.float64)

    def output(log_alpha: torch.Tensor) -> torch.Tensor:
        with at(**FIXED):
            return torch.func.functional_call(gates, {"log_alpha": log_alpha}, (x,))

    assert torch.autograd.gradcheck(output, torch.randn(6, dtype=torch.float64, requires_grad=True))


# ---------------------------------------------------------------------------------------------------------------------
# standout


def test_standout_keeps_with_the_probability_of_its_activation() -> None:
    layer = Standout(alpha=2.0, beta=-0.5)
    a = torch.tensor([-1.0, 0.0, 0.5, 2.0])
    n = 200_000
    with at(**FIXED):
        y = layer.train()(a.clone().requires_grad_().expand(n, -1) + 0)
    keep = torch.sigmoid(2 * a - 0.5)
    frequency = (y[:, 2:] != 0).float().mean(0)  # ReLU is 0 for the first two
    assert ((frequency - keep[2:]) / (keep[2:] * (1 - keep[2:]) / n).sqrt()).abs().max() < 5
    assert (y[:, 2:].unique() == torch.tensor([0.0, 0.5, 2.0])).all()  # not scaled
    torch.testing.assert_close(layer.eval()(a), keep * a.relu())
    assert layer.rate().item() == pytest.approx(1 - keep.mean().item(), abs=1e-6)


def test_standout_sends_no_gradient_through_the_probability() -> None:
    layer = Standout(nn.Identity())
    a = torch.randn(50, requires_grad=True)
    with at(**FIXED):
        y = layer(a)
    y.sum().backward()
    assert torch.equal(a.grad, (y != 0).float())  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------------------------
# hypergradient


def inner_model() -> nn.Sequential:
    torch.manual_seed(1)
    head = nn.Linear(8, 1)
    return nn.Sequential(
        nn.Linear(3, 8),
        nn.Tanh(),
        ConcreteDropout(0.3, shape=(8,), layer=head, length_scale=0.5),
        head,
        VariationalGaussianDropout(0.2, inputs=1),
    ).double()


@pytest.mark.parametrize("steps", [1, 3])
def test_hypergradient_equals_a_plain_two_loop_reference(steps: int) -> None:
    """The reference trains a copy by hand at each shifted rate and takes central differences of its validation loss."""
    model = inner_model()
    x, y = torch.randn(2, 20, 3, dtype=torch.float64), torch.randn(2, 20, 1, dtype=torch.float64)
    calls: list[int] = []

    def train(net: nn.Module = model, step: int | None = None) -> torch.Tensor:
        calls.append(len(calls))
        with at(seed=1, site="inner", step=len(calls) if step is None else step):
            return (net(x[0]) - y[0]).pow(2).mean() + regularizer(net, n=20)

    def validation(net: nn.Module = model) -> torch.Tensor:
        return (net(x[1]) - y[1]).pow(2).mean()

    value = hypergradient_backward(model, train, validation, lr=0.2, steps=steps)
    assert model.training
    assert len(calls) == steps

    def two_loops(name: str, place: int, shift: float) -> float:
        net = inner_model()
        rate = rate_parameters(net)[name]
        with torch.no_grad():
            rate.view(-1)[place] += shift
        fixed = {id(p) for p in rate_parameters(net).values()}
        optimizer = torch.optim.SGD([p for p in net.parameters() if id(p) not in fixed], 0.2)
        for step in range(steps):
            optimizer.zero_grad()
            train(net, step + 1).backward()
            optimizer.step()
        return validation(net.eval()).item()

    assert value.item() == pytest.approx(two_loops("2.logit", 0, 0.0), rel=1e-12)
    for name, parameter in rate_parameters(model).items():
        assert parameter.grad is not None and parameter.grad.abs().max() > 1e-6
        for place in range(parameter.numel()):
            difference = (two_loops(name, place, 1e-5) - two_loops(name, place, -1e-5)) / 2e-5
            assert parameter.grad.view(-1)[place].item() == pytest.approx(difference, rel=1e-5, abs=1e-9)
    assert all(p.grad is None for name, p in model.named_parameters() if name not in rate_parameters(model))


def test_hypergradient_adds_to_what_is_there_and_restores_modes() -> None:
    model = inner_model()
    model[0].eval()
    x = torch.randn(6, 3, dtype=torch.float64)

    def loss() -> torch.Tensor:
        with at(**FIXED):
            return model(x).pow(2).mean()

    hypergradient_backward(model, loss, loss, lr=0.1)
    once = model[2].logit.grad.clone()
    hypergradient_backward(model, loss, loss, lr=0.1)
    torch.testing.assert_close(model[2].logit.grad, 2 * once)
    assert [part.training for part in model] == [False, True, True, True, True]


# ---------------------------------------------------------------------------------------------------------------------
# all sites


def zoo() -> nn.Sequential:
    head = nn.Linear(8, 2)
    return nn.Sequential(
        SparseVariationalLinear(4, 8),
        Standout(),
        HardConcrete((8,)),
        LearnableBernoulli(0.2, inputs=8, estimator="straight-through"),
        VariationalLinear(8, 8),
        ConcreteDropout(0.1, layer=head),
        head,
    )


def test_regularizer_collects_every_site() -> None:
    model = zoo()
    total = sum(part.penalty() for part in model if isinstance(part, base.Learned) and part.penalty() is not None)
    assert regularizer(model, n=10).item() == pytest.approx(total.item() / 10, rel=1e-6)  # type: ignore[union-attr]
    assert regularizer(nn.Sequential(Standout()), n=10).item() == 0  # a method without a penalty


def test_rates_are_probabilities_by_module_path() -> None:
    found = rates(zoo())
    assert list(found) == ["0", "1", "2", "3", "4", "5"]
    assert all(((p >= 0) & (p <= 1)).all() and not p.requires_grad for p in found.values())
    assert found["0"].shape == (8, 4)
    assert found["3"].item() == pytest.approx(0.2)
    assert found["4"].item() == pytest.approx(1 / 3)


def test_every_rate_parameter_gets_a_gradient() -> None:
    model = zoo()
    names = list(rate_parameters(model))
    assert names == ["0.log_sigma2", "2.log_alpha", "3.logit", "4.log_alpha", "5.logit"]
    loss = model(torch.randn(20, 4)).pow(2).mean() + regularizer(model, n=100)
    loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in rate_parameters(model).values())


# torch instantiates the Function that it traces, which it deprecates itself
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_compiled_whole_and_once_while_the_rates_move() -> None:
    torch._dynamo.reset()
    model = zoo()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    x = torch.randn(20, 4)
    for step in range(3):
        results = []
        for function in (model, compiled):
            model.zero_grad()
            with at(seed=1, site="all", step=7):
                y = function(x)
            (y.pow(2).mean() + regularizer(model, n=100)).backward()
            results.append([y.detach(), *(p.grad.clone() for p in rate_parameters(model).values())])  # type: ignore[union-attr]
        torch.testing.assert_close(*results)
        with torch.no_grad():
            for p in rate_parameters(model).values():
                p.add_(0.1 * (step + 1))
    assert counter.frame_count == 1


def test_state_dict_carries_the_rates() -> None:
    model, other = zoo(), zoo()
    with torch.no_grad():
        model[5].logit.fill_(0.7)
    other.load_state_dict(model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(rates(model).values(), rates(other).values(), strict=True))


@pytest.mark.parametrize(
    "make", [ConcreteDropout, HardConcrete, VariationalGaussianDropout, Standout, LearnableBernoulli]
)
def test_integers_are_refused_in_training(make: Callable[[], nn.Module]) -> None:
    """Their noise would be cut off to integers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DropkitError, match=r"but x is torch.int64 .* convert with x.float\(\)"):
            make()(torch.arange(8).reshape(1, 8))


def test_diagnosis_finds_rates_at_their_bounds() -> None:
    model = nn.Sequential(ConcreteDropout(0.2, shape=(4,), clamp=(0.0, 0.5)), LearnableBernoulli(0.3))
    with torch.no_grad():
        model[0].logit[0] = -20.0
        model[0].logit[1:3] = 5.0
        model[1].logit.fill_(30.0)
    found = diagnose(model)
    assert found["0"].remarks == ["25% of the rates at the lower bound 0", "50% of the rates at the upper bound 0.5"]
    assert found["1"].remarks == ["all rates at the upper bound 1"]
    assert (found["0"].low, found["0"].high) == (pytest.approx(0, abs=1e-6), 0.5)
    assert found["0"].noise is None


def test_watch_measures_the_noise_of_the_gradient() -> None:
    model = nn.Sequential(ConcreteDropout(0.3))
    watch = Watch(model)
    values = []
    for step in range(20):
        model.zero_grad()
        with at(seed=1, site="w", step=step):
            model(torch.ones(10)).pow(2).sum().backward()
        values.append(model[0].logit.grad.item())
    samples = torch.tensor(values)
    assert watch.count("0.logit") == 20
    assert watch.mean("0.logit").item() == pytest.approx(samples.mean().item(), rel=1e-4)
    assert watch.std("0.logit").item() == pytest.approx(samples.std().item(), rel=1e-4)
    noise = diagnose(model, watch)["0"].noise
    assert noise == pytest.approx((samples.std() / samples.mean().abs()).item(), rel=1e-3)
    watch.remove()
    model(torch.ones(10)).sum().backward()
    assert watch.count("0.logit") == 20


def test_a_forgotten_regularizer_warns_once() -> None:
    model = nn.Sequential(ConcreteDropout(inputs=4), ConcreteDropout(inputs=4))
    with pytest.warns(UserWarning, match=r"100 training forwards without its regulariser") as caught:
        for _ in range(250):
            model(torch.ones(2, 4))
    assert len(caught) == 1


def test_a_regularizer_that_is_called_is_not_forgotten() -> None:
    model = nn.Sequential(ConcreteDropout(inputs=4))
    for step in range(300):
        model(torch.ones(2, 4))
        if step % 50 == 0:
            regularizer(model, n=10)
    model.eval()
    for _ in range(150):
        model(torch.ones(2, 4))


def test_training_under_no_grad_warns_once() -> None:
    model = nn.Sequential(ConcreteDropout(inputs=4), ConcreteDropout(inputs=4))
    with pytest.warns(UserWarning, match="in training mode under torch.no_grad") as caught, torch.no_grad():
        model(torch.ones(2, 4))
        model(torch.ones(2, 4))
    assert len(caught) == 1


def test_evaluation_and_reentrant_checkpoints_under_no_grad_are_silent() -> None:
    part = nn.Sequential(nn.Linear(4, 4), ConcreteDropout(when="always"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checkpoint(part, torch.ones(2, 4, requires_grad=True), use_reentrant=True).sum().backward()
        with torch.no_grad():
            part.eval()(torch.ones(2, 4))
            regularizer(nn.Sequential(ConcreteDropout(inputs=4)).eval(), n=3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: regularizer(zoo(), n=0), "at least 1, got 0; the penalties are divided by it"),
        (lambda: regularizer(zoo(), n=-5), "at least 1, got -5"),
        (lambda: regularizer(zoo(), n=10.0), r"an integer such as len\(data\), got 10.0"),  # type: ignore[arg-type]
        (lambda: regularizer(zoo(), n=True), "got True"),
        (lambda: regularizer(zoo(), n=10, nll_scale=0), "nll_scale must be a positive number, got 0"),
        (lambda: regularizer(zoo(), n=10, weight=-1), "weight must not be negative, got -1"),
        (lambda: regularizer(nn.Linear(2, 2), n=10), "no learned dropout in this Linear: put a module of"),
        (lambda: regularizer("model", n=10), "a model must be a torch.nn.Module, got str"),  # type: ignore[arg-type]
        (lambda: torch.no_grad()(regularizer)(zoo(), n=10), "in training mode under torch.no_grad: it has no gradient"),
        (lambda: regularizer(nn.Sequential(ConcreteDropout()), n=10), "pass layer=, the layer that it feeds"),
        (lambda: rates(nn.Linear(2, 2)), "no learned dropout in this Linear"),
        (lambda: diagnose(zoo(), Watch(zoo())), "needs two backward passes, 0 seen so far"),
        (lambda: HardConcrete((3,), layer=nn.Linear(4, 2)), "3 gates for the 4 inputs"),
        (lambda: HardConcrete(strength=0), "strength must be a positive number"),
        (lambda: Standout(alpha=math.inf), "alpha must be finite, got inf"),
        (lambda: Standout("relu"), "activation must be a module or a function of a tensor, got 'relu'"),  # type: ignore[arg-type]
        (lambda: hyper(LearnableBernoulli(0.3)), "hard masks at the model itself: the training loss has no derivative"),
        (lambda: hyper(inner_model(), lr=0), "lr must be a positive number, got 0"),
        (lambda: hyper(inner_model(), steps=0), "steps must be at least 1, got 0"),
        (lambda: torch.no_grad()(hyper)(inner_model()), "hypergradient_backward under torch.no_grad"),
        (lambda: hyper(inner_model().requires_grad_(False)), "no learned rate in this Sequential"),
    ],
)
def test_bad_input(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(DropkitError, match=message):
        call()


def hyper(model: nn.Module, lr: float = 0.1, steps: int = 1) -> torch.Tensor:
    def loss() -> torch.Tensor:
        return model(torch.ones(2, 3, dtype=torch.float64)).sum()

    return hypergradient_backward(model, loss, loss, lr=lr, steps=steps)
