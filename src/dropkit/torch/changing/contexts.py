"""Dropout off for a while, or on at evaluation, whatever form it takes; every mode is left to the user."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from ... import patterns
from ...errors import DropkitTypeError, DropkitValueError
from ...patterns import listed, matches
from ..finding.intercept import Answer, Call, Intercept
from ..finding.rates import NUMBER, FoundRate, rates
from ..layers import Drawn
from ..learned.base import Learned
from ..reading import calls
from ..reading.structure import CALLS, layer_rate, taken
from ..reading.unkeyed import attention_rates
from ..taken import ATTENTION, Called
from .overlay import Overlay, beneath

_RECURRENT = frozenset({"lstm", "gru", "rnn_tanh", "rnn_relu"})


@contextmanager
def disabled(model: nn.Module) -> Iterator[None]:
    """No dropout at all in the model, in whatever mode it is or is put: as in evaluation, but for dropout alone.

    Off are dropout modules (torch's, dropkit's, `when="always"` too), functional calls with any arguments,
    `scaled_dot_product_attention(dropout_p=)`, `nn.MultiheadAttention`, recurrent networks, and numbers that a forward
    reads from attributes (DropPath, attention modules, LayerDrop) or from a config. `training` flags and all else in a
    config are not touched, so that BatchNorm trains on; `train()` and `eval()` inside the block stay in force after it.
    A bound model's clock stands still. Blocks nest, and `disabled` wins over `enabled`.

    Layers, attributes and configs belong to every thread, so what is off is off in other threads too; functional calls
    are off in the thread that entered the block. Blocks are counted: in whatever order they end, in one thread or in
    several, the model is off until the last of them has ended.

    With activation checkpointing, call backward inside the block: what runs again there must run without dropout too.
    Models compiled by `torch.compile` are compiled once more for the block, functional calls included, without graph
    breaks. Not reached: dropout inside C++ extensions, TorchScript and exported graphs.

    Args:
        model: other models that run inside the block keep their dropout.

    Raises:
        DropkitTypeError: not a module.

    >>> from dropkit.torch import Dropout
    >>> model = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(0.5), Dropout(0.5, when="always"))
    >>> with disabled(model):
    ...     y = model(torch.randn(8, 2))
    >>> int((y == 0).sum()), model.training
    (0, True)
    """
    _check(model, "disabled")
    with ExitStack() as stack:
        for part in model.modules():
            if isinstance(part, Called):
                _lay(stack, Overlay(part, "when", "never", wins=True))
        for rate in rates(model):
            if isinstance(rate.module, Drawn):
                _lay(stack, Overlay(rate.module, "when", "never", wins=True))
            else:
                _lay(stack, Overlay(rate.module, rate.attribute, rate.stored(0.0), wins=True))
        stack.enter_context(_Rewrite(model, lambda call: (0.0, False)))
        yield


@contextmanager
def enabled(model: nn.Module, sites: str | Sequence[str] | None = None) -> Iterator[None]:
    """Dropout on in the model, whatever its mode: Monte Carlo dropout that leaves BatchNorm and all else in evaluation.

    On are the same forms as `disabled` turns off, with the rates that they have. Where the rate of an attention was
    gated away (`dropout_p=self.p if self.training else 0.`), it is read from the module: from what its source hands
    over, or else from its only number or dropout with "att" in the name, or else its only number with "drop" in it.
    torch's fast paths for transformer layers, which drop nothing, are not taken. Modes are not touched, so `train()`
    and `eval()` inside change nothing. What is off by `when="never"`, at rate 0 or inside `disabled` stays off. Not
    reached: a module with parts of its own that draws by hand when it trains.

    Args:
        model: other models that run inside the block are left alone.
        sites: patterns as in `fnmatch` of module paths ("encoder.*") or of calls ("encoder.attn:dropout"), as
            `dropkit.torch.sites` names them; None is all.

    Raises:
        DropkitValueError: no site becomes active (on entry where that is plain, or else when the first forward ends);
            a pattern matches nothing; a gated rate that several numbers could be.
        DropkitTypeError: not a module.

    Source: Gal and Ghahramani 2016 (arXiv 1506.02142).

    >>> model = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(0.5)).eval()
    >>> with enabled(model), torch.no_grad():
    ...     y = model(torch.ones(64, 2))
    >>> 0 < int((y == 0).sum()) < 128, model[1].training
    (True, False)
    """
    _check(model, "enabled")
    wanted = _Wanted.of(model, sites)
    known = [rate for rate in rates(model) if wanted.rate(rate)]
    if not known and not wanted.calls_too:
        raise DropkitValueError(
            f"sites={sites!r} match no dropout of {type(model).__name__}; it has {listed_rates(model)}"
        )
    with ExitStack() as stack:
        for module in {id(rate.module): rate.module for rate in known if rate.kind != NUMBER}.values():
            if isinstance(module, Drawn | Learned):
                if beneath(module, "when") == "train":
                    _lay(stack, Overlay(module, "when", "always"))
            elif _decides_itself(module):
                _on_while_running(stack, module)
        enabling = _Enabling(model, wanted)
        stack.enter_context(_Rewrite(model, enabling.answer))
        if not any(_drops(rate) for rate in known):
            stack.callback(model.register_forward_hook(enabling.check).remove)
        yield


class _Rewrite(Intercept):
    """`Intercept` that a compiler can trace: what it keeps of a forward is then no more than a stack of modules."""

    def __init__(self, model: nn.Module, answer: Any) -> None:
        super().__init__(model, answer)
        self._known = {**calls.torchs(), **calls.ours()}
        self._traced: list[tuple[str, nn.Module]] = []

    def __enter__(self) -> "_Rewrite":
        super().__enter__()
        for path, module in self.model.named_modules():
            if taken(module):  # whose own mode is nearer to the call, and asks us
                module._modules[CALLS].asked.append((self, path, module))
        return self

    def __exit__(self, *exception: Any) -> None:
        for module in self.model.modules():
            if taken(module):
                sites: Any = module._modules[CALLS]
                sites.asked = [entry for entry in sites.asked if entry[0] is not self]
        super().__exit__(*exception)

    def enter(self, module: nn.Module, args: Any) -> None:
        if not torch.compiler.is_compiling():
            super().enter(module, args)
        else:
            self._traced.append((self.paths.get(id(module), ""), module))

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        if not torch.compiler.is_compiling():
            super().leave(module, args, output)
        else:
            self._traced.pop()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if not torch.compiler.is_compiling():
            return super().__torch_function__(func, types, args, kwargs)
        kwargs = kwargs or {}
        known = None if self.resting else self._known.get(func)
        if known is not None and known.name in _RECURRENT:
            known = calls.find(func, args, kwargs)  # whose arguments stand elsewhere for packed sequences
        if known is not None and self._traced:
            path, module = self._traced[-1]
            if not taken(module):
                args, kwargs = self.rewritten(path, module, known, args, kwargs)
        return func(*args, **kwargs)

    def rewritten(self, path: str, module: nn.Module, known: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """The arguments that a call is to have."""
        p, training = known.read(args, kwargs)
        answer = self.answer(Call(known.kind, path, module, f"{path}:{known.name}", None, p, training))
        return (args, kwargs) if answer is None else known.write(args, kwargs, *answer)


class _Wanted(NamedTuple):
    """Which modules and calls are meant."""

    modules: frozenset[int] | None  # ids; None is all
    patterns: tuple[str, ...]

    @classmethod
    def of(cls, model: nn.Module, sites: str | Sequence[str] | None) -> "_Wanted":
        if sites is None:
            return cls(None, ())
        several = patterns.several("sites", sites, "encoder.*")
        paths = {path: id(module) for path, module in model.named_modules(remove_duplicate=False)}
        for pattern in several:
            known = matches(paths, pattern) or any(rate.matches(pattern) for rate in rates(model))
            if ":" not in pattern and not known:
                raise patterns.unmatched(
                    f"site pattern {pattern!r}", "nothing", type(model).__name__, listed_rates(model)
                )
        return cls(frozenset(number for path, number in paths.items() if matches([path], *several)), several)

    @property
    def calls_too(self) -> bool:
        """Whether calls may be meant that no module shows."""
        return self.modules is None or bool(self.modules) or any(":" in pattern for pattern in self.patterns)

    def module(self, module: nn.Module) -> bool:
        """Whether all calls of a module are meant."""
        return self.modules is None or id(module) in self.modules

    def rate(self, rate: FoundRate) -> bool:
        """Whether a rate is."""
        return self.module(rate.module) or any(rate.matches(pattern) for pattern in self.patterns)

    def call(self, name: str) -> bool:
        """Whether a call of this name is."""
        return matches([name], *self.patterns)


class _Enabling:
    """Answers calls for `enabled`, and counts those that drop."""

    def __init__(self, model: nn.Module, wanted: _Wanted):
        self.wanted = wanted
        self.active = 0
        self.handed = attention_rates(model)  # now: forwards may be wrapped later, and show no source
        self.numbers: dict[int, dict[str, float]] = {}
        for rate in rates(model):
            for reader in rate.readers if rate.kind == NUMBER else ():
                self.numbers.setdefault(reader, {})[rate.attribute] = rate.p

    def answer(self, call: Call) -> Answer:
        """Probability and mode of a call: on, if it is meant and has a rate."""
        if not self.wanted.module(call.module) and not self.wanted.call(call.name):
            return None
        p = call.p
        if not p > 0:
            p = self._gated(call)
        if not p > 0 or (isinstance(call.module, nn.RNNBase) and call.module.num_layers == 1):
            return None
        self.active += 1
        return p, True

    def _gated(self, call: Call) -> float:
        """The rate that a forward left out because the module does not train; 0 where there was none to leave out."""
        if isinstance(call.module, _DropoutNd | nn.MultiheadAttention | nn.RNNBase):
            return 0.0
        if call.kind == ATTENTION and len(told := self.handed.get(id(call.module), set())) == 1:
            return next(iter(told))
        numbers = self.numbers.get(id(call.module), {})
        layers = {name: child.p for name, child in call.module.named_children() if isinstance(child, _DropoutNd)}
        candidates = {name: p for name, p in {**layers, **numbers}.items() if "att" in name} or numbers
        if call.kind != ATTENTION and (not numbers or 0.0 in candidates.values()):
            return 0.0  # a call at rate 0 that a number explains
        values = set(candidates.values())
        if len(values) > 1:
            these = ", ".join(f"{name}={p}" for name, p in candidates.items())
            raise DropkitValueError(
                f"{call.name} runs at rate 0 in evaluation, and its rate in training could be any of {these}: make "
                'them equal with set_rate, name one of them with "att" in it, or leave the call out by sites='
            )
        return values.pop() if values else 0.0

    def check(self, model: nn.Module, args: Any, output: Any) -> None:
        """After a forward of a model that shows no dropout by its structure."""
        if not self.active:
            raise DropkitValueError(
                f"a forward of {type(model).__name__} ran inside enabled() and no dropout became active; the model has "
                f"{listed_rates(model)}"
            )


def _decides_itself(module: nn.Module) -> bool:
    """Whether a module without parts looks at its own mode and draws by its own means, as DropPath does."""
    if isinstance(module, nn.MultiheadAttention | nn.RNNBase) or layer_rate(module) is None:
        return False
    own = not type(module).forward.__module__.startswith("torch.nn.")
    return own and not module._modules and not module._parameters


def _on_while_running(stack: ExitStack, module: nn.Module) -> None:
    """Its flag says training while its own forward runs, and only then."""
    modes: list[bool] = []

    def begin(module: nn.Module, args: Any) -> None:
        modes.append(module.training)
        module.training = True

    def end(module: nn.Module, args: Any, output: Any) -> None:
        module.training = modes.pop()

    stack.callback(module.register_forward_pre_hook(begin, prepend=True).remove)
    stack.callback(module.register_forward_hook(end, always_call=True).remove)


def _drops(rate: FoundRate) -> bool:
    """Whether it is plain, without a forward, that a rate which is turned on drops."""
    if isinstance(rate.module, nn.RNNBase) and rate.module.num_layers == 1:
        return False
    known = isinstance(rate.module, _DropoutNd | nn.MultiheadAttention | nn.RNNBase)
    known = known or isinstance(rate.module, Learned) or (rate.kind != NUMBER and _decides_itself(rate.module))
    return known and rate.p > 0 and getattr(rate.module, "when", "train") != "never"


def _lay(stack: ExitStack, overlay: Overlay) -> None:
    """Have it there for the block; what the user assigns inside it stays."""
    overlay.lay()
    stack.callback(overlay.lift)


def _check(model: Any, name: str) -> None:
    if not isinstance(model, nn.Module):
        raise DropkitTypeError(f"{name} needs a torch.nn.Module, got {type(model).__name__}")


def listed_rates(model: nn.Module) -> str:
    """The rates that a model shows, for an error."""
    found = [f"{rate.name or 'itself'} ({rate.p})" for rate in rates(model)]
    return listed(found) if found else "no dropout module and no rate in an attribute"
