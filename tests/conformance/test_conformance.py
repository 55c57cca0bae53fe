"""One suite for every frontend, and the proof that it can fail."""

from typing import Any

import pytest

from .checks import CHECKS
from .frontends import BROKEN, FRONTENDS


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("frontend", FRONTENDS, ids=lambda frontend: frontend.name)
def test_conforms(frontend: Any, check: str) -> None:
    CHECKS[check](frontend)


@pytest.mark.parametrize(("frontend", "check"), BROKEN, ids=lambda value: getattr(type(value), "__name__", value))
def test_a_broken_frontend_is_caught(frontend: Any, check: str) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        CHECKS[check](frontend)
