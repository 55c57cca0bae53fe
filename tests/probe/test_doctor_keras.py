"""The findings on Keras models, in a process of its own, since Keras has one backend for a process."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUITE = "tests/probe/keras_suite/test_doctor.py"


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch"])
def test_suite(backend: str) -> None:
    for package in ("keras", backend):
        if not importlib.util.find_spec(package):
            pytest.skip(f"{package} is not installed")
    env = os.environ | {"KERAS_BACKEND": backend, "DROPKIT_KERAS_SUITE": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", SUITE]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
