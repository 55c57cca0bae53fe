"""Which layers does this dropout affect: mistakes around the question, in a process with Keras."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def found() -> Any:
    for package in ("keras", "torch"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(ROOT / "examples"))))
    env = os.environ | {"KERAS_BACKEND": "torch", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": path}
    command = [sys.executable, "-W", "ignore", "-m", "tests.tutorials.keras_runs"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_the_line_that_compiles_cannot_run(found: Any) -> None:
    told = found["compile"]
    assert told["as written"].startswith("NameError: name 'RMSprop' is not defined")
    assert told["lr"].startswith("ValueError: Argument(s) not recognized: {'lr': 0.0001}")
    assert told["learning_rate"] == ""


def test_every_step_and_every_sample_has_a_mask_of_its_own_and_a_fifth_is_a_mean(found: Any) -> None:
    masks = np.array(found["steps"])  # step, sample, unit
    rows = masks.reshape(-1, 1024)
    assert len(np.unique(rows, axis=0)) == len(rows) == 40
    counts = rows.sum(1)  # binomial: mean 204.8, standard deviation 12.8
    assert len(set(counts)) > 10
    assert abs(counts.mean() - 204.8) < 4 * 12.8 / 40**0.5 and 8 < counts.std() < 18


def test_the_dropout_changes_what_every_new_layer_learns_and_the_frozen_one_stays(found: Any) -> None:
    none, fifth = found["moved"]["0.0"], found["moved"]["0.2"]
    assert not np.any(fifth["frozen/kernel"])
    for layer in ("hidden1", "hidden2", "output"):
        assert np.any(fifth[f"{layer}/kernel"]) and fifth[f"{layer}/kernel"] != none[f"{layer}/kernel"]


def test_at_rate_1_the_bias_of_the_output_alone_learns(found: Any) -> None:
    assert [path for path, change in found["moved"]["1.0"].items() if np.any(change)] == ["output/bias"]
    assert "dropout makes the gradient of hidden1 and hidden2 zero: nothing is learned there." in found["rate 1"]


def test_the_four_shapes_drop_what_the_table_says(found: Any) -> None:
    masks = {name: np.array(mask) for name, mask in found["shapes"].items() if isinstance(mask, list)}
    same_at_every_step = {name: bool((mask == mask[:, :1]).all()) for name, mask in masks.items()}
    same_for_all = {name: bool((mask == mask[:1]).all()) for name, mask in masks.items()}
    whole = {"neurons", "for all", "two of three", "ours, two of three"}
    assert {name for name, same in same_at_every_step.items() if same} == whole
    assert {name for name, same in same_for_all.items() if same} == whole - {"neurons"}


def test_shapes_that_do_not_fit(found: Any) -> None:
    told = found["shapes"]
    assert "expanded size" in told["literal batch"] and "noise_shape" not in told["literal batch"]
    assert "noise_shape (2, 1, 4) does not broadcast to the input's shape (1, 3, 4)" in told["ours, literal batch"]


DRAWN = {
    "elements": "each of 5 x 8 units, per sample.",
    "neurons": "whole channels: each of 8, per sample.",
    "for_all": "whole channels: each of 8, shared by the batch.",
    "for_all_2d": "each of 8 units, shared by the batch.",
}


@pytest.mark.parametrize("framework", ["", "torch_"])
@pytest.mark.parametrize("name", DRAWN)
def test_explain_says_what_each_shape_drops(found: Any, name: str, framework: str) -> None:
    told = found["explained"][framework + name]
    assert told[0].endswith(DRAWN[name])
    assert any("single elements, not neurons" in sentence for sentence in told) == (name == "elements")
    whom = "the whole batch" if name.startswith("for_all") else "each sample"
    power = "2^40" if name == "elements" else "2^8 = 256"
    assert f"Every training step draws, for {whom}, one of {power} sub-networks." in told
