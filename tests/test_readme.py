"""What README and the pages of docs/ show runs as it stands, and what they link to is there."""

import ast
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
PAGES = [
    *sorted(ROOT.glob("README*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "zh").glob("*.md")),
]

FENCE = re.compile(r"^( *)```(\w*)([^\n]*)\n(.*?)^\1``` *$", re.DOTALL | re.MULTILINE)

# Each block in a namespace of its own. What fails is told and does not keep the next from running; a block that takes
# the process with it is named by the last line of standard error.
RUNNER = """
import contextlib, json, sys, traceback
for name, block in json.loads(sys.stdin.read()):
    print(name, file=sys.stderr, flush=True)
    try:
        with contextlib.redirect_stdout(None):
            exec(compile(block, f"<{name}>", "exec"), {"__name__": "__main__"})
    except BaseException:
        print(f"{name} fails:\\n{block}\\n{traceback.format_exc()}", flush=True)
print("done", flush=True)
"""


def blocks(page: str) -> list[tuple[str, str]]:
    """The Python blocks of a page, dedented, each with what its fence says beside the language."""
    return [
        (says.strip(), textwrap.dedent(block))
        for _, language, says, block in FENCE.findall(page)
        if language in ("python", "py", "Python", "python3")
    ]


def failures(named: list[tuple[str, str]], folder: Path) -> str:
    """What blocks say that fail, each run by itself, all in one process: Keras takes its backend once."""
    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input=json.dumps(named),
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": "torch", "OMP_NUM_THREADS": "1"},
        cwd=folder,
    )
    *told, end = done.stdout.splitlines() or [""]
    return "\n".join(told) if end == "done" else f"{done.stdout}\nended in a block: {done.stderr[-3000:]}"


PYTHON = [
    (f"{page.relative_to(ROOT)} block {number}", says, block)
    for page in PAGES
    if "zh" not in page.parts[-2:] and not page.name.endswith(".zh.md")  # the code there is that of the English page
    for number, (says, block) in enumerate(blocks(page.read_text()), start=1)
]


@pytest.mark.slow
def test_each_python_block_of_every_page_runs_alone(tmp_path: Path) -> None:
    named = [(name, block) for name, says, block in PYTHON if not says]
    assert len(named) >= 30
    found = failures(named, tmp_path)
    assert not found, found


def parses(text: str) -> bool:
    """Whether a text is Python: statements, or between braces the lines of a list or dict."""
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


def test_a_block_that_cannot_run_alone_says_so_and_is_python() -> None:
    """```python fragment: lines of a file or of a launch by several processes, or what asks for a missing package."""
    assert [(name, says) for name, says, _ in PYTHON if says not in ("", "fragment")] == []
    assert [name for name, _, block in PYTHON if not (parses(block) or parses("{" + block + "}"))] == []


def test_every_block_that_fails_is_named(tmp_path: Path) -> None:
    page = "```python\nprint(1)\n```\n- one\n\n  ```python\n  1 / 0\n  ```\n\n```python fragment\nx = (\n```\n"
    page += "```python\nraise SystemExit(3)\n```\n```console\n$ ls\n```\n"
    found = blocks(page)
    assert found == [("", "print(1)\n"), ("", "1 / 0\n"), ("fragment", "x = (\n"), ("", "raise SystemExit(3)\n")]
    told = failures([(f"page block {number}", block) for number, (_, block) in enumerate(found, start=1)], tmp_path)
    assert "page block 1" not in told and "page block 2 fails:\n1 / 0\n" in told and "ZeroDivisionError" in told
    assert "page block 3 fails" in told and "page block 4 fails" in told
    killed = failures([("page block 1", "import os\nos._exit(0)\n"), ("page block 2", "")], tmp_path)
    assert "ended in a block: page block 1" in killed


def test_the_first_screen_is_for_practitioners() -> None:
    screen, _, rest = TEXT.partition("## One mask everywhere")
    for words in ("Does dropout help my model?", "which layers does it touch?", "What does it cost?", "pip install",
                  "dropkit compare", "dropkit doctor", "dropkit explain"):  # fmt: skip
        assert words in screen
    assert "(seed, site, step, p, index)" not in screen and "(seed, site, step, p, index)" in rest


def test_inline_code_is_closed() -> None:
    for page in PAGES:
        prose = re.sub(r"^( *)```.*?^\1```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        for paragraph in re.split(r"\n\s*\n", prose):
            assert paragraph.count("`") % 2 == 0, f"{page.name}: {paragraph[:300]}"


def anchors(page: str) -> set[str]:
    """What `#...` may name in a page: its headings as GitHub writes them, and anchors set by hand."""
    prose = FENCE.sub("", page)
    found: set[str] = set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", prose))
    seen: dict[str, int] = {}
    for heading in re.findall(r"^#{1,6} +(.*?)(?: +#+)? *$", prose, flags=re.MULTILINE):
        shown = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        seen[name] = seen.get(name, -1) + 1
        found.add(f"{name}-{seen[name]}" if seen[name] else name)
    return found


def links(page: str) -> Iterator[tuple[str, str]]:
    """File and anchor of each link of a page that leads to files of ours."""
    prose = re.sub(r"`[^`]*`", "", FENCE.sub("", page))
    inline = re.findall(r"\]\(\s*<?([^)\s>]+)", prose)
    defined = re.findall(r"^ {0,3}\[[^\]]+\]: +(\S+)(?: +\".*\")?$", prose, flags=re.MULTILINE)
    for link in inline + defined + re.findall(r"\b(?:href|src)=\"([^\"]+)\"", prose):
        if not re.match(r"[a-z]+:", link):
            file, _, anchor = unquote(link).partition("#")
            yield file, anchor


def test_links_lead_somewhere() -> None:
    missing = []
    for page in [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]:
        for file, anchor in links(page.read_text()):
            target = (page.parent / file).resolve() if file else page
            there = target.exists() and (not anchor or target.suffix != ".md" or anchor in anchors(target.read_text()))
            if not there:
                missing.append(f"{page.relative_to(ROOT)}: {file}#{anchor}")
    assert missing == []


def test_anchors_are_those_of_github() -> None:
    page = "# A, `b_c` & (d)\n## DK101\n## [Two](x.md) words\n```\n# no\n```\n## DK101\n## 丢弃法：随机失活？ p = .5\n"
    assert anchors(page) == {"a-b_c--d", "dk101", "two-words", "dk101-1", "丢弃法随机失活-p--5"}
    page = "[a](#b) [c](d.md#e) ![f](g.png) `[h](i)` [j](https://k.l)\n[-1, 1]: no link\n[o]: p.md#q\n"
    found = list(links(page + '<a href="m.md">n</a>\n'))
    assert found == [("", "b"), ("d.md", "e"), ("g.png", ""), ("p.md", "q"), ("m.md", "")]


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text() + (ROOT / "kernels.mk").read_text()
    named = set(re.findall(r"\bmake ([a-z-]+)", TEXT + (ROOT / "CONTRIBUTING.md").read_text()))
    assert {"demo", "test", "bench"} <= named
    assert [name for name in named if not re.search(rf"^{name}:", makefile, re.MULTILINE)] == []


def test_the_index_lists_every_page_once() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    entries = re.findall(r"^- \[[^\]]+\]\(([\w.-]+\.md)\): ", index, re.MULTILINE)
    assert sorted(entries) == sorted(page.name for page in (ROOT / "docs").glob("*.md") if page.name != "README.md")
    assert len(re.findall(r"^- ", index, re.MULTILINE)) == len(entries) + 2  # and our own README, twice
