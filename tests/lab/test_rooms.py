"""What scripts import from the lab is found where it was, and is as light as it was."""

import subprocess
import sys
from importlib import import_module

import pytest

OLD = {
    "by_hand": ("engines.by_hand", "score", "train_epoch"),
    "gradients": ("engines.gradients", "Gradients", "held_out_batches"),
    "run": ("runs.run", "Run", "run_plan"),
    "strategies": ("recipes.strategies", "ADAPTIVE", "standard"),
    "data": ("data.sets", "Data", "load_data"),
}


@pytest.mark.parametrize("old", OLD)
def test_old_names_are_the_same_things(old: str) -> None:
    new, *names = OLD[old]
    for name in names:
        found = getattr(import_module(f"dropkit.lab.{old}"), name)
        assert found is getattr(import_module(f"dropkit.lab.{new}"), name)


@pytest.mark.parametrize("module", ["by_hand", "order", "recipes", "strategies", "recipes.engine", "files", "data"])
def test_what_needs_no_framework_loads_none(module: str) -> None:
    heavy = "{'torch', 'keras', 'jax', 'sklearn', 'scipy', 'PIL', 'typer', 'rich'}"
    code = f"import sys, dropkit.lab.{module}; print(*({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_command_is_a_package_that_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dropkit.cli", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("dropkit ") and done.stderr == ""
