"""Keras has one backend for a process, so these tests run in processes of their own; see ../test_doctor_keras.py."""

import os

import pytest

collect_ignore_glob = [] if os.environ.get("DROPKIT_KERAS_SUITE") else ["test_*.py"]


def pytest_configure(config: pytest.Config) -> None:
    """Warnings that Keras' backends give themselves are none of the probe's."""
    for theirs in (
        "ignore:__array__ implementation:DeprecationWarning",
        "ignore::DeprecationWarning:keras.*",
        "ignore::DeprecationWarning:tensorflow.*",
    ):
        config.addinivalue_line("filterwarnings", theirs)
