"""Keras has one backend for a process, so these tests run in processes of their own; see ../test_keras_recipes.py."""

import os
from pathlib import Path

import pytest

collect_ignore_glob = [] if os.environ.get("DROPKIT_KERAS_SUITE") else ["test_*.py"]
if os.environ.get("DROPKIT_KERAS_SUITE"):
    # Triton, which comes with the lab's torch, aborts the process where TensorFlow was loaded before it.
    import dropkit.lab.run  # noqa: F401


def pytest_configure(config: pytest.Config) -> None:
    """Warnings that Keras' backends give themselves are none of the lab's."""
    for theirs in (
        "ignore:__array__ implementation:DeprecationWarning",
        "ignore::DeprecationWarning:keras.*",
        "ignore::DeprecationWarning:tensorflow.*",
    ):
        config.addinivalue_line("filterwarnings", theirs)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of a module's own, which its tests share."""
    return tmp_path_factory.mktemp("cache")
