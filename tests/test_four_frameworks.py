"""NumPy, PyTorch, JAX and Keras in one process: one mask, and one training."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("jax", "keras", "torch")), reason="needs JAX, Keras and PyTorch"
)


def run(*command: str) -> str:
    environment = {**os.environ, "KERAS_BACKEND": "torch", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.slow
def test_five_inputs_one_mask() -> None:
    assert "5 inputs, 4 frameworks, one mask" in run("-m", "tests.four_frameworks")


@pytest.mark.slow
def test_losses_agree_step_by_step() -> None:
    """Same weights, batches and masks: what is left is the rounding of float32 sums, 5e-7 when it was measured."""
    example = str(ROOT / "examples" / "one_mask_four_frameworks.py")
    ours = float(re.findall(r"any two: (\S+)", run(example))[0])
    assert ours < 5e-6
    own = float(re.findall(r"any two: (\S+)", run(example, "--own"))[0])
    assert own > 1e-2
