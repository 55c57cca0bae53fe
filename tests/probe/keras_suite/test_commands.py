"""`dropkit explain` and `dropkit doctor` on Keras models: recipes, `.keras` files, factories."""

import json
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import dropkit.keras
from dropkit import cli

FACTORIES = """
import keras

def sequential():
    return keras.Sequential([keras.layers.Dense(8), keras.layers.Dropout(0.5), keras.layers.Dense(2)])

def two():
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    x = keras.layers.Dropout(0.5)(keras.layers.Concatenate()([a, b]))
    return keras.Model([a, b], keras.layers.Dense(2)(x))
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_keras_models.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "my_keras_models", raising=False)
    return tmp_path


def status(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    return int(caught.value.code or 0)


def read(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert status("explain", *arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def small() -> Any:
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, activation="relu", name="hidden"),
            dropkit.keras.Dropout(0.5, seed=1, name="drop"),
            keras.layers.Dense(2, name="head"),
        ]
    )


def test_the_transfer_recipe_answers_the_question(capsys: pytest.CaptureFixture[str]) -> None:
    found = read(capsys, "transfer", "--size", "tiny", "--batch", "2")
    (site,) = found["sites"]
    assert (site["p"], site["zeroes"], site["changes"][-1:]) == (0.2, ["hidden2"], ["output"])
    assert site["gradients"] == ["hidden1", "hidden2", "output"]
    assert found["sentences"][1:5] == [
        "dropout changes the output of a later layer: output.",
        "dropout changes the gradient of every trainable layer: hidden1, hidden2 and output.",
        "Frozen, and so without gradient: inception_v3.",
        "Not affected by any dropout: inception_v3 and flatten.",
    ]


def test_dense_recipe_and_its_strategies(capsys: pytest.CaptureFixture[str]) -> None:
    assert [site["p"] for site in read(capsys, "dense", "--size", "tiny")["sites"]] == [0.5, 0.5]
    found = read(capsys, "dense", "--size", "tiny", "--strategy", "fixed:0.1:0.2")
    assert [site["p"] for site in found["sites"]] == pytest.approx([0.1, 0.2])


def test_a_file_is_read_with_its_own_inputs(capsys: pytest.CaptureFixture[str]) -> None:
    small().save("net.keras")
    found = read(capsys, "net.keras")
    assert (found["framework"], found["inputs"]) == ("keras", [[8, 4]])
    assert [(site["name"], site["zeroes"]) for site in found["sites"]] == [("drop", ["hidden"])]
    np.save("x.npy", np.ones((30, 4), np.float32))
    assert read(capsys, "net.keras", "--data", "x.npy", "--batch", "5")["inputs"] == [[5, 4]]
    assert status("doctor", "net.keras") == 0


def test_files_that_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("torn.keras").write_bytes(b"PK torn")
    assert status("explain", "torn.keras") == 2
    assert "cannot read torn.keras" in capsys.readouterr().err
    code = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x), keras.layers.Dropout(0.5)])
    code.save("code.keras")
    assert status("explain", "code.keras") == 2
    message = capsys.readouterr().err
    assert "cannot read code.keras" in message and "a model with code of its own is given by a function" in message


def test_factories(capsys: pytest.CaptureFixture[str]) -> None:
    assert read(capsys, "my_keras_models:sequential", "--input", "4", "--batch", "3")["inputs"] == [[3, 4]]
    assert read(capsys, "my_keras_models:two")["inputs"] == [[8, 4], [8, 3]]
    np.savez("both.npz", b=np.ones((6, 3), np.float32), a=np.ones((6, 4), np.float32))
    assert read(capsys, "my_keras_models:two", "--data", "both.npz")["inputs"] == [[6, 4], [6, 3]]
