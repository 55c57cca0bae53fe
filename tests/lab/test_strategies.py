"""Rates that adapt inside the lab: what moves them, what a state must hold, what is refused."""

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from dropkit.axes.rate import Constant, Gap
from dropkit.errors import DataError, DropkitValueError, UnknownNameError
from dropkit.lab import Run, compare, load_data, train
from dropkit.lab.engines.gradients import held_out_batches
from dropkit.lab.engines.moves import Sites
from dropkit.lab.engines.torch import Trainer
from dropkit.lab.plan import Choices, Plan
from dropkit.lab.recipes import RECIPES, get
from dropkit.lab.recipes.recipe import LearnedRate, Strategy, learned_method, needs_validation, strategy_rates
from dropkit.lab.recipes.strategies import ADAPTIVE
from dropkit.lab.tasks.variants import variant_of
from dropkit.torch import Dropout
from dropkit.torch.learned import ConcreteDropout, LearnableBernoulli
from tests.lab.runs import numbers, stop_after

ALL = ("none", "fixed", "step", *ADAPTIVE)
SITES = {"mlp": ("dropout1", "dropout2"), "vgg-adaptive": ("drop6", "drop7")}


def tiny(recipe: str, strategy: str, out: Path, **choices: Any) -> Run:
    choices = {"epochs": 3, "validation": 0.2, **choices}
    return train(recipe, strategy=strategy, size="tiny", device="cpu", out=out, **choices)


def trainer(strategy: str, recipe: str = "mlp", precision: str = "32-true") -> Trainer:
    choices = Choices.make(recipe, size="tiny", epochs=3, validation=0.2, device="cpu", precision=precision)
    return Trainer(Plan.make(choices, strategy, 0))


@pytest.mark.parametrize("recipe", SITES)
@pytest.mark.parametrize("strategy", ALL)
def test_a_run_stopped_after_every_epoch_has_the_same_rate_curves(tmp_path: Path, recipe: str, strategy: str) -> None:
    whole = tiny(recipe, strategy, tmp_path / "whole")
    for after in (1, 2, 3):
        with pytest.raises(KeyboardInterrupt):
            tiny(recipe, strategy, tmp_path / "cut", on_epoch=stop_after(after), resume=after > 1)
    resumed = tiny(recipe, strategy, tmp_path / "cut", resume=True)
    assert numbers(resumed) == numbers(whole)
    ends = [(tmp_path / name / "checkpoint.safetensors").read_bytes() for name in ("whole", "cut")]
    assert ends[0] == ends[1]


@pytest.mark.parametrize("recipe", SITES)
@pytest.mark.parametrize("strategy", ["step", *ADAPTIVE])
def test_rates_move_and_stay_within_their_bounds(tmp_path: Path, recipe: str, strategy: str) -> None:
    run = tiny(recipe, strategy, tmp_path)
    start = {site: getattr(rate, "start", 0.5) for site, rate in rates_of(recipe, strategy).items()}
    for site in SITES[recipe]:
        curve = [row[f"rate_{site}"] for row in run.rows]
        assert all(0 <= p <= 0.5 for p in curve)
        assert any(p != start[site] for p in curve) or strategy == "gap"
    moved = {p for site in SITES[recipe] for p in (row[f"rate_{site}"] for row in run.rows)}
    assert len(moved) > 2


def rates_of(recipe: str, strategy: str) -> dict:
    found = get(recipe)
    return found.strategies[strategy](found.settings("tiny", "digits"), 10, ())


@pytest.mark.parametrize("recipe", ["mlp", "mlp-functional", "numpy-mlp", "vgg-adaptive"])
def test_weight_decay_is_a_strategy_without_dropout(recipe: str, tmp_path: Path) -> None:
    run = tiny(recipe, "weight-decay:0.01", tmp_path / "decay", epochs=2)
    sites = [name for name in run.rows[0] if name.startswith("rate_")]
    assert {row[name] for row in run.rows for name in sites} == {0.0}
    assert run.config["settings"]["l2"] == 0.005
    none = tiny(recipe, "none", tmp_path / "none", epochs=2)
    assert "l2" not in none.config["settings"] and "train_objective" not in none.rows[0]
    # At the first step the weights are the same; the penalty then pulls them in.
    assert run.rows[1]["train_loss"] != none.rows[1]["train_loss"]
    assert run.rows[0]["train_objective"] > run.rows[0]["train_loss"]
    assert run.rows[1]["train_objective"] - run.rows[1]["train_loss"] < (
        run.rows[0]["train_objective"] - run.rows[0]["train_loss"]
    )


@pytest.mark.parametrize("recipe", ["mlp", "mlp-functional", "numpy-mlp"])
def test_an_interval_may_be_said_in_iterations(recipe: str, tmp_path: Path) -> None:
    run = tiny(recipe, "step:20", tmp_path / "run", epochs=5)
    steps = run.rows[0]["step"]
    site = next(name for name in run.rows[0] if name.startswith("rate_"))
    meant = [max(0.1, (5 - (epoch * steps - 1) // 20) / 10) for epoch in range(1, 6)]
    assert [row[site] for row in run.rows] == meant and len(set(meant)) > 2
    assert run.config["strategy"] == "step:20"


def test_every_recipe_that_falls_by_steps_takes_an_interval() -> None:
    for recipe in RECIPES.values():
        for name in {"step", "decay"} & recipe.strategies.keys():
            rates = strategy_rates(recipe, Strategy.parse(f"{name}:100"), recipe.settings("tiny", "digits"), 7)
            assert set(rates) == set(recipe.feeds)
            assert {round(rate.at(100), 9) for rate in rates.values()} == {0.4 if name == "step" else 0.3}
    assert Strategy.parse("step:100").folder == "step-100"


def test_a_strategy_is_refused_before_data_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dropkit.lab.plan.load_data", lambda *_: pytest.fail("data loaded"))
    for strategy in ("fixd", "fixed:1.5", "step:0.5", "weight-decay:7"):
        with pytest.raises(DropkitValueError):
            tiny("mlp", strategy, tmp_path)
        with pytest.raises(DropkitValueError):
            compare("mlp", strategies=[strategy], out=tmp_path)


def test_weight_decay_of_nothing_is_no_dropout(tmp_path: Path) -> None:
    runs = [tiny("mlp", name, tmp_path / name.replace(":", "-"), epochs=2) for name in ("weight-decay:0", "none")]
    assert numbers(runs[0]) == numbers(runs[1])


def test_weight_decay_by_hand_is_that_of_torch(tmp_path: Path) -> None:
    mine, torchs = (tiny(name, "weight-decay:0.1", tmp_path / name, epochs=2) for name in ("numpy-mlp", "mlp"))
    assert list(mine.rows[0]) == list(torchs.rows[0])
    for row, other in zip(mine.rows, torchs.rows, strict=True):
        for name in row.keys() - {"seconds"}:
            assert row[name] == pytest.approx(other[name], abs=2e-4), name


def test_weight_decay_stands_beside_dropout_in_one_comparison(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"size": "tiny", "epochs": 1, "seeds": 2, "device": "cpu", "out": tmp_path}
    names = ["none", "fixed", "weight-decay", "weight-decay:0.001"]
    found = compare("mlp", strategies=names, **asked)
    assert [line.strategy for line in found.lines] == names
    assert found.runs["weight-decay"][0].config["settings"]["l2"] == 5e-5
    again = compare("mlp", strategies=names, resume=True, **asked)
    assert [numbers(run) for run in again.runs["weight-decay"]] == [numbers(run) for run in found.runs["weight-decay"]]
    with pytest.raises(DropkitValueError, match=r"'weight-decay' takes one number, as in weight-decay:1e-4, got 2"):
        compare("mlp", strategies=["weight-decay:0.1:0.2"], **{**asked, "out": tmp_path / "other"})


@pytest.mark.parametrize(("recipe", "strategy"), [("mlp", "pathwise"), ("vgg-adaptive", "literal")])
def test_rules_that_do_not_work_can_be_watched(tmp_path: Path, recipe: str, strategy: str) -> None:
    whole = tiny(recipe, strategy, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        tiny(recipe, strategy, tmp_path / "cut", on_epoch=stop_after(2))
    assert numbers(tiny(recipe, strategy, tmp_path / "cut", resume=True)) == numbers(whole)
    curves = [[row[f"rate_{site}"] for row in whole.rows] for site in SITES[recipe]]
    if strategy == "literal":
        assert all(0 <= p <= 0.001 for curve in curves for p in curve)
    else:
        assert all(0 <= p <= 0.5 for curve in curves for p in curve) and len(set(curves[0])) == 3


def test_rules_that_do_not_work_are_compared_on_request_alone() -> None:
    for recipe in RECIPES.values():
        if {"pathwise", "literal"} & recipe.strategies.keys():
            assert recipe.compared and not {"pathwise", "literal"} & {*recipe.compared}
    with pytest.raises(UnknownNameError, match="unknown strategy 'pathwise'"):
        strategy_rates(get("numpy-mlp"), Strategy.parse("pathwise"), get("numpy-mlp").settings("tiny", "digits"), 1)


@pytest.mark.parametrize("strategy", ["pathwise", "literal"])
def test_a_site_that_learns_path_wise_has_no_regulariser_and_a_step_of_its_own(strategy: str) -> None:
    found = trainer(strategy, "vgg-adaptive")
    assert found.gradients.penalty().item() == 0
    groups = found.optimizers["rates"].param_groups
    assert [(group["lr"], group["start"], tuple(group["bounds"])) for group in groups] == [(0.001, 0.5, (0, 0.5))] * 2
    with torch.no_grad():
        for parameter in found.sites.parameters:
            parameter.fill_(0.4999)
            parameter.grad = torch.full_like(parameter, -1.0)
    found.optimizers["rates"].step()
    wanted = 0.5 if strategy == "pathwise" else 0.0
    assert [place.p for place in found.sites.places.values()] == [wanted] * 2


def test_adaptive_strategies_start_where_fixed_stands() -> None:
    for recipe, sites in SITES.items():
        fixed = rates_of(recipe, "fixed")
        for strategy in ADAPTIVE:
            adaptive = rates_of(recipe, strategy)
            assert [adaptive[site].start for site in sites] == [fixed[site].at(0) for site in sites]


def test_learned_sites_know_what_they_feed() -> None:
    sites = trainer("concrete", "vgg-adaptive").sites
    assert {name: type(module) for name, module in sites.modules.items()} == dict.fromkeys(
        SITES["vgg-adaptive"], ConcreteDropout
    )
    widths = {name: module.fed[0].weight.shape for name, module in sites.modules.items()}
    assert widths == {"drop6": (32, 32), "drop7": (10, 32)}
    assert all(isinstance(module, LearnableBernoulli) for module in trainer("disarm").sites.modules.values())
    assert all(type(module) is Dropout for module in trainer("gap").sites.modules.values())


@pytest.mark.parametrize("strategy", ["concrete", "disarm", "hypergradient"])
def test_rates_have_an_optimizer_of_their_own(strategy: str) -> None:
    found = trainer(strategy, "vgg-adaptive")
    weights = {id(p) for group in found.optimizers["weights"].param_groups for p in group["params"]}
    learned = {id(p) for group in found.optimizers["rates"].param_groups for p in group["params"]}
    assert len(learned) == 2 and not weights & learned
    assert weights | learned == {id(p) for p in found.module.parameters()}
    assert found.optimizers["weights"].param_groups[0]["weight_decay"] == 1e-4
    assert {group["weight_decay"] for group in found.optimizers["rates"].param_groups} == {0}


def test_hypergradients_come_every_so_many_steps_and_from_held_out_data() -> None:
    found = trainer("hypergradient", "vgg-adaptive")
    batch = found.parts["train"].rows(torch.arange(32))
    found.model.train()
    seen = []
    for step in range(5):
        for optimizer in found.optimizers.values():
            optimizer.zero_grad()
        found.gradients.backward(batch, step)
        seen.append([parameter.grad is not None for parameter in found.sites.parameters])
    assert seen == [[True, True], [False, False], [False, False], [False, False], [True, True]]
    # Other held-out labels, another hypergradient; the same weights' gradient. Inside the bounds, or it may be zero.
    rates, weights = [], []
    for shift in (0, 1):
        again = trainer("hypergradient", "vgg-adaptive")
        with torch.no_grad():
            for parameter in again.sites.parameters:
                parameter.fill_(-1.0)
        again.gradients.held.y.copy_((again.gradients.held.y + shift) % 10)
        again.model.train()
        again.gradients.backward(batch, 0)
        rates.append(torch.stack([parameter.grad for parameter in again.sites.parameters]))
        weights.append(again.module.get_parameter("fc8.weight").grad)
    assert torch.equal(*weights) and not torch.equal(*rates)


def test_the_penalty_counts_each_training_sample_once() -> None:
    found = trainer("concrete")
    samples = len(found.parts["train"].x)
    total = sum(module.penalty() for module in found.sites.modules.values())
    torch.testing.assert_close(found.gradients.penalty(), total / samples)


def test_the_loss_that_is_shown_has_no_penalty() -> None:
    for strategy in ("concrete", "disarm"):
        found = trainer(strategy)
        found.model.eval()
        batch = found.parts["train"].rows(torch.arange(32))
        if strategy == "concrete":
            loss, logits = found.gradients.backward(batch, 0)
            torch.testing.assert_close(loss, cross_entropy(found.module(batch.x), batch.y))
            torch.testing.assert_close(logits, found.module(batch.x))
        else:
            with pytest.raises(DropkitValueError, match="call model"):
                found.gradients.backward(batch, 0)


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed", "bf16-true"])
@pytest.mark.parametrize("strategy", ["concrete", "disarm", "hypergradient"])
def test_learned_rates_in_every_precision(tmp_path: Path, strategy: str, precision: str) -> None:
    run = tiny("mlp", strategy, tmp_path, epochs=1, precision=precision)
    assert run.rows[0]["rate_dropout1"] != pytest.approx(0.2, abs=1e-6)


def test_the_controller_is_shown_each_epochs_losses(tmp_path: Path) -> None:
    run = tiny("mlp", "gap", tmp_path, epochs=4)
    settings = get("mlp").settings("tiny", "digits")
    rate = Gap(settings.gap_target, start=0.2, high=0.5, gain=settings.gap_gain)
    for row in run.rows:
        assert row["rate_dropout1"] == rate.at(0)
        rate.update(train=row["train_eval_loss"], validation=row["validation_loss"])
    assert rate.at(0) != 0.2


def test_a_diverged_epoch_is_no_measurement() -> None:
    model = nn.Sequential(Dropout(0.5))
    sites = Sites(model, {"0": Gap(0.05, start=0.2)}, {})
    sites.feed_back({"train_eval_loss": float("nan"), "validation_loss": 1.0})
    assert sites.state() == [{"p": 0.2, "gap": 0.0, "error": 0.0, "updates": 0}]
    sites.feed_back({"train_eval_loss": 0.5, "validation_loss": 1.0})
    assert sites.row(1) == {"rate_0": pytest.approx(0.3)}


def test_two_runs_of_one_plan_share_no_controller() -> None:
    shared = Gap(0.05, start=0.2)
    rates = {"0": shared, "1": shared}
    one, two = (Sites(nn.Sequential(Dropout(), Dropout()), rates, {}) for _ in range(2))
    one.feed_back({"train_eval_loss": 0.5, "validation_loss": 1.0})
    assert one.row(1) == {"rate_0": pytest.approx(0.3), "rate_1": pytest.approx(0.3)}
    assert two.row(1) == {"rate_0": 0.2, "rate_1": 0.2} and len(one.controllers) == 1
    with pytest.raises(DropkitValueError, match="2 saved controllers for 1"):
        one.load([{}, {}])


@pytest.mark.parametrize("strategy", ["gap", "hypergradient"])
def test_no_validation_part_is_said_before_anything_is_written(tmp_path: Path, strategy: str) -> None:
    message = f"strategy '{strategy}' moves the rate by validation data, and no part is held out: .* --validation"
    for validation in (0.0, 0.0001):  # so small a part holds no sample
        with pytest.raises(DropkitValueError, match=message):
            tiny("mlp", strategy, tmp_path / "run", validation=validation)
        with pytest.raises(DropkitValueError, match=message):
            compare("mlp", size="tiny", strategies=["none", strategy], validation=validation, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_recipe_brings_its_own_validation_part_and_strategies(tmp_path: Path) -> None:
    found = compare("vgg-adaptive", size="tiny", epochs=1, seeds=2, device="cpu", out=tmp_path)
    assert [line.strategy for line in found.lines] == list(ALL)
    assert found.config["validation"] == 0.1
    text = "\n".join(found.verdict)
    assert text.startswith("2 seeds are too few to say") and "Adapting" not in text
    assert text.count(" against no dropout") == len(ALL) - 1
    table = (tmp_path / "table.md").read_text()
    assert all(f"| {strategy} |" in table for strategy in ALL)


def test_all_is_every_strategy(tmp_path: Path) -> None:
    found = compare(
        "mlp", size="tiny", epochs=1, seeds=1, strategies=["all"], validation=0.2, device="cpu", out=tmp_path
    )
    assert [line.strategy for line in found.lines] == [*ALL, "weight-decay", "pathwise"]


def test_state_of_another_strategy_is_refused(tmp_path: Path) -> None:
    tiny("mlp", "concrete", tmp_path / "one", epochs=1)
    tiny("mlp", "gap", tmp_path / "two", epochs=1)
    state = (tmp_path / "two" / "state.safetensors").read_bytes()
    (tmp_path / "one" / "state.safetensors").write_bytes(state)
    with pytest.raises(DataError, match=r"(?s)cannot resume from .*logit"):
        tiny("mlp", "concrete", tmp_path / "one", resume=True)


def test_what_moves_a_rate() -> None:
    learned = LearnedRate(method="concrete", start=0.5)
    assert learned_method({"a": learned, "b": Constant(0.1)}) == "concrete"
    assert learned_method({"a": Constant(0.1)}) is None
    assert not needs_validation({"a": learned})
    assert needs_validation({"a": replace(learned, method="hypergradient")})
    assert needs_validation({"a": Constant(0.1), "b": Gap(0.1)})
    with pytest.raises(DropkitValueError, match="one strategy learns its rates by one method, got concrete, disarm"):
        learned_method({"a": learned, "b": replace(learned, method="disarm")})
    with pytest.raises(UnknownNameError, match="unknown method 'concret'; did you mean 'concrete'"):
        LearnedRate(method="concret", start=0.5)


def test_held_out_batches_go_through_all_and_reshuffle() -> None:
    batch = held_out_batches(samples=10, size=4, seed=3)
    rounds = [torch.cat([batch(3 * number + part) for part in range(3)]) for number in range(2)]
    assert [sorted(found.tolist()) for found in rounds] == [list(range(10))] * 2
    assert not torch.equal(*rounds)
    assert torch.equal(batch(4), held_out_batches(samples=10, size=4, seed=3)(4))


def test_vgg_is_the_tutorials_network() -> None:
    recipe = get("vgg-adaptive")
    model = recipe.build(recipe.settings("full", "cifar10"), (3, 32, 32), 10, 0)
    convolutions = [part for part in model if isinstance(part, nn.Conv2d)]
    assert [part.out_channels for part in convolutions] == [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6
    assert sum(isinstance(part, nn.MaxPool2d) for part in model) == 5
    names = list(dict(model.named_children()))
    assert names[-7:] == ["fc6", "relu6", "drop6", "fc7", "relu7", "drop7", "fc8"]
    assert sum(parameter.numel() for parameter in model.parameters()) == 33_638_218
    std = model.get_parameter("conv13.weight").std().item()
    assert std == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)


@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (3, 32, 32), (5, 16), (1, 32, 32)])
def test_vgg_takes_small_images(shape: tuple[int, ...]) -> None:
    recipe = get("vgg-adaptive")
    model = recipe.build(recipe.settings("tiny", "any"), shape, 10, 0)
    x = torch.rand(2, *shape)
    seen = model.get_submodule("input")(x)
    assert seen.shape == (2, 3, 32, 32)
    assert seen.amax().item() == pytest.approx(4 * x.amax().item() - 2)
    assert model(x).shape == (2, 10)


def test_vgg_repeats_digits() -> None:
    recipe = get("vgg-adaptive")
    seen = recipe.build(recipe.settings("tiny", "any"), (8, 8), 10, 0).get_submodule("input")(torch.eye(8)[None])
    assert torch.equal(seen[0, 1, ::4, ::4], 4 * torch.eye(8) - 2)
    assert torch.equal(seen[0, 1, 1::4, 2::4], 4 * torch.eye(8) - 2)


@pytest.mark.parametrize("shape", [(64, 64), (2, 32, 32), (3, 33, 8)])
def test_vgg_refuses_other_images(tmp_path: Path, shape: tuple[int, ...]) -> None:
    recipe = get("vgg-adaptive")
    with pytest.raises(DropkitValueError, match="takes images of at most 32 x 32 pixels in 1 or 3 channels, got"):
        recipe.build(recipe.settings("tiny", "any"), shape, 10, 0)


def test_tensorboard_is_asked_for_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(DropkitValueError, match=r"--tensorboard needs the package tensorboard .*: pip install"):
        tiny("mlp", "none", tmp_path / "run", tensorboard=True)
    with pytest.raises(DropkitValueError, match="--tensorboard needs the package tensorboard"):
        compare("mlp", size="tiny", out=tmp_path / "run", tensorboard=True)
    assert not (tmp_path / "run").exists()


def test_tensorboard_gets_every_epoch_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written, opened = [], []

    class Writer:
        def __init__(self, folder: str, purge_step: int) -> None:
            opened.append((folder, purge_step))

        def add_scalar(self, tag: str, value: float, step: int) -> None:
            written.append((tag, value, step))

        def flush(self) -> None: ...

        def close(self) -> None:
            opened.append("closed")

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    with pytest.raises(KeyboardInterrupt):
        tiny("mlp", "concrete", tmp_path, on_epoch=stop_after(1), tensorboard=True)
    run = tiny("mlp", "concrete", tmp_path, resume=True, tensorboard=True)
    folder = str(tmp_path / "tensorboard")
    assert opened == [(folder, 1), "closed", (folder, 2), "closed"]
    rates = [(value, step) for tag, value, step in written if tag == "rate/dropout2"]
    assert rates == [(row["rate_dropout2"], row["epoch"]) for row in run.rows]
    assert ("loss/train_eval", run.rows[2]["train_eval_loss"], 3) in written


def test_digits_run_through_vgg_and_are_learned(tmp_path: Path) -> None:
    recipe = get("vgg-adaptive")
    more = replace(
        recipe,
        settings=lambda size, data: replace(
            recipe.settings(size, data), train_samples=1024, channels=(8, 8, 16, 16, 16)
        ),
    )
    run = train(more, data=load_data("digits"), strategy="none", size="tiny", epochs=5, device="cpu", out=tmp_path)
    assert run.rows[-1]["test_accuracy"] > 0.5


def test_a_published_dropout_that_stands_behind_no_layer_names_its_class() -> None:
    for kind, name in (("drop-edge", "DropEdge"), ("patch_dropout", "PatchDropout"), ("layer-drop", "LayerDrop")):
        with pytest.raises(DropkitValueError, match=f"{kind}.* give the model a dropkit.torch.{name}"):
            variant_of(kind)


def test_a_kind_has_its_name_in_the_grid_too() -> None:
    for published, kind in (("spatial", "channel"), ("dropblock", "block"), ("drop-path", "path"), ("locked", "time")):
        assert variant_of(published) is variant_of(kind)
    with pytest.raises(UnknownNameError, match="unknown kind of dropout 'chanel'"):
        variant_of("chanel")
