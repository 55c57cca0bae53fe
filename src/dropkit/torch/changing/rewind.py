"""Several forwards with the masks of the first, as preference and policy training needs them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn

from ...errors import DropkitTypeError, DropkitValueError
from ..bound.bond import STEP
from ..bound.clock import BoundSite, Clock
from ..drawing import coordinates, recomputation
from ..named import Named

_REGENERATIONS = 4096  # how far one state of the CPU generator is looked for behind another
_WORDS = slice(24, 24 + 8 * 624)  # the words of the Mersenne twister in torch's CPU state
_NEXT = slice(16, 24)  # how many of them are used up

States = dict[str, torch.Tensor]


@contextmanager
def replay(*models: nn.Module) -> Iterator[None]:
    """Every forward of the model inside the block draws the masks of the first one.

    For log-probabilities that are compared: the old and the new policy, a policy and its reference. What is replayed:

    - bound models: each forward is the same step; after the block the clock has moved on by one forward;
    - everything drawn by torch's generators, ambient dropkit dropouts and torch's own: each forward starts with the
      generator as the first one found it (CPU and current accelerator). What is drawn between forwards goes on as if
      the repeated forwards had drawn nothing, and after the block the generators are where the furthest forward or
      the code between them left them.

    Args:
        models: one model; or several of the same structure, whose forwards all draw what the first of them draws:
            each bound with the same seed and the same names of sites, or each unbound. The forward of the model is
            what counts: its parts, called by themselves, draw as ever.

    Raises:
        DropkitValueError: no model; models that cannot draw alike; a part of a bound model; a model compiled in place
            (pass what `torch.compile` returns instead).
        DropkitTypeError: not a module.

    >>> from dropkit.torch import Dropout
    >>> model, x = nn.Sequential(Dropout(0.5)), torch.ones(64)
    >>> with replay(model):
    ...     old, new = model(x), model(x)
    >>> torch.equal(old, new), torch.equal(new, model(x))
    (True, False)
    """
    clocks = _checked(models)
    generators = _Generators()
    hooks: list[Any] = []
    counters = [_Steps(first, clock) for of_one in clocks for first, clock in zip(clocks[0], of_one, strict=True)]
    try:
        for model in models:
            hooks.append(model.register_forward_pre_hook(generators.begin, prepend=True))
            hooks.append(model.register_forward_hook(generators.end, always_call=True))
        hooks += [counter.hook(models) for counter in counters]
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for counter in counters:
            counter.close()


class _Steps:
    """Puts the clock of a bound model back to one step before each of its forwards, which then moves it on again."""

    def __init__(self, of_first: Clock, clock: Clock):
        self.clock = clock
        self.step = self._buffer(of_first).clone()
        self.before = self._buffer(clock).clone()
        self.ran = False

    @staticmethod
    def _buffer(clock: Clock) -> torch.Tensor:
        buffer = clock.buffers[STEP]
        assert buffer is not None
        return buffer

    def hook(self, models: tuple[nn.Module, ...]) -> Any:
        """Watch the clock's model; or what `torch.compile` made of it, so that the hook is not compiled too."""
        bound = self.clock.model
        assert bound is not None  # it is a part of one of the models
        outer = [model for model in models if getattr(model, "_orig_mod", None) is bound]
        return (outer or [bound])[0].register_forward_pre_hook(self._begin, prepend=True)

    def _begin(self, model: nn.Module, args: Any) -> None:
        if self.clock.depth or recomputation.in_backward():
            return
        self.ran |= coordinates.current().step is None and any(drop.active for drop in self.clock.drops)
        self._buffer(self.clock).copy_(self.step)

    def close(self) -> None:
        """The clock has moved on by one forward, if one was counted."""
        self._buffer(self.clock).copy_(self.before + int(self.ran))


class _Generators:
    """Rewinds torch's generators for each forward but the first."""

    def __init__(self) -> None:
        self.start: States | None = None
        self.interrupted: list[States | None] = []  # for each forward under way; None where nothing was rewound

    def begin(self, model: nn.Module, args: Any) -> None:
        """Before a forward; one inside another is a part of it."""
        if self.interrupted or recomputation.in_backward():
            self.interrupted.append(None)
            return
        now = _states()
        self.interrupted.append(None if self.start is None else now)
        if self.start is None:
            self.start = now
        else:
            _set_states(self.start)

    def end(self, model: nn.Module, args: Any, output: Any) -> None:
        """After it."""
        before = self.interrupted.pop()
        if before is not None:
            after = _states()
            _set_states({device: _later(device, state, after[device]) for device, state in before.items()})


def _states() -> States:
    states = {"cpu": torch.get_rng_state()}
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is not None:
        states[accelerator.type] = torch.get_device_module(accelerator).get_rng_state()
    return states


def _set_states(states: States) -> None:
    for device, state in states.items():
        if device == "cpu":
            torch.set_rng_state(state)
        else:
            torch.get_device_module(device).set_rng_state(state)


def _later(device: str, state: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The one of two states of a generator that the other leads to; the first where neither is seen to."""
    if torch.equal(state, other):
        return state
    if device == "cpu":
        return other if _leads_to(state, other) else state
    seed, offset = state.view(torch.int64).tolist()[:2]
    other_seed, other_offset = other.view(torch.int64).tolist()[:2]
    return other if seed == other_seed and other_offset > offset else state


def _leads_to(state: torch.Tensor, other: torch.Tensor) -> bool:
    generator = torch.Generator()
    generator.set_state(state)
    if torch.equal(state[_WORDS], other[_WORDS]):
        return state[_NEXT].view(torch.int64).item() < other[_NEXT].view(torch.int64).item()
    draws = torch.empty(624, dtype=torch.int32)
    for _ in range(_REGENERATIONS):
        draws.random_(generator=generator)  # as many words as the state has: all are made anew once
        if torch.equal(generator.get_state()[_WORDS], other[_WORDS]):
            return True
    return False


class _Bound(NamedTuple):
    """What must agree between models that are to draw alike."""

    path: str
    seed: int
    names: tuple[str, ...]


def _checked(models: tuple[nn.Module, ...]) -> list[list[Clock]]:
    """The clocks of each model, in one order."""
    if not models:
        raise DropkitValueError("replay needs a model: replay(model), or replay(policy, reference)")
    for model in models:
        if not isinstance(model, nn.Module):
            raise DropkitTypeError(f"replay needs torch.nn.Modules, got {type(model).__name__}")
        if model.__dict__.get("_compiled_call_impl") is not None:
            raise DropkitValueError(
                f"this {type(model).__name__} was compiled in place; compile with torch.compile(model) and replay that"
            )
    clocks = [clocks_of(model) for model in models]
    first = _described(models[0], clocks[0])
    for model, others in zip(models[1:], clocks[1:], strict=True):
        if (found := _described(model, others)) != first:
            raise DropkitValueError(
                f"the models cannot draw the same masks: {first or 'the first is unbound'} and "
                f"{found or 'another is unbound'}; bind all of them with one seed, or none"
            )
    return clocks


def clocks_of(model: nn.Module) -> list[Clock]:
    """The clocks by which the dropouts of a model draw; refuses what is a part of a bound model."""
    sites = [part.site for part in model.modules() if isinstance(part, Named)]
    clocks = list({id(site.clock): site.clock for site in sites if isinstance(site, BoundSite)}.values())
    parts = {id(part) for part in model.modules()}
    for clock in clocks:
        if id(clock.model) not in parts:
            raise DropkitValueError(
                f"this {type(model).__name__} is a part of a bound {clock.kind}, whose forwards are "
                "what is counted: replay that model"
            )
    return clocks


def _described(model: nn.Module, clocks: list[Clock]) -> list[_Bound]:
    paths = {id(part): path.removeprefix("_orig_mod").removeprefix(".") for path, part in model.named_modules()}
    found = []
    for clock in clocks:
        names = tuple(
            drop.site.name for drop in clock.drops if isinstance(drop, Named) and isinstance(drop.site, BoundSite)
        )
        found.append(_Bound(paths[id(clock.model)], clock.seed, names))
    return found
