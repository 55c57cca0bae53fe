"""What is said of Keras models, in a process of its own for each of Keras' backends."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXPLAIN, UNDISTURBED, LARGE = (
    f"tests/probe/keras_suite/{name}.py" for name in ("test_explain", "test_undisturbed", "test_explain_large")
)

# JAX compiles, and TensorFlow takes its time; what differs between backends are gradients, loops and generators.
SOME = [
    f"{EXPLAIN}::test_a_plain_stack",
    f"{EXPLAIN}::test_functions_inside_a_layer",
    f"{EXPLAIN}::test_other_randomness_is_told_and_does_not_blur_what_dropout_does",
    f"{EXPLAIN}::test_recurrent_dropout_of_the_model_s_input_and_of_stacked_cells",
    f"{UNDISTURBED}::test_nothing_is_another_after_an_exception[2]",
    f"{UNDISTURBED}::test_it_takes_a_handful_of_runs",
]
DOCTESTS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "src/dropkit/probe/keras").glob("*.py"))
PARTS = {
    "torch": [EXPLAIN, UNDISTURBED, LARGE, *DOCTESTS],
    "numpy": [EXPLAIN, UNDISTURBED],
    "tensorflow": SOME,
    "jax": SOME,
}


@pytest.mark.slow
@pytest.mark.parametrize("backend", PARTS)
def test_suite(backend: str) -> None:
    for package in ("keras", backend):
        if not importlib.util.find_spec(package):
            pytest.skip(f"{package} is not installed")
    env = os.environ | {"KERAS_BACKEND": backend, "DROPKIT_KERAS_SUITE": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *PARTS[backend]]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
