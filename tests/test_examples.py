"""The examples run, and the network by hand equals the one on torch."""

import csv
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from dropkit.lab import train

EXAMPLES = Path(__file__).parents[1] / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_numpy_network_equals_the_torch_recipe(tmp_path: Path) -> None:
    """Same weights, order and masks: losses agree to float32 rounding, and would not with other masks."""
    by_hand = example("numpy_mlp").train("digits", None, 3, (0.2, 0.5), seed=1)
    train("mlp", strategy="fixed", seed=1, epochs=3, out=tmp_path / "run")
    (metrics,) = tmp_path.rglob("metrics.csv")
    with metrics.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(by_hand) == 3
    for row, mine in zip(rows, by_hand, strict=True):
        for name in ("train_loss", "train_accuracy", "test_accuracy"):
            assert float(row[name]) == pytest.approx(mine[name], abs=2e-4), name
    other = example("numpy_mlp").train("digits", None, 3, (0.5, 0.2), seed=1)
    assert abs(other[-1]["train_loss"] - by_hand[-1]["train_loss"]) > 1e-2
