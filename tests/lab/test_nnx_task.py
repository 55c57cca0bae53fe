"""The engine over flax.nnx and optax, by models of a user's: every kind of targets, rates as data, bits on resuming."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from dropkit import Key, cli, keep
from dropkit.errors import DropkitError, DropkitTypeError, DropkitValueError
from dropkit.lab import compare, train
from dropkit.lab.engines.nnx import NnxTrainer
from dropkit.lab.order import epoch_order
from dropkit.lab.plan import Choices, Plan
from dropkit.lab.recipes.recipe import Recipe
from dropkit.lab.tasks.asked import resolved
from tests.lab.frames import arrays, follows_the_gap, killed_and_resumed, resumed
from tests.test_examples import EXAMPLES


class Net(nnx.Module):
    def __init__(self, seed: int, outputs: int = 3) -> None:
        rngs = nnx.Rngs(seed)
        self.hidden, self.output = nnx.Linear(8, 8, rngs=rngs), nnx.Linear(8, outputs, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.output(self.drop(nnx.relu(self.hidden(x))))


def own_attention(*args: Any, **kwargs: Any) -> Any:
    return nnx.dot_product_attention(*args, **kwargs)


class Normed(nnx.Module):
    """With a BatchNorm, an attention that draws by a number of its own, and a flag that says whether it trains."""

    own = True

    def __init__(self, seed: int) -> None:
        rngs = nnx.Rngs(seed)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        how = {"attention_fn": own_attention} if self.own else {}
        self.attend = nnx.MultiHeadAttention(2, 8, dropout_rate=0.25, rngs=rngs, decode=False, **how)
        self.output = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x: Any, train: bool) -> Any:
        x = self.norm(x, use_running_average=not train)
        return self.output(self.attend(x[:, None], deterministic=not train)[:, 0])


class Attending(Normed):
    """Whose only dropout is in an attention of flax' own."""

    own = False


class Tokens(nnx.Module):
    def __init__(self, seed: int) -> None:
        rngs = nnx.Rngs(seed)
        self.embed, self.output = nnx.Embed(5, 8, rngs=rngs), nnx.Linear(8, 5, rngs=rngs)
        self.drop = nnx.Dropout(0.1, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return {"logits": self.output(self.drop(self.embed(x)))}


def one(seed: int) -> Net:
    return Net(seed, 1)


def plan(make: Any, kind: str = "classification", strategy: str = "as-is", **asked: Any) -> tuple[Recipe, Plan]:
    recipe, rest = resolved(make, {"data": arrays(kind), "epochs": 2, "device": "cpu", **asked})
    return recipe, Plan.make(Choices.make(recipe, **rest), strategy, 3)


@pytest.mark.parametrize(
    ("make", "kind", "asked", "figures"),
    [
        (one, "binary", {"metric": "auroc"}, {"test_auroc"}),
        (
            Net,
            "multi-label",
            {"metric": "exact-match", "optimizer": "nadam"},
            {"train_exact_match", "test_exact_match"},
        ),
        (one, "regression", {"loss": "huber", "schedule": "cosine"}, {"train_mse", "test_mse"}),
        (Tokens, "next-token", {"optimizer": "optax:novograd"}, {"train_loss", "test_loss"}),
        (one, "regression", {"loss": "optax:l2_loss", "metric": "loss"}, {"train_loss", "test_loss"}),
    ],
)
def test_every_kind_of_targets(make: Any, kind: str, asked: dict[str, Any], figures: set[str], tmp_path: Path) -> None:
    run = train(make, data=arrays(kind), epochs=1, device="cpu", out=tmp_path, **asked)
    row = run.rows[0]
    assert figures <= set(row) and all(np.isfinite(value) for value in row.values())
    scores = run.scores()
    if asked.get("metric") == "auroc":
        assert scores is None
    else:
        (name,) = [name for name in figures if name.startswith("test")]
        assert scores is not None and scores.shape == (16,)
        assert scores.mean() == pytest.approx(row[name], rel=1e-5)


def test_the_first_step_is_that_of_known_weights_order_and_masks() -> None:
    _, found = plan(Net, batch_size=32)
    trainer = NnxTrainer(found)
    model = Net(3)
    model.drop.rate = 0.0
    row = trainer.epoch(1, 0)
    order = epoch_order(32, 3, 1)
    data = arrays("classification")
    x, y = data.train_x[order], data.train_y[order]
    hidden = nnx.relu(model.hidden(x)) * keep((32, 8), 0.5, Key(3, "drop", 0)) * 2
    logits = jax.nn.log_softmax(model.output(hidden))
    assert row["train_loss"] == pytest.approx(-float(logits[np.arange(32), y].mean()), rel=1e-5)


def test_a_rate_that_moves_and_a_learning_rate_compile_nothing_again() -> None:
    _, found = plan(Net, strategy="decay:1", batch_size=8, schedule="cosine")
    trainer = NnxTrainer(found)
    before = trainer.program.traced
    rows = [trainer.epoch(1, 0), trainer.epoch(2, 4)]
    again = NnxTrainer(plan(Net, strategy="fixed:0.3", batch_size=8, schedule="cosine")[1])
    again.epoch(1, 0)
    assert again.program is trainer.program and trainer.program.traced - before == 1
    assert rows[0]["rate_drop"] > rows[1]["rate_drop"] > 0.1


def test_a_model_that_drops_in_attention_alone_is_keyed() -> None:
    recipe, found = plan(Attending, strategy="as-is", batch_size=32)
    assert list(recipe.feeds) == ["attend.dropout"]
    assert NnxTrainer(found).moves.row(1) == {"rate_attend.dropout": 0.25}


def test_a_number_inside_another_module_moves_too() -> None:
    recipe, found = plan(Normed, strategy="as-is", batch_size=32)
    assert list(recipe.feeds) == ["attend.dropout_rate"]
    assert NnxTrainer(found).moves.row(1) == {"rate_attend.dropout_rate": 0.25}
    stepped = NnxTrainer(plan(Normed, strategy="step:2", batch_size=16)[1])
    rows = [stepped.epoch(1, 0), stepped.epoch(2, 2)]
    assert [row["rate_attend.dropout_rate"] for row in rows] == pytest.approx([0.5, 0.4])
    mean = jax.tree.leaves(nnx.filter_state(stepped.rest, nnx.BatchStat))
    assert any(np.asarray(leaf).any() for leaf in mean)


@pytest.mark.parametrize(("make", "strategy"), [(Net, "step"), (Normed, "as-is")])
def test_resumed_run_ends_bit_for_bit_the_same(make: Any, strategy: str, tmp_path: Path) -> None:
    resumed(make, strategy, tmp_path)


def test_gap_moves_the_rate_by_the_rows_before_and_is_resumed(tmp_path: Path) -> None:
    run = resumed(Net, "gap", tmp_path, validation=0.25, sites=["drop=0.3"])
    follows_the_gap(run, "drop")
    assert all(0 < row["test_ece"] < 1 for row in run.rows)


def test_strategies_insertion_and_kinds(tmp_path: Path) -> None:
    asked: Any = {"data": arrays("classification"), "epochs": 1, "seeds": 1, "device": "cpu"}
    names = ["none", "as-is", "gaussian:0.1@drop", "weight-decay"]
    found = compare(Net, strategies=names, insert=["hidden=0.25"], out=tmp_path, **asked)
    rates = {line: runs[0].rows[-1] for line, runs in found.runs.items()}
    inserted = "rate_hidden.dropkit_drop"
    assert (rates["none"][inserted], rates["as-is"][inserted], rates["as-is"]["rate_drop"]) == (0, 0.25, 0.5)
    assert (rates["gaussian:0.1@drop"][inserted], rates["gaussian:0.1@drop"]["rate_drop"]) == (0, 0.1)
    losses = {row["train_loss"] for row in rates.values()}
    assert len(losses) >= 3


def test_wrong_models_are_named_before_anything_is_written(tmp_path: Path) -> None:
    def fixed() -> Net:
        return Net(0)

    def undropped(seed: int) -> Any:
        return nnx.Sequential(nnx.Linear(8, 3, rngs=nnx.Rngs(seed)))

    asked: Any = {"data": arrays("classification"), "device": "cpu", "out": tmp_path / "out"}
    with pytest.warns(UserWarning, match="has the same first weights for every seed: give it a parameter seed"):
        train(fixed, **{**asked, "out": tmp_path / "fixed", "epochs": 1})
    with pytest.raises(DropkitValueError, match=r"drops nowhere: put dropouts in with --insert .*layers.0=0.2"):
        train(undropped, **asked)
    with pytest.raises(DropkitValueError, match=r"gives \(4, 1\) of float32 for 4 samples, and classification needs"):
        train(one, **asked)
    with pytest.raises(DropkitValueError, match=r"--insert 'conv\*=0.1' matches no module in Net; it has hidden"):
        train(Net, **asked, insert=["conv*=0.1"])
    for words, text in (
        ({"loss": "tests.lab.wrong:fails"}, "failed with KeyError"),
        ({"loss": "tests.lab.wrong:text"}, "gave a str: it must give a tensor of numbers"),
        ({"loss": "tests.lab.wrong:other_samples"}, r"of shape \(3,\) for 4 samples"),
        ({"loss": "tests.lab.wrong:not_a_number"}, "is nan on the first 4 samples"),
        ({"optimizer": "optax:nope"}, "optax has no 'nope'"),
        ({"optimizer": "tests.lab.wrong:instance"}, "failed with"),
        ({"schedule": "tests.lab.wrong:falls_below"}, "give a number of at least 0"),
    ):
        with pytest.raises(DropkitError, match=text):
            train(Net, **asked, **words)
    with pytest.raises(DropkitTypeError, match=r"makes a Rngs"):
        train(nnx.Rngs, **asked)
    with pytest.raises(DropkitValueError, match=r"'concrete' learns .* torch alone, and .* with flax.nnx: take gap"):
        train(Net, **asked, strategy="concrete")
    assert not (tmp_path / "out").exists()


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as left:
        cli.main([str(word) for word in words])
    return int(left.value.code or 0)


@pytest.mark.slow
def test_the_example_is_trained_compared_tuned_killed_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    killed_and_resumed(("flax.nnx",), "own_nnx:Model", tmp_path, run)
