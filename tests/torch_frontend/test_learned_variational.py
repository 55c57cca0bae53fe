"""Variational dropout: the KL against the exact one, local reparameterisation's moments, and real sparsification."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import dawsn
from torch import nn

from dropkit import DropkitError
from dropkit.torch import Dropout, at
from dropkit.torch.learned import (
    SparseVariationalConv2d,
    SparseVariationalLinear,
    VariationalGaussianDropout,
    VariationalLinear,
    kl,
    regularizer,
    sparsify,
)

FIXED: dict[str, Any] = {"seed": 5, "site": "variational", "step": 2}


def exact_kl(log_alpha: float) -> float:
    """Integral of sqrt(v) F(sqrt v), v = 1/(2a), over ln a from here to infinity, where the KL is 0."""

    def slope(t: float) -> float:
        root = math.sqrt(0.5 * math.exp(-t))
        return root * float(dawsn(root))

    value, error = quad(slope, log_alpha, 40, limit=500)
    assert error < 1e-7
    return value


GRID = np.linspace(-10, 10, 81)


def test_the_exact_kl_is_the_divergence_by_monte_carlo() -> None:
    """-ln a / 2 + E ln|1 + sqrt(a) e| is the KL up to a constant: differences agree with the Dawson integral."""
    e = np.random.default_rng(0).standard_normal(2_000_000)

    def sampled(log_alpha: float) -> float:
        return -log_alpha / 2 + float(np.log(np.abs(1 + math.exp(log_alpha / 2) * e)).mean())

    # the error of a difference of means at the same e is below 0.002
    assert abs(sampled(-2) - sampled(1) - (exact_kl(-2) - exact_kl(1))) < 0.004


def test_sigmoidal_kl_is_within_its_published_error() -> None:
    approximate = kl.sigmoidal(torch.from_numpy(GRID)).numpy()
    exact = np.array([exact_kl(value) for value in GRID])
    assert np.abs(approximate - exact).max() <= 0.0095
    assert np.abs(approximate - exact).max() >= 0.009  # the comparison is sharp enough to see the error


def test_polynomial_kl_is_off_by_a_constant() -> None:
    grid = np.log(np.linspace(0.01, 1, 60))
    offset = kl.polynomial(torch.from_numpy(grid)).numpy() - np.array([exact_kl(value) for value in grid])
    assert np.abs(offset).max() <= 0.0281
    assert np.ptp(offset) >= 0.03  # so a wrong coefficient in the third digit is seen


def test_kl_falls_and_is_not_negative() -> None:
    for kind in ("sigmoidal", "ard"):
        values = kl.kl(kind)(torch.from_numpy(GRID))
        assert (values.diff() < 0).all()
        assert (values >= 0).all()


def test_ard_kl_is_that_of_the_best_normal_prior() -> None:
    theta, sigma = 0.7, 0.3
    variance = theta**2 + sigma**2  # of the prior that is nearest
    wanted = 0.5 * (math.log(variance / sigma**2) + (sigma**2 + theta**2) / variance - 1)
    assert kl.ard(torch.tensor(math.log(sigma**2 / theta**2))).item() == pytest.approx(wanted, rel=1e-5)


N = 400_000


def sample(layer: Any, x: torch.Tensor) -> torch.Tensor:
    with at(**FIXED), torch.no_grad():
        layer.when = "always"
        return layer.double().eval()(x.double().expand(N, -1))


def assert_moments(y: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor) -> None:
    z = (y.mean(0) - mean) / (variance / N).sqrt()
    assert z.abs().max() < 5
    ratio = y.var(0) / variance
    assert (ratio - 1).abs().max() < 5 * math.sqrt(2 / N)


@pytest.mark.parametrize("per", ["layer", "unit", "weight"])
def test_local_reparameterisation_has_the_moments_of_noisy_weights(per: str) -> None:
    torch.manual_seed(0)
    layer = VariationalLinear(6, 3, alpha=0.4, per=per)
    with torch.no_grad():
        layer.log_alpha.sub_(torch.rand_like(layer.log_alpha))
    x = torch.randn(1, 6).double()
    y = sample(layer, x)
    alpha = layer.log_alpha.detach().exp().expand(3, 6)
    assert_moments(y, (layer.weight @ x[0] + layer.bias).detach(), ((alpha * layer.weight**2) @ x[0] ** 2).detach())


def test_sparse_layer_has_the_moments_of_noisy_weights() -> None:
    torch.manual_seed(0)
    layer = SparseVariationalLinear(6, 3, log_sigma2=-2.0)
    x = torch.randn(1, 6).double()
    y = sample(layer, x)
    assert_moments(y, (layer.weight @ x[0] + layer.bias).detach(), (layer.log_sigma2.exp() @ x[0] ** 2).detach())


def test_sparse_convolution_equals_the_linear_layer_on_one_pixel() -> None:
    torch.manual_seed(0)
    convolution, linear = SparseVariationalConv2d(4, 3, 1, log_sigma2=-2.0), SparseVariationalLinear(4, 3)
    with torch.no_grad():
        linear.weight.copy_(convolution.weight[..., 0, 0])
        linear.log_sigma2.copy_(convolution.log_sigma2[..., 0, 0])
    x = torch.randn(5, 4)
    with at(**FIXED):
        wanted = linear(x)
    with at(**FIXED):
        got = convolution(x[..., None, None])[..., 0, 0]
    torch.testing.assert_close(got, wanted)
    torch.testing.assert_close(convolution.penalty(), linear.penalty())


def test_sparse_gradients_equal_finite_differences() -> None:
    layer = SparseVariationalLinear(4, 3, log_sigma2=-2.0).double()
    x = torch.randn(5, 4, dtype=torch.float64)

    def loss(weight: torch.Tensor, log_sigma2: torch.Tensor) -> torch.Tensor:
        with at(**FIXED):
            parameters = {"weight": weight, "log_sigma2": log_sigma2}
            return torch.func.functional_call(layer.train(), parameters, (x,)).pow(2).mean()

    def penalty(weight: torch.Tensor, log_sigma2: torch.Tensor) -> torch.Tensor:
        layer._parameters.update(weight=weight, log_sigma2=log_sigma2)  # type: ignore[arg-type]
        return layer.penalty()

    given = [p.detach().clone().requires_grad_() for p in (layer.weight, layer.log_sigma2)]
    layer.since = -(10**6)  # gradcheck runs many forwards without a regulariser
    assert torch.autograd.gradcheck(loss, given)
    assert torch.autograd.gradcheck(penalty, given)


def test_gaussian_dropout_moments_and_penalty() -> None:
    drop = VariationalGaussianDropout(0.25, inputs=7)
    x = torch.tensor([[1.0, -2.0, 0.5]])
    y = sample(drop, x)
    assert_moments(y, x[0].double(), 0.25 * x[0].double() ** 2)
    assert drop.penalty().item() == pytest.approx(7 * kl.polynomial(torch.tensor(0.25).log()).item(), rel=1e-5)
    per_weight = VariationalLinear(4, 3, alpha=0.25)
    assert per_weight.penalty().item() == pytest.approx(12 * kl.polynomial(torch.tensor(0.25).log()).item(), rel=1e-5)


def test_rates_stay_below_the_bound() -> None:
    drop = VariationalGaussianDropout(0.5, inputs=4)
    with torch.no_grad():
        drop.log_alpha.fill_(2.0)
    assert drop.rate().item() == 0.5


def test_evaluation_is_deterministic() -> None:
    x = torch.randn(3, 4)
    assert VariationalGaussianDropout(inputs=4).eval()(x) is x
    linear = VariationalLinear(4, 2).eval()
    assert torch.equal(linear(x), nn.functional.linear(x, linear.weight, linear.bias))
    sparse = SparseVariationalLinear(4, 2, log_sigma2=-3.0).eval()
    wanted = nn.functional.linear(x, sparse.weight * (sparse.log_alpha() < 3), sparse.bias)
    assert torch.equal(sparse(x), wanted)


def pruned(layers: list[nn.Module], keep: float) -> None:
    """Mark random weights, whole rows and whole columns as noise."""
    torch.manual_seed(3)
    for layer in layers:
        if isinstance(layer, SparseVariationalLinear | SparseVariationalConv2d):
            gone = torch.rand_like(layer.weight) > keep
            gone[:, torch.rand(layer.weight.shape[1]) < 0.5] = True
            gone[torch.rand(layer.weight.shape[0]) < 0.3] = True
            with torch.no_grad():
                layer.log_sigma2[gone] = 20.0
                if layer.bias is not None:
                    layer.bias.normal_()


def size(model: nn.Module) -> int:
    return sum(p.numel() for name, p in model.named_parameters() if "log_sigma2" not in name)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Sigmoid, nn.Tanh, nn.GELU])
def test_sparsified_network_is_smaller_and_gives_the_same(activation: type, bias: bool) -> None:
    model = nn.Sequential(
        SparseVariationalLinear(20, 30, bias),
        activation(),
        Dropout(0.2),
        SparseVariationalLinear(30, 40, bias),
        activation(),
        SparseVariationalLinear(40, 5, bias),
    )
    pruned(list(model), keep=0.4)
    x = torch.randn(50, 20)
    model.eval()
    small = sparsify(model)
    torch.testing.assert_close(small(x), model(x))
    assert size(small) < 0.5 * size(model)
    assert not any(isinstance(part, SparseVariationalLinear) for part in small.modules())
    assert small[0].size == 20  # inputs that nothing reads are left out in front
    assert isinstance(model[0], SparseVariationalLinear)  # the model is as it was
    linear = [part for part in small if isinstance(part, nn.Linear)]
    assert all(part.weight.any(0).all() for part in linear)  # no column is left that could go
    assert all(part.weight.any(1).all() for part in linear[:-1])


def test_a_network_of_noise_alone_becomes_a_constant() -> None:
    model = nn.Sequential(SparseVariationalLinear(6, 5), nn.Sigmoid(), SparseVariationalLinear(5, 2)).eval()
    with torch.no_grad():
        model[0].log_sigma2.fill_(20.0)
        model[0].bias.normal_()
    small = sparsify(model)
    x = torch.randn(3, 6)
    torch.testing.assert_close(small(x), model(x))
    assert size(small) == 2


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = SparseVariationalConv2d(2, 4, 3, padding=1, stride=2)
        self.head = SparseVariationalLinear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.convolution(x).relu().mean((2, 3)))


def test_other_structures_keep_their_shape_with_zeros() -> None:
    model = Convolutional().eval()
    pruned([model.convolution, model.head], keep=0.5)
    plain = sparsify(model)
    x = torch.randn(2, 2, 8, 8)
    torch.testing.assert_close(plain(x), model(x))
    assert type(plain.convolution) is nn.Conv2d
    assert (plain.convolution.weight == 0).float().mean() > 0.4


def test_a_single_layer_and_its_threshold() -> None:
    layer = SparseVariationalLinear(4, 3, log_sigma2=-1.0)
    assert (sparsify(layer, threshold=100.0).weight == layer.weight).all()
    assert not sparsify(layer, threshold=-100.0).weight.any()


def test_training_tells_useless_weights_from_useful_ones() -> None:
    """y depends on 2 of 12 inputs: the weights of the other ten end as noise."""
    torch.manual_seed(0)
    x = torch.randn(500, 12)
    y = x[:, :2] @ torch.tensor([[2.0], [-1.0]]) + 0.1 * torch.randn(500, 1)
    model = nn.Sequential(SparseVariationalLinear(12, 1, log_sigma2=-6.0))
    optimizer = torch.optim.Adam(model.parameters(), 0.03)
    for step in range(800):
        with at(seed=1, site="toy", step=step):
            loss = (model(x) - y).pow(2).mean() / (2 * 0.1**2)
        optimizer.zero_grad()
        (loss + regularizer(model, n=500)).backward()
        optimizer.step()
    log_alpha = model[0].log_alpha()[0]
    assert log_alpha[:2].max() < -8
    assert log_alpha[2:].min() > -2
    small = sparsify(model, threshold=-5)
    assert small[0].index.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: VariationalGaussianDropout(1.5), r"alpha must lie in \(0, max_alpha\], got alpha=1.5, max_alpha=1.0"),
        (lambda: VariationalGaussianDropout(0), "alpha must be a positive number, got 0"),
        (
            lambda: VariationalGaussianDropout(max_alpha=2.0),
            "the polynomial KL holds for alpha <= 1, got max_alpha=2.0",
        ),
        (lambda: VariationalGaussianDropout().penalty(), "pass layer=, the layer that it feeds, or inputs="),
        (lambda: VariationalLinear(2, 2, per="neuron"), "unknown per 'neuron'"),
        (lambda: SparseVariationalLinear(2, 2, kl="exact"), "unknown kl 'exact'"),
        (lambda: sparsify(nn.Linear(2, 2)), "no sparse variational layer in this Linear"),
        (lambda: sparsify("net"), "sparsify needs a torch.nn.Module, got str"),  # type: ignore[arg-type]
    ],
)
def test_bad_input(build: Any, message: str) -> None:
    with pytest.raises(DropkitError, match=message):
        build()
