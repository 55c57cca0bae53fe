"""The room as a whole: what it loads, what it names, and that the lab has the same errors."""

import subprocess
import sys

import numpy as np

import dropkit
from dropkit import uncertainty

from .drawn import predictions

JUDGING = """
import sys
from dropkit import uncertainty as u
p, y = [[0.9, 0.1], [0.2, 0.8]] * 10, [0, 1] * 10
u.nll(p, y), u.smooth_ece(p, y), u.reliability(p, y), u.aurc(y, y), u.ood_auroc([0], [1]), u.crps([y], y)
u.temperature_scaling([[1.0, 0.0]] * 4, [0, 0, 0, 1]).predict(p)
u.conformal(p, y, 0.2, "aps").predict(p), u.conformal(y, y, 0.2, "split").predict(y)
u.bald([p]), u.batch_bald([p], 2), u.epig([p], [p])
print("\\n".join(sys.modules))
"""


def test_it_needs_numpy_alone() -> None:
    run = subprocess.run([sys.executable, "-c", JUDGING], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert "dropkit.uncertainty" in loaded
    assert not loaded & {"torch", "jax", "keras", "scipy", "sklearn", "torchmetrics", "dropkit.lab", "dropkit.torch"}


def test_it_is_a_part_of_dropkit() -> None:
    assert "uncertainty" in dir(dropkit) and dropkit.uncertainty is uncertainty


def test_the_error_of_the_lab_is_the_adaptive_one() -> None:
    import torch

    from dropkit.lab.engines.calibration import Calibration

    p, y = predictions(200, 4)
    calibration = Calibration()
    calibration.add(torch.tensor(np.log(p)), torch.tensor(y))
    assert abs(calibration.error() - uncertainty.adaptive_ece(p, y)) < 1e-6
