"""What the README shows runs as it stands, and what it links to is there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()


@pytest.mark.slow
def test_python_blocks_run_in_order() -> None:
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) >= 5
    # A process of its own: Keras takes its backend from the environment, once.
    environment = {**os.environ, "KERAS_BACKEND": "torch"}
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)], capture_output=True, text=True, env=environment, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
        missing = [link for link in links if not link.startswith("http") and not (page.parent / link).exists()]
        assert missing == [], page


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text() + (ROOT / "kernels.mk").read_text()
    named = set(re.findall(r"\bmake ([a-z-]+)", TEXT + (ROOT / "CONTRIBUTING.md").read_text()))
    assert {"demo", "test", "bench"} <= named
    assert [name for name in named if not re.search(rf"^{name}:", makefile, re.MULTILINE)] == []
