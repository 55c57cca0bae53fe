"""The recipes on Keras, in a process of their own for each of Keras' backends."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dropkit.errors import DropkitValueError
from dropkit.lab.keras_backend import require

ROOT = Path(__file__).parents[2]
SUITE = "tests/lab/keras_suite"


def run(backend: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"KERAS_BACKEND": backend, "DROPKIT_KERAS_SUITE": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=env, capture_output=True, text=True)


def needs(*packages: str) -> None:
    for package in packages:
        if not importlib.util.find_spec(package):
            pytest.skip(f"{package} is not installed")


# On JAX and TensorFlow each run compiles anew, and what differs between backends is in the engine: a run's first step,
# and that it resumes.
ENGINE = [
    f"{SUITE}/test_dense.py::test_first_step_is_that_of_known_weights_order_and_masks",
    f"{SUITE}/test_dense.py::test_resumed_run_ends_bit_for_bit_the_same[2-0.25]",
    f"{SUITE}/test_own_model.py::test_the_first_step_is_that_of_known_weights_order_and_masks[Own]",
    f"{SUITE}/test_own_model.py::test_a_model_that_is_cut_off_ends_bit_for_bit_the_same[softmax]",
]


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "parts"), [("torch", [SUITE]), ("jax", ENGINE), ("tensorflow", ENGINE)])
def test_suite(backend: str, parts: list[str]) -> None:
    needs("keras", backend)
    done = run(backend, "-m", "pytest", "-p", "no:cacheprovider", *parts)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


@pytest.mark.slow
def test_torch_is_the_backend_where_none_is_named(tmp_path: Path) -> None:
    needs("keras")
    env = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    env["KERAS_HOME"] = str(tmp_path)
    code = "from dropkit.lab.keras_backend import require; print(require().config.backend())"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.split() == ["torch"], done.stderr


@pytest.mark.slow
def test_a_backend_that_cannot_train_is_refused(tmp_path: Path) -> None:
    needs("keras")
    message = "Keras runs on 'numpy', which cannot train: set KERAS_BACKEND to one of torch, jax, tensorflow"
    done = run("numpy", "-m", "dropkit.cli", "train", "dense", "--size", "tiny", "--out", str(tmp_path / "run"))
    assert (done.returncode, done.stderr.strip()) == (2, f"dropkit: error: {message}")
    assert not (tmp_path / "run").exists()


def test_without_keras_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(DropkitValueError, match=r'trains with it: pip install "dropkit\[lab,keras\]"'):
        require()
