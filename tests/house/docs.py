"""Public names have a docstring with an example, and CONTRIBUTING's tree is the tree."""

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

from .arrows import placed
from .plan import CLASSES_DOCUMENTED, DOCUMENTED
from .source import Fault, File, House, top_level


def undocumented(house: House) -> list[Fault]:
    """Public classes and functions without a docstring or without an example in it; exceptions need no example.

    Public is what a package's `__init__` defines, imports as itself or imports on first use, and what a file defines.
    """
    faults = []
    for path in (*DOCUMENTED, *CLASSES_DOCUMENTED):
        file = house.files.get(f"{path}.py") or house.files.get(f"{path}/__init__.py".lstrip("/"))
        if file is None:
            continue
        for name in sorted(_public(file)):
            found = _definition(house, file, name)
            if found is None or (path in CLASSES_DOCUMENTED and not _is_made(found[1])):
                continue
            where, node = found
            text = ast.get_docstring(node)
            if not text:
                faults.append(Fault("docstring", where.path, node.lineno, f"{file.module}.{name} has none"))
            elif ">>>" not in text and not _is_exception(node):
                faults.append(Fault("docstring", where.path, node.lineno, f"{file.module}.{name} shows no example"))
    return faults


def _public(file: File) -> set[str]:
    found: set[str] = set()
    for node in top_level(file.tree):
        if isinstance(node, ast.FunctionDef) and node.name == "__getattr__":  # on first use
            found |= {
                alias.name for inner in ast.walk(node) if isinstance(inner, ast.ImportFrom) for alias in inner.names
            }
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ImportFrom) and file.path.endswith("__init__.py"):
            found |= {alias.name for alias in node.names if alias.asname == alias.name}
    return {name for name in found if not name.startswith("_")}


def _definition(house: House, file: File, name: str) -> tuple[File, ast.ClassDef | ast.FunctionDef] | None:
    """Where a name is defined, through re-exports."""
    for node in reversed(file.tree.body):  # the last one counts; those before it are overloads
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return file, node
    for item in house.imports(file):
        if item.bound == name and item.name is not None and item.module in house.modules:
            return _definition(house, house.modules[item.module], item.name)
    return None


def _is_exception(node: ast.AST) -> bool:
    bases = [ast.unparse(base) for base in node.bases] if isinstance(node, ast.ClassDef) else []
    return any(base.endswith(("Error", "Exception", "Warning")) for base in bases)


def _is_made(node: ast.AST) -> bool:
    """Whether it is a class that is not abstract."""
    return isinstance(node, ast.ClassDef) and not (ast.get_docstring(node) or "").startswith("Abstract")


class Entry(NamedTuple):
    """A name in CONTRIBUTING's tree.

    Args:
        path: `torch/ops.py`, `torch/parts/`.
        line: the number of its line.
        floor: what is said of it begins with a number; None if it does not.
    """

    path: str
    line: int
    floor: int | None = None


def entries(text: str) -> list[Entry]:
    """What the tree under `src/dropkit/` names: at the beginning of its lines, several with two spaces between."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.strip() == "src/dropkit/")
    margin = len(lines[start]) - len(lines[start].lstrip())
    found: list[Entry] = []
    folders: list[tuple[int, str]] = []
    for number, line in enumerate(lines[start + 1 :], start + 2):
        indent = len(line) - len(line.lstrip())
        if not line.strip() or indent <= margin:
            break
        while folders and folders[-1][0] >= indent:
            folders.pop()
        above = "".join(name for _, name in folders)
        names = _names(line.strip())
        floor = re.search(r"  (\d)  ", line)
        found += [Entry(above + name, number, int(floor[1]) if floor else None) for name in names]
        if len(names) == 1 and names[0].endswith("/"):
            folders.append((indent, names[0]))
    return found


def _names(line: str) -> list[str]:
    found = []
    for piece in re.split(r"  +", line):
        if not re.fullmatch(r"\w+(\.py|/)", piece):
            break
        found.append(piece)
    return found


def untold(house: House, contributing: str) -> list[Fault]:
    """Files and folders that CONTRIBUTING's tree leaves out where it names their siblings; names without a file."""
    told = {entry.path: entry.line for entry in entries(contributing)}
    there = set(_there(house))
    shown = {path.rstrip("/").rpartition("/")[0] for path in told}
    new = [path for path in sorted(there - set(told)) if path.rstrip("/").rpartition("/")[0] in shown]
    gone = sorted(set(told) - there)
    return [
        *(Fault("tree", path, 1, "is not in CONTRIBUTING's tree") for path in new),
        *(Fault("tree", "CONTRIBUTING.md", told[path], f"names {path}") for path in gone),
    ]


def _there(house: House) -> Iterator[str]:
    """Files and folders with files; not what stands at a former name alone."""
    for file in house.ours:
        if house.is_former(file):
            continue
        parts = placed(file.path)
        for depth in range(1, len(parts)):
            yield "/".join(parts[:depth]) + "/"
        if parts[-1] not in {"__init__", "__main__"}:
            yield "/".join(parts) + ".py"
