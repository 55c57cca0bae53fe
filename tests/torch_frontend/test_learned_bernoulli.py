"""Learnable Bernoulli: ARM and DisARM against full enumeration of the masks, with and without scaling."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from dropkit import DropkitError
from dropkit.torch import Dropout, at
from dropkit.torch.learned import LearnableBernoulli, antithetic_backward, base, regularizer

D, HIDDEN, BATCH = 3, 4, 2
X = torch.tensor([[0.9, -1.3, 0.4], [-0.2, 0.8, 1.1]], dtype=torch.float64)
Y = torch.tensor([0.7, -1.1], dtype=torch.float64)


@pytest.fixture(autouse=True)
def _no_regulariser_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_PATIENCE", 10**9)


class Tiny(nn.Module):
    """3 - tanh 4 - 1 with learned dropout before both layers: 7 mask bits a sample."""

    def __init__(self, shapes: tuple[tuple[int, ...], tuple[int, ...]], **options: Any) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.drop1 = LearnableBernoulli(0.3, shape=shapes[0], **options)
        self.first = nn.Linear(D, HIDDEN)
        self.drop2 = LearnableBernoulli(0.6, shape=shapes[1], **options)
        self.second = nn.Linear(HIDDEN, 1)
        self.double()
        with torch.no_grad():
            self.drop1.logit.add_(0.3 * torch.randn(shapes[0], dtype=torch.float64))
            self.drop2.logit.add_(0.3 * torch.randn(shapes[1], dtype=torch.float64))

    def losses(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with at(site="drop1"):
            hidden = torch.tanh(self.first(self.drop1(x)))
        with at(site="drop2"):
            return (self.second(self.drop2(hidden)).squeeze(-1) - y) ** 2


def enumerated(model: Tiny, pathwise: bool = True) -> dict[str, torch.Tensor]:
    """The exact gradient of E[mean loss]: every mask of every unit, weighed by its probability."""
    masks = torch.tensor(list(itertools.product((0.0, 1.0), repeat=D + HIDDEN)), dtype=torch.float64)
    total = torch.zeros((), dtype=torch.float64)
    scales, odds = [], []
    for site, width in ((model.drop1, D), (model.drop2, HIDDEN)):
        p = torch.sigmoid(site.logit).expand(width)
        odds.append(p)
        scales.append((1 / (1 - (p if pathwise else p.detach()))) if site.scale else torch.ones_like(p))
    p = torch.cat(odds)
    weight = torch.where(masks > 0, 1 - p, p).prod(-1)
    for x, y in zip(X, Y, strict=True):
        hidden = torch.tanh(model.first(x * masks[:, :D] * scales[0]))
        out = model.second(hidden * masks[:, D:] * scales[1]).squeeze(-1)
        total = total + (weight * (out - y) ** 2).sum() / BATCH
    gradients = torch.autograd.grad(total, list(model.parameters()))
    return {name: g for (name, _), g in zip(model.named_parameters(), gradients, strict=True)}


def estimates(model: Tiny, repeats: int, copies: int, **options: Any) -> dict[str, torch.Tensor]:
    """Gradients from `repeats` fixed keys; each over `copies` copies of the batch, with masks of their own."""
    x, y = X.repeat(copies, 1), Y.repeat(copies)
    found: dict[str, list[torch.Tensor]] = {name: [] for name, _ in model.named_parameters()}
    for step in range(repeats):
        model.zero_grad()
        with at(seed=9, site="", step=step):
            antithetic_backward(model, lambda: model.losses(x, y), **options)
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            found[name].append(parameter.grad.clone())
    return {name: torch.stack(values) for name, values in found.items()}


def largest_z(samples: torch.Tensor, exact: torch.Tensor) -> float:
    error = samples.std(0) / math.sqrt(len(samples))
    return ((samples.mean(0) - exact) / error).abs().max().item()


SHAPES = {"layer": ((), ()), "unit": ((D,), (HIDDEN,))}


@pytest.mark.parametrize("both", [True, False], ids=["both", "first"])
@pytest.mark.parametrize("per", SHAPES)
@pytest.mark.parametrize("scale", [True, False], ids=["scaled", "raw"])
@pytest.mark.parametrize("estimator", ["arm", "disarm"])
def test_unbiased_against_full_enumeration(estimator: str, scale: bool, per: str, both: bool) -> None:
    model = Tiny(SHAPES[per], estimator=estimator, scale=scale)
    exact = enumerated(model)
    got = estimates(model, repeats=60, copies=1000, both=both)
    for name, samples in got.items():
        assert largest_z(samples, exact[name]) < 5, name


@pytest.mark.parametrize("estimator", ["arm", "disarm"])
def test_the_comparison_sees_a_missing_path_wise_term(estimator: str) -> None:
    model = Tiny(SHAPES["layer"], estimator=estimator)
    without = enumerated(model, pathwise=False)
    got = estimates(model, repeats=60, copies=1000)
    assert largest_z(got["drop2.logit"], without["drop2.logit"]) > 20


@pytest.mark.slow
def test_one_scalar_loss_is_unbiased_too() -> None:
    model = Tiny(SHAPES["unit"], estimator="disarm")
    exact = enumerated(model)
    samples: dict[str, list[torch.Tensor]] = {name: [] for name, _ in model.named_parameters()}
    for step in range(600):
        model.zero_grad()
        with at(seed=4, site="", step=step):
            antithetic_backward(model, lambda: model.losses(X, Y).mean())
        for name, parameter in model.named_parameters():
            samples[name].append(parameter.grad.clone())  # type: ignore[union-attr]
    for name, values in samples.items():
        assert largest_z(torch.stack(values), exact[name]) < 5, name


def test_masks_shared_by_the_batch_answer_for_all_its_losses() -> None:
    """One mask bit for two samples: E[mean loss] = sum over the bit, exactly."""
    drop = LearnableBernoulli(0.3, share=(0, 1), estimator="arm").double()
    drop.logit.requires_grad_()
    p = drop.rate().detach()
    x = torch.tensor([[1.0], [3.0]], dtype=torch.float64)

    def f(m: float, scale: torch.Tensor) -> torch.Tensor:
        return ((x.squeeze(1) * m * scale - 2) ** 2).mean()

    leaf = drop.logit.detach().clone().requires_grad_()
    q = 1 - torch.sigmoid(leaf)
    (exact,) = torch.autograd.grad(q * f(1, 1 / q) + (1 - q) * f(0, 1 / q), leaf)
    values = []
    for step in range(600):
        drop.zero_grad()
        with at(seed=4, site="s", step=step):
            antithetic_backward(drop, lambda: (drop(x).squeeze(1) - 2) ** 2)
        values.append(drop.logit.grad.clone())  # type: ignore[union-attr]
    assert 0 < p < 1
    assert largest_z(torch.stack(values), exact) < 5


def test_disarm_varies_no_more_than_arm() -> None:
    spread = {}
    for estimator in ("arm", "disarm"):
        model = Tiny(SHAPES["unit"], estimator=estimator, scale=False)
        spread[estimator] = estimates(model, repeats=300, copies=20)["drop2.logit"].var(0)
    assert (spread["disarm"] < 1.05 * spread["arm"]).all()
    assert spread["disarm"].sum() < 0.9 * spread["arm"].sum()


@pytest.mark.parametrize("estimator", ["arm", "disarm"])
def test_a_constant_loss_gives_exactly_nothing(estimator: str) -> None:
    drop = LearnableBernoulli(0.4, shape=(5,), estimator=estimator, scale=False)
    antithetic_backward(drop, lambda: drop(torch.ones(7, 5)).sum(1) * 0 + 3)
    assert not drop.logit.grad.any()  # type: ignore[union-attr]


def test_both_passes_share_every_other_random_number() -> None:
    """With one mask bit that always keeps, the two passes differ by nothing: other dropouts, torch's too, repeat."""
    drop = LearnableBernoulli(1e-7)
    model = nn.Sequential(drop, Dropout(0.5), nn.Dropout(0.5))
    x = torch.ones(4, 200)
    seen: list[torch.Tensor] = []

    def losses() -> torch.Tensor:
        seen.append(model(x).detach() + torch.rand(1))
        return model(x).sum(1)

    antithetic_backward(model, losses)
    assert torch.equal(*seen)
    state = torch.get_rng_state()
    antithetic_backward(model, losses)
    assert not torch.equal(torch.get_rng_state(), state)  # and the next step draws others


def test_an_ordinary_backward_gives_no_rate_gradient_and_warns_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_warned", set())
    drop, x = LearnableBernoulli(0.5), torch.ones(3, 4, requires_grad=True)
    with pytest.warns(UserWarning, match="trains outside antithetic_backward") as caught:
        drop(x).sum().backward()
        drop(x).sum().backward()
    assert len(caught) == 1
    assert drop.logit.grad is None


def test_straight_through_takes_the_mask_as_its_probability() -> None:
    for scale in (True, False):
        drop = LearnableBernoulli(0.4, estimator="straight-through", scale=scale).double()
        x = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
        with at(seed=1, site="s"):
            y = drop(x)
        y.sum().backward()
        p = drop.rate().detach()
        keep = (y != 0).double()
        assert torch.allclose(y, x * keep / (1 - p if scale else 1))
        # d keep / dp = -1; with scaling also d(1/(1-p))/dp = 1/(1-p)^2; dp/dlogit = p (1-p)
        slope = -x / (1 - p) + x * keep / (1 - p) ** 2 if scale else -x
        torch.testing.assert_close(drop.logit.grad, (slope.sum() * p * (1 - p)).detach().reshape(1))
        assert torch.allclose(x.grad, keep / (1 - p if scale else 1))  # type: ignore[arg-type]


def test_evaluation() -> None:
    x = torch.ones(2, 3)
    assert LearnableBernoulli(0.3).eval()(x) is x
    torch.testing.assert_close(LearnableBernoulli(0.3, scale=False).eval()(x), torch.full((2, 3), 0.7))


def test_a_dropped_nan_is_zero() -> None:
    drop = LearnableBernoulli(0.999999, when="always").eval()
    assert not drop(torch.full((50,), math.nan)).any()


def test_the_rate_learns_which_input_is_noise() -> None:
    torch.manual_seed(0)
    x = torch.randn(400, 2)
    y = x[:, 0]
    drop = LearnableBernoulli(0.5, shape=(2,), scale=False, inputs=2)
    model = nn.Sequential(drop, nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0, 1.0]]))  # the second input only disturbs
    optimizer = torch.optim.Adam([drop.logit], 0.1)
    for step in range(60):
        optimizer.zero_grad()
        with at(seed=1, site="toy", step=step):
            antithetic_backward(model, lambda: (model(x).squeeze(1) - y) ** 2)
        regularizer(model, n=400).backward()
        optimizer.step()
    useful, useless = drop.rate().tolist()
    assert useful < 0.1
    assert useless > 0.9


MODEL = nn.Sequential(LearnableBernoulli(0.5))
ONES = torch.ones(4, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LearnableBernoulli(estimator="reinforce"), "unknown estimator 'reinforce'"),
        (lambda: antithetic_backward(nn.Linear(2, 2), lambda: ONES), "no learned dropout in this Linear"),
        (
            lambda: antithetic_backward(LearnableBernoulli(estimator="straight-through"), lambda: ONES),
            "no LearnableBernoulli with estimator 'arm' or 'disarm'",
        ),
        (lambda: antithetic_backward(LearnableBernoulli().eval(), lambda: ONES), "is active and learning here"),
        (lambda: antithetic_backward(MODEL, ONES), "losses must be a function"),  # type: ignore[arg-type]
        (lambda: antithetic_backward(MODEL, lambda: MODEL(ONES)), r"shape \(batch,\), got shape \(4, 3\)"),
        (lambda: antithetic_backward(MODEL, lambda: 1.0), "losses must return a tensor, got 1.0"),  # type: ignore[arg-type, return-value]
        (lambda: antithetic_backward(MODEL, lambda: MODEL(ONES).sum(0)), r"3 losses for noise of shape \(4, 3\)"),
        (lambda: torch.no_grad()(antithetic_backward)(MODEL, lambda: MODEL(ONES).sum(1)), "under torch.no_grad"),
    ],
)
def test_bad_input(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(DropkitError, match=message):
        call()
