"""The suite again on every other way that this machine has: without kernels, and on each instruction set.

On the way of this process it runs in test_conformance.py.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import dropkit
from dropkit.kernels import cpu

ROOT = Path(__file__).parents[2]
HERE = dropkit.info()["cpu"]["path"] or "off"
OTHERS = [path for path in ("off", *cpu.paths()) if path != HERE]


@pytest.mark.slow
@pytest.mark.parametrize("path", OTHERS)
def test_conforms(path: str) -> None:
    environment = {**os.environ, "DROPKIT_CPU": path}
    command = ["-m", "pytest", "-p", "no:cacheprovider", "tests/conformance/test_conformance.py", "-k", "test_conforms"]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
