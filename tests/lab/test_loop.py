"""The loop over torch: a step is the same without Fabric, which is not imported; calibration needs no torch loop."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from dropkit.lab import train
from dropkit.lab.engines.torch import Trainer
from dropkit.lab.plan import Choices, Plan
from dropkit.lab.tasks.asked import resolved
from tests.lab.frames import arrays


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))


class Wrapped(Trainer):
    """On Fabric, with all that it puts around a model and its optimizers."""

    def _set_up(self, module: nn.Module, *optimizers: torch.optim.Optimizer) -> tuple[Any, ...]:
        self.place = Fabric(accelerator="cpu", devices=1, precision="32-true")
        self.place.launch()
        return tuple(self.place.setup(module, *optimizers))


def trained(kind: type[Trainer], strategy: str, **asked: Any) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    wanted = {"data": arrays("classification"), "device": "cpu", "batch_size": 8, "validation": 0.25, **asked}
    recipe, rest = resolved(net, wanted)
    trainer = kind(Plan.make(Choices.make(recipe, **rest), strategy, 3))
    rows = [trainer.epoch(1, 0), trainer.epoch(2, 3)]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows], dict(
        trainer.module.state_dict()
    )


@pytest.mark.parametrize("strategy", ["as-is", "concrete", "disarm", "hypergradient", "gap", "weight-decay"])
def test_a_step_is_the_same_bit_for_bit_without_fabric(strategy: str) -> None:
    rows, weights = trained(Trainer, strategy)
    known, others = trained(Wrapped, strategy)
    assert rows == known
    assert all(torch.equal(weight, others[name]) for name, weight in weights.items())


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed", "bf16-true"])
def test_other_precisions_are_fabrics(precision: str) -> None:
    recipe, rest = resolved(net, {"data": arrays("classification"), "device": "cpu", "precision": precision})
    trainer = Trainer(Plan.make(Choices.make(recipe, **rest), "as-is", 3))
    assert isinstance(trainer.place, Fabric) and trainer.model is not trainer.module
    assert math.isfinite(trainer.epoch(1, 0)["train_loss"])


def test_the_engine_does_not_import_fabric_where_it_is_not_needed() -> None:
    code = "import sys, dropkit.lab.engines.torch; print(*{'lightning_fabric', 'torchmetrics'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_recipe_on_numpy_has_a_calibration_error(tmp_path: Path) -> None:
    run = train("numpy-mlp", size="tiny", epochs=1, out=tmp_path / "run")
    assert 0 < run.rows[0]["test_ece"] < 1
    assert ">Calibration<" in (tmp_path / "run" / "report.html").read_text()
