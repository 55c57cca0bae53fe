"""One call of a function, followed through its syntax tree: what its expressions may be, what they read and call."""

import ast
import builtins
import inspect
from collections.abc import Iterable
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, Protocol

from torch import nn

from .calls import find, is_random
from .functions import arguments, cells_of, hashable, underlying, unwrapped
from .values import ANY, DROPS, NOTHING, At, Chain, Handed, Known, Reading, Value

_DRAWS = frozenset({"bernoulli", "bernoulli_", "full", "full_like", "binomial", "choice", "choices"})
_THROUGH = frozenset({"float", "abs", "max", "min", "round", "enumerate", "zip", "reversed", "list", "tuple", "sorted"})


class Reader(Protocol):
    """Who follows the forward that a call is part of."""

    kind: type
    reading: Reading

    def function(self, function: FunctionType, given: dict[str, Value], depth: int) -> Value:
        """What a function may return, with these arguments."""


class Frame(ast.NodeVisitor):
    """One call of a function: its names, and what it returns."""

    def __init__(self, reader: Reader, function: FunctionType, names: dict[str, Value], depth: int) -> None:
        self.reader, self.code, self.depth = reader, function, depth
        self.names = names
        self.returned: Value = NOTHING

    # statements

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for statement in node.body:
            self.visit(statement)

    visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment]

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None:
            self.returned |= self.value(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        value = self.value(node.value)
        for target in node.targets:
            self._assign(target, value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._assign(node.target, self.value(node.value))

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self._assign(node.target, self.value(node.value))

    def visit_If(self, node: ast.If) -> None:
        """Both ways are open, so what either of them assigns may hold."""
        self.value(node.test)
        before = dict(self.names)
        for statement in node.body:
            self.visit(statement)
        after, self.names = self.names, before
        for statement in node.orelse:
            self.visit(statement)
        for name, value in after.items():
            self.names[name] = self.names.get(name, NOTHING) | value

    def visit_For(self, node: ast.For) -> None:
        self._assign(node.target, _entries(self.value(node.iter)))
        for statement in [*node.body, *node.orelse]:
            self.visit(statement)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self._assign(node.target, _entries(self.value(node.iter)))
        for test in node.ifs:
            self.value(test)

    def _assign(self, target: ast.expr, value: Value) -> None:
        if isinstance(target, ast.Name):
            self.names[target.id] = value
        elif isinstance(target, ast.Tuple | ast.List):
            for entry in target.elts:
                self._assign(entry, value)
        elif isinstance(target, ast.Starred):
            self._assign(target.value, value)

    # expressions

    def value(self, node: ast.expr) -> Value:
        """What an expression may be; whatever it reads and calls is noted."""
        method = getattr(self, f"_{type(node).__name__}", None)
        if method is not None:
            found: Value = method(node)
            return found
        for generator in getattr(node, "generators", ()):
            self.visit_comprehension(generator)
        union = NOTHING
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                union |= self.value(child)
        through = isinstance(node, ast.BoolOp | ast.BinOp | ast.Tuple | ast.List | ast.Starred)
        return union if through else NOTHING

    def generic_visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.expr):
            self.value(node)
            return
        super().generic_visit(node)

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.expr) and not isinstance(node, ast.NamedExpr):
            self.value(node)
            return
        super().visit(node)

    def _NamedExpr(self, node: ast.NamedExpr) -> Value:
        value = self.value(node.value)
        self._assign(node.target, value)
        return value

    def _IfExp(self, node: ast.IfExp) -> Value:
        self.value(node.test)
        return self.value(node.body) | self.value(node.orelse)

    def _Compare(self, node: ast.Compare) -> Value:
        values = [self.value(side) for side in (node.left, *node.comparators)]
        if not any(value and all(isinstance(held, Known) for held in value) for value in values):
            self._decide(values)  # with a constant it is compared to see whether there is a rate at all
        return NOTHING

    def _decide(self, values: Iterable[Value]) -> None:
        self.reader.reading.decides |= {held.chain for value in values for held in value if isinstance(held, At)}

    def _Constant(self, node: ast.Constant) -> Value:
        plain = node.value is None or type(node.value) in (bool, int, float, str)
        return frozenset({Known(node.value)}) if plain else NOTHING

    def _Lambda(self, node: ast.Lambda) -> Value:
        self.value(node.body)
        return NOTHING

    def _Name(self, node: ast.Name) -> Value:
        if node.id in self.names:
            return self.names[node.id]
        missing = object()
        for place in (cells_of(self.code), self.code.__globals__, vars(builtins)):
            held = place.get(node.id, missing)
            if held is not missing:
                return frozenset(_known(held))
        return NOTHING

    def _Attribute(self, node: ast.Attribute) -> Value:
        return self._member(self.value(node.value), node.attr)

    def _Subscript(self, node: ast.Subscript) -> Value:
        base = self.value(node.value)
        self.value(node.slice)
        if isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
            return self._member(base, node.slice.value, items=True)
        return base if isinstance(node.slice, ast.Slice) else _entries(base)

    def _member(self, base: Value, name: str, *, items: bool = False) -> Value:
        found: set[Any] = set()
        for held in base:
            if isinstance(held, At):
                chain = (*held.chain, name)
                getter = inspect.getattr_static(self.reader.kind, name, None) if not held.chain else None
                get = underlying(getter.fget) if isinstance(getter, property) else None
                if get is not None:
                    found |= self._call(get, {get.__code__.co_varnames[0]: frozenset({At(())})})
                else:
                    self.reader.reading.reads.add(chain)
                    found.add(At(chain))
            elif isinstance(held.value, ModuleType | type) and not items:
                inner = inspect.getattr_static(held.value, name, None)
                inner = getattr(held.value, name, None) if isinstance(held.value, ModuleType) else unwrapped(inner)
                if inner is not None:
                    found |= _known(inner)
        return frozenset(found)

    def _Call(self, node: ast.Call) -> Value:
        callee = self.value(node.func)
        args = [self.value(arg) for arg in node.args]
        named = {keyword.arg: self.value(keyword.value) for keyword in node.keywords if keyword.arg is not None}
        for keyword in node.keywords:
            if keyword.arg is None:
                self.value(keyword.value)
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in _DRAWS or any(isinstance(held, Known) and is_random(held.value) for held in callee):
            self._decide([*args, *named.values()])
        reached = self._reading_of_member(node, args)
        if reached is not None:
            return reached
        found, followed = NOTHING, False
        for held in callee:
            result = self._called(node, held, args, named)
            if result is not None:
                found, followed = found | result, True
        if not followed:
            self._hand_on(node, ast.unparse(node.func), args, named)
        return found

    def _reading_of_member(self, node: ast.Call, args: list[Value]) -> Value | None:
        """getattr(config, "layerdrop", 0.0) and config.get("layerdrop", 0.0)."""
        texts = [next((held.value for held in arg if isinstance(held, Known)), None) for arg in args]
        if isinstance(node.func, ast.Name) and node.func.id == "getattr" and len(args) > 1:
            base, name, rest = args[0], texts[1], args[2:]
        elif isinstance(node.func, ast.Attribute) and node.func.attr == "get" and args:
            base, name, rest = self.value(node.func.value), texts[0], args[1:]
        else:
            return None
        if not isinstance(name, str) or not any(isinstance(held, At) for held in base):
            return None
        return self._member(base, name).union(*rest)

    def _called(self, node: ast.Call, held: Any, args: list[Value], named: dict[str, Value]) -> Value | None:
        """What a call of this may return; None if it cannot be followed."""
        if isinstance(held, At):
            if len(held.chain) != 1:
                self.reader.reading.called |= set(held.chain[-1:])
                return None
            method = inspect.getattr_static(self.reader.kind, held.chain[0], None)
            own, static = underlying(method), isinstance(method, staticmethod)
            if own is None:
                return None
            return self._call(own, arguments(own, args if static else [frozenset({At(())}), *args], named))
        function = held.value
        known = find(function)
        if known is not None:
            self._drops(node, known, args, named)
            return NOTHING
        if isinstance(function, type) and issubclass(function, nn.modules.dropout._DropoutNd):
            self._hand_on(
                node, f"{function.__name__}(...)", args or [named.get("p", frozenset({Known(0.5)}))], {}, True
            )
            return NOTHING
        if getattr(function, "__name__", None) in _THROUGH and isinstance(function, BuiltinFunctionType | type):
            return NOTHING.union(*args)
        plain = underlying(function)
        if plain is not None and plain.__module__.startswith("dropkit.torch.") and _takes_a_key(plain):
            given = arguments(plain, args, named)
            if given.get("key", frozenset({Known(None)})) == {Known(None)}:
                self._note(node, f"dropkit.{plain.__name__}", True, given.get("p", NOTHING))
            return NOTHING
        return None if plain is None else self._call(plain, arguments(plain, args, named))

    def _call(self, function: FunctionType, given: dict[str, Value]) -> Value:
        return self.reader.function(function, given, self.depth + 1)

    def _drops(self, node: ast.Call, known: Any, args: list[Value], named: dict[str, Value]) -> None:
        """A call of a function that drops."""
        given = {**dict(zip(known.parameters, args, strict=False)), **named}
        default = frozenset({Known(known.default[0])})
        flag = given.get(known.flag, frozenset({Known(known.default[1])})) if known.flag else NOTHING
        stated = known.kind.startswith("dropkit.") and given.get("key", frozenset({Known(None)})) != {Known(None)}
        if stated or flag == {Known(False)}:
            return  # its key, or that it is never on
        self._note(node, known.kind, True, given.get(known.rate, default))

    def _hand_on(
        self, node: ast.Call, name: str, args: Iterable[Value], named: dict[str, Value], known: bool = False
    ) -> None:
        """A call of what cannot be followed: it gets a rate if the name of what it gets says so."""
        rates = [value for key, value in named.items() if DROPS.search(key)]
        rates += [frozenset(h for h in arg if known or (isinstance(h, At) and _rate_like(h.chain))) for arg in args]
        rate = NOTHING.union(*rates)
        if rate:
            self._note(node, name, known, rate)

    def _note(self, node: ast.Call, name: str, known: bool, rate: Value) -> None:
        numbers = {h.value for h in rate if isinstance(h, Known) and type(h.value) in (int, float)}
        chains = frozenset(h.chain for h in rate if isinstance(h, At))
        line = self.code.__code__.co_firstlineno + node.lineno - 1
        source = f"{self.code.__code__.co_filename}:{line}"
        call = Handed(name, known, chains, frozenset(map(float, numbers)), source)
        if call not in self.reader.reading.handed:
            self.reader.reading.handed.append(call)


def _known(held: Any) -> set[Known]:
    """What a name means, where that can be said: an object of another kind is something, and not None."""
    value = hashable(held)
    return set() if value is None and held is not None else {Known(value)}


def _takes_a_key(function: FunctionType) -> bool:
    """Whether a function of ours drops by a key that it may be given."""
    code = function.__code__
    return {"p", "training", "key"} <= set(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])


def _rate_like(chain: Chain) -> bool:
    return bool(chain) and bool(DROPS.search(chain[-1]) or (chain[-1] == "p" and DROPS.search("".join(chain[:-1]))))


def _entries(value: Value) -> Value:
    return frozenset(At((*held.chain, ANY)) for held in value if isinstance(held, At) and held.chain)
