"""The engine over `keras.Model.fit`, by the recipe dense."""

import csv
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from safetensors.numpy import load_file  # noqa: E402

import dropkit  # noqa: E402
from dropkit.errors import (  # noqa: E402
    DataError,
    DropkitValueError,
    OutputError,
    UnknownNameError,
)
from dropkit.lab import Recipe, Run, compare, load_data, train  # noqa: E402
from dropkit.lab.engines.keras import schedules  # noqa: E402
from dropkit.lab.order import epoch_order, first_weights  # noqa: E402
from dropkit.lab.recipes import get  # noqa: E402
from dropkit.lab.recipes.dense import TINY  # noqa: E402
from dropkit.lab.recipes.recipe import LearnedRate  # noqa: E402
from tests.lab.runs import numbers, stop_after  # noqa: E402

# float32 sums in another order than NumPy's float64.
CLOSE = 2e-5


def tiny(out: Path, **choices: Any) -> Run:
    recipe = choices.pop("recipe", "dense")
    return train(recipe, **{"size": "tiny", "epochs": 3, "device": "cpu", "out": out, **choices})


@pytest.mark.parametrize(("after", "validation"), [(1, 0.0), (2, 0.25)])
def test_resumed_run_ends_bit_for_bit_the_same(tmp_path: Path, after: int, validation: float) -> None:
    choices = {"strategy": "step", "seed": 2**40 + 3, "validation": validation}
    whole = tiny(tmp_path / "whole", **choices)
    with pytest.raises(KeyboardInterrupt):
        tiny(tmp_path / "cut", **choices, on_epoch=stop_after(after))
    cut = tiny(tmp_path / "cut", **choices, resume=True)
    assert numbers(cut) == numbers(whole)
    for name in ("checkpoint.safetensors", "metrics.csv"):
        one, other = (tmp_path / folder / name for folder in ("cut", "whole"))
        if name == "metrics.csv":
            assert len(one.read_text().splitlines()) == len(other.read_text().splitlines()) == 4
        else:
            assert one.read_bytes() == other.read_bytes()


def one_step() -> Recipe:
    """The recipe with one batch an epoch, so that an epoch's training loss is that of known weights and masks."""
    settings = replace(TINY, train_samples=32, epochs=1)
    return replace(get("dense"), settings=lambda size, data: settings)


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_first_step_is_that_of_known_weights_order_and_masks(tmp_path: Path) -> None:
    run = tiny(tmp_path, recipe=one_step(), epochs=1, strategy="fixed:0.5:0.25", seed=5)
    data = load_data("digits")
    order = epoch_order(32, 5, 1)
    x, y = data.train_x[:32][order].reshape(32, -1).astype(float), data.train_y[:32][order]
    for number, p in ((1, 0.5), (2, 0.25)):
        inputs = x.shape[1]
        x = np.maximum(x @ first_weights((inputs, 64), 5, f"hidden{number}/kernel", (2 / inputs) ** 0.5), 0)
        x = x * dropkit.keep((32, 64), p, dropkit.Key(5, f"dropout{number}", 0)) / (1 - p)
    found = softmax(x @ first_weights((64, 10), 5, "output/kernel", (2 / 64) ** 0.5))
    assert run.rows[0]["train_loss"] == pytest.approx(-np.log(found[np.arange(32), y]).mean(), rel=CLOSE)
    assert run.rows[0]["train_accuracy"] == pytest.approx((found.argmax(1) == y).mean(), abs=1e-6)


def test_size_tutorial_is_the_tutorials_network() -> None:
    """100 inputs, which digits are with a frame of one pixel; Keras' own first weights and its own Adam."""
    settings = get("dense").settings("tutorial", "digits")
    model = get("dense").build(settings, (8, 8), 10, 3)
    dense = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    assert [layer.kernel.shape for layer in dense] == [(100, 64), (64, 64), (64, 10)]
    assert [layer.activation.__name__ for layer in dense] == ["relu", "relu", "softmax"]
    names = [type(layer).__name__ for layer in model.layers][-5:]
    assert names == ["Dense", "Dropout", "Dense", "Dropout", "Dense"]
    for layer in dense:
        kernel, fans = keras.ops.convert_to_numpy(layer.kernel), sum(layer.kernel.shape)
        bound = (6 / fans) ** 0.5
        theirs = keras.ops.convert_to_numpy(keras.initializers.GlorotUniform(0)(layer.kernel.shape))
        assert abs(kernel).max() <= bound and abs(kernel).max() == pytest.approx(abs(theirs).max(), rel=0.02)
        assert kernel.std() == pytest.approx(theirs.std(), rel=0.1)
        assert not keras.ops.convert_to_numpy(layer.bias).any()
    x = np.arange(64, dtype=np.float32).reshape(1, 8, 8)
    framed = keras.Model(model.inputs[0], model.get_layer("flatten").output)(x)
    assert np.array_equal(keras.ops.convert_to_numpy(framed)[0].reshape(10, 10), np.pad(x[0], 1))
    assert get("dense").build(get("dense").settings("tutorial", "mnist"), (28, 28), 10, 3).count_params() == 55050


def test_size_tutorial_trains(tmp_path: Path) -> None:
    run = train("dense", size="tutorial", epochs=1, device="cpu", out=tmp_path)
    assert run.config["data"] == "digits" and run.config["settings"]["frame"] == 1
    assert run.rows[0]["train_loss"] < 2.5


def test_scores_are_those_of_the_weights_that_were_written(tmp_path: Path) -> None:
    run = tiny(tmp_path, epochs=2, validation=0.25)
    last = tiny(tmp_path, epochs=3, validation=0.25, resume=True).rows[run.best_epoch - 1]
    weights = load_file(tmp_path / "checkpoint.safetensors")
    assert sorted(weights) == [
        f"{layer}/{part}" for layer in ("hidden1", "hidden2", "output") for part in ("bias", "kernel")
    ]
    best = tiny(tmp_path, epochs=3, validation=0.25, resume=True)
    last = best.rows[best.best_epoch - 1]
    data = load_data("digits")
    x, y = data.test_x[:128].reshape(128, -1).astype(float), data.test_y[:128]
    for layer in ("hidden1", "hidden2"):
        x = np.maximum(x @ weights[f"{layer}/kernel"] + weights[f"{layer}/bias"], 0)
    found = softmax(x @ weights["output/kernel"] + weights["output/bias"])
    assert last["test_loss"] == pytest.approx(-np.log(found[np.arange(128), y]).mean(), rel=CLOSE)
    assert last["test_accuracy"] == pytest.approx((found.argmax(1) == y).mean(), abs=1e-6)


def test_rows_are_those_of_every_recipe(tmp_path: Path) -> None:
    run = tiny(tmp_path / "dense", strategy="step", validation=0.25)
    mlp = train("mlp", size="tiny", epochs=1, device="cpu", validation=0.25, out=tmp_path / "mlp")
    assert list(run.rows[0]) == list(mlp.rows[0])
    with (tmp_path / "dense" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["rate_dropout1"]) for row in rows] == pytest.approx([0.5, 0.4, 0.3])
    assert [int(row["step"]) for row in rows] == [6, 12, 18]
    assert run.rows[2]["train_loss"] < run.rows[0]["train_loss"]


def test_rates_reach_the_layers(tmp_path: Path) -> None:
    none, whole = tiny(tmp_path / "none", strategy="none"), tiny(tmp_path / "whole", strategy="fixed:1")
    assert none.rows[0]["train_loss"] != whole.rows[0]["train_loss"]
    # Everything dropped leaves the output's biases alone to learn.
    before = load_file(tmp_path / "whole" / "checkpoint.safetensors")["hidden1/kernel"]
    assert np.array_equal(before, first_weights((64, 64), 0, "hidden1/kernel", (2 / 64) ** 0.5))


def test_seeds_pair_strategies_and_nothing_else_decides(tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    before = random.getstate()
    one = tiny(tmp_path / "one")
    assert random.getstate() == before
    keras.utils.set_random_seed(2)
    assert numbers(tiny(tmp_path / "two")) == numbers(one)
    assert numbers(tiny(tmp_path / "three", seed=1)) != numbers(one)


def test_comparison_writes_what_every_comparison_does(tmp_path: Path) -> None:
    found = compare("dense", size="tiny", seeds=2, epochs=1, device="cpu", out=tmp_path)
    assert [line.strategy for line in found.lines] == ["none", "fixed", "step"]
    assert {path.name for path in tmp_path.iterdir()} >= {"table.md", "report.html", "result.json", "config.json"}
    config = found.runs["fixed"][1].config
    assert (config["engine"], config["backend"], config["recipe"]) == ("keras", keras.config.backend(), "dense")
    with pytest.raises(OutputError, match=r"already holds a run"):
        compare("dense", size="tiny", seeds=2, epochs=1, device="cpu", out=tmp_path)


def test_damaged_or_foreign_state_is_named(tmp_path: Path) -> None:
    tiny(tmp_path / "one", epochs=1)
    train("mlp", size="tiny", epochs=1, device="cpu", out=tmp_path / "mlp")
    state = tmp_path / "one" / "state.safetensors"
    for content in (state.read_bytes()[:100], (tmp_path / "mlp" / "state.safetensors").read_bytes()):
        state.write_bytes(content)
        with pytest.raises(DataError, match=r"cannot resume from .*state.safetensors: .*delete its folder"):
            tiny(tmp_path / "one", epochs=2, resume=True)


def test_wrong_choices_are_named_before_anything_is_written(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(UnknownNameError, match=r"unknown strategy 'fixd'; .*Known: fixed, none, step"):
        tiny(out, strategy="fixd")
    with pytest.raises(DropkitValueError, match=r"'concrete' learns .* torch alone, and .* with Keras: take step"):
        tiny(out, strategy="concrete")
    with pytest.raises(DropkitValueError, match=r"trains with Keras in 32-true only, got precision 'bf16-mixed'"):
        tiny(out, precision="bf16-mixed")
    with pytest.raises(DropkitValueError, match=r"recipe 'dense' has no frozen part, so --weights w.h5 has no use"):
        tiny(out, weights="w.h5")
    assert not out.exists()
    with pytest.raises(DropkitValueError, match=r"rate of drop adapts, .* take schedules alone: use none, fixed, step"):
        schedules({"drop": LearnedRate(method="concrete", start=0.5)})
    decayed = replace(get("dense"), settings=lambda size, data: replace(TINY, weight_decay=0.1))
    with pytest.raises(DropkitValueError, match=r"recipes on Keras take no weight_decay, got 0.1"):
        tiny(out, recipe=decayed)
    with pytest.raises(UnknownNameError, match=r"unknown engine 'tf'"):
        replace(get("dense"), engine="tf")
