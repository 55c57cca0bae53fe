"""The suite again on every way that this machine has: without kernels, and on each instruction set."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dropkit.kernels import cpu

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", ["off", *cpu.paths()])
def test_conforms(path: str) -> None:
    environment = {**os.environ, "DROPKIT_CPU": path}
    command = ["-m", "pytest", "-p", "no:cacheprovider", "tests/conformance/test_conformance.py", "-k", "test_conforms"]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
