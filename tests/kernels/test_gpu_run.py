"""`make gpu` without a GPU: every part at toy sizes, and what becomes of parts that fail or find no time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed: pip install triton")
RUN = Path(__file__).parents[2] / "benchmarks" / "gpu_run.py"
PARTS = ["graph", "large", "tests", "host", "training", "kernels", "attention", "vgg"]


def run(out: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "DROPKIT_DATA"}
    command = [sys.executable, str(RUN), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env | {"OUT": str(out)} | environment)


def outcomes(out: Path) -> dict[str, str]:
    rows = [json.loads(line) for line in (out / "gpu.jsonl").read_text().splitlines()]
    return {row["name"]: row["outcome"] for row in rows if row["part"] == "run"}


@pytest.mark.slow
def test_a_dry_run_goes_through_all_parts_and_writes_the_tables(tmp_path: Path) -> None:
    done = run(tmp_path, "--budget", "2000", DROPKIT_GPU_DRY="1")
    log = (tmp_path / "gpu.log").read_text()
    assert outcomes(tmp_path) == dict.fromkeys(PARTS, "ok"), log[-6000:]
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "gpu.md").read_text()
    assert page in done.stdout
    assert page.startswith("none: a dry run, the kernels interpreted; its times mean nothing")
    for line in (
        "| graph | warmed up as a capture | 5 replays: 5 steps, the CPU's masks, backward those of its forward |",
        "the CPU's mask at the start, around 2^31 and at the end |",
        "| tests | pytest | 2 passed, 0 failed, 0 skipped |",
        "| dropkit, bound | compiled |",
        "| bf16 | 0.0078125 | dropout backward p=0.5 |",
        "| attention | bfloat16 | T = 20, 16 features: errors of out, dq, dk, dv: ",
        "| dropkit | float32 | 20 | 16 |",
        "| fixed | synthetic images |",
    ):
        assert line in page, page
    widths = [line.count("|") for line in page.splitlines() if line.startswith("|")]
    assert all(width >= 4 for width in widths)


def test_without_a_gpu_it_says_so_in_one_line(tmp_path: Path) -> None:
    done = run(tmp_path, DROPKIT_GPU_DRY="0", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 2
    assert done.stderr.startswith("No CUDA device: nothing was measured.") and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_part_that_hangs_or_fails_is_told_and_one_without_time_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(RUN.parent))
    import gpu_run

    hangs, fails = tmp_path / "hangs.py", tmp_path / "fails.py"
    hangs.write_text("import time\nprint('begun', flush=True)\ntime.sleep(600)\n")
    fails.write_text("raise SystemExit('FAILED: another mask')\n")

    def outcome(script: Path, limit: float, left: float) -> str:
        return gpu_run.attempt(gpu_run.Part("part", (str(script),), limit), left, tmp_path / "rows", tmp_path / "log")

    assert outcome(hangs, 3, 100) == "stopped after 3 s"
    assert outcome(hangs, 100, 14) == "skipped: 14 s of the budget were left"
    assert outcome(fails, 60, 100) == "failed, status 1: FAILED: another mask"


def test_what_there_was_no_time_for_is_told_and_ends_in_status_1(tmp_path: Path) -> None:
    done = run(tmp_path, "--only", "graph", "vgg", "--budget", "0", DROPKIT_GPU_DRY="1")
    assert done.returncode == 1
    assert outcomes(tmp_path) == dict.fromkeys(("graph", "vgg"), "skipped: 0 s of the budget were left")
    assert "| vgg | 0 | skipped: 0 s of the budget were left |" in done.stdout
