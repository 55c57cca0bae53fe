"""Keyed models: every dropout named by its module path, and a clock that counts the model's training forwards."""

import warnings
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from ..counter import MASK64, Key
from ..errors import DropkitRuntimeError, DropkitTypeError, DropkitValueError
from . import coordinates, cuda, ranks, recomputation
from .coordinates import Coordinates, Sharded, Split, words_of
from .layers import Drawn
from .reading.unkeyed import told, unkeyed
from .recomputation import Words

Model = TypeVar("Model", bound=torch.nn.Module)

# how torch's wrappers call what they wrap: torch.compile, checkpoint_wrapper, FullyShardedDataParallel
WRAPPED = {"_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"}
_SWAPPABLE = [getattr(torch.nn, name) for name in torch.nn.modules.dropout.__all__]
SEED, STEP = "dropkit_seed", "dropkit_step"  # the two integers in the state_dict


class Clock:
    """The seed of a bound model and the count of its training forwards, both int64 buffers of the model.

    A forward counts when at least one of the model's dropouts is active in it, unless `at(step=...)` sets the step.
    The buffers are the state. What is kept beside them is a copy of their values, so that an accelerator is asked only
    after something else has written them.
    """

    def __init__(self, model: torch.nn.Module, drops: list[Drawn], batch: ranks.Batch):
        self.model = model
        self.drops = drops
        self.batch = batch
        self.depth = 0  # forwards of the model that are running
        self.calls: dict[str, int] = {}  # how often each site was called in the running forward
        self._known: dict[str, tuple[torch.Tensor, int, int]] = {}
        self.captured: torch.Tensor | None = None  # the step of the running forward, for a CUDA graph that reads it
        self.hooks = (
            model.register_forward_pre_hook(self._begin),
            # always_call: a forward that raises has ended too
            model.register_forward_hook(self._end, always_call=True),
        )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_known": {}, "depth": 0, "calls": {}}

    @property
    def seed(self) -> int:
        """The seed of every mask of the model."""
        return self._value(SEED)

    @property
    def step(self) -> int:
        """How many training forwards have begun; the running one is number `step - 1`."""
        return self._value(STEP)

    def _value(self, name: str) -> int:
        buffer = self._buffer(name)
        if self.captured is not None:  # replays advance the buffer without a trace that could be seen here
            return int(buffer) & MASK64
        known = self._known.get(name)
        if known is None or known[0] is not buffer or known[1] != buffer._version:
            known = (buffer, buffer._version, int(buffer) & MASK64)
            self._known[name] = known
        return known[2]

    def _buffer(self, name: str) -> torch.Tensor:
        if torch.compiler.is_compiling():
            return getattr(self.model, name)
        buffer = self.model._buffers[name]  # attribute access on a module is slow, and this runs at every dropout
        assert buffer is not None
        return buffer

    def _begin(self, model: torch.nn.Module, args: Any) -> None:
        self.depth += 1
        compiling = torch.compiler.is_compiling()
        if not compiling and recomputation.in_backward():
            return  # a recomputation of the whole model: its dropouts repeat their draws
        self.calls.clear()
        if coordinates.current().step is not None or not any(drop.active for drop in self.drops):
            return
        buffer = self._buffer(STEP)
        if compiling and torch._functorch.config.activation_memory_budget < 1:
            # Backward then starts again from the graph's inputs, so the step that was read must not be written to.
            setattr(self.model, STEP, buffer + 1)
            return
        if compiling:
            buffer.add_(1)
            return
        if cuda.capturing():
            self.captured = buffer.clone()  # for the backward too, whenever it runs
            buffer.add_(1)
            return
        after = (self.step + 1) & MASK64
        buffer.add_(1)
        self._known[STEP] = (buffer, buffer._version, after)

    def _end(self, model: torch.nn.Module, args: Any, output: Any) -> None:
        self.depth -= 1
        self.calls.clear()

    def pieces(self, at: Coordinates) -> tuple[ranks.Piece, ...]:
        """Which piece of the batch the model gets on this rank."""
        if torch.compiler.is_compiling():
            return _constant_pieces(self.batch, ranks.placed(at))
        return self.batch.pieces(at)

    def words(self, name: str, at: Coordinates) -> Words:
        """Key words of the next call of a site."""
        number = self.calls.get(name, 0)
        if self.depth:
            self.calls[name] = number + 1
        elif at.step is None:
            raise DropkitRuntimeError(
                f"dropout {name!r} is bound to a {type(self.model).__name__} whose forward is not running, so its step "
                "is unknown: call the bound model, bind the part that you call, or set dropkit.torch.at(step=...)"
            )
        # One module called several times in a forward is several sites, or its masks would repeat.
        site = at.site if at.site is not None else name if number == 0 else f"{name}#{number}"
        seed: Any
        step: Any
        if torch.compiler.is_compiling():
            seed, step = self._buffer(SEED), self._buffer(STEP) - 1
        elif cuda.capturing():
            seed, step = self._buffer(SEED), self.captured
        else:
            seed, step = self.seed, (self.step - 1) & MASK64
        return words_of(seed if at.seed is None else at.seed, site, step if at.step is None else at.step)


def _constant_pieces(batch: ranks.Batch, placed: bool) -> tuple[ranks.Piece, ...]:
    return batch.pieces(Coordinates(together=frozenset([0])) if placed else Coordinates())


_constant_pieces._dynamo_marked_constant = True  # type: ignore[attr-defined]  # which process this is will not change


@dataclass(slots=True)
class BoundSite:
    """One dropout of a bound model."""

    clock: Clock = field(repr=False)
    name: str

    pieces: tuple[ranks.Piece, ...] = ()  # of its own; what is split over ranks besides the batch

    def split(self, at: Coordinates) -> Split:
        """How the tensors of this call are split over processes."""
        pieces = self.pieces + self.clock.pieces(at)
        return coordinates.not_covered(pieces, at) if pieces else ()

    def words(self, at: Coordinates) -> Words:
        """Key words of this site's next call."""
        return self.clock.words(self.name, at)


def bind(model: Model, seed: int = 0, *, data_parallel: Any = None) -> Model:
    """Make a model's masks a function of (seed, module path, step): the same on any device, resumable, replayable.

    Names every dropkit dropout in the model by its module path and gives the model a clock: forward n with active
    dropout, counted from 0, is step n. The state is two int64 buffers, `dropkit_seed` and `dropkit_step`, in the
    model's `state_dict`: a run resumed from it draws the masks it would have drawn. A module called k times in one
    forward counts as k sites: `name`, `name#1`, `name#2`, ... The names leave out what wrappers add to a path
    (`torch.compile`, DistributedDataParallel, checkpoint wrappers).

    On several ranks the masks are slices of those of one process: rank r of n draws for samples r * B to (r + 1) * B of
    a batch of n * B. DTensors know their slice by themselves; `at(rows=...)` says more where batches differ in size.

    Args:
        model: a module with dropkit dropouts in it; call it, not its parts, in training.
        seed: an int in [0, 2**64).
        data_parallel: the ProcessGroup or DeviceMesh over which the batch (axis 0) is split; False if every rank has
            the whole batch. By default that of the DistributedDataParallel or `fully_shard` around the model or in it.

    Returns:
        The same model.

    Raises:
        DropkitValueError: no dropkit dropout in the model; the model or a part of it is bound already; a bad seed.
        DropkitTypeError: not a module; a seed that is no integer.

    Warns:
        UserWarning: dropouts stay on torch's generator, functional calls, attention, recurrent networks and layers of
            others among them; all are named, with what can be done. In the first training forward: several
            processes run the model, and nothing says which samples each of them has.

    >>> from torch import nn
    >>> from dropkit.torch import Dropout, at
    >>> model = bind(nn.Sequential(nn.Linear(4, 4), Dropout(0.5)), seed=1)
    >>> x = torch.ones(1, 4)
    >>> first, second = model(x), model(x)
    >>> with at(step=0):
    ...     again = model(x)
    >>> torch.equal(first, again)
    True
    """
    if not isinstance(model, torch.nn.Module):
        raise DropkitTypeError(f"bind needs a torch.nn.Module, got {type(model).__name__}")
    seed = Key(seed).seed
    root = _uncompiled(model)
    batch = ranks.Batch(root, data_parallel)
    named = _named_drops(root)
    _check_bindable(root, named)
    with torch.inference_mode(False):
        for name, value in ((SEED, seed), (STEP, 0)):
            signed = value - (1 << 64) if value >> 63 else value
            root.register_buffer(name, torch.tensor(signed, dtype=torch.int64, device=_device(root)))
    clock = Clock(root, [drop for _, drop in named], batch)
    for name, drop in named:
        drop.site = BoundSite(clock, name, drop.site.pieces if isinstance(drop.site, Sharded) else ())
    return model


def unbind(model: Model) -> Model:
    """Undo `bind`: the dropouts are ambient again, the two buffers and the hooks are gone.

    Raises:
        DropkitValueError: the model is not bound.

    >>> from torch import nn
    >>> from dropkit.torch import Dropout
    >>> model = unbind(bind(nn.Sequential(Dropout(0.5))))
    >>> model.state_dict()
    OrderedDict()
    """
    root = _uncompiled(model)
    sites = [part.site for part in model.modules() if isinstance(part, Drawn) and part.site is not None]
    clock = next((site.clock for site in sites if isinstance(site, BoundSite) and site.clock.model is root), None)
    if clock is None:
        raise DropkitValueError(f"this {type(model).__name__} is not bound; bind(model, seed=...) comes first")
    for hook in clock.hooks:
        hook.remove()
    for drop in clock.drops:
        pieces = drop.site.pieces if isinstance(drop.site, BoundSite) else ()
        del drop.site
        if pieces:
            drop.site = Sharded(pieces)
    for name in (SEED, STEP):
        delattr(root, name)
    return model


def _uncompiled(model: torch.nn.Module) -> torch.nn.Module:
    """What `torch.compile` wraps: the clock and its buffers belong to the model, so that they are compiled with it."""
    return getattr(model, "_orig_mod", model)


def _check_bindable(model: torch.nn.Module, named: list[tuple[str, Drawn]]) -> None:
    if not named:
        foreign = [
            f"{name} ({type(part).__name__})"
            for name, part in model.named_modules()
            if isinstance(part, torch.nn.modules.dropout._DropoutNd)
        ]
        found = (
            f"it has torch's own: {', '.join(foreign)}; use dropkit.torch.Dropout there" if foreign else "it has none"
        )
        raise DropkitValueError(f"no dropkit dropout to bind in {type(model).__name__}: {found}")
    bound = [name for name, drop in named if isinstance(drop.site, BoundSite)]
    if bound:
        raise DropkitValueError(
            f"already bound: {', '.join(bound)}; dropkit.torch.unbind the model that holds them first"
        )
    left = unkeyed(model, Drawn)
    if left:
        warnings.warn(told("bind leaves torch's own dropouts unbound", left, _SWAPPABLE), stacklevel=3)


def _named_drops(model: torch.nn.Module) -> list[tuple[str, Drawn]]:
    """Every dropkit dropout by its path, without the parts of the path that wrappers add."""
    parallel = (torch.nn.parallel.DistributedDataParallel, torch.nn.DataParallel)
    around = {f"{path}.module".lstrip(".") for path, part in model.named_modules() if isinstance(part, parallel)}

    def clean(path: str) -> str:
        parts = path.split(".")
        keep = [part for i, part in enumerate(parts) if part not in WRAPPED and ".".join(parts[: i + 1]) not in around]
        return ".".join(keep)

    return [(clean(path), part) for path, part in model.named_modules() if isinstance(part, Drawn)]


def _device(model: torch.nn.Module) -> torch.device:
    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device
