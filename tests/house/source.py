"""A checkout as syntax trees: which file is which module, what it imports of ours, and what its names stand for."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from .plan import FORMER

PACKAGE = "dropkit"


class Fault(NamedTuple):
    """What is out of place, and where.

    Args:
        check: which rule.
        path: of the file, as of the package's folder; `benchmarks/...` outside of it.
        line: 1 for a whole file.
        says: what is wrong.
    """

    check: str
    path: str
    line: int
    says: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.check}: {self.says}"


class Import(NamedTuple):
    """One name that a file imports of ours.

    Args:
        module: the file it comes from, as a dotted module.
        name: in that module; None for the module itself.
        bound: what it is called here; None where nothing is bound.
        line: where.
        typing: only for type checkers.
    """

    module: str
    name: str | None
    bound: str | None
    line: int
    typing: bool


@dataclass(frozen=True)
class File:
    """One file: its path under the package, its dotted module, its text and tree."""

    path: str
    text: str

    @cached_property
    def module(self) -> str:
        parts = self.path.removesuffix(".py").split("/")
        if parts[-1] == "__init__":
            parts.pop()
        return ".".join(parts if self.path.startswith("benchmarks/") else [PACKAGE, *parts])

    @cached_property
    def package(self) -> str:
        """What a relative import starts from."""
        return self.module if self.path.endswith("__init__.py") else self.module.rpartition(".")[0]

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def typing_lines(self) -> set[int]:
        """Lines that only type checkers run."""
        return {
            line
            for node in ast.walk(self.tree)
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            for inner in node.body
            for line in range(inner.lineno, (inner.end_lineno or inner.lineno) + 1)
        }

    @cached_property
    def defined(self) -> set[str]:
        """Names that the module has at its top level, imported ones too, also inside `if`, `try` and `with`."""
        found: set[str] = set()
        for node in top_level(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                found |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
            else:
                found |= {
                    name.id for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
                }
        return found

    @cached_property
    def classes(self) -> dict[str, ast.ClassDef]:
        return {node.name: node for node in top_level(self.tree) if isinstance(node, ast.ClassDef)}


def _passes_on(node: ast.ImportFrom) -> bool:
    return all(alias.name in {"*", alias.asname} for alias in node.names)


def top_level(tree: ast.Module) -> Iterator[ast.stmt]:
    """The statements that run on import, those for type checkers too."""
    stack: list[ast.stmt] = list(tree.body)
    while stack:
        node = stack.pop()
        yield node
        if isinstance(node, ast.If | ast.Try | ast.With | ast.For):
            for name in ("body", "orelse", "finalbody"):
                stack += getattr(node, name, [])
            for handler in getattr(node, "handlers", []):
                stack += handler.body


class House:
    """All files of a checkout, or planted ones.

    Args:
        sources: text by path, `torch/ops.py`, `benchmarks/gpu.py`.
    """

    def __init__(self, sources: Mapping[str, str]) -> None:
        self.files = {path: File(path, text) for path, text in sorted(sources.items())}
        self.modules = {file.module: file for file in self.files.values()}
        self._imports: dict[str, list[Import]] = {}
        self._former: dict[str, bool] = {}

    @classmethod
    def of(cls, root: Path) -> "House":
        """The house of a checkout."""
        package = root / "src" / PACKAGE
        sources = {path.relative_to(package).as_posix(): path.read_text() for path in package.rglob("*.py")}
        benchmarks = (root / "benchmarks").glob("*.py")
        return cls(sources | {f"benchmarks/{path.name}": path.read_text() for path in benchmarks})

    def with_(self, sources: Mapping[str, str]) -> "House":
        """The same with other or more files."""
        return House({path: file.text for path, file in self.files.items()} | dict(sources))

    @property
    def ours(self) -> list[File]:
        """The package without the benchmarks."""
        return [file for file in self.files.values() if not file.path.startswith("benchmarks/")]

    def is_former(self, file: File) -> bool:
        """Whether a file is there for those alone who import it under its former name: it imports and does no more."""
        if file.path not in self._former:
            body = file.tree.body[1:] if ast.get_docstring(file.tree) else []
            plain = not file.path.endswith(("__init__.py", "__main__.py")) and bool(body)
            passed_on = all(isinstance(node, ast.ImportFrom) and node.level and _passes_on(node) for node in body)
            now = FORMER.get(file.path.removesuffix(".py"))
            self._former[file.path] = f"{now}.py" in self.files or (plain and passed_on)
        return self._former[file.path]

    def has(self, file: File, name: str) -> bool:
        """Whether `from file import name` finds something."""
        if name == "*" or name in file.defined or name.startswith("__"):
            return True
        starred = [self.modules.get(item.module) for item in self.imports(file) if item.name == "*"]
        if any(other is not None and self.has(other, name) for other in starred):
            return True
        # what a module's own __getattr__ answers stands in it as text
        return "__getattr__" in file.defined and any(
            isinstance(node, ast.Constant) and node.value == name for node in ast.walk(file.tree)
        )

    def imports(self, file: File) -> list[Import]:
        """What a file imports of ours, wherever in it; `from . import x` is module x where there is one."""
        if file.path not in self._imports:
            self._imports[file.path] = list(self._read(file))
        return self._imports[file.path]

    def _read(self, file: File) -> Iterator[Import]:
        for node in ast.walk(file.tree):
            typing = getattr(node, "lineno", 0) in file.typing_lines
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.partition(".")[0] == PACKAGE:
                        # `import dropkit.torch` binds dropkit; with `as`, the module itself
                        yield Import(alias.name, None, alias.asname, node.lineno, typing)
            elif isinstance(node, ast.ImportFrom):
                base = self._base(file, node.module, node.level)
                if base.partition(".")[0] != PACKAGE:
                    continue
                for alias in node.names:
                    bound = alias.asname or alias.name
                    if f"{base}.{alias.name}" in self.modules:
                        yield Import(f"{base}.{alias.name}", None, bound, node.lineno, typing)
                    else:
                        yield Import(base, alias.name, bound, node.lineno, typing)
            elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in _IMPORTERS:
                yield from self._called(file, node)

    def _called(self, file: File, node: ast.Call) -> Iterator[Import]:
        """What `import_module("...")` imports, where the text says it."""
        for given in node.args[:1]:
            if isinstance(given, ast.Constant) and isinstance(given.value, str):
                name = given.value
                level = len(name) - len(name.lstrip("."))
                name = self._base(file, name.lstrip(".") or None, level)
                if name.partition(".")[0] == PACKAGE and name in self.modules:
                    yield Import(name, None, None, node.lineno, False)

    @staticmethod
    def _base(file: File, name: str | None, level: int) -> str:
        parts = file.package.split(".")[: len(file.package.split(".")) - level + 1] if level else []
        return ".".join([*parts, *([name] if name else [])])


_IMPORTERS = {"import_module", "__import__"}
