"""A mode that sees or changes every call of a model that drops.

`modules()` shows dropout layers only. Functional calls, `scaled_dot_product_attention(dropout_p=)` and fused recurrent
networks show themselves when they are called; `Intercept` is there then, and knows which module is calling. It sees
what torch lets be overridden: not C++ extensions that torch does not know (flash-attn, xformers), nor the inside of
TorchScript and of compiled graphs.
"""

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ...axes.noise import Noise
from ..reading.calls import Dropping, Shape, Watcher, find, is_random

_autograd: Any = torch.autograd


class Place(NamedTuple):
    """Where in the code a call stands: stable between modes and calls of one module."""

    filename: str
    line: int
    instruction: int
    repeat: int = 0  # how often the same instruction called before in this forward: a loop


@dataclass(frozen=True)
class Call:
    """A call of a function that drops, or of one that draws random numbers, by a module of the watched model."""

    kind: str  # "F.dropout", "torch.native_dropout", "scaled_dot_product_attention", "lstm"; "random.bernoulli_"
    path: str  # of the innermost running module; "" is the model itself
    module: nn.Module
    name: str  # "path:function", with "#1", "#2" ... for the later ones in one forward of the module
    place: Place | None
    p: Any = None  # as it was passed
    training: bool = True
    mask_shape: Shape | None = None
    made_inside: bool = False  # by a dropout layer that is no part of the model
    noise: Noise | None = None  # its law; None where nothing says
    share: Any = ()  # axes that share a draw, or a share that refines

    @property
    def drops(self) -> bool:
        """Whether it draws a mask. torch takes a negative dropout_p of attention for none."""
        return self.training and bool(self.p > 0)


Answer = tuple[Any, bool] | None


@dataclass
class Running:
    """A forward under way."""

    path: str
    module: nn.Module
    calls: Counter[Any] = field(default_factory=Counter)

    def name(self, function: str) -> str:
        """The name of the next call of this function."""
        before = self.calls[function]
        self.calls[function] += 1
        return f"{self.path}:{function}" + (f"#{before}" if before else "")


class Intercept(TorchFunctionMode, Watcher):
    """Inside the block, `answer(call)` is asked at every dropping call of the model and may change it.

    Args:
        model: the module whose calls are meant; those made outside its forward pass are left alone.
        answer: gets a `Call`; returns None to leave it, or (p, training) to have it run with these.
        random: gets a `Call` and the tensor drawn, for functions that only draw random numbers.

    Calls inside a dropping function do not count again, and a recomputation by activation checkpointing, in a backward
    pass inside the block, is asked about like its forward. May be entered again after it was left.

    >>> model = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.LSTM(4, 4, 2, dropout=0.3))
    >>> def off(call):
    ...     print(call.name, call.kind, call.p, call.mask_shape)
    ...     return call.p, False
    >>> with Intercept(model, off):
    ...     y = model(torch.ones(2, 3, 4))
    0:dropout F.dropout 0.5 (2, 3, 4)
    1:lstm lstm 0.3 (2, 3, 4)
    """

    def __init__(
        self,
        model: nn.Module,
        answer: Callable[[Call], Answer],
        random: Callable[[Call, Any], None] | None = None,
    ):
        super().__init__()
        self.model, self.answer, self.random = model, answer, random
        self._threads = threading.local()
        self.visits: Counter[str] = Counter()  # how often each module ran, by path
        self._seen: dict[Place | None, Running] = {}
        self.handles: list[Any] = []
        self.paths: dict[int, str] = {}

    def __enter__(self) -> "Intercept":
        self.paths = {id(module): path for path, module in self.model.named_modules()}
        self._seen, self.visits = {}, Counter()
        self._running.clear()
        try:
            for module in self.model.modules():
                if isinstance(module, torch.jit.ScriptModule):  # takes no hooks
                    continue
                self.handles.append(module.register_forward_pre_hook(self.enter, prepend=True))
                self.handles.append(module.register_forward_hook(self.leave, always_call=True))
            _Backward.watch(+1)
        except BaseException:
            self._unhook()
            raise
        super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        try:
            super().__exit__(*exception)
        finally:
            _Backward.watch(-1)
            self._unhook()

    @property
    def _running(self) -> list[Running]:
        """The forwards under way in this thread: hooks of a module fire in every thread that runs it."""
        if not hasattr(self._threads, "running"):
            self._threads.running = []
        running: list[Running] = self._threads.running
        return running

    def __deepcopy__(self, memo: Any) -> "Intercept":
        return self  # a model copied inside the block takes its hooks along; they must not copy the model they watch

    def _unhook(self) -> None:
        while self.handles:
            self.handles.pop().remove()
        self._running.clear()
        self._seen = {}

    def enter(self, module: nn.Module, args: Any) -> None:
        if id(module) in self.paths:  # a copy made inside the block carries our hooks
            path = self.paths[id(module)]
            self.visits[path] += 1
            self._running.append(Running(path, module))

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        if any(entry.module is module for entry in self._running):
            while self._running.pop().module is not module:
                pass

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _Backward.FUNCTIONS:
            with _Backward.waiting(self):
                return func(*args, **kwargs)
        if self.resting:
            return func(*args, **kwargs)
        known = find(func, args, kwargs)
        drawing = known is None and self.random is not None and is_random(func)
        running = self.innermost() if known is not None or drawing else None
        if running is None:
            return func(*args, **kwargs)
        if known is None:
            result = func(*args, **kwargs)
            assert self.random is not None
            name = func.__name__.rstrip("_")
            self.random(self.call_of(running, name, f"random.{name}", mask_shape=_shape_of(result)), result)
            return result
        args, kwargs = self._answered(running, known, args, kwargs)
        return func(*args, **kwargs)

    def asked(
        self, known: Dropping, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What is made of a call that somebody else has taken over."""
        running = self.innermost()
        return (args, kwargs) if running is None else self._answered(running, known, args, kwargs)

    def _answered(
        self, running: Running, known: Dropping, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        p, training = known.read(args, kwargs)
        shape = known.shape_of_mask(args, kwargs)
        axes = known.axes(args, kwargs)
        call = self.call_of(running, known.name, known.kind, p=p, training=training, mask_shape=shape, **axes)
        answer = self.answer(call)
        return (args, kwargs) if answer is None else known.write(args, kwargs, *answer)

    def call(self, function: str, kind: str, **more: Any) -> Call | None:
        """What a call by the innermost running module is to be called; None outside the model's forward."""
        running = self.innermost()
        return None if running is None else self.call_of(running, function, kind, **more)

    def call_of(self, running: Running, function: str, kind: str, **more: Any) -> Call:
        place = _caller()
        if place is not None:
            self._seen[place] = running
            repeat = running.calls[place]
            running.calls[place] += 1
            place = place._replace(repeat=repeat)
        name = running.name(function)
        return Call(kind, running.path, running.module, name, place, made_inside=_made_inside(running), **more)

    def innermost(self) -> Running | None:
        """The forward that is running; in a recomputation, where it may be a mere part of one, the nearest `self`."""
        if self._running:
            return self._running[-1]
        if torch._C._current_graph_task_id() == -1:
            return None
        for frame in frames():
            for owner in (frame.f_locals.get("self"), frame.f_locals.get("module")):
                if isinstance(owner, nn.Module) and id(owner) in self.paths:
                    return Running(self.paths[id(owner)], owner)
        seen = self._seen.get(_caller())
        return None if seen is None else Running(seen.path, seen.module)


def _shape_of(result: Any) -> Shape | None:
    return tuple(result.shape) if isinstance(result, torch.Tensor) else None


def frames() -> Iterator[FrameType]:
    """The frames around, the nearest first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _made_inside(running: Running) -> bool:
    """Whether a dropout layer calls, while the innermost running module of the model is another one."""
    frame = next((f for f in frames() if f.f_globals.get("__name__") not in _PASSED), None)
    maker = None if frame is None else frame.f_locals.get("self")
    return isinstance(maker, nn.modules.dropout._DropoutNd) and maker is not running.module


_PASSED = (__name__, "torch.overrides", "torch.nn.functional")


def _caller() -> Place | None:
    """The nearest frame that is neither torch's nor this frontend's; the lab's models are models like any other."""
    for frame in frames():
        name = f"{frame.f_globals.get('__name__')}."
        if not name.startswith(("torch.", "dropkit.")) or name.startswith("dropkit.lab."):
            return Place(frame.f_code.co_filename, frame.f_lineno, frame.f_lasti)
    return None


class _Backward:
    """Keeps modes on inside backward, where checkpointed code runs again.

    torch takes a mode off while the mode handles a function, and `backward` is such a function. So the engine's entry
    is wrapped while any `Intercept` is on: it puts back the modes of this thread that wait in a backward.
    """

    FUNCTIONS = frozenset({torch.Tensor.backward, torch.autograd.backward, torch.autograd.grad})
    _lock = threading.Lock()
    _local = threading.local()
    _watchers = 0
    _engine = staticmethod(_autograd._engine_run_backward)

    @classmethod
    def watch(cls, change: int) -> None:
        """Count the modes that are on; wrap the engine's entry for the first, unwrap it after the last."""
        with cls._lock:
            before, cls._watchers = cls._watchers, cls._watchers + change
            if before == 0:
                cls._engine = staticmethod(_autograd._engine_run_backward)
                _autograd._engine_run_backward = cls._run
            elif cls._watchers == 0:
                _autograd._engine_run_backward = cls._engine

    @classmethod
    def waiting(cls, mode: Intercept) -> ExitStack:
        """While inside, the mode is to be put back by the engine's entry."""
        before = getattr(cls._local, "modes", ())
        cls._local.modes = (mode, *before)
        stack = ExitStack()
        stack.callback(setattr, cls._local, "modes", before)
        return stack

    @classmethod
    def _run(cls, *args: Any, **kwargs: Any) -> Any:
        modes, cls._local.modes = getattr(cls._local, "modes", ()), ()
        with ExitStack() as stack:
            stack.callback(setattr, cls._local, "modes", modes)
            for mode in modes:  # the outermost is first
                TorchFunctionMode.__enter__(mode)
                stack.callback(TorchFunctionMode.__exit__, mode, None, None, None)
            return cls._engine(*args, **kwargs)
