"""No private name of one module is used in another, and nobody replaces a function of ours from outside.

What a name stands for is read off imports and plain assignments, loops and `with` over them, in the whole file at once.
A method that a subclass in another file calls on `self` is no use from outside.
"""

import ast
from collections.abc import Iterator
from typing import NamedTuple

from .plan import OF_FRAMEWORKS
from .source import Fault, File, House

_READS = {"getattr", "hasattr", "isinstance", "issubclass"}
_WRITES = {"setattr", "delattr"}
_CHANGES = {"update", "setdefault", "pop", "__setitem__", "__delitem__"}  # of a namespace
_SELF = {"self", "cls", "mcs"}


class Thing(NamedTuple):
    """What a name stands for: a module of ours, or a name in one."""

    module: str
    name: str | None = None


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


class Names:
    """What the names of a file stand for, of ours."""

    def __init__(self, house: House, file: File) -> None:
        self.house, self.file = house, file
        self.bound: dict[str, Thing] = {}  # what each name stands for
        for item in house.imports(file):
            if item.bound is not None:
                self.bound[item.bound] = self._followed(Thing(item.module, item.name))
            elif item.name is None:
                self.bound.setdefault("dropkit", Thing("dropkit"))
        self._literals = _literals(file)
        while self._aliases():
            pass

    def _followed(self, thing: Thing, depth: int = 0) -> Thing:
        """Where a re-exported name comes from."""
        file = self.house.modules.get(thing.module)
        if thing.name is None or file is None or depth > 5:
            return thing
        for item in self.house.imports(file):
            if item.bound == thing.name:
                return self._followed(Thing(item.module, item.name), depth + 1)
        return thing

    def of(self, node: ast.expr) -> Thing | None:
        """The module, class or function of ours that an expression names."""
        if isinstance(node, ast.Name):
            return self.bound.get(node.id)
        if isinstance(node, ast.Attribute):
            base = self.of(node.value)
            if base is not None and base.name is None:
                inner = f"{base.module}.{node.attr}"
                if inner in self.house.modules:
                    return Thing(inner)
                return self._followed(Thing(base.module, node.attr))
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "sys.modules":
            name = getattr(node.slice, "value", None)
            return Thing(name) if name in self.house.modules else None
        return None

    def _aliases(self) -> bool:
        """Names that are assigned, or looped over, what is ours."""
        before = len(self.bound)
        for node in ast.walk(self.file.tree):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    self._bind(target, node.value)
            elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value is not None:
                self._bind(node.target, node.value)
            elif isinstance(node, ast.For | ast.comprehension):
                self._loop(node.target, node.iter)
        return len(self.bound) > before

    def _bind(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            thing = self.of(value)
            if thing is not None and self._is_code(thing) and target.id not in self.bound:
                self.bound[target.id] = thing
        elif isinstance(target, ast.Tuple | ast.List) and isinstance(value, ast.Tuple | ast.List):
            for one, other in zip(target.elts, value.elts, strict=False):
                self._bind(one, other)

    def _loop(self, target: ast.expr, over: ast.expr) -> None:
        """What a loop's variable stands for, over a literal, a name for one, or several in `zip`."""
        if isinstance(over, ast.Call) and ast.unparse(over.func) == "zip" and isinstance(target, ast.Tuple):
            for one, other in zip(target.elts, over.args, strict=False):
                self._loop(one, other)
        elif isinstance(over, ast.Name):
            for literal in self._literals.get(over.id, ()):
                self._loop(target, literal)
        elif isinstance(over, ast.Tuple | ast.List | ast.Set):
            for element in over.elts:
                self._bind(target, element)

    def _is_code(self, thing: Thing) -> bool:
        """Whether it is a module, a class or a function, which an assignment gives another name and no copy."""
        file = self.house.modules.get(thing.module)
        if thing.name is None or file is None:
            return file is not None
        kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        return any(isinstance(node, kinds) and node.name == thing.name for node in file.tree.body)

    def foreign(self, thing: Thing | None) -> bool:
        """Whether it is ours, and of another file."""
        return thing is not None and thing.module in self.house.modules and thing.module != self.file.module


def _literals(file: File) -> dict[str, list[ast.expr]]:
    """Tuples, lists and sets that are written out, by the names that they are given."""
    found: dict[str, list[ast.expr]] = {}
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Tuple | ast.List | ast.Set):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    found.setdefault(target.id, []).append(node.value)
    return found


def private(house: House) -> list[Fault]:
    """Private names of one module of ours that another imports, reads as an attribute or asks for by name."""
    return [fault for file in house.ours for fault in sorted(set(_private(house, file)))]


def _private(house: House, file: File) -> Iterator[Fault]:
    names = Names(house, file)
    for item in house.imports(file):
        path = ".".join([item.module, *([item.name] if item.name else [])])
        hidden = next(filter(is_private, path.split(".")), None)
        if hidden and path.partition(f".{hidden}")[0] not in {file.module, file.package}:
            yield Fault("private", file.path, item.line, f"imports {path}")
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            thing = names.of(node.value)
            if names.foreign(thing):
                yield Fault("private", file.path, node.lineno, f"uses {ast.unparse(node)}")
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in _READS | _WRITES and len(node.args) > 1:
            text = node.args[1]
            if names.foreign(names.of(node.args[0])) and isinstance(text, ast.Constant) and is_private(str(text.value)):
                yield Fault("private", file.path, node.lineno, f"asks for {text.value} of {ast.unparse(node.args[0])}")
        elif isinstance(node, ast.Subscript):
            asked = is_private(str(getattr(node.slice, "value", "")))
            if asked and names.foreign(_namespace(names, node.value)):
                yield Fault("private", file.path, node.lineno, f"uses {ast.unparse(node)}")


def private_attributes(house: House) -> list[Fault]:
    """Private attributes of our classes that a file uses in which no class has one of that name."""
    owners: dict[str, set[str]] = {}
    for file in house.ours:
        for name in _own_attributes(file):
            owners.setdefault(name, set()).add(file.path)
    faults = []
    for file in house.ours:
        for node in ast.walk(file.tree):
            if not (isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr in owners):
                continue
            base = ast.unparse(node.value)
            if (
                node.attr in OF_FRAMEWORKS
                or base in _SELF
                or base.startswith("super(")
                or file.path in owners[node.attr]
            ):
                continue
            where = ", ".join(sorted(owners[node.attr]))
            faults.append(Fault("private attribute", file.path, node.lineno, f"uses {ast.unparse(node)}, of {where}"))
    return faults


def _own_attributes(file: File) -> set[str]:
    """Private attributes that the classes of a file define or set on `self`."""
    found: set[str] = set()
    for holder in ast.walk(file.tree):
        if not isinstance(holder, ast.ClassDef):
            continue
        for node in ast.walk(holder):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node in holder.body:
                found.add(node.name)
            elif (
                isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) in _SELF
            ):
                found.add(node.attr)
        for node in holder.body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in found if is_private(name)}


def patches(house: House) -> list[Fault]:
    """Attributes of our modules, classes and functions that another module sets, deletes or names to replace them."""
    return [fault for file in house.ours for fault in sorted(set(_patches(house, file)))]


def _patches(house: House, file: File) -> Iterator[Fault]:
    names = Names(house, file)
    for node in ast.walk(file.tree):
        says = None
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            if names.foreign(names.of(node.value)):
                says = (
                    f"sets {ast.unparse(node)}" if isinstance(node.ctx, ast.Store) else f"deletes {ast.unparse(node)}"
                )
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            if names.foreign(_namespace(names, node.value)):
                says = f"sets {ast.unparse(node)}"
        elif isinstance(node, ast.Call):
            says = _called(house, names, node)
        elif isinstance(node, ast.Tuple | ast.List):
            says = _pair(house, names, node.elts)
        elif isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            said = [_pair(house, names, [key, value]) for key, value in pairs if key is not None]
            says = next((text for text in said if text), None)
        if says:
            yield Fault("patch", file.path, node.lineno, says)


def _namespace(names: Names, node: ast.expr) -> Thing | None:
    """What `module.__dict__` and `vars(module)` belong to."""
    if isinstance(node, ast.Attribute) and node.attr == "__dict__":
        return names.of(node.value)
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "vars" and node.args:
        return names.of(node.args[0])
    return None


def _called(house: House, names: Names, node: ast.Call) -> str | None:
    called = ast.unparse(node.func)
    last = called.rpartition(".")[2]
    if last in _WRITES | {f"__{name}__" for name in _WRITES} and node.args and names.foreign(names.of(node.args[0])):
        return f"calls {last} on {ast.unparse(node.args[0])}"
    if last in _CHANGES and isinstance(node.func, ast.Attribute):
        return f"calls {called}" if names.foreign(_namespace(names, node.func.value)) else None
    if "patch" in called.split(".") and node.args:
        first = node.args[0]
        named = str(getattr(first, "value", "")).startswith("dropkit.")
        if named or names.foreign(names.of(first)) or names.foreign(_namespace(names, first)):
            return f"patches {ast.unparse(first)}"
    if called in _READS:
        return None
    given = [*node.args, *(keyword.value for keyword in node.keywords)]
    return next((said for i in range(len(given)) if (said := _pair(house, names, given[i:]))), None)


def _pair(house: House, names: Names, elements: list[ast.expr]) -> str | None:
    """Something of ours followed by the name of one of its attributes."""
    if len(elements) < 2 or not isinstance(elements[1], ast.Constant) or not isinstance(elements[1].value, str):
        return None
    thing = names.of(elements[0])
    if thing is None or not names.foreign(thing) or elements[1].value not in _attributes(house, thing):
        return None
    return f"names {elements[1].value} of {ast.unparse(elements[0])}, to replace it"


def _attributes(house: House, thing: Thing) -> set[str]:
    """What a module, or a class and its bases in the same file, define."""
    file = house.modules[thing.module]
    if thing.name is None:
        return file.defined
    found: set[str] = set()
    waiting = [thing.name]
    while waiting:
        node = file.classes.get(waiting.pop())
        if node is not None:
            found |= {inner.name for inner in node.body if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)}
            waiting += [base.id for base in node.bases if isinstance(base, ast.Name)]
    return found
