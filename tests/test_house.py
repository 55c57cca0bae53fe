"""Which way imports point, read from the source and proven by running; each check is shown to be able to fail."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "dropkit"
FRAMEWORKS = {"torch", "jax", "flax", "equinox", "keras", "tensorflow"}
FRONTENDS = {"numpy", "torch", "jax", "keras"}
BASE = {"errors", "counter", "threshold", "place", "layout", "mask"}
TEXT = {"visible", "writing", "plain"}  # what is printed and written, whoever does

# part: what of dropkit it may import. Frontends may also import the framework of their own name; kernels have their own
# toolchain; the probe sees the frontends and leaves it to lab, report and cli to show what it finds; these three see
# everything, and nobody below sees them.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "frontends": {"errors"},
    "patterns": {"errors"},
    "visible": set(),
    "writing": set(),
    "plain": set(),
    "counter": {"errors"},
    "threshold": {"errors"},
    "place": {"errors"},
    "layout": {"errors", "place"},
    "mask": {"errors", "counter", "threshold", "place", "axes"},
    "axes": {"errors", "threshold", "place"},
    "drop": BASE | {"axes"},
    "kernels": {"errors", "counter"},
    "choice": {"errors", "counter", "kernels"},
    "lint": {"errors"},
    **{frontend: BASE | TEXT | {"patterns", "axes", "drop", "kernels", "choice"} for frontend in FRONTENDS},
    "grid": BASE | {"axes", "drop"},
    "probe": {"errors", "frontends", "mask", "axes", "drop"} | TEXT | FRONTENDS,
}
# Keras runs on other frameworks, and its frontend on their frontends: that of the backend is loaded anyway.
MAY_IMPORT["keras"] |= {"numpy", "torch", "jax"}
MAY_LOAD = {
    "torch": {"torch"},
    "jax": {"jax", "flax", "equinox"},
    "keras": {"keras", "torch", "jax", "tensorflow"},
    "kernels": {"torch"},
    "probe": {"torch", "keras", "jax", "tensorflow"},
}
TOP = {"uncertainty", "lab", "report", "cli", "interrupts", "__init__", "__main__", "info"}


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(source: str, path: Path) -> set[str]:
    """Absolute dotted names that a file imports; relative ones resolved, `from . import x` down to x."""
    package = ["dropkit", *path.relative_to(PACKAGE).parent.parts]
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *(node.module.split(".") if node.module else [])]
            found |= {".".join([*base, alias.name]) for alias in node.names}
    return found


def faults(source: str, path: Path) -> list[str]:
    """What a file of this place imports and must not."""
    part = part_of(path)
    if part in TOP:
        return []
    if part not in MAY_IMPORT:
        return [f"{part} has no place in the house; give it one in this test"]
    axis = path.relative_to(PACKAGE / "axes").parts[0].removesuffix(".py") if part == "axes" else None
    wrong = []
    for name in imports(source, path):
        first, *rest = name.split(".")
        foreign = first in FRAMEWORKS - MAY_LOAD.get(part, set())
        upward = first == "dropkit" and bool(rest) and rest[0] not in {part, *MAY_IMPORT[part]}
        inside = first == "dropkit" and rest[:1] == ["axes"]
        sibling = axis not in (None, "__init__") and inside and rest[1:2] != [axis]
        if foreign or upward or sibling:
            wrong.append(f"{path.stem} imports {name}")
    return wrong


def test_imports_point_down() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 15
    assert [fault for path in files for fault in faults(path.read_text(), path)] == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("mask.py", "from .drop import Drop"),
        ("mask.py", "import torch"),
        ("drop.py", "from .torch import ops"),
        ("axes/share.py", "from .rate import Rate"),
        ("axes/rate/shapes.py", "from ..share import Share"),
        ("axes/rate/__init__.py", "from ..share import Share"),
        ("axes/rate/shapes.py", "from ...mask import keep"),
        ("numpy/ops.py", "from ..torch import ops"),
        ("numpy/ops.py", "import torch.nn"),
        ("torch/ops.py", "import jax"),
        ("torch/ops.py", "from ..keras import ops"),
        ("keras/ops.py", "from ..lab import run"),
        ("jax/ops.py", "import torch"),
        ("torch/ops.py", "from ..lab import run"),
        ("torch/ops.py", "from dropkit.report import page"),
        ("probe/torch_model.py", "from ..lab import run"),
        ("probe/tree.py", "from ..report import page"),
        ("torch/ops.py", "from ..probe import explain"),
        ("unheard_of.py", "import os"),
    ],
)
def test_the_import_check_can_fail(path: str, source: str) -> None:
    assert len(faults(source, PACKAGE / path)) == 1


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
    pytest.importorskip("keras")
    first = "import os; os.environ['KERAS_BACKEND'] = 'numpy'; import dropkit"
    modules = loaded(f"{first}; assert dropkit.keras.Dropout and dropkit.probe.explain and dropkit.lab")
    assert {"dropkit.keras", "dropkit.probe", "dropkit.lab"} <= modules


def test_the_load_check_can_fail() -> None:
    assert "torch" in loaded("import dropkit.torch")


def test_every_public_name_is_documented_with_an_example() -> None:
    import dropkit
    import dropkit.jax
    import dropkit.numpy
    import dropkit.torch

    without = []
    for module in (dropkit, dropkit.jax, dropkit.numpy, dropkit.torch, dropkit.torch.functional):
        for name, value in vars(module).items():
            if name.startswith("_") or not getattr(value, "__module__", "").startswith("dropkit"):
                continue
            if not value.__doc__ or (">>>" not in value.__doc__ and not issubclass_of_exception(value)):
                without.append(f"{module.__name__}.{name}")
    assert without == []


def issubclass_of_exception(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Exception)
