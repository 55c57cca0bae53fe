import csv
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import dropkit
from dropkit.errors import DataError, DropkitTypeError, DropkitValueError, OutputError, UnknownNameError
from dropkit.lab import Run, load_data, train
from dropkit.lab.order import epoch_order, first_weights, held_out
from dropkit.lab.recipes import get
from dropkit.torch import plain_state_dict
from tests.lab.runs import numbers, stop_after


def tiny(out: Path, **choices) -> Run:
    return train("mlp", **{"size": "tiny", "epochs": 4, "device": "cpu", "out": out, **choices})


def same_end(one: Path, other: Path) -> bool:
    return (one / "checkpoint.safetensors").read_bytes() == (other / "checkpoint.safetensors").read_bytes()


@pytest.mark.parametrize("validation", [0.0, 0.2])
@pytest.mark.parametrize("after", [1, 3, 4])
def test_resumed_run_ends_bit_for_bit_the_same(tmp_path: Path, after: int, validation: float) -> None:
    choices = {"strategy": "step", "seed": 3, "validation": validation}
    whole = tiny(tmp_path / "whole", **choices)
    with pytest.raises(KeyboardInterrupt):
        tiny(tmp_path / "cut", **choices, on_epoch=stop_after(after))
    assert len((tmp_path / "cut" / "metrics.csv").read_text().splitlines()) == 1 + after
    assert not (tmp_path / "cut" / "result.json").exists()
    cut = tiny(tmp_path / "cut", **choices, resume=True)
    assert numbers(cut) == numbers(whole)
    assert cut.best_epoch == whole.best_epoch
    assert same_end(tmp_path / "cut", tmp_path / "whole")


KILL = """
import os, signal, sys
from dropkit.lab import train
from dropkit.lab.engines import loop
def kill(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "step":
    once = loop.Loop._set_rates
    loop.Loop._set_rates = lambda self, step: kill() if step == 40 else once(self, step)
else:
    write = loop.save_state
    loop.save_state = lambda path, *rest: kill() if rest[-1].step == 48 else write(path, *rest)
train("mlp", size="tiny", epochs=4, device="cpu", out=sys.argv[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize("where", ["step", "between checkpoint and state"])
def test_killed_run_ends_bit_for_bit_the_same(tmp_path: Path, where: str) -> None:
    done = subprocess.run([sys.executable, "-c", KILL, str(tmp_path / "cut"), where], capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    # Sixteen steps an epoch: two epochs are whole, the third was under way or not yet recorded.
    assert len((tmp_path / "cut" / "metrics.csv").read_text().splitlines()) == 1 + 2
    cut, whole = tiny(tmp_path / "cut", resume=True), tiny(tmp_path / "whole")
    assert numbers(cut) == numbers(whole)
    assert same_end(tmp_path / "cut", tmp_path / "whole")


def test_more_epochs_equal_a_run_of_that_length(tmp_path: Path) -> None:
    tiny(tmp_path / "grown", epochs=2, strategy="step")
    grown = tiny(tmp_path / "grown", epochs=4, strategy="step", resume=True)
    assert numbers(grown) == numbers(tiny(tmp_path / "whole", strategy="step"))
    with pytest.raises(OutputError, match=r"epochs 4, this one has 3; it may grow on --resume, not shrink"):
        tiny(tmp_path / "grown", epochs=3, strategy="step", resume=True)


def test_resuming_a_finished_run_trains_nothing(tmp_path: Path) -> None:
    rows = []
    first = tiny(tmp_path)
    again = tiny(tmp_path, resume=True, on_epoch=lambda plan, row: rows.append(row))
    assert rows == [] and again.rows == first.rows


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "seed 0, this one has 1"),
        ({"strategy": "none"}, "strategy 'fixed', this one has 'none'"),
        ({"validation": 0.1}, "validation 0.0, this one has 0.1"),
        ({"size": "small"}, "size 'tiny', this one has 'small'"),
    ],
)
def test_resume_with_other_settings_names_the_one_that_differs(
    tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    tiny(tmp_path, epochs=1)
    with pytest.raises(OutputError, match=named):
        tiny(tmp_path, **change, resume=True)


def test_taken_folder_is_left_alone(tmp_path: Path) -> None:
    tiny(tmp_path / "run", epochs=1)
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(OutputError, match="already holds a run and nothing was changed; continue it with --resume or"):
        tiny(tmp_path / "run", epochs=1)
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not touch")
    with pytest.raises(OutputError, match=r"holds other files \(thesis.txt, ...\); choose an empty or new folder"):
        tiny(tmp_path / "mine")


def test_unwritable_folder_is_found_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    rows = []
    with pytest.raises(OutputError, match=r"cannot write to .*Not a directory; choose another folder with --out"):
        tiny(tmp_path / "file" / "run", on_epoch=lambda plan, row: rows.append(row))
    assert rows == []


def test_damaged_state_is_named(tmp_path: Path) -> None:
    tiny(tmp_path, epochs=1)
    state = tmp_path / "state.safetensors"
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(DataError, match=r"cannot resume from .*state.safetensors: .*delete its folder"):
        tiny(tmp_path, epochs=2, resume=True)


def test_nothing_depends_on_or_moves_torchs_generator(tmp_path: Path) -> None:
    torch.manual_seed(1)
    one, after = tiny(tmp_path / "one", epochs=1), torch.random.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(after, torch.random.get_rng_state())
    torch.manual_seed(2)
    assert numbers(tiny(tmp_path / "two", epochs=1)) == numbers(one)


def test_a_seed_gives_every_strategy_the_same_start(tmp_path: Path) -> None:
    data, settings = load_data("digits"), get("mlp").settings("tiny", "digits")
    one, two, other = (get("mlp").build(settings, data.shape, 10, seed).state_dict() for seed in (5, 5, 6))
    for name, tensor in one.items():
        assert torch.equal(tensor, two[name])
    expected = np.float32(settings.weight_std) * dropkit.normal((256, 64), dropkit.Key(5, "init/hidden1.weight", 0))
    assert np.array_equal(one["hidden1.weight"].numpy(), expected)
    assert not torch.equal(one["hidden1.weight"], other["hidden1.weight"])
    assert one["hidden2.bias"].abs().max() == 0
    assert one["hidden2.weight"].std().item() == pytest.approx(settings.weight_std, rel=0.02)
    # The same order under every strategy too: without dropout both train the same.
    runs = [tiny(tmp_path / name.replace(":", "-"), strategy=name) for name in ("none", "fixed:0")]
    assert [row["test_loss"] for row in runs[0].rows] == [row["test_loss"] for row in runs[1].rows]


def test_order_is_a_permutation_that_changes_with_seed_and_epoch() -> None:
    orders = [epoch_order(1000, seed, epoch) for seed in (0, 1) for epoch in (1, 2)]
    assert all(np.array_equal(np.sort(order), np.arange(1000)) for order in orders)
    assert len({order.tobytes() for order in orders}) == 4
    assert np.array_equal(epoch_order(1000, 0, 1), orders[0])
    assert first_weights((3, 2), 0, "w", 2.0).dtype == np.float32


def test_held_out_part_is_fixed_and_disjoint() -> None:
    kept, held = held_out(500, 0.1)
    assert (len(kept), len(held)) == (450, 50)
    assert not set(kept) & set(held)
    assert held_out(500, 0.0)[1].size == 0


def test_lab_order_needs_no_framework() -> None:
    code = "import sys, dropkit.lab.order; sys.exit(bool({'torch', 'sklearn', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_rates_follow_the_strategy(tmp_path: Path) -> None:
    step = tiny(tmp_path / "step", strategy="step", epochs=6)
    assert [row["rate_dropout1"] for row in step.rows] == [0.5, 0.4, 0.3, 0.2, 0.1, 0.1]
    assert [row["rate_dropout2"] for row in step.rows] == [0.5, 0.4, 0.3, 0.2, 0.1, 0.1]
    fixed = tiny(tmp_path / "fixed", strategy="fixed", epochs=1)
    assert (fixed.rows[0]["rate_dropout1"], fixed.rows[0]["rate_dropout2"]) == (0.2, 0.5)
    both = tiny(tmp_path / "both", strategy="fixed:.3", epochs=1)
    assert (both.rows[0]["rate_dropout1"], both.rows[0]["rate_dropout2"]) == (0.3, 0.3)
    assert both.config["strategy"] == "fixed:0.3"


def test_rates_reach_the_layers(tmp_path: Path) -> None:
    # At rate 1 nothing passes the last dropout, so no weight before it ever moves.
    tiny(tmp_path, strategy="fixed:1", epochs=1)
    trained = load_file(tmp_path / "checkpoint.safetensors")
    first = get("mlp").build(get("mlp").settings("tiny", "digits"), (8, 8), 10, 0).state_dict()
    assert torch.equal(trained["hidden2.weight"], first["hidden2.weight"])
    assert not torch.equal(trained["output.bias"], first["output.bias"])


def test_metrics_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    run = tiny(tmp_path)
    model = get("mlp").build(get("mlp").settings("tiny", "digits"), (8, 8), 10, 0).eval()
    model.load_state_dict(plain_state_dict(load_file(tmp_path / "checkpoint.safetensors")))
    data = load_data("digits")
    with torch.no_grad():
        logits = model(torch.from_numpy(data.test_x))
    labels = torch.from_numpy(data.test_y)
    assert run.rows[-1]["test_accuracy"] == pytest.approx((logits.argmax(1) == labels).float().mean().item())
    loss = torch.nn.functional.cross_entropy(logits, labels).item()
    assert run.rows[-1]["test_loss"] == pytest.approx(loss, rel=1e-5)
    written = list(csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines()))
    assert [float(row["train_loss"]) for row in written] == [row["train_loss"] for row in run.rows]
    assert {path.name for path in tmp_path.iterdir()} == {
        "checkpoint.safetensors",
        "config.json",
        "metrics.csv",
        "report.html",
        "result.json",
        "scores.safetensors",
        "state.safetensors",
        "table.csv",
    }


def test_checkpoint_is_chosen_by_validation_loss_where_there_is_one(tmp_path: Path) -> None:
    # A rate of 0.9 swings enough for the lowest loss not to come last.
    run = train("mlp", strategy="fixed:0.9", epochs=12, validation=0.3, device="cpu", out=tmp_path)
    losses = [row["validation_loss"] for row in run.rows]
    assert run.best_epoch == 1 + losses.index(min(losses))
    without = tiny(tmp_path / "without", epochs=2)
    assert without.best_epoch == 2 and "validation_loss" not in without.rows[0]


def test_digits_are_learned(tmp_path: Path) -> None:
    run = train("mlp", strategy="none", epochs=12, device="cpu", out=tmp_path)
    assert run.rows[-1]["test_accuracy"] > 0.93


def test_precision_changes_the_arithmetic(tmp_path: Path) -> None:
    runs = {name: tiny(tmp_path / name, epochs=1, precision=name) for name in ("32-true", "64-true", "bf16-mixed")}
    losses = [run.rows[0]["test_loss"] for run in runs.values()]
    assert len(set(losses)) == 3
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize(
    ("choices", "error", "message"),
    [
        ({"strategy": "fixed:1.5"}, DropkitValueError, r"strategy 'fixed:1.5': p must lie in \[0, 1\], got 1.5"),
        ({"strategy": "fixed:nan"}, DropkitValueError, r"p must lie in \[0, 1\], got nan"),
        (
            {"strategy": "fixed:half"},
            DropkitTypeError,
            "a number must follow each colon, got 'half'; write for example",
        ),
        ({"strategy": "fixed:"}, DropkitTypeError, "a number must follow each colon, got ''"),
        ({"strategy": "fixed:.1:.2:.3"}, DropkitValueError, "takes one rate or 2, got 3"),
        ({"strategy": "none:0.5"}, DropkitValueError, "strategy 'none' takes no numbers"),
        ({"strategy": "fixd"}, UnknownNameError, "unknown strategy 'fixd'; did you mean 'fixed'"),
        ({"strategy": "step:0"}, DropkitValueError, "strategy 'step:0': the interval must be a whole"),
        ({"strategy": "step:2.5"}, DropkitValueError, "at least 1, got 2.5; write for example step:100"),
        ({"strategy": "step:nan"}, DropkitValueError, "at least 1, got nan"),
        ({"strategy": "step:inf"}, DropkitValueError, "at least 1, got inf"),
        ({"strategy": "step:5:5"}, DropkitValueError, "'step' takes one number, its interval in iterations"),
        ({"strategy": "weight-decay:2"}, DropkitValueError, r"factor of weight decay must lie in \[0, 1\], got 2.0"),
        ({"strategy": "weight-decay:-1"}, DropkitValueError, "got -1.0; write for example weight-decay:1e-4"),
        ({"strategy": 0.5}, DropkitTypeError, "a strategy is a name such as 'fixed'"),
        ({"size": "smal"}, UnknownNameError, "unknown size 'smal'; did you mean 'small'"),
        ({"epochs": 0}, DropkitValueError, "epochs must be at least 1, got 0"),
        ({"epochs": 2.5}, DropkitTypeError, "epochs must be a whole number, got 2.5"),
        ({"validation": 1.0}, DropkitValueError, r"validation must lie in \[0, 1\), got 1.0"),
        ({"validation": float("nan")}, DropkitValueError, r"validation must lie in \[0, 1\), got nan"),
        ({"seed": -1}, DropkitValueError, r"seed must lie in \[0, 2\*\*64\), got -1"),
        ({"device": "gpu"}, UnknownNameError, "unknown device 'gpu'"),
        ({"precision": "16"}, UnknownNameError, "unknown precision '16'"),
    ],
)
def test_wrong_choices_are_refused_before_anything_is_written(
    tmp_path: Path, choices: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        tiny(tmp_path / "run", **choices)
    assert not (tmp_path / "run").exists()


def test_a_run_that_diverges_is_recorded_in_strict_json(tmp_path: Path) -> None:
    recipe = get("mlp")
    wild = replace(recipe, settings=lambda size, data: replace(recipe.settings(size, data), learning_rate=1e20))
    run = train(wild, strategy="none", size="tiny", epochs=2, device="cpu", out=tmp_path)
    assert math.isnan(run.rows[-1]["test_loss"])
    result = json.loads((tmp_path / "result.json").read_text(), parse_constant=pytest.fail)
    assert result["last"]["test_loss"] is None
    assert "no dropout diverged (loss not finite) in 1 of 1 seed." in (tmp_path / "report.html").read_text()
