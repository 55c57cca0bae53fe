"""The kernels' numbers stand in `operations.def` alone: Python has them from the extension, C++ includes the list."""

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from dropkit.counter import FOLD_ROUNDS, MASK_ROUNDS, MULTIPLIERS, WEYL
from dropkit.kernels import cpu
from dropkit.kernels.cpu import codes

SOURCES = Path(cpu.__file__).parent
LIST = (SOURCES / "operations.def").read_text()
built = pytest.mark.skipif(not cpu.available(), reason=str(cpu.info()["why"]))


def rows(kind: str, text: str = LIST) -> dict[str, int]:
    """Names and codes of the rows of a kind."""
    found = re.findall(rf'^DROPKIT_{kind}\((\w+), (\d+)(?:, "(\w+)")?', text, re.MULTILINE)
    return {label or name: int(code) for name, code, label in found}


def faults(text: str) -> list[str]:
    """Where a list and what was compiled from it differ, and codes that two rows have."""
    held = {"OPERATION": codes.OPERATIONS, "DTYPE": codes.DTYPES, "LAW": codes.LAWS}
    wrong = [kind for kind, compiled in held.items() if rows(kind, text) != compiled]
    wrong += [f"{kind} twice" for kind in held if len(set(rows(kind, text).values())) < len(rows(kind, text))]
    labels = re.findall(r'^DROPKIT_PATH\(\w+, "(\w+)"', text, re.MULTILINE)
    return wrong + ["PATH"] * (tuple(labels) != codes.PATHS)


@built
def test_the_extension_was_compiled_from_this_list() -> None:
    assert faults(LIST) == []


@built
@pytest.mark.parametrize(
    ("old", "new", "wrong"),
    [
        ("OPERATION(KEEP, 9,", "OPERATION(KEEP, 12,", ["OPERATION"]),
        ("OPERATION(KEEP, 9,", "OPERATION(KEEP, 10,", ["OPERATION", "OPERATION twice"]),
        ("OPERATION(RELU, 2,", "OPERATION(SOFTMAX, 2,", ["OPERATION"]),
        ('2, "float16"', '3, "float16"', ["DTYPE", "DTYPE twice"]),
        ('2, "line"', '4, "line"', ["LAW"]),
        ('NEON, "neon"', 'NEON, "sve"', ["PATH"]),
    ],
)
def test_a_list_that_differs_is_seen(old: str, new: str, wrong: list[str]) -> None:
    assert old in LIST
    assert faults(LIST.replace(old, new)) == wrong


@built
def test_every_operation_has_its_name_in_python() -> None:
    assert {name: getattr(cpu, name) for name in codes.OPERATIONS} == codes.OPERATIONS
    with pytest.raises(KeyError, match="SOFTMAX"):
        codes.operation("SOFTMAX")


@built
def test_torch_knows_every_dtype_by_the_kernels_number() -> None:
    from dropkit.torch.ops import cpu as arithmetic

    assert {str(dtype).removeprefix("torch."): code for dtype, code in arithmetic.DTYPES.items()} == codes.DTYPES


def test_philox_has_the_constants_of_the_counter() -> None:
    text = (SOURCES / "philox.h").read_text()
    found = {name: int(value, 0) for name, value in re.findall(r"(\w+) = (0x[0-9a-f]+|\d+)u?[,;]", text)}
    names = ("M0", "M1", "WEYL0", "WEYL1", "MASK_ROUNDS", "FOLD_ROUNDS")
    assert found == dict(zip(names, (*MULTIPLIERS, *WEYL, MASK_ROUNDS, FOLD_ROUNDS), strict=True))
    others = [path for path in SOURCES.iterdir() if path.suffix in (".cpp", ".h", ".inc") and path.name != "philox.h"]
    assert [path.name for path in others if re.search("d2511f53|9e3779b9", path.read_text(), re.IGNORECASE)] == []


def test_an_extension_of_an_older_source_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib, "import_module", lambda *_: SimpleNamespace(walk=None))
    assert codes.load() == (None, "the extension module was compiled from an older source")


NUMPY = "y = dropkit.numpy.dropout(np.ones(40, np.float32), 0.3, training=True, key=key)"
TORCH = "import torch; y = dropkit.torch.dropout(torch.ones(40), 0.3, training=True, key=key).numpy()"
JAX = "y = np.asarray(dropkit.jax.dropout(np.ones(40, np.float32), 0.3, training=True, key=key))"


@pytest.mark.parametrize("call", [NUMPY, TORCH, JAX], ids=["numpy", "torch", "jax"])
def test_without_the_extension_the_frontends_draw_the_same(call: str) -> None:
    code = f"""
import sys
sys.modules["dropkit.kernels.cpu._cpu"] = None
import numpy as np, dropkit, dropkit.numpy, dropkit.kernels.cpu as cpu
key = dropkit.Key(1)
{call}
assert not cpu.available() and cpu.SCALE == -1 and dropkit.choice.xla() is None
assert ((y != 0) == dropkit.keep((40,), 0.3, key)).all()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


COMPILER = shutil.which("c++")
OWN = ["bits.inc", "dispatch.h", "dropout_kernel.inc", "operations.inc", "philox.h", "problem.h", "vec_portable.h"]


@pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler")
@pytest.mark.parametrize("name", OWN)
def test_a_file_can_be_read_by_itself_and_warns_of_nothing(name: str) -> None:
    flags = ["-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror"]
    command = [str(COMPILER), *flags, "-include", str(SOURCES / name), "-x", "c++", "/dev/null"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
