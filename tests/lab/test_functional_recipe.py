"""The recipe mlp-functional: dropout by a function's call takes part in everything that a module does."""

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import dropkit
from dropkit.errors import DropkitValueError, UnknownNameError
from dropkit.lab import Run, compare, load_data, train, tune
from dropkit.lab.engines.torch import Trainer
from dropkit.lab.plan import Choices, Plan
from dropkit.lab.recipes import get
from dropkit.lab.recipes.mlp_functional import FIXED, TINY
from dropkit.lab.recipes.recipe import Settings
from dropkit.lab.recipes.strategies import standard
from dropkit.lab.recipes.weights import set_first_weights
from tests.lab.runs import numbers, stop_after

RECIPE = get("mlp-functional")


def tiny(out: Path, **choices: Any) -> Run:
    recipe = choices.pop("recipe", RECIPE)
    return train(recipe, **{"size": "tiny", "device": "cpu", "out": out, **choices})


def test_the_sizes_of_the_network() -> None:
    model = RECIPE.build(RECIPE.settings("full", "mnist"), (28, 28), 10, 0)
    shapes = [tuple(parameter.shape) for name, parameter in model.named_parameters() if name.endswith("weight")]
    assert shapes == [(512, 784), (256, 512), (10, 256)]
    assert FIXED == {"dropout1": 0.2, "dropout2": 0.2}
    # What comes out are log-probabilities.
    sums = model(torch.rand(3, 28, 28)).exp().sum(1)
    torch.testing.assert_close(sums, torch.ones(3))


@pytest.mark.parametrize("strategy", ["step", "gap"])
def test_resumed_run_ends_bit_for_bit_the_same(tmp_path: Path, strategy: str) -> None:
    choices = {"strategy": strategy, "seed": 2**63 + 3, "validation": 0.2}
    whole = tiny(tmp_path / "whole", **choices)
    for after in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            tiny(tmp_path / "cut", **choices, on_epoch=stop_after(after), resume=after > 1)
    assert numbers(tiny(tmp_path / "cut", **choices, resume=True)) == numbers(whole)
    one, other = ((tmp_path / name / "checkpoint.safetensors").read_bytes() for name in ("cut", "whole"))
    assert one == other


def test_it_learns(tmp_path: Path) -> None:
    run = tiny(tmp_path)
    assert run.rows[-1]["test_accuracy"] > 0.6
    assert run.rows[-1]["train_loss"] < run.rows[0]["train_loss"]


def test_a_functional_run_is_that_of_bound_modules(tmp_path: Path) -> None:
    """Every number is the same, so masks, rates and the place of the steps are those of `Dropout` modules."""

    def build(settings: Settings, shape: tuple[int, ...], classes: int, seed: int) -> nn.Module:
        first, second = settings.hidden
        layers: dict[str, nn.Module] = {
            "flatten": nn.Flatten(),
            "hidden1": nn.Linear(shape[0] * shape[1], first),
            "relu1": nn.ReLU(),
            "dropout1": dropkit.torch.Dropout(),
            "hidden2": nn.Linear(first, second),
            "relu2": nn.ReLU(),
            "dropout2": dropkit.torch.Dropout(),
            "output": nn.Linear(second, classes),
            "log_softmax": nn.LogSoftmax(1),
        }
        return set_first_weights(nn.Sequential(OrderedDict(layers)), seed, settings.weight_std)

    modules = replace(RECIPE, build=build)
    for strategy in ("step", "fixed:0.4:0.1"):
        by_call = tiny(tmp_path / f"calls-{strategy[0]}", strategy=strategy, seed=4)
        by_module = tiny(tmp_path / f"modules-{strategy[0]}", strategy=strategy, seed=4, recipe=modules)
        assert numbers(by_call) == numbers(by_module)


def test_masks_are_those_of_seed_site_and_step() -> None:
    plan = Plan.make(Choices.make(RECIPE, "digits", "tiny", 1, 0.0, "cpu", "32-true", None), "fixed:0.25:0.5", 7)
    trainer = Trainer(plan)
    model, seen = trainer.module, {}

    def look(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen[layer] = inputs[0].detach(), output.detach()

    for name in ("hidden1", "hidden2", "output"):
        model.get_submodule(name).register_forward_hook(look)
    x = trainer.parts["train"].x[:16]
    for step in range(3):
        trainer.sites.set(step)
        model.train()
        model(x)
        for site, p, before, after in (
            ("dropout1", 0.25, "hidden1", "hidden2"),
            ("dropout2", 0.5, "hidden2", "output"),
        ):
            active = seen[model.get_submodule(before)][1].relu()
            kept = torch.tensor(dropkit.keep(tuple(active.shape), p, dropkit.Key(7, site, step)))
            assert torch.equal(seen[model.get_submodule(after)][0], torch.where(kept, active * (1 / (1 - p)), 0.0))
        model.eval()
        model(x)  # draws nothing, and is no step
        active = seen[model.get_submodule("hidden1")][1].relu()
        assert torch.equal(seen[model.get_submodule("hidden2")][0], active)
    assert model.get_buffer("step") == 3


def test_rates_follow_the_strategy_and_reach_the_calls(tmp_path: Path) -> None:
    step = tiny(tmp_path / "step", strategy="step")
    assert [row["rate_dropout1"] for row in step.rows] == pytest.approx([0.5, 0.4, 0.3])
    gap = tiny(tmp_path / "gap", strategy="gap", validation=0.2)
    assert len({row["rate_dropout2"] for row in gap.rows}) > 1
    # At rate 1 nothing passes the last dropout, so no weight before it ever moves.
    tiny(tmp_path / "whole", strategy="fixed:1", epochs=1)
    trained = load_file(tmp_path / "whole" / "checkpoint.safetensors")
    first = RECIPE.build(TINY, (8, 8), 10, 0).state_dict()
    assert torch.equal(trained["hidden2.weight"], first["hidden2.weight"])
    assert not torch.equal(trained["output.bias"], first["output.bias"])


def test_the_loss_is_the_negative_log_likelihood(tmp_path: Path) -> None:
    run = tiny(tmp_path, epochs=1)
    model = RECIPE.build(TINY, (8, 8), 10, 0).eval()
    model.load_state_dict(load_file(tmp_path / "checkpoint.safetensors"))
    assert model.step == run.rows[-1]["step"] == 32
    data = load_data("digits")
    with torch.no_grad():
        log_probabilities = model(torch.from_numpy(data.test_x)).double().numpy()
    likelihood = -log_probabilities[np.arange(len(data.test_y)), data.test_y].mean()
    assert run.rows[-1]["test_loss"] == pytest.approx(likelihood, rel=1e-6)


def test_the_calls_are_found_as_sites() -> None:
    model = RECIPE.build(TINY, (8, 8), 10, 0)
    found = dropkit.torch.sites(model.train(), torch.rand(2, 8, 8))
    assert [(site.p, site.mask_shape) for site in found] == [(0.2, (2, 64)), (0.2, (2, 32))]


def test_learned_rates_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown strategy 'concrete'; .*Known: fixed, gap, none, step"):
        tiny(tmp_path, strategy="concrete")
    learned = replace(RECIPE, strategies=standard(FIXED))
    message = r"the rate of dropout1 is a number that a function gets, .*'disarm' would learn it; move it by none"
    with pytest.raises(DropkitValueError, match=message):
        Trainer(Plan.make(Choices.make(learned, "digits", "tiny", 1, 0.0, "cpu", "32-true", None), "disarm", 0))


def test_comparison_and_search(tmp_path: Path) -> None:
    found = compare("mlp-functional", size="tiny", seeds=2, epochs=1, device="cpu", out=tmp_path / "compare")
    assert [line.strategy for line in found.lines] == ["none", "fixed", "step"]
    assert (tmp_path / "compare" / "report.html").exists()
    pytest.importorskip("optuna")
    best = tune("mlp-functional", size="tiny", epochs=1, trials=1, seeds=1, device="cpu", out=tmp_path / "tune")
    assert list(best.rates) == ["dropout1", "dropout2"]
