"""The rooms of the PyTorch frontend: which way imports between them point, and that there are no circles of files."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "src" / "dropkit" / "torch"

# from the ground up; a room may import those before it
ROOMS = (
    *("draw", "channels", "arithmetic", "drawing", "bound", "parts", "ops", "named", "layers", "functional"),
    *(
        "fused",
        "variants",
        "attention",
        "reading",
        "binding",
        "release",
        "pipelines",
        "sharding",
        "learned",
        "depth",
        "weights",
        "heads",
        "tokens",
        "graphs",
        "embedded",
        "pooling",
        "recurrent",
        "taken",
        "eager",
        "finding",
    ),
    "changing",
    "moving",
    *("callbacks", "rate_log", "schedule"),  # public paths of what is in `moving`
    "__init__",
)


def imported(source: str, module: tuple[str, ...], folder: bool = False) -> set[tuple[str, ...]]:
    """What a module of the frontend imports of it, as parts of a path; also inside functions."""
    package = module if folder else module[:-1]
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and 0 < node.level <= len(package) + 1:
            base = (*package[: len(package) - node.level + 1], *(node.module.split(".") if node.module else ()))
            for alias in node.names:
                inner = ROOT.joinpath(*base, alias.name)
                found.add((*base, alias.name) if inner.is_dir() or inner.with_suffix(".py").exists() else base)
    return found - {()}


def files() -> dict[tuple[str, ...], set[tuple[str, ...]]]:
    """What each module imports."""
    graph = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        folder = parts[-1] == "__init__"
        module = parts[:-1] if folder else parts
        graph[module] = imported(path.read_text(), module, folder)
    return graph


def upward(graph: dict[tuple[str, ...], set[tuple[str, ...]]]) -> list[str]:
    """Imports of a room above."""
    return [
        f"{'.'.join(module) or '__init__'} imports {'.'.join(other)}"
        for module, others in graph.items()
        for other in others
        if ROOMS.index(other[0]) > ROOMS.index(module[0] if module else "__init__")
    ]


def circle(graph: dict[tuple[str, ...], set[tuple[str, ...]]]) -> list[str]:
    """The modules that import themselves by way of others, and those above them; none if there are no circles."""
    left = dict(graph)
    while ready := [module for module, others in left.items() if not (others - {module}) & set(left)]:
        for module in ready:
            del left[module]
    return sorted(".".join(module) for module in left)


def test_every_room_imports_rooms_below_it_only() -> None:
    graph = files()
    assert len(graph) > 50
    assert upward(graph) == []


def test_no_file_imports_itself_by_way_of_others_not_even_inside_functions() -> None:
    assert circle(files()) == []


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        (("ops",), "from .layers import Dropout", ["ops imports layers"]),
        (("ops",), "def late():\n    from . import sharding", ["ops imports sharding"]),
        (("drawing", "ranks"), "from ..bound.clock import Clock", ["drawing.ranks imports bound.clock"]),
        (("moving", "schedule"), "from ..changing.overlay import assign", []),
    ],
)
def test_the_check_of_rooms_can_fail(module: tuple[str, ...], source: str, wrong: list[str]) -> None:
    assert upward({module: imported(source, module)}) == wrong


def test_the_check_of_circles_can_fail() -> None:
    graph = files()
    graph["parts", "dtensor"] |= {("sharding",)}
    graph["sharding",] |= {("parts", "dtensor")}
    assert "sharding" in circle(graph)
