"""The house is as planned: which way imports point, whose names are whose, how long things are, what is told of them.

`tests/house/` has the plan as data, the checks, and tests that each check can fail; here they go through the house, and
what a fresh interpreter has loaded proves the imports by running.
"""

import collections
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .house.arrows import placed
from .house.checks import CHECKS
from .house.docs import entries, untold
from .house.plan import AWAITED, FLOORS, FRAMEWORKS, INSIDE
from .house.source import Fault, House

ROOT = Path(__file__).parents[1]
HOUSE = House.of(ROOT)
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


def unexpected(faults: list[Fault]) -> list[str]:
    """Faults of the rooms that have more of a kind than is awaited of them."""
    counts = collections.Counter((placed(fault.path)[0], fault.check) for fault in faults)
    return [str(fault) for fault in faults if counts[key := (placed(fault.path)[0], fault.check)] > AWAITED.get(key, 0)]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_nothing_is_out_of_place(check: Callable[[House], list[Fault]]) -> None:
    assert len(HOUSE.files) > 150
    assert unexpected(check(HOUSE)) == []


def test_the_tree_in_contributing_is_the_tree() -> None:
    assert len(entries(CONTRIBUTING)) > 60
    assert unexpected(untold(HOUSE, CONTRIBUTING)) == []


def test_the_tree_in_contributing_is_in_order() -> None:
    told = [(placed(entry.path.rstrip("/")), entry.floor) for entry in entries(CONTRIBUTING)]
    rooms = [(path[0], floor) for path, floor in told if len(path) == 1]
    assert rooms == [(room, floor) for room, floor in rooms if floor is not None and room in FLOORS[floor]]
    assert [floor for _, floor in rooms] == sorted(floor for _, floor in rooms if floor is not None)
    for room, order in INSIDE.items():
        files = [path[1] for path, _ in told if path[0] == room and len(path) == 2]
        levels = [level for name in files for level, names in enumerate(order) if name in names]
        assert len(levels) == len(files)
        assert levels == sorted(levels)


def test_more_than_is_awaited_is_unexpected() -> None:
    (room, check), n = next(iter(AWAITED.items())) if AWAITED else (("mask", "floor"), 0)
    faults = [Fault(check, f"{room}.py", line, "") for line in range(n + 1)]
    assert unexpected(faults[:n]) == []
    assert len(unexpected(faults)) == n + 1


def loaded(statement: str) -> set[str]:
    """Frameworks and dropkit parts that a fresh interpreter has loaded after a statement."""
    code = f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


@pytest.mark.parametrize(
    "statement", ["import dropkit", "import dropkit.numpy", "from dropkit import keep, Drop, axes"]
)
def test_loads_no_framework(statement: str) -> None:
    modules = loaded(statement)
    assert "dropkit.mask" in modules
    assert not modules & FRAMEWORKS
    assert not modules & {"scipy", "sklearn", "typer", "rich", "dropkit.torch", "dropkit.lab", "dropkit.report"}


def test_torch_frontend_loads_no_other_framework() -> None:
    modules = loaded("import dropkit; dropkit.torch.Dropout(0.5)")
    assert "torch" in modules
    assert not modules & (FRAMEWORKS - {"torch"})
    assert "dropkit.lab" not in modules


def test_jax_frontend_loads_no_other_framework() -> None:
    modules = loaded(
        "import dropkit, jax.numpy as jnp; dropkit.jax.dropout(jnp.ones(3), 0.5, training=True, key=dropkit.Key())"
    )
    assert "jax" in modules
    assert not modules & (FRAMEWORKS - {"jax"})
    assert "dropkit.lab" not in modules


@pytest.mark.slow
def test_the_probe_loads_the_framework_of_its_model_only() -> None:
    modules = loaded("import dropkit; dropkit.explain, dropkit.doctor")
    assert "dropkit.probe" in modules
    assert not modules & FRAMEWORKS
    modules = loaded("import dropkit; from torch import nn, ones; dropkit.explain(nn.Dropout(), ones(2, 2))")
    assert not modules & (FRAMEWORKS - {"torch"})
    assert not modules & {"dropkit.lab", "dropkit.report"}


def test_every_part_loads_on_first_use() -> None:
    if (
        importlib.util.find_spec("keras") is None
    ):  # not by importing it: TensorFlow and Triton share a process in one order
        pytest.skip("Keras is not installed")
    first = "import os; os.environ['KERAS_BACKEND'] = 'numpy'; import dropkit"
    modules = loaded(f"{first}; assert dropkit.keras.Dropout and dropkit.probe.explain and dropkit.lab")
    assert {"dropkit.keras", "dropkit.probe", "dropkit.lab"} <= modules


def test_the_load_check_can_fail() -> None:
    assert "torch" in loaded("import dropkit.torch")
