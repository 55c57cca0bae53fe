"""Heads behind several masks, and losses of two passes: the published equations, written slowly."""

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import dropkit
import dropkit.torch as dt
from dropkit import Key
from dropkit.errors import DropkitError


def test_each_sample_has_a_mask_of_keep_and_the_losses_are_averaged() -> None:
    torch.manual_seed(0)
    head, x, target = nn.Linear(6, 3), torch.randn(4, 6), torch.tensor([0, 1, 2, 1])
    layer = dt.MultiSampleDropout(head, 0.5, samples=3)
    model = nn.Sequential(layer)
    dt.bind(model, 3)
    masks = [dropkit.keep((4, 6), 0.5, Key(3, f"0#{n}" if n else "0", 5)) for n in range(3)]
    outputs = [head(x * 2 * torch.tensor(mask.copy())) for mask in masks]
    with dt.at(step=5):
        torch.testing.assert_close(model(x), torch.stack(outputs).mean(0))
    layer.eval()
    assert torch.equal(layer(x), head(x))
    assert torch.equal(layer.loss(F.cross_entropy, x, target), F.cross_entropy(head(x), target))
    assert layer.each(x).shape == (1, 4, 3) and list(layer.state_dict()) == ["head.weight", "head.bias"]


def test_the_loss_is_the_mean_of_losses() -> None:
    layer, x, target = dt.MultiSampleDropout(nn.Linear(6, 3), 0.5, samples=5), torch.randn(4, 6), torch.zeros(4).long()
    torch.manual_seed(1)
    each = layer.each(x)
    torch.manual_seed(1)
    loss = layer.loss(F.cross_entropy, x, target)
    torch.testing.assert_close(loss, torch.stack([F.cross_entropy(y, target) for y in each]).mean())
    assert not torch.isclose(loss, F.cross_entropy(each.mean(0), target))


def test_all_that_knows_a_dropout_knows_the_head() -> None:
    model, x = nn.Sequential(nn.Linear(4, 4), dt.MultiSampleDropout(nn.Linear(4, 2), 0.25, 2)), torch.randn(3, 4)
    (site,) = dt.sites(model, x)
    assert (site.name, site.p, site.mask_shape, site.eval) == ("1", 0.25, (3, 4), False)
    dt.bind(model, 1)
    dt.set_rate(model, "1", 0.5)
    assert model[1].p == 0.5 and dt.check(model, x).ok
    assert "1 (MultiSampleDropout, p 0.5) zeroes a part of the output of 0 (Linear)" in str(dropkit.explain(model, x))


def slow(a: torch.Tensor, b: torch.Tensor, target: torch.Tensor, ignored: int) -> tuple[float, float, float, float]:
    """Mean over positions of both cross entropies, of KL(a, b) + KL(b, a) and of the squared difference."""
    sums, count = [0.0] * 4, 0
    for n in range(a.shape[0]):
        for t in range(a.shape[2]):
            if target[n, t] == ignored:
                continue
            count += 1
            p, q = (torch.softmax(logits[n, :, t], 0).tolist() for logits in (a, b))
            sums[0] -= math.log(p[target[n, t]])
            sums[1] -= math.log(q[target[n, t]])
            sums[2] += sum(x * math.log(x / y) + y * math.log(y / x) for x, y in zip(p, q, strict=True))
            sums[3] += float((a[n, :, t] - b[n, :, t]).square().mean())
    return tuple(value / count for value in sums)  # type: ignore[return-value]


def test_losses_are_the_published_equations_over_the_positions_that_count() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 3, 4, 5, dtype=torch.float64).requires_grad_()
    target = torch.randint(4, (3, 5))
    target[1, 2:] = 9
    first, second, kl, square = slow(a.detach(), b.detach(), target, 9)
    how: Any = {"ignore_index": 9}
    assert dt.r_drop_loss(a, b, target, 5.0, **how).item() == pytest.approx(first + second + 2.5 * kl)
    halved = dt.r_drop_loss(a, b, target, 5.0, halved=True, **how).item()
    assert halved == pytest.approx((first + second) / 2 + 2.5 * kl)
    assert dt.fraternal_loss(a, b, target, **how).item() == pytest.approx((first + second) / 2 + 0.15 * square)
    for loss in (dt.r_drop_loss, dt.fraternal_loss):
        ab = [logits.detach().clone().requires_grad_() for logits in (a, b)]
        assert torch.autograd.gradcheck(lambda a, b, loss=loss: loss(a, b, target, **how), ab)


def test_two_equal_passes_add_nothing_even_where_a_class_is_ruled_out() -> None:
    a = torch.tensor([[0.5, float("-inf"), 1.0]], requires_grad=True)
    target = torch.tensor([2])
    loss = dt.r_drop_loss(a, a, target)
    (gradient,) = torch.autograd.grad(loss, a)
    (plain,) = torch.autograd.grad(2 * F.cross_entropy(a, target), a)
    torch.testing.assert_close(gradient, plain)
    half = dt.r_drop_loss(a.half(), a.half(), target)
    assert half.dtype == torch.float32


def test_two_passes_of_a_bound_model_differ_and_repeat() -> None:
    model = dt.bind(nn.Sequential(nn.Linear(4, 64), dt.Dropout(0.5), nn.Linear(64, 3)), 0)
    x, target = torch.randn(8, 4), torch.zeros(8).long()
    found = []
    for _ in range(2):
        with dt.at(step=7), dt.passes(model, 2) as each:
            first, second = [model(x) for _ in each]
        found.append(dt.r_drop_loss(first, second, target).item())
    assert found[0] == found[1] > dt.r_drop_loss(first, first, target).item() - 1 and not torch.equal(first, second)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            lambda: dt.MultiSampleDropout(nn.Identity(), samples=0),
            "samples must be a whole number of at least 1, got 0",
        ),
        (lambda: dt.MultiSampleDropout("head"), "head must be a torch.nn.Module, got 'head'"),
        (lambda: dt.r_drop_loss(torch.ones(2, 3), torch.ones(2, 4), torch.ones(2)), "got \\(2, 3\\) and \\(2, 4\\)"),
        (lambda: dt.r_drop_loss(torch.ones(2, 3), torch.ones(2, 3), torch.ones(2), -1.0), "alpha must be .* got -1.0"),
        (
            lambda: dt.fraternal_loss(torch.ones(2, 3), torch.ones(2, 3), torch.ones(2), math.nan),
            "kappa must be .* nan",
        ),
    ],
)
def test_what_cannot_be_is_refused(make: Any, says: str) -> None:
    with pytest.raises(DropkitError, match=says):
        make()
