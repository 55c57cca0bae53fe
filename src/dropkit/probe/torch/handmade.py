"""Dropout written out by hand: where a forward draws random numbers, and what they do to its data.

A draw is known by its place in the code. What it makes of the data is measured between two operators: from where the
data came out of one that is more than a product or a sum with constants (the root) to where they go into the next such
one (the consumer). There y = c x in the mean, c being the mean of y / x. c of training over c of evaluation is 1 for a
dropout that keeps the mean, wherever it rescales.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from .measure import digest
from .operators import Operator, of
from .watch import Given, Listener, tensors

_SCALES = {"mul", "div", "where", "masked_fill", "index_put"}
_SHIFTS = {"add", "sub", "rsub"}
_CHAIN = {*_SCALES, *_SHIFTS, "neg", "clone", "_to_copy", "detach", "lift_fresh", "alias"}
_BROUGHT = "lift_fresh"  # what a tensor made of an array, a list or a number comes through
# Other operators that are random do more than draw: fused attention, dropout, RReLU.
_DRAWS = {"bernoulli", "rand", "rand_like", "randn", "randn_like", "randint", "randint_like", "randperm", "normal",
          "uniform", "random", "exponential", "geometric", "cauchy", "log_normal", "multinomial", "poisson", "binomial",
          "_standard_gamma", "_sample_dirichlet"}  # fmt: skip


class Draw(NamedTuple):
    """A place where random numbers are drawn."""

    path: str  # of the innermost module that runs
    file: str
    line: int
    function: str


@dataclass
class Factor:
    """What a draw did in one forward."""

    effects: set[str] = field(default_factory=set)  # "multiplies", "adds", "fills", "decides"
    shape: tuple[int, ...] = ()
    zeros: list[float] = field(default_factory=list)  # share of the factors that are 0
    centred: bool = True  # the factors that are no zeros had mean 1


class _Value(NamedTuple):
    """What is known of a tensor."""

    data: bool = False
    draws: frozenset[Draw] = frozenset()  # of random numbers that are no data
    learned: bool = False  # parameters went into it
    root: torch.Tensor | None = None  # of data, where it was more than scaled or shifted last
    factors: frozenset[Draw] = frozenset()  # that multiplied it since
    shifted: bool = False  # a constant was added since
    clear: bool = True  # nothing else random happened to it since
    sites: frozenset[int] = frozenset()  # dropout of torch and of ours that it came out of since the root of the root


_CONSTANT = _Value()
Key = tuple[str, str, int]  # of a consumer: module, operator, how often it had run there


class Handmade(TorchDispatchMode, Listener):
    """Hears one forward.

    Args:
        model: the module.
        drops: numbers of the sites whose draws are their own affair: dropout of torch and of ours.
        arrays: places that bring in random arrays; None while that is not known yet.
    """

    def __init__(self, model: nn.Module, drops: frozenset[int], arrays: frozenset[Draw] | None = None):
        super().__init__()
        self.drops, self.arrays = drops, arrays
        self._within = 0  # dropout of torch and of ours
        self.drawn: dict[Draw, Factor] = {}
        self.brought: dict[Draw, list[str]] = {}  # digests of what was brought in
        self.means: dict[Key, tuple[frozenset[Draw], float] | None] = {}  # None where it does not say
        self.consumed: dict[Key, frozenset[int]] = {}  # and the dropout of torch and of ours that it came out of
        self.applied: dict[Key, float] = {}  # mean of what functions with f(0) != 0 gave
        self._running: list[str] = []
        self._counts: Counter[tuple[str, str]] = Counter()
        self._parameters = {id(parameter) for parameter in model.parameters()}
        self._known: Any = WeakTensorKeyDictionary()

    def started(self, inputs: Any) -> None:
        """The model's inputs are data."""
        for x in tensors(inputs):
            self._known[x] = _Value(data=True)

    def finished(self, output: Any) -> None:
        """Its outputs are consumed."""
        for x in tensors(output):
            self._consume("output", x)

    def entered(self, path: str, module: nn.Module, given: Given) -> None:
        """A module begins."""
        self._running.append(path)

    def left(self, path: str, module: nn.Module, given: Given, output: Any) -> Any:
        """A module has ended."""
        while self._running and self._running.pop() != path:
            pass
        return output

    def begun(self, site: int, dropped: Any, other: Any = None) -> None:
        """A site's call begins."""
        self._within += site in self.drops

    def ended(self, site: int, dropped: Any, result: Any) -> None:
        """It has ended."""
        self._within -= site in self.drops
        for x in tensors(result) if site in self.drops else ():
            before = self._of(x)
            if before.data:
                self._known[x] = before._replace(sites=before.sites | {site})

    def broken_off(self, site: int) -> None:
        """It has not come to its end."""
        self._within -= site in self.drops

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch._C._current_graph_task_id() != -1:
            return func(*args, **kwargs)
        op = of(func)
        given = [(x, self._of(x)) for x in tensors([args, kwargs])]
        chained = [(x, value) for x, value in given if value.data and x.is_floating_point()]
        # What is written into is no longer there afterwards.
        roots = {id(x): x.clone() for x, value in chained if value.root is None and op.writes and op.name in _CHAIN}
        result = func(*args, **kwargs)
        self._follow(op, args, kwargs, given, chained, roots, result)
        return result

    def _of(self, x: torch.Tensor) -> _Value:
        found: _Value | None = self._known.get(x)
        if found is None and (id(x) in self._parameters or (x._base is not None and id(x._base) in self._parameters)):
            return _Value(learned=True)
        return found or _CONSTANT

    def _follow(
        self,
        op: Operator,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        given: Sequence[tuple[torch.Tensor, _Value]],
        data: Sequence[tuple[torch.Tensor, _Value]],
        roots: Mapping[int, torch.Tensor],
        result: Any,
    ) -> None:
        if op.at_zero and any(value.data for _, value in given):
            for x in tensors(result):
                self.applied[self._key(f"f {op.name}")] = x.detach().double().mean().item()
        draw = self._draw(op, result)
        others = [value for _, value in given if not value.data]
        constants = _Value(
            draws=frozenset().union(*(value.draws for value in others)), learned=any(v.learned for v in others)
        )
        if draw is not None:
            value = _Value(draws=frozenset({draw}), learned=any(value.learned for _, value in given))
        elif op.new:
            value = _CONSTANT
        elif op.name == "_local_scalar_dense":
            self._note(constants.draws, "decides")
            return
        elif not any(each.data for _, each in given):
            value = constants
        elif op.name in _CHAIN and len(data) == 1:
            value = self._scaled(op, args, kwargs, *data[0], roots, constants)
        else:
            for x, _ in data:
                self._consume(op.name, x)
            value = _Value(data=True)
        for x in tensors(result):
            self._known[x] = value

    def _draw(self, op: Operator, result: Any) -> Draw | None:
        """The place, where an operator draws random numbers, or brings in an array of such."""
        brings = op.name == _BROUGHT
        if self._within or not ((op.random and op.name in _DRAWS) or brings):
            return None
        file, line = caller()
        draw = Draw(self._running[-1] if self._running else "", file, line, "random array" if brings else op.name)
        if not file:
            return None
        if brings and self.arrays is None:
            self.brought.setdefault(draw, []).append(digest(*tensors(result)))
        if brings and draw not in (self.arrays or ()):
            return None
        shapes = [tuple(x.shape) for x in tensors(result)]
        self.drawn.setdefault(draw, Factor(shape=shapes[0] if shapes else ()))
        return draw

    def _scaled(
        self,
        op: Operator,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        x: torch.Tensor,
        before: _Value,
        roots: Mapping[int, torch.Tensor],
        constants: _Value,
    ) -> _Value:
        """Data after a product, a sum or a choice with what is no data."""
        root = roots.get(id(x), x) if before.root is None else before.root
        value = before._replace(root=root, shifted=before.shifted or op.name in _SHIFTS)
        if not constants.draws:
            return value
        if op.name not in _SCALES:
            self._note(constants.draws, "adds")
            return value._replace(clear=False)
        factor = _factor(op, args, kwargs, x)
        if factor is None:
            self._note(constants.draws, "fills")
            return value._replace(clear=False)
        self._note(constants.draws, "multiplies", factor)
        return value._replace(factors=value.factors | constants.draws, clear=value.clear and not constants.learned)

    def _note(self, draws: Iterable[Draw], effect: str, factor: torch.Tensor | None = None) -> None:
        for draw in draws:
            seen = self.drawn.setdefault(draw, Factor())
            seen.effects.add(effect)
            if factor is not None and factor.numel():
                m = factor.detach().double()
                seen.zeros.append((m == 0).double().mean().item())
                error = (m.std().item() if m.numel() > 1 else 0.0) / m.numel() ** 0.5
                seen.centred = seen.centred and abs(m.mean().item() - 1) <= 4 * error

    def _key(self, name: str) -> Key:
        """Where this is, in terms that are the same in another pass."""
        path = self._running[-1] if self._running else ""
        number = self._counts[path, name]
        self._counts[path, name] += 1
        return path, name, number

    def _consume(self, name: str, x: torch.Tensor) -> None:
        """Data goes into an operator that does more than scale it."""
        key, value = self._key(name), self._of(x)
        self.consumed[key] = value.sites
        if value.root is not None:
            c = _slope(value.root, x, value.shifted) if value.clear else None
            self.means[key] = None if c is None else (value.factors, c)


def _factor(op: Operator, args: Sequence[Any], kwargs: Mapping[str, Any], x: torch.Tensor) -> torch.Tensor | None:
    """What the data are multiplied by; None where they are replaced by something else than zeros."""
    if op.name == "mul":
        other = args[1] if args[0] is x else args[0]
        return other if isinstance(other, torch.Tensor) else None
    if op.name == "div":
        return 1 / args[1].double() if args[0] is x else None
    if op.name == "where":
        condition, kept, other = args[:3]
        return _kept(condition if kept is x else ~condition, other if kept is x else kept)
    if op.name == "masked_fill":
        return _kept(~args[1], args[2])
    masks = [index for index in args[1] if index is not None]  # index_put
    single = len(masks) == 1 and masks[0].dtype in (torch.bool, torch.uint8)
    return _kept(~masks[0].bool(), args[2]) if single and not (len(args) > 3 and args[3]) else None


def _kept(mask: torch.Tensor, other: Any) -> torch.Tensor | None:
    zero = not bool(other.any()) if isinstance(other, torch.Tensor) else other == 0
    return mask.double() if zero else None


def _slope(x: torch.Tensor, y: torch.Tensor, shifted: bool) -> float | None:
    """c of y = c x in the mean; None where that cannot be told. Where a constant was added, small x do not count."""
    try:
        x, y = torch.broadcast_tensors(x.detach().double(), y.detach().double())
    except RuntimeError:
        return None
    if shifted:
        c = ((x.sign() * y).sum() / x.abs().sum()).item()
    else:
        there = x != 0
        c = (y[there] / x[there]).mean().item()
    return c if abs(c) < 1e6 else None  # neither NaN nor a mask of huge numbers in front of a softmax


def caller() -> tuple[str, int]:
    """File and line of the nearest frame that is neither torch's nor ours; models of the lab are models like any."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = f"{frame.f_globals.get('__name__')}."
        if not name.startswith(("torch.", "dropkit.", "contextlib.")) or name.startswith("dropkit.lab."):
            return frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back
    return "", 0
