"""What a Python function is made of: what it wraps, its source as a tree, the names in it, its arguments."""

import ast
import functools
import inspect
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from types import CodeType, FunctionType, ModuleType
from typing import Any, TypeVar

T = TypeVar("T")
_WRAPPED = 8  # how often a function is wrapped, at most


def underlying(function: Any) -> FunctionType | None:
    """The Python function behind a method, a decorator or a partial; None for torch's own and for what is none.

    >>> underlying(functools.partial(underlying)) is underlying, underlying(len)
    (True, None)
    """
    for _ in range(_WRAPPED):
        if isinstance(function, functools.partial):
            function = function.func
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        elif hasattr(function, "__func__"):
            function = function.__func__
        else:
            break
    own = isinstance(function, FunctionType) and not str(function.__module__).startswith("torch.")
    return function if own else None


@functools.lru_cache(maxsize=4096)
def tree_of(code: CodeType) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """The source of a function; None where it cannot be had."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(code)))
    except (OSError, TypeError, SyntaxError, ValueError, IndexError):
        return None
    first = tree.body[0] if tree.body else None
    return first if isinstance(first, ast.FunctionDef | ast.AsyncFunctionDef) else None


@functools.lru_cache(maxsize=16384)
def names_in(code: CodeType) -> frozenset[str]:
    """Every name and text in a function and in those within it."""
    inner = [names_in(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
    texts = {constant for constant in code.co_consts if isinstance(constant, str)}
    return frozenset({*code.co_names, *code.co_varnames, *texts}.union(*inner))


def callees(function: FunctionType, kind: type) -> Iterator[FunctionType]:
    """What a method of a class may call, by the names in it."""
    for name in names_in(function.__code__):
        for held in (inspect.getattr_static(kind, name, None), function.__globals__.get(name)):
            callee = underlying(held.fget if isinstance(held, property) else held)
            if callee is not None:
                yield callee


def arguments(function: FunctionType, args: Sequence[T], named: Mapping[str, T]) -> dict[str, T]:
    """Arguments of a call by the names of its parameters."""
    code = function.__code__
    known = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    positional = zip(code.co_varnames[: code.co_argcount], args, strict=False)
    return {**dict(positional), **{name: value for name, value in named.items() if name in known}}


def defaults(function: FunctionType) -> dict[str, Any]:
    """Parameters that have a plain default."""
    code = function.__code__
    values = function.__defaults__ or ()
    names = code.co_varnames[code.co_argcount - len(values) : code.co_argcount]
    found = {**dict(zip(names, values, strict=True)), **(function.__kwdefaults__ or {})}
    return {name: value for name, value in found.items() if value is None or type(value) in (bool, int, float, str)}


def cells_of(function: FunctionType) -> dict[str, Any]:
    """What a function holds of the one around it."""
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not filled yet
            continue
    return found


def unwrapped(held: Any) -> Any:
    """What a class holds, as it is called on the class."""
    return held.__func__ if isinstance(held, staticmethod | classmethod) else held


def hashable(value: Any) -> Any:
    """A constant, a function, a class or a module; None for anything else, and for what cannot be hashed."""
    if not (value is None or isinstance(value, bool | int | float | str | ModuleType) or callable(value)):
        return None
    try:
        hash(value)
    except TypeError:
        return None
    return value
