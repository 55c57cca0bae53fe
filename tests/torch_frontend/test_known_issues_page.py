"""docs/known-issues.md and the tests that it names."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_lists_every_test_of_a_known_issue_and_nothing_else() -> None:
    files = [file for file in (ROOT / "tests").glob("*/test_known_issues*.py") if file != Path(__file__)]
    tests = [
        node.name
        for file in files
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    listed = re.findall(r"`(test_\w+)`", (ROOT / "docs" / "known-issues.md").read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(tests)
