"""How long files, functions and the core are.

Code lines are lines with code on them: without blank lines, comments and docstrings. A function has those from its
`def` to its end, without decorators; what is defined inside it counts for both.
"""

import ast
import io
import tokenize
from collections.abc import Iterator

from .plan import CORE, CORE_LINES, FILE_LINES, FUNCTION_LINES, NOT_CORE
from .source import Fault, File, House

_NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def code_lines(file: File) -> set[int]:
    """The numbers of the lines with code on them."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(file.text).readline):
        if token.type not in _NO_CODE:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Module | ast.ClassDef | _Function) and ast.get_docstring(node, clean=False) is not None:
            text = node.body[0]
            lines -= set(range(text.lineno, (text.end_lineno or text.lineno) + 1))
    return lines


def functions(file: File) -> Iterator[tuple[_Function, int]]:
    """Each function with its number of code lines."""
    lines = code_lines(file)
    for node in ast.walk(file.tree):
        if isinstance(node, _Function):
            yield node, len(lines & set(range(node.lineno, (node.end_lineno or node.lineno) + 1)))


def long_files(house: House) -> list[Fault]:
    """Files of more than 400 lines, all of them counted."""
    lengths = [(file, len(file.text.splitlines())) for file in house.ours]
    return [
        Fault("long file", file.path, 1, f"{n} lines, at most {FILE_LINES}") for file, n in lengths if n > FILE_LINES
    ]


def tail(house: House) -> tuple[int, list[tuple[int, File, _Function]]]:
    """The code lines that nine functions of ten do not exceed, and the functions that have more than they should."""
    every = sorted(((n, file, node) for file in house.ours for node, n in functions(file)), key=lambda entry: -entry[0])
    p90 = every[len(every) // 10][0] if every else 0
    return p90, [entry for entry in every if entry[0] > FUNCTION_LINES]


def long_functions(house: House) -> list[Fault]:
    """Nothing, unless more than one function in ten is longer than 25 code lines; then these functions."""
    p90, longer = tail(house)
    if p90 <= FUNCTION_LINES:
        return []
    return [Fault("long function", file.path, node.lineno, f"{node.name}: {n} code lines") for n, file, node in longer]


def in_core(path: str) -> bool:
    """Whether a file is of the core."""
    name = path.removesuffix(".py")
    inside = [other for other in CORE if name == other or name.startswith(f"{other}/")]
    return bool(inside) and not any(name == other or name.startswith(f"{other}/") for other in NOT_CORE)


def core(house: House) -> dict[str, int]:
    """Code lines of each file of the core."""
    return {file.path: len(code_lines(file)) for file in house.ours if in_core(file.path)}


def large_core(house: House) -> list[Fault]:
    """The core, if it has more than 600 code lines."""
    sizes = core(house)
    total = sum(sizes.values())
    return [Fault("core", "drop.py", 1, f"{total} code lines, at most {CORE_LINES}: {sizes}")][: total > CORE_LINES]
