"""`make demo` ends with the answer and with what to type next."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ANSWER = (
    "Not settled on digits: dropout (fixed) against no dropout, +0.4 points of test accuracy (-0.6 to 1.4, 95 %), over "
    "5 seeds; --until-settled with --resume adds seeds until it is."
)
MAKEFILE = Path(__file__).parents[2] / "Makefile"


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_the_demo_ends_with_its_answer_and_the_next_command(tmp_path: Path) -> None:
    place, folder = tmp_path / "bin", tmp_path / "runs" / "demo"
    place.mkdir()
    folder.mkdir(parents=True)
    (place / "python").symlink_to(sys.executable)
    # In place of the training, a command that leaves what it leaves.
    (place / "dropkit").write_text("#!/bin/sh\necho a table\n")
    (place / "dropkit").chmod(0o755)
    (folder / "result.json").write_text(json.dumps({"verdict": [ANSWER, "More."]}))
    # `setup` is taken as done: it installs.
    words = ["make", "--silent", "-I", str(MAKEFILE.parent), "-f", str(MAKEFILE), "demo", f"BIN={place}", "-o", "setup"]
    for columns in (40, 60, 77, 80, 100):
        around = {**os.environ, "COLUMNS": str(columns)}
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True, env=around)
        first, _, *answer, _, following = done.stdout.splitlines()
        assert first == "a table" and " ".join(answer) == f"In short: {ANSWER}"
        assert max(map(len, answer)) <= columns  # so that no terminal breaks an option or a path
    assert following.endswith("/dropkit compare my_model:make --data my_data.csv --target label")
