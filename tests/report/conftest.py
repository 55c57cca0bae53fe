"""A browser for the tests of pages: Playwright drives the Chromium on PATH."""

import importlib.util
import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def needed() -> str:
    """The path of a browser; without one, or without what drives it, a skip, which in CI is a failure."""
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    missing = [name for name in ("playwright", "axe_playwright_python") if importlib.util.find_spec(name) is None]
    missing += [] if path else [f"a browser ({', '.join(BROWSERS)}); `make browser` installs one"]
    if missing or path is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"browser tests need {' and '.join(missing)}")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = needed()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()
