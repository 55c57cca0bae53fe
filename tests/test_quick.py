"""What `make quick` leaves out: the rules of conftest.py, on tests written for them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

TESTS = """
import multiprocessing, subprocess, sys
import pytest

subprocess.run([sys.executable, "-c", ""], check=True)  # while tests are collected, processes may start

def test_that_computes():
    pass

def test_that_starts_a_process():
    try:
        subprocess.run([sys.executable, "-c", ""])
    except Exception:
        pass
    assert False

def test_that_forks():
    multiprocessing.get_context("fork").Process(target=print).start()
    assert False

def test_that_compiles():
    import torch
    torch.compile(torch.nn.Linear(2, 2))(torch.ones(1, 2))
    assert False

def test_that_trains(tmp_path):
    from dropkit.lab import train
    train("mlp", strategy="none", size="tiny", out=tmp_path / "run")
    assert False

@pytest.mark.slow
def test_that_is_slow():
    assert False
"""


@pytest.mark.slow
def test_quick_skips_what_starts_processes_compiles_or_trains(tmp_path: Path) -> None:
    (tmp_path / "test_rules.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow: takes long\n")
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", "--quick", "-rs", "-v"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert "1 passed, 4 skipped, 1 deselected" in done.stdout, done.stdout[-4000:] + done.stderr[-2000:]
    for why, count in (("starts a process", 2), ("compiles", 1), ("trains", 1)):
        assert done.stdout.count(f"--quick: {why}") >= count
    assert done.returncode == 0


def test_slow_tests_come_first_and_those_of_several_ranks_before_all(pytestconfig: pytest.Config) -> None:
    class Item:
        def __init__(self, nodeid: str, slow: bool = False):
            self.nodeid, self.slow = nodeid, slow

        def get_closest_marker(self, name: str) -> object:
            return self.slow or None

        def add_marker(self, mark: object) -> None:
            self.slow = True

    found = (p for p in pytestconfig.pluginmanager.get_plugins() if getattr(p, "__file__", "") == f"{ROOT}/conftest.py")
    items = [Item("tests/a.py::one"), Item("tests/b.py::two", slow=True), Item("tests/distributed/c.py::three")]

    class Config:
        def getoption(self, name: str) -> bool:
            return False

    next(found).pytest_collection_modifyitems(Config(), items)
    assert [item.nodeid[-5:].lstrip(":") for item in items] == ["three", "two", "one"]
