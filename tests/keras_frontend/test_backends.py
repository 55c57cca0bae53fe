"""The suite and the doctests of the Keras frontend, in a process of their own for each of Keras' backends."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ["tests/keras_frontend/suite", "src/dropkit/keras"]

if importlib.util.find_spec("keras") is None:  # importing it would load TensorFlow before Triton, which aborts
    pytest.skip("Keras is not installed", allow_module_level=True)


def run(backend: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"KERAS_BACKEND": backend, "DROPKIT_KERAS_SUITE": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=env, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["numpy", "torch", "jax", "tensorflow"])
def test_suite(backend: str) -> None:
    if not importlib.util.find_spec(backend):
        pytest.skip(f"{backend} is not installed")
    done = run(backend, "-m", "pytest", "-p", "no:cacheprovider", *PARTS)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


@pytest.mark.slow
def test_a_failure_of_the_suite_shows() -> None:
    done = run("numpy", "-m", "pytest", "-p", "no:cacheprovider", "-k", "no test has this name", PARTS[0])
    assert done.returncode != 0


@pytest.mark.slow
def test_masks_are_the_same_on_every_backend() -> None:
    code = (
        "import sys, numpy, keras, dropkit.keras as dk\n"
        "layer = dk.Dropout(0.3, noise_shape=(None, 1, None), seed=2**40 + 5, name='a')\n"
        "x = numpy.ones((3, 2, 50), 'float32')\n"
        "for _ in range(3):\n"
        "    y = layer(x, training=True)\n"
        "print(keras.ops.convert_to_numpy(y).tobytes().hex())\n"
    )
    found = {
        backend: run(backend, "-c", code)
        for backend in ("numpy", "torch", "jax", "tensorflow")
        if importlib.util.find_spec(backend)
    }
    assert all(done.returncode == 0 for done in found.values()), {b: done.stderr[-2000:] for b, done in found.items()}
    assert len({done.stdout.split()[-1] for done in found.values()}) == 1
    assert len(found["numpy"].stdout.split()[-1]) == 3 * 2 * 50 * 8


def test_an_unsupported_backend_says_what_to_set() -> None:
    code = "import keras\nkeras.config.backend = lambda: 'openvino'\nimport dropkit.keras"
    done = run("numpy", "-c", code)
    assert done.returncode == 1
    assert "but Keras runs on 'openvino': set the environment variable KERAS_BACKEND to one of them" in done.stderr
