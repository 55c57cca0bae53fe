"""Size "tutorial" is each tutorial's own: widths, activations, first weights, optimizer, L2, batches, epochs."""

from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy

from dropkit.errors import UnknownNameError
from dropkit.lab import train
from dropkit.lab.data import load_data
from dropkit.lab.engines.adversarial import Adversarial
from dropkit.lab.engines.torch import Trainer
from dropkit.lab.plan import Choices, Plan
from dropkit.lab.recipes import RECIPES, get
from dropkit.lab.recipes.recipe import SIZES
from dropkit.torch import Dropout
from tests.lab.documents import DOCUMENTS, OPEN, PAGE, WHY, page, rows, tutorial_settings
from tests.lab.runs import numbers, stop_after


def built(name: str, shape: tuple[int, ...]) -> Any:
    recipe = get(name)
    return recipe.build(tutorial_settings(recipe), shape, 10, 3)


def shapes(model: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(value.shape) for name, value in model.named_parameters() if name.endswith("weight")]


def plan(name: str, strategy: str = "fixed", **settings: Any) -> Plan:
    """Of a recipe at size tutorial, on digits, with some settings replaced."""
    recipe = get(name)
    small = replace(recipe, settings=lambda size, data: replace(recipe.settings(size, data), **settings))
    return Plan.make(Choices.make(small, data="digits", size="tutorial", device="cpu"), strategy, 0)


def test_the_page_is_made_from_the_recipes() -> None:
    assert PAGE.read_text() == page()


def test_every_recipe_is_held_against_its_tutorial() -> None:
    following = [name for name, recipe in RECIPES.items() if recipe.tutorial_data is not None]
    assert list(DOCUMENTS) == following
    assert all(get(name).sizes == SIZES for name in following)


def test_whatever_a_tutorial_says_is_kept_or_named_as_changed() -> None:
    changed = {(row.recipe, row.name) for row in rows() if row.tutorial not in (OPEN, row.here)}
    assert changed == set(WHY)


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("mlp", ("sgd", 0.5, 256, 5, 0.0, "fashion-mnist")),
        ("numpy-mlp", ("sgd", 0.5, 256, 5, 0.0, "fashion-mnist")),
        ("vgg-adaptive", ("adam", 1e-3, 128, 100, 1e-4, "cifar10")),
        ("gan", ("adam", 3e-4, 128, 200, 0.0, "mnist")),
        ("gan-functional", ("adam", 3e-4, 128, 200, 0.0, "mnist")),
    ],
)
def test_numbers_of_the_training(name: str, numbers: tuple[Any, ...]) -> None:
    found = tutorial_settings(get(name))
    data = get(name).data_at("tutorial")
    assert (found.optimizer, found.learning_rate, found.batch_size, found.epochs, found.l2, data) == numbers
    assert found.weight_decay == 0
    assert found.train_samples is found.test_samples is None


def test_rmsprop_of_transfer_and_its_images() -> None:
    found = tutorial_settings(get("transfer"))
    assert (found.optimizer, found.learning_rate, found.image_size, found.hidden) == ("rmsprop", 1e-4, 150, (512, 1024))
    assert found.first_weights == tutorial_settings(get("dense")).first_weights == "glorot"


@pytest.mark.parametrize("name", ["mlp", "mlp-functional"])
def test_mlps(name: str) -> None:
    model = built(name, (28, 28))
    widths = {"mlp": (784, 256, 256, 10), "mlp-functional": (784, 512, 256, 10)}[name]
    assert shapes(model) == list(zip(widths[1:], widths, strict=False))
    if name == "mlp":
        assert model.hidden1.weight.std().item() == pytest.approx(0.01, rel=0.01)
        assert not model.hidden1.bias.any()
    else:
        assert_torchs_own(model)


def assert_torchs_own(model: nn.Module) -> None:
    """Uniform within 1 / sqrt(inputs), weights and biases, as `nn.Linear` itself draws."""
    parameters = dict(model.named_parameters())
    for name, value in parameters.items():
        inputs = parameters[name.rpartition(".")[0] + ".weight"].shape[1]
        torchs = nn.Linear(inputs, 4096).weight.detach()
        assert value.abs().max() <= 1 / sqrt(inputs)
        if value.numel() >= 4096:
            assert value.std().item() == pytest.approx(torchs.std().item(), rel=0.05)
            assert value.abs().max().item() == pytest.approx(1 / sqrt(inputs), rel=1e-2)
        assert value.any()


def test_numpy_layers() -> None:
    layers = built("numpy-mlp", (28, 28))
    assert [layer.weight.shape for layer in layers.values()] == [(256, 784), (256, 256), (10, 256)]
    assert [layer.activation for layer in layers.values()] == ["relu", "relu", None]
    assert np.std(layers["hidden1"].weight) == pytest.approx(0.01, rel=0.01)


def test_vgg_has_glorots_weights() -> None:
    recipe = get("vgg-adaptive")
    settings = replace(tutorial_settings(recipe), channels=(8, 16, 32, 32, 64), hidden=(96, 64))
    model = recipe.build(settings, (3, 32, 32), 10, 0)
    for name, value in model.named_parameters():
        if name.endswith("bias"):
            assert not value.any()
        elif value.numel() > 4000:
            receptive = value[0, 0].numel() if value.dim() == 4 else 1
            torchs = nn.init.xavier_uniform_(torch.empty(value.shape), generator=torch.Generator().manual_seed(0))
            bound = sqrt(6 / ((value.shape[0] + value.shape[1]) * receptive))
            assert value.abs().max().item() == pytest.approx(bound, rel=1e-2) and value.abs().max() <= bound
            assert value.std().item() == pytest.approx(torchs.std().item(), rel=0.05)
    assert tutorial_settings(recipe).channels == (64, 128, 256, 512, 512)
    assert tutorial_settings(recipe).hidden == (4096, 4096)


NARROW: dict[str, Any] = {"channels": (4, 4, 4, 4, 4), "hidden": (8, 8), "train_samples": 64, "batch_size": 32}


def test_vggs_l2_is_the_sum_of_squared_weights_and_of_no_bias() -> None:
    trainer = Trainer(plan("vgg-adaptive", "none", **NARROW, l2=0.5))
    batch = trainer.parts["train"].rows(torch.arange(8))
    trainer._begin()
    trainer.module.train()
    with torch.no_grad():
        for name, value in trainer.module.named_parameters():
            if name.endswith("bias"):
                value.fill_(0.25)
    weights = [value for name, value in trainer.module.named_parameters() if name.endswith("weight")]
    loss = nn.functional.cross_entropy(trainer.module(batch.x), batch.y)
    objective = loss + 0.5 * torch.stack([weight.pow(2).sum() for weight in weights]).sum()
    expected = dict(
        zip(
            dict(trainer.module.named_parameters()),
            torch.autograd.grad(objective, list(trainer.module.parameters())),
            strict=True,
        )
    )
    trainer._train(batch, 0)
    row = trainer._scores()
    assert row["train_objective"] == pytest.approx(objective.item(), rel=1e-6)
    assert row["train_loss"] == pytest.approx(loss.item(), rel=1e-5)
    # Adam's first step is of size lr against the gradient, and its first average a tenth of the gradient.
    state = trainer.optimizers["weights"].state
    averages = {name: state[value]["exp_avg"] for name, value in trainer.module.named_parameters()}
    for name, gradient in expected.items():
        torch.testing.assert_close(averages[name], 0.1 * gradient, rtol=1e-4, atol=1e-7)
    groups = trainer.optimizers["weights"].param_groups
    assert [group["weight_decay"] for group in groups] == [1.0, 0.0]
    assert {(group["lr"], group["betas"], group["eps"]) for group in groups} == {(1e-3, (0.9, 0.999), 1e-8)}


def test_a_run_with_l2_resumes_bit_for_bit(tmp_path: Path) -> None:
    recipe = get("mlp")
    small = replace(recipe, settings=lambda size, data: replace(recipe.settings("tiny", data), l2=1e-3))
    choices: dict[str, Any] = {"strategy": "concrete", "device": "cpu"}
    whole = train(small, **choices, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(small, **choices, out=tmp_path / "cut", on_epoch=stop_after(1))
    assert numbers(train(small, **choices, out=tmp_path / "cut", resume=True)) == numbers(whole)


def test_gan_is_the_tutorials() -> None:
    model = built("gan", (28, 28))
    found = {
        part: [tuple(layer.weight.shape) for layer in network if isinstance(layer, nn.Linear)]
        for part, network in model.named_children()
    }
    assert found["discriminator"] == [(1024, 784), (512, 1024), (256, 512), (1, 256)]
    assert found["generator"] == [(256, 100), (512, 256), (1024, 512), (784, 1024)]
    slopes = {layer.negative_slope for layer in model.modules() if isinstance(layer, nn.LeakyReLU)}
    assert slopes == {0.2}
    assert type(model.discriminator[-1]) is nn.Sigmoid
    assert isinstance(model.generator.tanh, nn.Tanh)
    assert_torchs_own(model)


def test_a_dropout_called_three_times_draws_a_mask_for_each_layer() -> None:
    trainer = Adversarial(plan("gan-functional", "fixed:0.5", hidden=(16, 12, 8), generator=(8, 8, 8), scored=16))
    trainer.module.train()
    trainer.sites.set(0)
    seen: list[torch.Tensor] = []
    network = trainer.module.discriminator
    network.dropout.register_forward_hook(lambda module, inputs, output: seen.append(output != 0))
    for _ in range(2):
        network(torch.rand(32, 8, 8))
    assert [tuple(mask.shape) for mask in seen] == [(32, 16), (32, 12), (32, 8)] * 2
    assert all(0.35 < mask.float().mean() < 0.65 for mask in seen)
    # Another draw at each call and at each forward: no mask is the beginning of another.
    firsts = {tuple(mask[:, :8].flatten().tolist()) for mask in seen}
    assert len(firsts) == 6
    assert [type(part) for part in network.modules() if isinstance(part, Dropout)] == [Dropout]


def test_gan_as_written_is_that_of_three_modules() -> None:
    """The same networks: without dropout both give the same numbers, whatever the layers are called."""
    one, three = built("gan", (28, 28)).eval(), built("gan-functional", (28, 28)).eval()
    assert [tuple(value.shape) for value in one.parameters()] == [tuple(value.shape) for value in three.parameters()]
    with torch.no_grad():
        for mine, theirs in zip(one.parameters(), three.parameters(), strict=True):
            theirs.copy_(mine)
        images = three.generator(torch.ones(2, 100))
        assert torch.equal(images, one.generator(torch.ones(2, 100))) and images.shape == (2, 28, 28)
        torch.testing.assert_close(three.discriminator(images), one.discriminator(images))


def test_gan_as_written_trains_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    choices: dict[str, Any] = {"size": "tiny", "epochs": 2, "strategy": "step", "device": "cpu"}
    whole = train("gan-functional", **choices, out=tmp_path / "whole")
    assert [row["rate_dropout"] for row in whole.rows] == pytest.approx([0.5, 0.4])
    with pytest.raises(KeyboardInterrupt):
        train("gan-functional", **choices, out=tmp_path / "cut", on_epoch=stop_after(1))
    assert numbers(train("gan-functional", **choices, out=tmp_path / "cut", resume=True)) == numbers(whole)


def test_gans_step_is_the_tutorials() -> None:
    """BCE of probabilities, Adam with torch's own betas, and images of its own for the generator's step."""
    trainer = Adversarial(
        plan("gan", train_samples=64, batch_size=32, hidden=(16, 8, 8), generator=(8, 8, 8), scored=16)
    )
    for optimizer in trainer.optimizers.values():
        (group,) = optimizer.param_groups
        assert (group["lr"], group["betas"]) == (3e-4, (0.9, 0.999))
    seen = []
    trainer.generator.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].clone()))
    trainer._begin()
    trainer.sites.set(0)
    trainer._train(trainer.parts["train"].rows(torch.arange(32)), 0)
    assert len(seen) == 2 and not torch.equal(*seen)
    given = torch.tensor([[0.25], [0.5]])
    assert trainer._cross_entropy(given, 1.0) == binary_cross_entropy(given, torch.ones(2, 1))
    means = (trainer.sums / trainer.samples).tolist()
    assert 0 < means[2] < 1 and 0 < means[3] < 1


def test_the_data_set_is_the_tutorials_where_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def loaded(name: Any, *rest: Any) -> Any:
        asked.append(name)
        return load_data("digits")

    monkeypatch.setattr("dropkit.lab.plan.load_data", loaded)
    for size in ("tutorial", "small"):
        Choices.make("mlp", size=size, device="cpu")
    assert asked == ["fashion-mnist", "digits"]


def test_a_recipe_without_a_tutorial_has_no_such_size() -> None:
    own = replace(get("mlp"), tutorial_data=None)
    with pytest.raises(UnknownNameError, match=r"unknown size 'tutorial'.*Known: full, small, tiny"):
        Choices.make(own, size="tutorial")


def test_records_of_older_runs_are_those_of_today() -> None:
    """New settings are recorded where they are used, so that a folder of an older run goes on."""
    for name, recipe in RECIPES.items():
        for size in ("tiny", "small", "full"):
            new = {"first_weights", "l2", "fresh", "logits", "frame"} & recipe.settings(size, "digits").record().keys()
            assert not new, name
    record = tutorial_settings(get("gan")).record()
    assert record["betas"] == [0.9, 0.999] and record["fresh"] and not record["logits"]
