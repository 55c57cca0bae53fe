"""Models of one's own as recipes: where they drop, what strategies make of them, and what does not fit."""

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.classification import MulticlassAccuracy

from dropkit.axes.noise import Gaussian
from dropkit.axes.rate import Constant
from dropkit.errors import DataError, DropkitError
from dropkit.grid import grid
from dropkit.lab import Data, compare, train, tune
from dropkit.lab.engines.losses import NAMED, Score, losses, outputs_of
from dropkit.lab.engines.optimizing import family
from dropkit.lab.plan import Choices, Plan
from dropkit.lab.recipes.learning_rate import SCHEDULES, factor
from dropkit.lab.recipes.objective import LOSSES, METRICS, Objective
from dropkit.lab.recipes.recipe import Recipe, Strategy
from dropkit.lab.tasks.asked import resolved
from dropkit.lab.tasks.spec import rules
from dropkit.lab.tasks.strategies import Kind, strategies
from dropkit.lab.tasks.task import Options, Task, recipe_of
from dropkit.lab.tasks.variants import VARIANTS
from dropkit.torch import Dropout
from tests.lab.runs import numbers, stop_after

X = np.random.default_rng(0).normal(size=(48, 1, 6, 6)).astype(np.float32)
Y = (X.mean((1, 2, 3)) > 0).astype(np.int64) + (X[:, 0, 0, 0] > 1)
PAIR = {"train": (X[:32], Y[:32]), "test": (X[32:], Y[32:])}
DATA = Data.of(PAIR["train"], PAIR["test"])


def cnn() -> nn.Module:
    layers = (nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Dropout2d(0.2), nn.Flatten(), nn.Linear(64, 8), nn.Dropout(0.5))
    return nn.Sequential(*layers, nn.Linear(8, 3))


class Literal(nn.Module):
    """A rate in the code, one in an attribute, and one of an attention."""

    def __init__(self) -> None:
        super().__init__()
        self.flat, self.into, self.out = nn.Flatten(), nn.Linear(36, 8), nn.Linear(8, 3)
        self.attention, self.rate = nn.MultiheadAttention(8, 2, dropout=0.3, batch_first=True), 0.4

    def forward(self, x: Tensor) -> Tensor:
        h = self.into(self.flat(x)).unsqueeze(1)
        h = h + self.attention(h, h, h)[0]
        h = functional.dropout(h.squeeze(1), self.rate, self.training)
        return self.out(functional.dropout(h, 0.25, self.training))


def plan(make: Any, strategy: str, **options: Any) -> Plan:
    for name in ("sites", "insert"):
        options[name] = rules(options.get(name), f"--{name}")
    recipe = recipe_of(Task.of(make, Options(**options)), DATA)
    return Plan.make(Choices.make(recipe, data=DATA, validation=0.25), strategy, 0)


def built(found: Plan) -> nn.Module:
    choices = found.choices
    model: nn.Module = choices.recipe.build(choices.settings, DATA.shape, DATA.classes, 0)
    return model


def rates(found: Plan) -> dict[str, float]:
    return {site: round(rate.at(0), 4) for site, rate in found.rates.items()}  # type: ignore[union-attr]


# ----------------------------------------------------------------------------------------------------------------------
# Sites and strategies


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("none", {"0.dropkit_drop": 0.0, "2": 0.0, "5": 0.0}),
        ("as-is", {"0.dropkit_drop": 0.1, "2": 0.2, "5": 0.5}),
        ("fixed:0.3", {"0.dropkit_drop": 0.3, "2": 0.3, "5": 0.3}),
        ("fixed:0.1:0.2:0.3", {"0.dropkit_drop": 0.1, "2": 0.2, "5": 0.3}),
        ("scale:0.5", {"0.dropkit_drop": 0.05, "2": 0.1, "5": 0.25}),
        ("fixed:0.3@5", {"0.dropkit_drop": 0.0, "2": 0.2, "5": 0.3}),  # elsewhere: what was inserted off, own as is
        ("cosine:0.4:0", {"0.dropkit_drop": 0.4, "2": 0.4, "5": 0.4}),
        ("linear", {"0.dropkit_drop": 0.1, "2": 0.2, "5": 0.5}),
        ("warmup:0.4", {"0.dropkit_drop": 0.0, "2": 0.0, "5": 0.0}),
        ("gaussian:0.1", {"0.dropkit_drop": 0.1, "2": 0.1, "5": 0.1}),
    ],
)
def test_a_strategy_says_the_rate_of_each_site(strategy: str, expected: dict[str, float]) -> None:
    assert rates(plan(cnn, strategy, insert=["0=0.1"])) == expected


def test_a_dropout_can_stand_behind_a_dropout() -> None:
    model = built(plan(cnn, "as-is", insert=["2=channel:0.1"]))
    assert (model[2].p, model[2].dropkit_drop.p, model[2].dropkit_drop.share) == (0.2, 0.1, (2, 3))


def test_sites_say_what_the_models_own_dropouts_are() -> None:
    found = plan(cnn, "as-is", sites=["2=block:0.05", "5=0.4"])
    assert rates(found) == {"2": 0.05, "5": 0.4}
    model = built(found)
    assert repr(model[2].share) == "Block(size=3, over=(2, 3))" and type(model[5]) is Dropout


def test_a_kind_takes_the_place_of_what_is_there_where_its_pattern_matches() -> None:
    model = built(plan(cnn, "gaussian:0.1@5", insert=["conv*=0.1", "Conv2d=channel:0.2"][1:]))
    assert model[5].noise == Gaussian() and model[0].dropkit_drop.share == (2, 3)
    assert type(model[2]).__name__ == "Dropout2d" and model[2].noise != Gaussian()


def test_a_kind_has_no_name_of_another_strategy_and_every_law_of_the_grid_is_one() -> None:
    learned = ("concrete", "disarm", "hypergradient")
    others = strategies({"drop": 0.5}, learned)
    assert all(isinstance(others[name], Kind) for name in VARIANTS) and not {*learned, "gap"} & set(VARIANTS)
    elementwise = {v.noise for v in grid.values() if v.place == "activation" and not v.noise.needs_other}
    assert elementwise <= {variant.noise for variant in VARIANTS.values()}


def test_every_kind_runs_where_its_tensor_has_the_axes() -> None:
    for name, variant in VARIANTS.items():
        where = "@2" if variant.axes > 2 else ""
        model = built(plan(cnn, f"{name}:0.5{where}")).train()
        assert model(torch.from_numpy(X[:8])).shape == (8, 3), name


def test_all_generators_are_as_before_and_seeds_decide_the_first_weights() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    found = plan(cnn, "as-is")
    assert torch.equal(torch.get_rng_state(), before)
    one, other = (built(plan(cnn, name))[4].weight for name in ("none", "channel:0.1@2"))
    assert torch.equal(one, other)
    seeded = found.choices.recipe.build(found.choices.settings, DATA.shape, 3, 1)
    assert not torch.equal(one, seeded[4].weight)


def test_numbers_that_modules_hand_over_are_sites_and_literal_ones_are_told() -> None:
    found = plan(Literal, "fixed:0.2")
    assert rates(found) == {"rate": 0.2, "attention": 0.2}
    told = " ".join(found.choices.recipe.about)
    assert "torch draws their masks: rate, attention" in told and "no rate reaches it: dropout#1 0.25" in told


def test_none_is_without_literal_dropouts_too(tmp_path: Path) -> None:
    words = {**PAIR, "epochs": 1, "batch_size": 32, "learning_rate": 1e-12}
    run = train(Literal, strategy="none", out=tmp_path / "none", **words)
    assert run.rows[0]["train_loss"] == pytest.approx(run.rows[0]["train_eval_loss"], abs=1e-6)
    run = train(Literal, strategy="fixed:0", out=tmp_path / "fixed", **words)
    assert abs(run.rows[0]["train_loss"] - run.rows[0]["train_eval_loss"]) > 1e-3


def test_a_run_whose_masks_torch_draws_is_resumed_to_the_same_numbers(tmp_path: Path) -> None:
    words: dict[str, Any] = {**PAIR, "epochs": 4, "strategy": "as-is"}
    whole = train(Literal, out=tmp_path / "whole", **words)
    with pytest.raises(KeyboardInterrupt):
        train(Literal, out=tmp_path / "cut", on_epoch=stop_after(2), **words)
    torch.manual_seed(99)
    assert numbers(train(Literal, out=tmp_path / "cut", resume=True, **words)) == numbers(whole)


def test_a_schedule_over_the_whole_run_cannot_be_lengthened(tmp_path: Path) -> None:
    words: dict[str, Any] = {**PAIR, "schedule": "cosine", "out": tmp_path}
    train(cnn, epochs=1, **words)
    with pytest.raises(DropkitError, match="schedule_epochs"):
        train(cnn, epochs=2, resume=True, **words)


# ----------------------------------------------------------------------------------------------------------------------
# Scores


@pytest.mark.parametrize("epochs", [1, 2, 5])
def test_scores_are_what_the_figure_is_the_mean_of(tmp_path: Path, epochs: int) -> None:
    run = train(cnn, out=tmp_path, epochs=epochs, **PAIR)
    scores = run.scores()
    assert scores is not None and scores.shape == (16,) and scores.dtype == np.float32
    mean = np.mean([row["test_accuracy"] for row in run.rows[-3:]])
    assert float(scores.mean()) == pytest.approx(mean, abs=1e-6)


def test_scores_of_a_lengthened_run_are_those_of_its_last_epochs(tmp_path: Path) -> None:
    train(cnn, out=tmp_path / "grown", epochs=3, **PAIR)
    grown = train(cnn, out=tmp_path / "grown", epochs=4, resume=True, **PAIR).scores()
    whole = train(cnn, out=tmp_path / "whole", epochs=4, **PAIR).scores()
    assert grown is not None and whole is not None and (grown == whole).all()


def test_a_metric_of_the_whole_has_no_scores(tmp_path: Path) -> None:
    run = train(cnn, out=tmp_path, epochs=1, metric="f1", **PAIR)
    assert run.scores() is None and 0 <= run.rows[0]["test_f1"] <= 1


def test_recipes_have_scores_with_and_without_a_framework(tmp_path: Path) -> None:
    for name in ("mlp", "numpy-mlp"):
        run = train(name, size="tiny", epochs=2, device="cpu", out=tmp_path / name)
        scores, mean = run.scores(), np.mean([row["test_accuracy"] for row in run.rows])
        assert scores is not None and float(scores.mean()) == pytest.approx(mean, abs=1e-6)


def test_damaged_scores_are_refused(tmp_path: Path) -> None:
    run = train(cnn, out=tmp_path, epochs=1, **PAIR)
    path = tmp_path / "scores.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match="damaged or changed"):
        run.scores()


# ----------------------------------------------------------------------------------------------------------------------
# What a model is trained for


@pytest.mark.parametrize("kind", LOSSES)
def test_the_mean_of_a_loss_is_the_mean_of_the_samples(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    outputs, targets = {
        "classification": ((6, 3), torch.randint(3, (6,), generator=generator)),
        "binary": ((6,), torch.randint(2, (6,), generator=generator)),
        "multi-label": ((6, 3), torch.randint(2, (6, 3), generator=generator).float()),
        "regression": ((6, 2), torch.randn(6, 2, generator=generator)),
        "next-token": ((6, 4, 3), torch.randint(3, (6, 4), generator=generator)),
    }[kind]
    given = torch.randn(outputs, generator=generator)
    for name in LOSSES[kind]:
        assert name in NAMED
        found = losses(Objective.of(kind, name))
        each = found.of_each(given.log_softmax(-1) if name == "nll" else given, targets)
        mean = found.mean(given.log_softmax(-1) if name == "nll" else given, targets)
        assert each.shape == (6,) and each.mean().item() == pytest.approx(mean.item(), rel=1e-5)


def test_accuracy_is_to_the_bit_what_torchmetrics_makes_of_it() -> None:
    generator = torch.Generator().manual_seed(0)
    for samples in (3, 7, 512, 1297):
        outputs = torch.randn(samples, 10, generator=generator)
        targets = torch.randint(10, (samples,), generator=generator)
        ours = Score("test", Objective(), torch.device("cpu"), kept=True)
        ours.add(torch.tensor(0.5), outputs, targets)
        theirs = MulticlassAccuracy(10, average="micro")
        theirs.update(outputs, targets)
        assert ours.row()["test_accuracy"] == float(theirs.compute())


def half(outputs: np.ndarray, targets: np.ndarray) -> float:
    return 0.5


def error(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return (outputs.argmax(-1) != targets) * 1.0


def wrong_sign(outputs: np.ndarray, targets: np.ndarray) -> float:
    return float(np.mean(outputs.argmax(-1) != targets))


wrong_sign.higher_is_better = True  # type: ignore[attr-defined]


def test_which_side_of_a_metric_is_better_is_found() -> None:
    found = Objective.of("classification", metric=f"{__name__}:error")
    assert found.measured.lower_is_better and found.figures.compared == "test_error" and found.measured.each is not None
    assert not Objective.of("regression", metric="sklearn.metrics:r2_score").measured.lower_is_better
    for name, words in (("half", "nobody knows which"), ("wrong_sign", "turn one of them round")):
        with pytest.raises(DropkitError, match=words):
            _ = Objective.of("classification", metric=f"{__name__}:{name}").measured


@pytest.mark.parametrize("kind", METRICS)
def test_built_in_metrics_say_the_side_that_is_found(kind: str) -> None:
    from dropkit.lab.recipes.judged import _shown

    targets, perfect, worst = _shown(kind)
    for name, metric in METRICS[kind].items():
        score = metric.each or metric.whole
        if score is not None:
            best, least = (float(np.mean(score(each, targets))) for each in (perfect, worst))
            assert (best < least) == metric.lower_is_better, name


def test_outputs_are_found_in_what_models_give() -> None:
    logits = torch.zeros(2, 3)
    holder = type("Output", (), {"logits": logits})()
    for given in (logits, (logits, None), [logits], {"logits": logits, "loss": None}, holder):
        assert outputs_of(given) is logits
    with pytest.raises(DropkitError, match="the model gives NoneType"):
        outputs_of(None)


def test_learning_rates_begin_and_end_where_they_should() -> None:
    for name in SCHEDULES:
        values = [factor(name)(step, 100) for step in range(100)]
        assert max(values) <= 1 and min(values) >= 0 and (name == "constant" or values[-1] < 0.1)
    assert family("torch.optim:NAdam") is torch.optim.NAdam


@pytest.mark.parametrize("name", ["adamw", "rmsprop", "torch.optim:Adagrad"])
def test_optimizers_and_schedules_are_resumed_to_the_same_numbers(tmp_path: Path, name: str) -> None:
    words: dict[str, Any] = {**PAIR, "epochs": 3, "optimizer": name, "schedule": "one-cycle"}
    whole = train(cnn, out=tmp_path / "whole", **words)
    with pytest.raises(KeyboardInterrupt):
        train(cnn, out=tmp_path / "cut", on_epoch=stop_after(1), **words)
    assert numbers(train(cnn, out=tmp_path / "cut", resume=True, **words)) == numbers(whole)


# ----------------------------------------------------------------------------------------------------------------------
# What does not fit


def no_model() -> int:
    return 3


def no_dropout() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 3))


def narrow() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.1), nn.Linear(36, 2))


def fails() -> nn.Module:
    raise RuntimeError("my own fault")


def needs(width: int) -> nn.Module:
    return nn.Linear(width, 3)


@pytest.mark.parametrize(
    ("make", "words", "message"),
    [
        (no_model, {}, r"no_model makes an int, and models of torch, Keras and flax.nnx are trained"),
        (fails, {}, r"fails failed with RuntimeError: my own fault at .*test_tasks.py:\d+"),
        (needs, {}, r"needs cannot be called without arguments"),
        (no_dropout, {}, r"drops nowhere: .* --insert 0=0.2; its layers are 0 \(Flatten\), 1 \(Linear\)"),
        (
            narrow,
            {},
            r"gives \(4, 2\) of float32 for 4 samples, and classification needs numbers of .* \(4, 3\)",
        ),
        (cnn, {"loss": "mse"}, r"loss 'mse' does not fit classification data: choose from cross-entropy, nll"),
        (cnn, {"loss": "mze"}, r"unknown loss 'mze'"),
        (cnn, {"metric": "mae"}, r"metric 'mae' does not fit classification"),
        (cnn, {"optimizer": "sdg"}, r"unknown optimizer 'sdg'; did you mean 'sgd'"),
        (cnn, {"optimizer": "math:pi"}, r"optimizer math:pi is no class"),
        (cnn, {"schedule": "cosin"}, r"unknown schedule of the learning rate 'cosin'; did you mean 'cosine'"),
        (cnn, {"learning_rate": 0.0}, r"the learning rate must be a number above 0, got 0.0"),
        (cnn, {"batch_size": 0}, r"batch size must be at least 1, got 0"),
        (cnn, {"insert": ["conv=0.1"]}, r"--insert 'conv=0.1' matches no module in Sequential; it has 0 \(Conv2d\)"),
        (cnn, {"insert": ["0"]}, r"--insert '0' says not what where"),
        (cnn, {"insert": ["0=1.5"]}, r"--insert '0=1.5': '1.5': a rate must lie in \[0, 1\]"),
        (cnn, {"insert": ["4=channel:0.1"]}, r"channel drops whole channels.*4.dropkit_drop gets a tensor of shape"),
        (cnn, {"sites": ["9=0.1"]}, r"--sites '9=0.1' matches no site in .*cnn; it has 2, 5"),
        (cnn, {"sites": ["2=chanel:0.1"]}, r"unknown kind of dropout 'chanel'; did you mean 'channel'"),
        (Literal, {"sites": ["rate=channel:0.1"]}, r"rate is a number that a module hands over"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(make: Any, words: dict[str, Any], message: str) -> None:
    with pytest.raises(DropkitError, match=message) as caught:
        resolved(make, {**PAIR, **words})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "strategy", "message"),
    [
        (cnn, "channel:0.1", r"channel drops whole channels .* 5 gets a tensor of shape \(samples, 8\)"),
        (cnn, "chanel:0.1", r"unknown strategy 'chanel'; did you mean 'channel'"),
        (cnn, "fixed:0.1@9", r"strategy 'fixed:0.1@9' matches no site in .*; it has 2, 5"),
        (cnn, "fixed:0.1@", r"a pattern of sites must follow the @"),
        (cnn, "cosine:2", r"a rate must lie in \[0, 1\], got 2"),
        (cnn, "scale:-1", r"takes one factor, 0 or more"),
        (cnn, "as-is:0.1", r"takes no numbers"),
        (Literal, "gaussian:0.1", r"attention are numbers that modules hand over|rate, attention are numbers"),
        (Literal, "concrete", r"no layer|number"),
    ],
)
def test_a_strategy_that_does_not_fit_is_refused_before_anything_is_written(
    make: Any, strategy: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DropkitError, match=message):
        compare(make, strategies=["none", strategy], out=tmp_path / "out", epochs=1, seeds=1, **PAIR)
    assert not (tmp_path / "out").exists()


class Unreached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.flat, self.out = nn.Flatten(), nn.Linear(36, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(functional.dropout(self.flat(x), 0.25, self.training))


def test_a_model_whose_rates_cannot_be_set_is_compared_and_not_tuned(tmp_path: Path) -> None:
    found = compare(Unreached, out=tmp_path / "compared", epochs=1, seeds=1, **PAIR)
    assert [line.strategy for line in found.lines] == ["none", "as-is"]
    with pytest.raises(DropkitError, match=r"has no site whose rate can be set: put dropouts in with --insert"):
        tune(Unreached, out=tmp_path / "tuned", trials=1, seeds=1, epochs=1, **PAIR)


def test_options_of_models_are_refused_for_recipes_but_for_those_that_recipes_have() -> None:
    with pytest.raises(DropkitError, match=r"--loss 'mse' is for a model of your own, and 'mlp' is a recipe"):
        resolved("mlp", {"loss": "mse"})
    found, _ = resolved("mlp", {"learning_rate": 0.5, "batch_size": 16})
    settings = found.settings("tiny", "digits")
    assert (settings.learning_rate, settings.batch_size) == (0.5, 16)


def test_patterns_make_folders_that_differ_and_can_be_written() -> None:
    one, other = (Strategy.parse(f"fixed:0.1@{pattern}").folder for pattern in ("conv*", "conv?"))
    assert one != other and re.fullmatch(r"[A-Za-z0-9._@-]+", one) and Strategy.parse("fixed:0.1").folder == "fixed-0.1"


def test_one_output_for_two_classes_is_binary(tmp_path: Path) -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Dropout(0.1), nn.Linear(36, 1))

    two = {"train": (X[:32], Y[:32] > 0), "test": (X[32:], Y[32:] > 0)}
    recipe, _ = resolved(make, {**two, "metric": "auroc"})
    assert isinstance(recipe, Recipe) and recipe.objective.kind == "binary"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = train(make, out=tmp_path, epochs=1, metric="auroc", **two)
    assert 0 <= run.rows[0]["test_auroc"] <= 1 and isinstance(run.config["rates"]["1"], str)
    assert run.config["rates"]["1"] == repr(Constant(0.1))
