"""Who listens to a forward of a torch model: modules as they begin and end, dropout as it happens, random numbers."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import nn

from ...torch.finding.intercept import Call, Intercept, Place, Running
from ...torch.finding.inventory import Site
from ...torch.layers import Drawn
from ...torch.reading.calls import Dropping, find
from ..activation import of_function

Given = tuple[tuple[Any, ...], dict[str, Any]]  # positional and keyword arguments


class Listener:
    """What can be heard; each does nothing unless it is overridden. Sites are numbers in the order of the inventory."""

    def started(self, inputs: Any) -> None:
        """The model is about to be called with these."""

    def finished(self, output: Any) -> None:
        """It has given this."""

    def differentiated(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """The backward has run."""

    def entered(self, path: str, module: nn.Module, given: Given) -> None:
        """A module begins its forward."""

    def left(self, path: str, module: nn.Module, given: Given, output: Any) -> Any:
        """A module has ended its forward; returns its output, or another in its place."""
        return output

    def begun(self, site: int, dropped: Any, other: Any = None) -> None:
        """A call that drops begins; `dropped` is the tensor that it takes, `other` the second one of a law with two."""

    def ended(self, site: int, dropped: Any, result: Any) -> None:
        """It has ended."""

    def broken_off(self, site: int) -> None:
        """It has not come to its end: an exception, or a recomputation that has all it needs."""

    def drew(self, site: int, drawn: torch.Tensor) -> None:
        """A module that drops by hand has drawn random numbers."""

    def activated(self, result: Any, name: str) -> None:
        """An activation was called as a function."""


class Watch(Intercept):
    """Inside the block, the listeners hear what the model does, recomputations in a backward pass included.

    Args:
        model: the module that is watched.
        sites: its sites, as `dropkit.torch.sites` finds them.
        listeners: told in this order.
    """

    def __init__(self, model: nn.Module, sites: Sequence[Site], listeners: Sequence[Listener]):
        super().__init__(model, lambda call: None, self._drew)
        self.listeners = listeners
        self.layers = {site.name: n for n, site in enumerate(sites) if site.place is None and site.kind != "number"}
        self.places: dict[tuple[str, str, Place], int] = {
            (site.name.partition(":")[0], site.kind, site.place): n for n, site in enumerate(sites) if site.place
        }
        self._inside: list[tuple[nn.Module, int]] = []  # layers made inside a forward, under way
        self._open: list[nn.Module] = []  # dropout layers under way
        self._calm = ExitStack()

    def __enter__(self) -> "Watch":
        super().__enter__()
        try:
            for module in self.model.modules():
                if isinstance(module, torch.jit.ScriptModule):  # takes no hooks
                    continue
                before = module.register_forward_pre_hook(self._entered, with_kwargs=True)
                after = module.register_forward_hook(self._left, with_kwargs=True)
                anyhow = module.register_forward_hook(self._broken_off, always_call=True)
                self.handles += [before, after, anyhow]
            # What torch says of global hooks and compiled modules, that they fire once more, does not touch these.
            self._calm.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", r"Using `torch.compile\(module\)` when there are global hooks")
            self.handles.append(nn.modules.module.register_module_forward_pre_hook(self._made_begins))
            self.handles.append(nn.modules.module.register_module_forward_hook(self._made_ends))
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *exception: Any) -> None:
        with self._calm:
            super().__exit__(*exception)

    def _entered(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        path = self.paths.get(id(module))
        if path is None:  # a copy made inside the block carries our hooks
            return
        for listener in self.listeners:
            listener.entered(path, module, (args, kwargs))
        if path in self.layers:
            self._open.append(module)
            self._tell_begun(self.layers[path], only_tensor((args, kwargs)), other_tensor(module, args, kwargs))

    def _left(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        path = self.paths.get(id(module))
        if path is None:
            return None
        if path in self.layers:
            self._open.pop()
            self._tell_ended(self.layers[path], only_tensor((args, kwargs)), output)
        for listener in self.listeners:
            output = listener.left(path, module, (args, kwargs), output)
        return output

    def _broken_off(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._open and self._open[-1] is module:
            self._open.pop()
            self._tell_broken_off(self.layers[self.paths[id(module)]])

    def _made_begins(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """A dropout of ours that a forward made and calls: its own forward is no function that can be intercepted."""
        if not isinstance(module, Drawn) or id(module) in self.paths:
            return
        kind = type(module).__name__
        call = self.call(kind, f"dropkit.{kind}", p=module.p, training=module.active)
        if call is not None and call.drops and (number := self._number(call)) is not None:
            self._inside.append((module, number))
            self._tell_begun(number, args[0], other_tensor(module, args, {}))

    def _made_ends(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self._inside and self._inside[-1][0] is module:
            self._tell_ended(self._inside.pop()[1], args[0], output)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        known = None if self.resting else find(func, args, kwargs)
        running = None if known is None else self.innermost()
        if known is None or running is None:
            result = super().__torch_function__(func, types, args, kwargs)
            if (name := of_function(getattr(func, "__name__", ""))) is not None:
                for listener in self.listeners:
                    listener.activated(result, name)
            return result
        return self._told(running, known, args, kwargs, lambda args, kwargs: func(*args, **kwargs))

    def around(self, known: Dropping, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[..., Any]) -> Any:
        """The same of a call that `swap` has taken over."""
        running = self.innermost()
        return run(args, kwargs) if running is None else self._told(running, known, args, kwargs, run)

    def _told(self, running: Running, known: Dropping, args: Any, kwargs: Any, run: Callable[..., Any]) -> Any:
        p, training = known.read(args, kwargs)
        call = self.call_of(running, known.name, known.kind, p=p, training=training)
        number = self._number(call)
        if number is None or not call.drops:
            return run(args, kwargs)
        given = known.bind(args, kwargs)
        dropped = given.get(known.parameters[0])
        self._tell_begun(number, dropped, given.get("other"))
        try:
            result = run(args, kwargs)
        except BaseException:
            self._tell_broken_off(number)
            raise
        self._tell_ended(number, dropped, result)
        return result

    def _drew(self, call: Call, drawn: Any) -> None:
        number = self._number(call)
        if number is not None and isinstance(drawn, torch.Tensor):
            for listener in self.listeners:
                listener.drew(number, drawn)

    def _number(self, call: Call) -> int | None:
        return None if call.place is None else self.places.get((call.path, call.kind, call.place))

    def _tell_begun(self, number: int, dropped: Any, other: Any = None) -> None:
        for listener in self.listeners:
            listener.begun(number, dropped, other)

    def _tell_broken_off(self, number: int) -> None:
        for listener in self.listeners:
            listener.broken_off(number)

    def _tell_ended(self, number: int, dropped: Any, result: Any) -> None:
        for listener in self.listeners:
            listener.ended(number, dropped, result)


def tensors(tree: Any) -> list[torch.Tensor]:
    """Every tensor in arguments or results: in tuples, lists, dicts and other mappings, and in dataclasses."""
    if isinstance(tree, torch.Tensor):
        return [tree]
    if isinstance(tree, Mapping):
        tree = tuple(tree.values())
    elif is_dataclass(tree) and not isinstance(tree, type):
        tree = tuple(vars(tree).values())
    return [x for part in tree for x in tensors(part)] if isinstance(tree, tuple | list) else []


def only_tensor(given: Any) -> torch.Tensor | None:
    """The first floating tensor among arguments."""
    return next((x for x in tensors(given) if x.is_floating_point()), None)


def other_tensor(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> torch.Tensor | None:
    """The second tensor of a layer whose law takes two."""
    if not isinstance(module, Drawn) or not module.noise.needs_other:
        return None
    return kwargs.get("other", args[1] if len(args) > 1 else None)
