"""The recipe numpy-layer: a layer by hand whose mask comes before its sigmoid, trained by iterations."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dropkit
from dropkit.errors import DropkitValueError
from dropkit.lab import load_data, train
from dropkit.lab.order import drawn_with_replacement, first_weights
from dropkit.lab.plan import Choices
from dropkit.lab.recipes import get
from tests.lab.runs import numbers, stop_after

RECIPE = get("numpy-layer")


def few(epochs: int = 3, **changed: Any) -> Any:
    """At size tutorial, with fewer iterations."""
    tutorial = replace(RECIPE.settings("tutorial", "digits"), epochs=epochs, **changed)
    return replace(RECIPE, settings=lambda size, data: tutorial)


def test_the_first_iteration_is_that_of_known_weights_batch_and_mask(tmp_path: Path) -> None:
    run = train(few(1), size="tutorial", strategy="fixed:0.25", seed=5, out=tmp_path)
    data = load_data("digits")
    index = drawn_with_replacement(len(data.train_x), 100, 5, 0)
    x, y = data.train_x[index].reshape(100, -1).astype(float), data.train_y[index]
    z = x @ first_weights((100, 64), 5, "hidden1.weight", 1 / 8).T
    z = z * dropkit.keep((100, 100), 0.25, dropkit.Key(5, "dropout1", 0)) / 0.75
    logits = 1 / (1 + np.exp(-z)) @ first_weights((10, 100), 5, "output.weight", 0.1).T
    log_probabilities = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert run.rows[0]["train_loss"] == pytest.approx(-log_probabilities[np.arange(100), y].mean(), rel=2e-5)
    assert run.rows[0]["step"] == 1


def test_each_iteration_has_the_four_lists_of_whole_sets(tmp_path: Path) -> None:
    run = train(few(), size="tutorial", out=tmp_path)
    assert [row["step"] for row in run.rows] == [1, 2, 3]
    for _, figure in RECIPE.figures.printed:
        assert len({row[figure] for row in run.rows}) > 1
    choices = Choices.make("numpy-layer", size="tutorial")
    assert len(choices.parts()["train_eval"][2]) == len(choices.data.train_x) == 1297


def test_the_rate_falls_each_interval_of_iterations_to_its_floor(tmp_path: Path) -> None:
    """As the loop has it: after every so many iterations 0.1 less, and 0.1 at least."""
    run = train(few(13, step_epochs=2), size="tutorial", strategy="step", out=tmp_path)
    expected, ratio = [], 0.5
    for iteration in range(13):
        expected.append(ratio)
        if (iteration + 1) % 2 == 0:
            ratio = max(0.1, ratio - 0.1)
    assert [row["rate_dropout1"] for row in run.rows] == pytest.approx(expected)


def test_batches_are_drawn_with_replacement() -> None:
    drawn = np.concatenate([drawn_with_replacement(50, 100, 3, step) for step in range(100)])
    counts = np.bincount(drawn, minlength=50)
    assert counts.sum() == 10_000 and counts.min() > 0 and drawn.max() == 49
    assert ((counts - 200) ** 2 / 200).sum() < 49 + 4 * np.sqrt(2 * 49)  # chi-squared, four standard deviations
    assert not np.array_equal(drawn_with_replacement(50, 100, 3, 0), drawn_with_replacement(50, 100, 4, 0))


@pytest.mark.parametrize("after", [1, 2])
def test_resumed_run_ends_bit_for_bit_the_same(after: int, tmp_path: Path) -> None:
    choices: dict[str, Any] = {"size": "tiny", "strategy": "decay", "seed": 7}
    whole = train("numpy-layer", **choices, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train("numpy-layer", **choices, out=tmp_path / "cut", on_epoch=stop_after(after))
    assert numbers(train("numpy-layer", **choices, out=tmp_path / "cut", resume=True)) == numbers(whole)
    assert whole.rows[-1]["step"] == 60


def test_it_learns(tmp_path: Path) -> None:
    run = train("numpy-layer", size="small", epochs=20, out=tmp_path)
    assert run.rows[-1]["test_accuracy"] > 0.9


def test_iterations_are_for_numpy() -> None:
    mlp = get("mlp")
    other = replace(mlp, settings=lambda size, data: replace(mlp.settings(size, data), iterations=5))
    with pytest.raises(
        DropkitValueError, match=r"'mlp' trains with torch, once through the data an epoch: iterations 5"
    ):
        Choices.make(other, size="tiny")
