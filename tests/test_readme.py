"""What the README shows runs as it stands, and what it links to is there."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()


RUNNER = """
import json, sys
for number, block in enumerate(json.load(sys.stdin), start=1):
    try:
        exec(compile(block, f"<block {number}>", "exec"), {"__name__": "__main__"})
    except BaseException:
        print(block, file=sys.stderr)
        raise
"""


# pages whose blocks run as they stand
ALONE = (
    "README.md",
    "docs/torch.md",
    "docs/variants.md",
    "docs/jax.md",
    "docs/coming-from-keras.md",
    "docs/vgg-adaptive.md",
)


@pytest.mark.slow
def test_each_python_block_runs_alone() -> None:
    found = {page: re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL) for page in ALONE}
    assert len(found["README.md"]) >= 8
    assert all(found.values())
    blocks = [block for page in ALONE for block in found[page]]
    # A process of its own: Keras takes its backend from the environment, once. A fresh namespace for each block.
    environment = {**os.environ, "KERAS_BACKEND": "torch"}
    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input=json.dumps(blocks),
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_first_screen_is_for_practitioners() -> None:
    screen, _, rest = TEXT.partition("## One mask everywhere")
    for words in ("Does dropout help my model?", "which layers does it touch?", "What does it cost?", "pip install",
                  "dropkit compare", "dropkit doctor", "dropkit explain"):  # fmt: skip
        assert words in screen
    assert "(seed, site, step, p, index)" not in screen and "(seed, site, step, p, index)" in rest


def test_inline_code_is_closed() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        prose = re.sub(r"^( *)```.*?^\1```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        for paragraph in re.split(r"\n\s*\n", prose):
            assert paragraph.count("`") % 2 == 0, f"{page.name}: {paragraph[:300]}"


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        prose = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
        links = re.findall(r"\]\(([^)#]+)[^)]*\)", prose)
        missing = [link for link in links if not link.startswith("http") and not (page.parent / link).exists()]
        assert missing == [], page


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text() + (ROOT / "kernels.mk").read_text()
    named = set(re.findall(r"\bmake ([a-z-]+)", TEXT + (ROOT / "CONTRIBUTING.md").read_text()))
    assert {"demo", "test", "bench"} <= named
    assert [name for name in named if not re.search(rf"^{name}:", makefile, re.MULTILINE)] == []


def test_the_index_lists_every_page_once() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    entries = re.findall(r"^- \[[^\]]+\]\(([\w.-]+\.md)\): ", index, re.MULTILINE)
    assert sorted(entries) == sorted(page.name for page in (ROOT / "docs").glob("*.md") if page.name != "README.md")
    assert len(re.findall(r"^- ", index, re.MULTILINE)) == len(entries) + 1  # and our own README
