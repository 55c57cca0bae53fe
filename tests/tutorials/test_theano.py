"""docs/vgg-adaptive.md on a tutorial in Theano and Lasagne: each of its mistakes, made again and seen to fail."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import dropkit
from dropkit.lab.engines.pathwise import Literal, Pathwise
from dropkit.lab.recipes import get

PAGE = (Path(__file__).parents[2] / "docs" / "vgg-adaptive.md").read_text()
X = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))


def units(p: float = 0.5, count: int = 4096) -> torch.Tensor:
    """Outputs of a ReLU layer with dropout behind it, as fc6 and drop6 give them."""
    weight = torch.randn(8, count, generator=torch.Generator().manual_seed(1))
    return functional.dropout(torch.relu(X @ weight), p)


def adam_from(p: float, gradient: float) -> float:
    """What Adam at 0.001, from a fresh state, makes of p in one step."""
    rate = nn.Parameter(torch.tensor(p, dtype=torch.float64))
    rate.grad = torch.tensor(gradient, dtype=torch.float64)
    torch.optim.Adam([rate], lr=0.001).step()
    return rate.item()


def test_a_module_imported_under_another_name_is_not_known_by_its_own() -> None:
    with pytest.raises(NameError, match="name 'xml' is not defined"):
        exec("import xml.dom as T\nfrom xml import sax\nxml.dom", {})


def test_a_dropout_layer_has_no_parameters_to_take_gradients_of() -> None:
    assert [*nn.Dropout(0.5).parameters()] == []
    loss = functional.mse_loss(nn.Sequential(nn.Linear(8, 1), nn.Dropout(0.5))(X), torch.zeros(32, 1))
    with pytest.raises((RuntimeError, ValueError), match="empty"):
        torch.autograd.grad(loss, [*nn.Dropout(0.5).parameters()])
    with pytest.raises(ValueError, match="empty parameter list"):
        torch.optim.Adam(nn.Dropout(0.5).parameters(), lr=0.001)
    assert jax.grad(lambda none: jnp.sum(jnp.ones(3)))({}) == {}  # JAX gives the empty gradient, as Theano does


def test_a_rate_that_the_loss_never_saw_has_no_gradient() -> None:
    """p_shared is made after the output, which was computed with the number 0.5."""
    rate = torch.tensor(0.5, requires_grad=True)
    loss = functional.dropout(X.clone().requires_grad_(), 0.5).square().mean()
    with pytest.raises(RuntimeError, match="appears to not have been used in the graph"):
        torch.autograd.grad(loss, [rate])
    assert jax.grad(lambda rate: jnp.sum(jnp.ones(3)) / 0.5)(0.5) == 0  # and JAX says 0


def test_updates_are_asked_for_by_parameter_not_by_place() -> None:
    rate = torch.tensor(0.5)
    with pytest.raises(KeyError):
        {rate: rate - 0.001}[0]


@pytest.mark.parametrize("gradient", [1e-3, 2.0, 500.0, -1e-3, -2.0, -500.0])
def test_the_new_value_taken_for_a_step_switches_dropout_off(gradient: float) -> None:
    new = adam_from(0.5, gradient)
    assert new == pytest.approx(0.499 if gradient > 0 else 0.501, abs=1e-7)
    rate = min(max(0.5 - new, 0.0), 0.5)
    assert rate == pytest.approx(0.001 if gradient > 0 else 0.0, abs=1e-7)


def test_started_anew_each_epoch_a_rate_never_gets_farther_than_one_step() -> None:
    assert {round(adam_from(0.5, gradient), 6) for gradient in (3.0, 0.1, 7.0)} == {0.499}
    rate = nn.Parameter(torch.tensor(0.5))
    optimizer = torch.optim.Adam([rate], lr=0.001)
    for gradient in (3.0, 0.1, 7.0):  # the same epochs with one state
        rate.grad = torch.tensor(gradient)
        optimizer.step()
    assert rate.item() < 0.4985


def test_the_layers_cross_entropy_is_not_a_number() -> None:
    """One-hot rows as wide as the layer, and outputs that are no probabilities: zeros, and numbers above 1."""
    output, labels = units(), torch.arange(32) % 10
    target = torch.zeros_like(output)
    target[torch.arange(32), labels] = 1
    assert target.shape == (32, 4096) and not target[:, 10:].any()  # ten units of 4096 are in it
    assert torch.isnan(-(target * output.log()).sum(1)).all()  # 0 log 0, in every row
    seen = output[torch.arange(32), labels]
    assert not torch.allclose(output.sum(1), torch.ones(32))
    each = -seen.log()
    assert torch.isinf(each).any() and (each < 0).any()
    # With class numbers the loss is infinite wherever a label's unit is 0; where it is not, p's gradient is the same.
    p = torch.tensor(0.5, requires_grad=True)
    kept = seen[seen > 0] * 0.5
    (gradient,) = torch.autograd.grad(-(kept / (1 - p)).log().mean(), [p])
    assert gradient.item() == pytest.approx(-2.0)  # -1 / (1 - p), whatever the network does


def test_a_rate_set_after_compiling_reaches_nothing() -> None:
    class Layer:
        p = 0.5

        def __call__(self, x: jax.Array) -> jax.Array:
            return jnp.where(jax.random.uniform(jax.random.key(0), x.shape) < self.p, 0, x / (1 - self.p))

    layer, x = Layer(), jnp.ones(1000)
    compiled = jax.jit(layer.__call__)
    before = compiled(x)
    layer.p = 0.0
    assert (compiled(x) == before).all() and (before == 0).mean() > 0.4
    assert (layer(x) == 1).all()
    moving = jax.jit(lambda x, p: dropkit.jax.dropout(x, p, training=True, key=dropkit.Key(0)))
    assert (moving(x, 0.5) == 0).mean() > 0.4 and (moving(x, 0.0) == 1).all()


def test_the_text_has_a_dropout_after_every_convolution_and_the_code_two() -> None:
    assert [len(get(name).feeds) for name in ("vgg-adaptive", "vgg-everywhere", "vgg-channels")] == [2, 15, 15]


def test_either_scheme_keeps_the_mean_and_both_at_once_do_not() -> None:
    x, p = np.full(200_000, 3.0, np.float32), 0.5
    keep = dropkit.keep(x.shape, p, dropkit.Key(0))
    error = 3 * 3.0 / np.sqrt(x.size)
    assert (x * keep).mean() == pytest.approx((x * (1 - p)).mean(), abs=error)  # mask; multiply in evaluation
    assert (x * keep / (1 - p)).mean() == pytest.approx(x.mean(), abs=2 * error)  # mask and divide; leave it alone
    assert (x * (1 - p)).mean() == x.mean() / 2  # evaluation after training that divided: half of what it should be


def test_the_gradient_through_the_scale_is_half_of_it() -> None:
    """Where the loss is linear in y the expected loss does not depend on p; the path-wise gradient says it does."""
    site = Pathwise(0.25)
    (gradient,) = torch.autograd.grad(site(torch.ones(100_000)).mean(), [site.probability])
    assert gradient.item() == pytest.approx(1 / 0.75, abs=0.02)
    means = [Pathwise(p)(torch.ones(100_000)).mean().item() for p in (0.2, 0.3)]
    assert means == pytest.approx([1, 1], abs=0.01)


def test_the_half_asks_only_whether_larger_activations_would_help() -> None:
    site, x = Pathwise(0.25), torch.rand(64, 8)
    y = site(x)
    for loss, rises in (((y - 9).square().mean(), True), ((y + 9).square().mean(), False)):
        by_y, by_p = torch.autograd.grad(loss, [y, site.probability], retain_graph=True)
        torch.testing.assert_close(by_p.squeeze(), (by_y * y).sum() / 0.75)
        assert (by_p.item() < 0) == rises


def test_a_gradient_through_a_hard_mask_is_none_or_zero() -> None:
    p = torch.tensor(0.5, requires_grad=True)
    assert not (torch.rand(8) > p).float().requires_grad
    assert jax.grad(lambda p: jnp.sum((jnp.linspace(0, 1, 8) > p) * 1.0))(0.5) == 0


def test_taken_to_the_letter_the_rule_turns_dropout_off() -> None:
    site = Pathwise(0.5)
    rule = Literal([{"params": [site.probability], "lr": 0.001, "start": 0.5, "bounds": (0.0, 0.5)}])
    seen = []
    for sign in (1, -1, 1, 1, -1):
        rule.zero_grad()
        (sign * site(torch.ones(100)).mean()).backward()
        rule.step()
        seen.append(round(site.p, 6))
    assert seen == [0.001, 0.0, 0.001, 0.001, 0.0]


def test_the_page_names_each_mistake_that_a_test_shows() -> None:
    rows = re.findall(r"^\| (\d+) \|.*\| `(test_\w+)` \|$", PAGE, re.MULTILINE)
    assert [number for number, _ in rows] == [str(number) for number in range(1, len(rows) + 1)] and len(rows) >= 8
    for _, name in rows:
        assert callable(globals()[name]), name
