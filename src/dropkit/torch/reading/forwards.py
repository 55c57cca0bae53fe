"""What the source of a forward shows: the attributes that it reads, and the calls that it hands a rate to.

The syntax tree is followed from `forward` into methods and functions, with `self`, what hangs on it and plain constants
as the values that are known. Nothing is run. Code whose source cannot be had is passed over in silence.
"""

import functools
import inspect
from collections.abc import Mapping
from types import CodeType, FunctionType
from typing import Any

from torch import nn

from .frame import Frame
from .functions import callees, defaults, names_in, tree_of, underlying
from .values import DROPS, NOTHING, At, Chain, Known, Reading, Value

_DEEP = 6  # how far functions call each other
_MANY = 200  # functions that are followed from one forward, at most
_PLAIN = (bool, int, float, str, type(None), set, list, tuple)


def readings(model: nn.Module) -> dict[int, Reading]:
    """For each module of a model, by id, what its forward reads; methods that other modules call on it count as well.

    torch's own modules read nothing that is not known anyway.
    """
    own = [module for module in model.modules() if not type(module).__module__.startswith("torch.")]
    found = {id(module): Reading() for module in model.modules()}
    read: dict[tuple[type, Any], Reading] = {}  # modules of a class share what they read
    for module in own:
        found[id(module)] = read.setdefault((type(module), module.__dict__.get("forward")), Reading())
    wanted, seen = {"forward", "training_step"}, set()
    while wanted:
        called: set[str] = set()
        for (kind, forward), reading in read.items():
            for name in wanted:
                _read_into(reading, kind, forward, name)
            called |= reading.called
        seen |= wanted
        wanted = called - seen
    return found


def holders(model: nn.Module) -> dict[int, str]:
    """How configs and other objects are called, by id: by the first module that holds them, and under which name."""
    found: dict[int, str] = {}
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if type(value) not in _PLAIN:
                found.setdefault(id(value), f"{path}.{name}".removeprefix("."))
    return found


def called(path: str, module: nn.Module, chain: Chain, known: Mapping[int, str]) -> str:
    """What a rate is called that a module reads: by its own path, or by the first that holds the config."""
    if len(chain) == 1:
        return ".".join([path, *chain]).removeprefix(".")
    top = vars(module).get(chain[0])
    return ".".join([known.get(id(top), f"{path}.{chain[0]}".removeprefix(".")), *chain[1:]])


def _read_into(reading: Reading, kind: type, forward: Any, name: str) -> None:
    method = underlying(forward) if name == "forward" and forward is not None else None
    method = method or underlying(inspect.getattr_static(kind, name, None))
    if method is not None:
        reading.add(_read(kind, method))


@functools.lru_cache(maxsize=4096)
def _read(kind: type, function: FunctionType) -> Reading:
    reader = _Reader(kind)
    positional = function.__code__.co_varnames[: function.__code__.co_argcount]
    reader.function(function, {positional[0]: frozenset({At(())})} if positional else {}, 0)
    return reader.reading


class _Reader:
    """Follows one forward of a class."""

    def __init__(self, kind: type) -> None:
        self.kind = kind
        self.reading = Reading()
        self.done: dict[Any, Value] = {}
        self.concerned: dict[CodeType, bool] = {}

    def function(self, function: FunctionType, given: dict[str, Value], depth: int) -> Value:
        """What a function may return, with these arguments."""
        key = (function, frozenset(given.items()))
        if key in self.done or depth > _DEEP or len(self.done) > _MANY:
            return self.done.get(key, NOTHING)
        self.done[key] = NOTHING  # it may call itself
        if not self._concerned(function, ()):
            return NOTHING
        tree = tree_of(function.__code__)
        if tree is None:
            self.reading.whole = False
            return NOTHING
        frame = Frame(self, function, {**self._constant(function), **given}, depth)
        for statement in tree.body:
            frame.visit(statement)
        self.done[key] = frame.returned
        return frame.returned

    @staticmethod
    def _constant(function: FunctionType) -> dict[str, Value]:
        return {name: frozenset({Known(value)}) for name, value in defaults(function).items()}

    def _concerned(self, function: FunctionType, above: tuple[CodeType, ...]) -> bool:
        """Whether a function, or one that it calls, mentions dropout: only then its source is worth the time."""
        code = function.__code__
        if code in self.concerned or code in above or len(above) > _DEEP:
            return self.concerned.get(code, False)
        concerned = any(len(name) < 80 and DROPS.search(name) for name in names_in(code))
        self.concerned[code] = concerned or any(
            self._concerned(callee, (*above, code)) for callee in callees(function, self.kind)
        )
        return self.concerned[code]
