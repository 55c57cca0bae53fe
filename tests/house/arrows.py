"""Imports point down, name what exists, and run in no circle."""

import ast
from collections.abc import Iterator

from .plan import APART, BESIDE, FLOORS, FORMER, FRAMEWORKS, INSIDE, MAY_LOAD, ONLY
from .source import Fault, File, House

_FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def placed(path: str) -> list[str]:
    """The parts of a file's path without its suffix, the room first; of a former name, those of the present one."""
    name = path.removesuffix(".py")
    return FORMER.get(name, name).split("/")


def upward(house: House) -> list[Fault]:
    """Imports that do not point down, between rooms, inside rooms with an order, and of frameworks."""
    return [fault for file in house.files.values() for fault in (*_rooms(house, file), *_frameworks(file))]


def _rooms(house: House, file: File) -> Iterator[Fault]:
    here = placed(file.path)
    if here[0] not in _FLOOR:
        yield Fault("floor", file.path, 1, f"{here[0]} has no place in the house; give it one in tests/house/plan.py")
        return
    if here[0] == "__init__":  # the names for users, of every room
        return
    if here[0] in INSIDE and not house.is_former(file) and here[1] not in _order(here[0]):
        yield Fault(
            "order", file.path, 1, f"{here[0]}/{here[1]} has no place there; give it one in tests/house/plan.py"
        )
    for item in house.imports(file):
        target = house.modules.get(item.module)
        if target is None or (item.module == "dropkit" and item.name == "__version__"):  # None: said by `missing`
            continue
        there = placed(target.path)
        shown = f"imports {item.module}" + (f" ({item.name})" if item.name else "")
        if there[0] != here[0]:
            if not _may(here[0], there[0]):
                yield Fault("floor", file.path, item.line, shown)
        elif here[0] in APART:
            if there[1:2] != here[1:2] and here[1:2] != ["__init__"]:
                yield Fault("floor", file.path, item.line, f"{shown}, its sibling")
        elif here[0] in INSIDE and not house.is_former(file):
            order = _order(here[0])
            if order.get(there[1], 0) > order.get(here[1], len(order)):
                yield Fault("order", file.path, item.line, shown)


def _may(here: str, there: str) -> bool:
    if there not in _FLOOR or (here in ONLY and there not in ONLY[here]):
        return False
    return _FLOOR[there] < _FLOOR[here] or (here, there) in BESIDE


def _order(room: str) -> dict[str, int]:
    return {name: floor for floor, names in enumerate(INSIDE[room]) for name in names}


def _frameworks(file: File) -> Iterator[Fault]:
    room = placed(file.path)[0]
    barred = FRAMEWORKS - MAY_LOAD.get(room, set())
    for node in ast.walk(file.tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        for name in names:
            if name.partition(".")[0] in barred:
                yield Fault("framework", file.path, getattr(node, "lineno", 1), f"imports {name}")


def missing(house: House) -> list[Fault]:
    """Imports of ours that name no file, or nothing in it: those inside functions would fail only when called."""
    faults = []
    for file in house.files.values():
        for item in house.imports(file):
            target = house.modules.get(item.module)
            if target is None:
                if item.module != "dropkit.kernels.cpu._cpu":
                    faults.append(Fault("missing", file.path, item.line, f"there is no {item.module}"))
            elif item.name and not house.has(target, item.name):
                faults.append(Fault("missing", file.path, item.line, f"{item.module} has no {item.name}"))
    return faults


def former(house: House) -> list[Fault]:
    """Imports of ours under a former name, which is there for users."""
    faults = {
        Fault("former name", file.path, item.line, f"imports {item.module}")
        for file in house.files.values()
        for item in house.imports(file)
        if item.module in house.modules and house.is_former(house.modules[item.module])
    }
    return sorted(faults)


def circles(house: House) -> list[Fault]:
    """Files that import each other in a circle, also inside functions and for type checkers.

    The import of a package's own `__init__`, which Python runs on the way to every file in it, is no arrow; a name
    taken from it is.
    """
    arrows: dict[str, dict[str, int]] = {}
    for file in house.ours:
        arrows[file.path] = {}
        if file.path == "__init__.py":
            continue
        for item in house.imports(file):
            target = house.modules.get(item.module)
            if target is not None and target.path != file.path:
                arrows[file.path].setdefault(target.path, item.line)
    return [_circle(arrows, group) for group in _knots(arrows)]


def _circle(arrows: dict[str, dict[str, int]], group: list[str]) -> Fault:
    """The shortest way round from the first file of a knot."""
    start = min(group)
    ways = [[start]]
    while ways:
        way = ways.pop(0)
        for after in sorted(arrows[way[-1]]):
            if after == start:
                lines = [f"{a}:{arrows[a][b]}" for a, b in zip(way, [*way[1:], start], strict=True)]
                more = f" (a knot of {len(group)} files)" if len(group) > len(way) else ""
                return Fault("circle", start, arrows[start][[*way, start][1]], " -> ".join([*lines, start]) + more)
            if after in group and not any(after in other for other in [way, *ways]):
                ways.append([*way, after])
    raise AssertionError(group)


def _knots(arrows: dict[str, dict[str, int]]) -> list[list[str]]:
    """Strongly connected files, two or more of them."""
    reach = {path: _reached(arrows, path) for path in arrows}
    groups = {frozenset({a} | {b for b in reach[a] if a in reach[b]}) for a in arrows if a in reach[a]}
    return sorted(sorted(group) for group in groups)


def _reached(arrows: dict[str, dict[str, int]], start: str) -> set[str]:
    found: set[str] = set()
    stack = [start]
    while stack:
        for after in arrows.get(stack.pop(), ()):
            if after not in found:
                found.add(after)
                stack.append(after)
    return found
