"""What pytest must not import where it cannot, in which order tests run, and what `--quick` leaves out.

Triton's kernels need Triton, which exists for Linux alone. Keras has one backend for a process: what needs it runs in
processes of their own, which `tests/keras_frontend/test_backends.py` starts.
"""

import functools
import importlib.util
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

collect_ignore_glob = [] if importlib.util.find_spec("triton") else ["src/dropkit/kernels/triton/*"]
if not os.environ.get("DROPKIT_KERAS_SUITE"):
    collect_ignore_glob += ["src/dropkit/keras/*", "src/dropkit/probe/keras/*", "tests/conformance/columns_keras.py"]
    collect_ignore_glob += ["tests/tutorials/keras_runs.py"]

# Launches of several processes, which the tests of this folder share.
RANKS = "tests/distributed/"

# Batteries: many samples of one claim each, and what XLA compiles for minutes.
BATTERIES = (
    "tests/jax_frontend/",
    "tests/torch_frontend/test_statistics.py",
    "tests/torch_frontend/test_torchs_own.py",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--quick",
        action="store_true",
        help="leave out slow tests and batteries, and skip each test where it starts a process, compiles or trains",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--quick") and not config.getoption("numprocesses", None):  # the workers run the tests
        config.pluginmanager.register(Quick(), "dropkit-quick")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Slow tests first, those of several ranks before all: workers steal from the end, so that these stay together."""
    for item in items:
        if item.nodeid.startswith(RANKS):
            item.add_marker(pytest.mark.slow)
    if config.getoption("--quick"):
        left_out = [item for item in items if _long(item)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]
    items.sort(key=lambda item: (not item.nodeid.startswith(RANKS), not item.get_closest_marker("slow")))


def _long(item: pytest.Item) -> bool:
    browser = "browser" in getattr(item, "fixturenames", ())
    return browser or item.get_closest_marker("slow") is not None or item.nodeid.startswith(BATTERIES)


class Quick:
    """Ends a test as skipped when it is about to start a process, to compile or to train."""

    def __init__(self) -> None:
        import multiprocessing.process
        import subprocess

        self.testing = False
        self._refuse(subprocess.Popen, "__init__", "starts a process")
        self._refuse(multiprocessing.process.BaseProcess, "start", "starts a process")
        if importlib.util.find_spec("torch"):
            import torch

            self._refuse(torch, "compile", "compiles")
            self._refuse(torch.onnx, "export", "compiles")
            self._refuse(torch.library, "opcheck", "compiles")
        if importlib.util.find_spec("lightning_fabric"):
            from dropkit.lab.engines import loop, numpy

            self._refuse(loop.Loop, "epoch", "trains")
            self._refuse(numpy.NumpyTrainer, "epoch", "trains")

    def _refuse(self, owner: Any, name: str, why: str) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(original)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if self.testing:
                pytest.skip(f"--quick: {why}")
            return original(*args, **kwargs)

        setattr(owner, name, guarded)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self) -> Iterator[None]:
        self.testing = True
        try:
            return (yield)
        finally:
            self.testing = False
