"""The recipe numpy-mlp and its engine: layers with their own backward pass, no framework."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import dropkit
from dropkit.errors import DataError, DropkitValueError, OutputError, UnknownNameError
from dropkit.lab import Recipe, Run, compare, load_data, train, tune
from dropkit.lab.engines.moves import not_learned
from dropkit.lab.order import epoch_order, first_weights
from dropkit.lab.recipes import get
from dropkit.lab.recipes.mlp import TINY
from dropkit.lab.recipes.recipe import LearnedRate
from dropkit.numpy import Sequential, SoftmaxCrossEntropy
from tests.lab.runs import numbers, stop_after

RECIPE = get("numpy-mlp")
PARTS = [f"{layer}.{part}" for layer in ("hidden1", "hidden2", "output") for part in ("bias", "weight")]


def tiny(out: Path, **choices: Any) -> Run:
    recipe = choices.pop("recipe", RECIPE)
    return train(recipe, **{"size": "tiny", "device": "cpu", "out": out, **choices})


@pytest.mark.parametrize("strategy", ["decay", "gap"])
def test_resumed_run_ends_bit_for_bit_the_same(tmp_path: Path, strategy: str) -> None:
    choices = {"strategy": strategy, "seed": 2**63 + 3, "validation": 0.2}
    whole = tiny(tmp_path / "whole", **choices)
    for after in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            tiny(tmp_path / "cut", **choices, on_epoch=stop_after(after), resume=after > 1)
    assert numbers(tiny(tmp_path / "cut", **choices, resume=True)) == numbers(whole)
    one, other = ((tmp_path / name / "checkpoint.safetensors").read_bytes() for name in ("cut", "whole"))
    assert one == other
    assert sorted(load_file(tmp_path / "cut" / "checkpoint.safetensors")) == PARTS


def test_it_learns(tmp_path: Path) -> None:
    run = tiny(tmp_path)
    assert run.rows[-1]["test_accuracy"] > 0.8
    assert run.rows[-1]["train_loss"] < run.rows[0]["train_loss"]


@pytest.mark.parametrize("strategy", ["none", "step"])
def test_losses_are_those_of_torch(tmp_path: Path, strategy: str) -> None:
    """Same weights, order, rates and masks: what differs is in which order float32 sums add."""
    choices = {"strategy": strategy, "seed": 3, "validation": 0.2}
    by_hand = tiny(tmp_path / "numpy", **choices)
    torchs = tiny(tmp_path / "torch", **choices, recipe="mlp")
    assert list(by_hand.rows[0]) == list(torchs.rows[0])
    for mine, row in zip(by_hand.rows, torchs.rows, strict=True):
        for name in row.keys() - {"seconds"}:
            assert mine[name] == pytest.approx(row[name], abs=2e-4), name
    other = tiny(tmp_path / "other", **{**choices, "seed": 4})
    assert abs(other.rows[-1]["train_loss"] - by_hand.rows[-1]["train_loss"]) > 1e-3


def one_step() -> Recipe:
    """The recipe with one batch an epoch, so that an epoch's training loss is that of known weights and masks."""
    settings = replace(TINY, train_samples=32, batch_size=32)
    return replace(RECIPE, settings=lambda size, data: settings)


def test_the_first_step_is_that_of_known_weights_order_and_masks(tmp_path: Path) -> None:
    run = tiny(tmp_path, recipe=one_step(), epochs=1, strategy="fixed:0.5:0.25", seed=5)
    data = load_data("digits")
    order = epoch_order(32, 5, 1)
    x, y = data.train_x[:32][order].reshape(32, -1).astype(float), data.train_y[:32][order]
    for number, p in ((1, 0.5), (2, 0.25)):
        weight = first_weights((256, x.shape[1]), 5, f"hidden{number}.weight", TINY.weight_std or 0)
        x = np.maximum(x @ weight.T, 0) * dropkit.keep((32, 256), p, dropkit.Key(5, f"dropout{number}", 0)) / (1 - p)
    logits = x @ first_weights((10, 256), 5, "output.weight", TINY.weight_std or 0).T
    log_probabilities = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert run.rows[0]["train_loss"] == pytest.approx(-log_probabilities[np.arange(32), y].mean(), rel=2e-5)
    assert run.rows[0]["train_accuracy"] == (logits.argmax(1) == y).mean()


def test_gradients_of_the_network_are_those_of_finite_differences() -> None:
    """Of every weight and bias, with dropout on: the backward pass uses the forward's masks."""
    layers = RECIPE.build(replace(TINY, hidden=(6, 5)), (2, 3), 4, 1)
    generator = np.random.Generator(np.random.Philox(2))
    for layer in layers.values():
        layer.weight = generator.normal(size=layer.weight.shape)
        layer.bias = generator.normal(size=layer.bias.shape)
        if layer.drop is not None:
            layer.drop.p = 0.4
    net, loss = Sequential(*layers.values()), SoftmaxCrossEntropy()
    x, labels = generator.normal(size=(7, 6)), np.array([0, 1, 2, 3, 0, 1, 2])

    def value() -> float:
        for layer in layers.values():
            if layer.drop is not None:
                layer.drop.step = 3  # the same masks every time
        return loss.forward(net.forward(x, training=True), labels)

    value()
    net.backward(loss.backward())
    for layer in layers.values():
        for array, gradient in ((layer.weight, layer.weight_grad), (layer.bias, layer.bias_grad)):
            for index in np.ndindex(array.shape):
                kept, ends = array[index], []
                for shift in (1e-6, -1e-6):
                    array[index] = kept + shift
                    ends.append(value())
                array[index] = kept
                assert gradient[index] == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-7)


def test_decay_halves_what_is_left_where_step_takes_its_next_step(tmp_path: Path) -> None:
    run = tiny(tmp_path, strategy="decay", epochs=4)
    for row in run.rows:  # an epoch of 16 steps, of which the last one before the row's was taken at this rate
        assert row["rate_dropout1"] == pytest.approx(0.1 + 0.4 * 2 ** (-(row["step"] - 1) / 16))
        assert row["rate_dropout1"] == row["rate_dropout2"]


def test_rates_reach_the_layers(tmp_path: Path) -> None:
    tiny(tmp_path / "whole", strategy="fixed:1", epochs=1)
    # Everything dropped leaves the output's biases alone to learn.
    trained = load_file(tmp_path / "whole" / "checkpoint.safetensors")
    assert np.array_equal(trained["hidden1.weight"], first_weights((256, 64), 0, "hidden1.weight", 0.1))
    assert trained["output.bias"].any()
    gap = tiny(tmp_path / "gap", strategy="gap", validation=0.2)
    assert len({row["rate_dropout1"] for row in gap.rows}) > 1


def test_metrics_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    run = tiny(tmp_path, epochs=2)
    weights, data = load_file(tmp_path / "checkpoint.safetensors"), load_data("digits")
    x = data.test_x.reshape(500, -1).astype(float)
    for layer in ("hidden1", "hidden2"):
        x = np.maximum(x @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"], 0)
    logits = x @ weights["output.weight"].T + weights["output.bias"]
    assert run.rows[-1]["test_accuracy"] == pytest.approx((logits.argmax(1) == data.test_y).mean())


def test_comparison_and_search(tmp_path: Path) -> None:
    found = compare("numpy-mlp", size="tiny", seeds=2, epochs=1, device="cpu", out=tmp_path / "compare")
    assert [line.strategy for line in found.lines] == ["none", "fixed", "step", "decay"]
    assert {path.name for path in (tmp_path / "compare").iterdir()} >= {"table.md", "report.html", "result.json"}
    assert found.config["engine"] == "numpy"
    pytest.importorskip("optuna")
    best = tune("numpy-mlp", size="tiny", epochs=1, trials=1, seeds=1, device="cpu", out=tmp_path / "tune")
    assert list(best.rates) == ["dropout1", "dropout2"]


def test_damaged_or_foreign_state_is_named(tmp_path: Path) -> None:
    tiny(tmp_path / "one", epochs=1)
    train("mlp", size="tiny", epochs=1, device="cpu", out=tmp_path / "mlp")
    state = tmp_path / "one" / "state.safetensors"
    arrays = load_file(state) | {"hidden1.bias": np.zeros(3, np.float32)}
    save_file(arrays, tmp_path / "other.safetensors", {"dropkit": "{}"})
    for content, named in (
        (state.read_bytes()[:100], ""),
        ((tmp_path / "mlp" / "state.safetensors").read_bytes(), r"it holds other variables \(.*\)"),
        ((tmp_path / "other.safetensors").read_bytes(), r"its hidden1.bias is of shape \(3,\), not \(256,\)"),
    ):
        state.write_bytes(content)
        with pytest.raises(DataError, match=rf"cannot resume from .*state.safetensors: .*{named}.*delete its folder"):
            tiny(tmp_path / "one", epochs=2, resume=True)


def test_wrong_choices_are_named_before_anything_is_written(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(UnknownNameError, match=r"unknown strategy 'fixd'; .*Known: decay, fixed, gap, none, step"):
        tiny(out, strategy="fixd")
    with pytest.raises(DropkitValueError, match=r"'concrete' learns .* torch alone, and .* with NumPy: take gap"):
        tiny(out, strategy="concrete")
    with pytest.raises(DropkitValueError, match=r"trains with NumPy in 32-true only, got precision 'bf16-mixed'"):
        tiny(out, precision="bf16-mixed")
    with pytest.raises(DropkitValueError, match=r"trains with NumPy, on the CPU: leave --device cuda out"):
        tiny(out, device="cuda")
    with pytest.raises(DropkitValueError, match=r"strategy 'decay:0.3': the interval .* got 0.3; write .* decay:100"):
        tiny(out, strategy="decay:0.3")
    assert not out.exists()
    with pytest.raises(DropkitValueError, match=r"rate of drop is learned, .* models of torch alone: take a schedule"):
        not_learned({"drop": LearnedRate(method="concrete", start=0.5)})
    adam = replace(RECIPE, settings=lambda size, data: replace(TINY, optimizer="adam"))
    with pytest.raises(DropkitValueError, match=r"by plain gradient descent, got optimizer 'adam'"):
        tiny(out, recipe=adam)


def test_a_resume_under_another_engine_is_refused(tmp_path: Path) -> None:
    tiny(tmp_path, epochs=1)
    with pytest.raises(OutputError, match=r"recipe 'numpy-mlp', this one has 'mlp'"):
        tiny(tmp_path, epochs=1, recipe="mlp", resume=True)


def test_training_by_hand_loads_no_framework() -> None:
    code = """
import sys
import numpy as np
from dropkit.lab.by_hand import train_epoch
from dropkit.lab.recipes import get
from dropkit.numpy import Sequential
recipe = get("numpy-mlp")
layers = recipe.build(recipe.settings("tiny", "digits"), (8, 8), 10, 0)
x, y = np.ones((40, 64), np.float32), np.zeros(40, np.int64)
assert train_epoch(Sequential(*layers.values()), x, y, np.arange(40), batch_size=32, learning_rate=0.1)["loss"] > 0
print(*{"torch", "jax", "keras", "tensorflow"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
