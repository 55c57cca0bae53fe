"""Warnings that Keras' backends give themselves are none of dropkit's."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    for theirs in (
        "ignore:__array__ implementation:DeprecationWarning",
        "ignore::DeprecationWarning:keras.*",
        "ignore::DeprecationWarning:tensorflow.*",
    ):
        config.addinivalue_line("filterwarnings", theirs)
