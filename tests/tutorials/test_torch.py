"""What the pages on torch.dropout's tutorial say of it: docs/tutorial-mlp-functional.md and docs/tutorial-gan.md."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import dropkit
import dropkit.jax
import dropkit.numpy
import dropkit.torch
from dropkit.lab.recipes import get

KEY = dropkit.Key(0, "tutorial", 0)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def by_hand(input: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    """The function of the tutorial: inverted training, and evaluation scaled as well."""
    if not training:
        return input * (1 - p)
    noise = input.data.new(input.size()).bernoulli_(1 - p).div_(1 - p)
    return noise * input


class Net(nn.Module):
    """Its network, narrower."""

    def __init__(self, drop: Callable[[torch.Tensor, float, bool], torch.Tensor] = F.dropout) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(64, 48), nn.Linear(48, 32), nn.Linear(32, 10)
        self.drop = drop

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.drop(F.relu(self.fc1(x)), 0.2, self.training)
        x = self.drop(F.relu(self.fc2(x)), 0.2, self.training)
        return F.log_softmax(self.fc3(x), dim=1)


# ---------------------------------------------------------------------------------------------------------------------
# three dropouts


def test_torch_dropout_has_no_defaults_and_no_argument_x() -> None:
    x = torch.ones(8)
    with pytest.raises(TypeError, match='"p", "train"'):
        torch.dropout(x)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match='"train"'):
        torch.dropout(x, 0.5)  # type: ignore[call-arg]
    assert list(inspect.signature(F.dropout).parameters) == ["input", "p", "training", "inplace"]
    with pytest.raises(TypeError, match="'x'"):
        F.dropout(x=x)  # type: ignore[call-arg]


def test_only_the_module_follows_the_mode() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout()

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return F.dropout(x), self.drop(x)

    called, module = Both().eval()(torch.ones(1000))
    assert 0.4 < (called == 0).double().mean() < 0.6 and (module == 1).all()


def test_outputs_are_dropped_and_no_weights() -> None:
    layer, x = nn.Linear(64, 48), torch.rand(100, 64)
    weights = layer.weight.clone()
    dropped = F.dropout(layer(x), 0.5)
    assert torch.equal(layer.weight, weights) and (dropped == 0).any()
    # Each sample has zeros of its own. No mask of the weights gives that: it is one network for the whole batch.
    assert len({(row == 0).numpy().tobytes() for row in dropped}) == 100
    connected = F.linear(x, F.dropout(layer.weight, 0.5), layer.bias)
    assert not (connected == 0).any()


def test_kept_ones_are_multiplied_by_one_number_and_favoured_in_nothing_else() -> None:
    x = torch.rand(10_000) + 0.5
    y = F.dropout(x, 0.2)
    assert torch.allclose(y[y != 0], x[y != 0] / 0.8)
    large = (y != 0)[x > 1]
    assert abs(large.double().mean() - 0.8) < 4 * (0.16 / len(large)) ** 0.5  # large values are kept as often as others


def test_the_two_layer_network_has_three() -> None:
    model = get("mlp-functional").build(get("mlp-functional").settings("tiny", "digits"), (8, 8), 10, 0)
    assert sum(isinstance(part, nn.Linear) for part in model.modules()) == 3


def test_log_softmax_without_dim_warns_and_takes_the_batch_of_a_sequence() -> None:
    for shape, axis in {(4,): 0, (4, 6): 1, (4, 5, 6): 0, (4, 3, 5, 6): 1}.items():
        x = torch.randn(shape)
        with pytest.warns(UserWarning, match="Implicit dimension choice for log_softmax has been deprecated"):
            found = F.log_softmax(x)
        assert torch.equal(found, F.log_softmax(x, dim=axis))


# ---------------------------------------------------------------------------------------------------------------------
# the function by hand


def test_evaluation_of_the_function_is_too_small_by_1_minus_p() -> None:
    x = torch.ones(200_000)
    assert by_hand(x, 0.5, True).mean().item() == pytest.approx(1, abs=0.01)
    assert by_hand(x, 0.5, False).mean().item() == 0.5
    assert F.dropout(x, 0.5, False).mean().item() == 1


def test_the_doctor_finds_it_at_both_calls() -> None:
    found = dropkit.explain(Net(by_hand), torch.rand(64, 64))
    assert [finding.code for finding in found.findings] == ["DK118"]
    assert "in evaluation 0.80" in found.findings[0].measured
    (site,) = found.sites
    assert site.zeroes == ("fc1", "fc2") and site.gradients == ("fc1", "fc2", "fc3")
    assert dropkit.explain(Net(), torch.rand(64, 64)).findings == ()


def test_dropout_is_on_in_training_and_changes_nothing_in_evaluation() -> None:
    x, drop = torch.ones(1000), nn.Dropout(0.5)
    assert (drop.train()(x) == 0).any() and torch.equal(drop.eval()(x), x)


def test_two_forwards_of_the_input_drop_no_hidden_unit() -> None:
    """The tutorial's steps in words: a forward, zeros in the input, a second forward, the loss."""
    model = Net(lambda x, p, training: x)
    x, hidden = torch.rand(8, 64), []
    model.fc2.register_forward_pre_hook(lambda module, given: hidden.append(given[0]))
    model(x)
    zeroed = F.dropout(x, 0.2)
    model(zeroed).sum().backward()
    assert len(hidden) == 2 and (zeroed == 0).any()
    # Of hidden units only ReLU's own zeros are there: what the weights make of this input.
    assert torch.equal(hidden[1], F.relu(model.fc1(zeroed)))
    # The first forward is in no gradient.
    once = Net(lambda x, p, training: x)
    once.load_state_dict(model.state_dict())
    once(zeroed).sum().backward()
    assert torch.equal(once.fc1.weight.grad, model.fc1.weight.grad)  # type: ignore[arg-type]


def test_rate_1_is_nan_by_hand_and_zeros_here() -> None:
    assert by_hand(torch.ones(3), 1.0, True).isnan().all()
    assert not F.dropout(torch.ones(3), 1.0).any()
    assert not dropkit.torch.dropout(torch.ones(3), 1.0, training=True).any()
    assert not dropkit.numpy.dropout(np.ones(3, np.float32), 1.0, training=True, key=KEY).any()
    assert not dropkit.jax.dropout(jnp.ones(3), 1.0, training=True, key=KEY).any()


# ---------------------------------------------------------------------------------------------------------------------
# the GAN


class Discriminator(nn.Module):
    """As the tutorial writes it, narrower: one dropout for three layers."""

    def __init__(self) -> None:
        super().__init__()
        sizes = ((64, 32), (32, 24), (24, 16), (16, 1))
        self.layer_one, self.layer_two, self.layer_three, self.layer_four = (nn.Linear(*size) for size in sizes)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in (self.layer_one, self.layer_two, self.layer_three):
            x = self.dropout(F.leaky_relu(layer(x), 0.2))
        return torch.sigmoid(self.layer_four(x))


def generator() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 16), nn.LeakyReLU(0.2), nn.Linear(16, 64), nn.Tanh())


def test_labels_without_an_axis_are_refused_so_the_code_cannot_run() -> None:
    real, labels = torch.rand(4, 64), torch.ones(4)
    for loss in (nn.BCELoss(), nn.BCEWithLogitsLoss()):
        with pytest.raises(ValueError, match=r"size \(torch.Size\(\[4\]\)\).* input size \(torch.Size\(\[4, 1\]\)\)"):
            loss(Discriminator()(real), labels)
    assert nn.BCELoss()(Discriminator()(real), labels[:, None]).isfinite()
    assert nn.BCELoss()(Discriminator()(real).squeeze(1), labels).isfinite()


def steps(detached: bool, cleared: bool) -> Iterator[torch.Tensor]:
    """The parameters after two steps of the tutorial's loop, with and without its `zero_grad` of the generator."""
    torch.manual_seed(0)
    nets = Discriminator(), generator()
    optimizers = [torch.optim.Adam(net.parameters(), lr=3e-4) for net in nets]
    (d, g), loss = nets, nn.BCELoss()
    for _ in range(2):
        real, fake = torch.rand(8, 64), g(torch.randn(8, 8))
        ones, zeros = torch.ones(8, 1), torch.zeros(8, 1)
        both = loss(d(real), ones) + loss(d(fake.detach() if detached else fake), zeros)
        d.zero_grad()
        both.backward()
        optimizers[0].step()
        if cleared:
            g.zero_grad()
        loss(d(g(torch.randn(8, 8))), ones).backward()
        optimizers[1].step()
    for net in nets:
        yield from (parameter.detach().clone() for parameter in net.parameters())


def test_a_missing_detach_is_harmless_where_gradients_are_cleared_and_not_elsewhere() -> None:
    assert all(torch.equal(a, b) for a, b in zip(steps(True, True), steps(False, True), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(steps(True, False), steps(False, False), strict=True))


def test_one_dropout_for_three_layers_draws_three_masks_and_has_one_rate() -> None:
    found = dropkit.explain(Discriminator(), torch.rand(8, 64))
    (site,) = found.sites
    assert [mask[-1] for mask in site.call_masks] == [32, 24, 16]
    assert "Every training step draws, for each sample, one of 2^72 sub-networks." in found.sentences


def test_the_generator_of_the_tutorial_has_no_dropout() -> None:
    recipe = get("gan-functional")
    model: Any = recipe.build(recipe.settings("tiny", "digits"), (8, 8), 10, 0)
    assert [site.name for site in dropkit.torch.sites(model)] == ["discriminator.dropout"]


def test_a_sure_discriminator_that_ends_in_a_sigmoid_teaches_the_generator_nothing() -> None:
    """The gradient of -log D at a logit of -50, by the sigmoid and BCELoss, and by the loss that takes the logit."""
    gradients = []
    for loss in (lambda x: F.binary_cross_entropy(x.sigmoid(), torch.ones(1)),
                 lambda x: F.binary_cross_entropy_with_logits(x, torch.ones(1))):  # fmt: skip
        logit = torch.tensor([-50.0], requires_grad=True)
        loss(logit).backward()
        assert logit.grad is not None
        gradients.append(logit.grad.item())
    assert gradients == [pytest.approx(-1.93e-10, rel=0.01), -1]
