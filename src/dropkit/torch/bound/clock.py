"""The clock of a bound model: its seed, the count of its training forwards, and the sites that draw by them."""

import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from ...counter import MASK64
from ...errors import DropkitRuntimeError
from ..arithmetic import cuda, tracing, transforms
from ..draw import Words
from ..drawing import coordinates, ranks
from ..drawing.coordinates import Coordinates, Sharded, Split, at_site, state_of, words_of
from . import calls, sizes, unplaced
from .bond import SEED, STEP, Bond, bond_of
from .state import Own, fill_in, readable, set_apart, tensor_of


class Drops(Protocol):
    """A dropout, as far as a clock has to know it."""

    @property
    def active(self) -> bool:
        """Whether a forward now would drop."""


class Known:
    """The value of a 0-dim int64 buffer as it was last seen, so that an accelerator is not asked each time."""

    __slots__ = ("address", "buffer", "value", "version", "view")

    def __init__(self, buffer: torch.Tensor):
        # On the CPU it is looked up each time, where even a writer is seen who counts no version, as those of
        # torch.distributed; through NumPy that takes a tenth of the time.
        with transforms.outside():
            self.view = buffer.detach().numpy() if buffer.device.type == "cpu" else None
            self.written(buffer, int(buffer))

    def written(self, buffer: torch.Tensor, value: int) -> None:
        """The buffer now holds this, modulo 2**64."""
        self.buffer, self.version, self.address = buffer, buffer._version, buffer.data_ptr()
        self.value = value if value < 1 << 63 else value - (1 << 64)

    def stale(self, buffer: torch.Tensor | None) -> bool:
        """Whether something else has written into the buffer, or it is another one."""
        if buffer is not self.buffer or buffer.data_ptr() != self.address:
            return True
        return self.version != buffer._version if self.view is None else self.value != self.view.item()


class Clock:
    """The seed of a bound model and the count of its training forwards, both int64 buffers of the model.

    A forward counts when at least one of the model's dropouts is active in it, unless `at(step=...)` sets the step. So
    does the call of a part of the model, where it is not made inside another call of it or of a part.
    The buffers are the state. What is kept beside them is a copy of their values, so that an accelerator is asked only
    after something else has written them.

    It refers to the model and to its dropouts weakly, so that they are in no cycle of references.
    """

    def __init__(self, model: torch.nn.Module, drops: list[Drops], batch: ranks.Batch, own: Own):
        self.batch = batch
        self.own = own
        self.sizes = sizes.Sizes()
        self.unplaced: list[str] = []  # sites whose inputs turned out to be parts in the running forward
        self.kind = type(model).__name__
        self.belong(model, model._buffers, drops)
        self.depth = 0  # forwards of the model that are running
        self.calls: dict[str, int] = {}  # how often each site was called in the running forward
        self._first: weakref.ref[torch.nn.Module] | None = None  # the part whose first call is running, without a hook
        self._now: tuple[int, int] | None = None  # seed and step of the running forward, if counted in eager code
        self._known: dict[str, Known] = {}
        self._state: torch.Tensor | None = None  # seed and step of the running forward, if a compiler traced its count
        self.captured: torch.Tensor | None = None  # the step of the running forward, for a CUDA graph that reads it
        bond = Bond(model, self)
        bond.handles = [
            model.register_load_state_dict_pre_hook(fill_in),
            model.register_state_dict_post_hook(set_apart),
        ]
        for entry in calls.entries(model):
            self.counts_from(entry)

    def belong(self, model: torch.nn.Module, buffers: dict[str, torch.Tensor | None], drops: Iterable[Drops]) -> None:
        """Be the clock of this model, whose own buffers these are."""
        self._model: weakref.ref[torch.nn.Module] | None = weakref.ref(model)
        self._entries = weakref.WeakSet([model])  # modules whose calls count, where one is not inside another
        self._drops = [weakref.ref(drop) for drop in drops]
        self.buffers = buffers
        self.batch.model = model

    def belong_to_copy(self, *model_buffers_drops: Any) -> None:
        """Be the clock of a copy of the model."""
        self.belong(*model_buffers_drops)
        self.own.differ()
        self.own.write_mark(self.buffers)
        for name in (SEED, STEP):
            if (buffer := self._buffer(name)).is_inference():  # copied in inference mode; a clock is written to later
                with torch.inference_mode(False):
                    self.buffers[name] = buffer.clone()

    def __getstate__(self) -> dict[str, Any]:
        """Without the model: its bond says whose clock a copy is. A copy of a part has nothing but the two integers."""
        self.remember()
        own = {name: self.buffers.get(name) for name in (SEED, STEP)}
        forgotten: dict[str, Any] = {"_model": None, "_entries": None, "_first": None, "_now": None, "_drops": []}
        forgotten |= {"_state": None, "_known": {}, "depth": 0, "calls": {}, "sizes": sizes.Sizes(), "unplaced": []}
        return self.__dict__ | forgotten | {"buffers": own}

    def forget(self, released: Iterable[Drops]) -> None:
        """These dropouts are the model's no more."""
        gone = {id(drop) for drop in released}
        self._drops = [reference for reference in self._drops if id(reference()) not in gone]

    def parts(self) -> set[int]:
        """The identities of what is in the model; none if it is gone."""
        model = self.model
        return set() if model is None else {id(part) for part in model.modules()}

    def reseed(self, seed: int) -> None:
        """Another seed from here on."""
        self.settle()
        self._buffer(SEED).copy_(tensor_of(seed, "cpu"))
        self.own.values[SEED] = seed

    def settle(self) -> None:
        """Write seed and step again where an average of two models' weights, or nothing at all, has taken their place.

        Whatever else writes into the buffers (a checkpoint, another process, an assignment) moves the clock.
        """
        if self.own.mixed(self.buffers):
            for name, value in self.own.values.items():
                known = self._known.get(name)
                self._buffer(name).copy_(tensor_of(value if known is None else known.value & MASK64, "cpu"))
            self.own.write_mark(self.buffers)
            self._known.clear()

    def remember(self) -> None:
        """Keep the two integers in Python too, for a copy whose buffers are about to go their own way."""
        self.settle()
        for name in self.own.values:
            if readable(self._buffer(name)):
                self.own.values[name] = self._value(name)

    @property
    def model(self) -> torch.nn.Module | None:
        """The bound model; None if it is gone, or if this clock came along with a copy of a part of it."""
        return None if self._model is None else self._model()

    @property
    def drops(self) -> Iterator[Drops]:
        """The dropouts of the model."""
        for reference in self._drops:
            if (drop := reference()) is not None:
                yield drop

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
        if known is None or known.stale(buffer):
            self.settle()
            buffer = self._buffer(name)
            known = self._known[name] = Known(buffer)
        return known.value & MASK64

    def _buffer(self, name: str) -> torch.Tensor:
        if torch.compiler.is_compiling() and (model := self.model) is not None:
            return getattr(model, name)  # a compiler takes what is reached by way of the model for a buffer of it
        buffer = self.buffers[name]  # attribute access on a module is slow, and this runs at every forward
        assert buffer is not None
        return transforms.below(buffer) if torch._C._are_functorch_transforms_active() else buffer

    def _begin(self, model: torch.nn.Module, args: Any) -> None:
        self.depth += 1
        compiling = torch.compiler.is_compiling()
        if compiling:
            if self.depth > 1:
                return
        elif torch._C._current_graph_task_id() != -1:
            return  # a recomputation of the whole model: its dropouts repeat their draws
        elif self.depth > 1:
            if calls.runs_inside(self._entries):
                return  # the outermost call counts
            self.depth = 1  # what began before was interrupted
        elif model is not self.model:
            self._entries.add(model)
        self.calls.clear()
        self._first = self._now = self._state = None
        if coordinates.current().step is None and self._any_active(model):
            tracing.refuse_to_record(self.kind)  # before the step is read: that would be in the record too
            self._count_traced() if compiling else self._count()

    def _any_active(self, model: torch.nn.Module) -> bool:
        if model is not self.model and not torch.compiler.is_compiling():
            inside = {id(part) for part in model.modules()}
            return any(drop.active for drop in self.drops if id(drop) in inside)
        for reference in self._drops:  # this runs at every forward: the first one mostly answers
            drop = reference()
            if drop is not None and drop.active:
                return True
        return False

    def _count(self) -> None:
        """One step more."""
        seed, step = self._known.get(SEED), self._known.get(STEP)
        if (
            seed is None
            or step is None
            or step.view is None
            or seed.stale(self.buffers[SEED])
            or step.stale(self.buffers[STEP])
            or torch._C._are_functorch_transforms_active()
        ):
            self._count_elsewhere()
            return
        number = step.value & MASK64
        step.buffer.add_(1)
        step.value = number + 1 if number < MASK64 >> 1 else int(step.view)
        self._now = seed.value & MASK64, number

    def _count_elsewhere(self) -> None:
        """The same on an accelerator, in a function transform, and at first."""
        buffer = self._buffer(STEP)
        if cuda.capturing():
            self.captured = buffer.clone()  # for the backward too, whenever it runs
            buffer.add_(1)
        elif torch._C._are_functorch_transforms_active():
            transforms.add_one(buffer)
        else:
            if buffer.device.type != "cpu" and ranks.broadcasts_buffers():
                self._known.clear()  # the wrapper around us has written into them, and left no trace of it
            step = self.step
            buffer.add_(1)
            if self.captured is None:
                self._known[STEP].written(buffer, step + 1)
            self._now = self.seed, step

    def _count_traced(self) -> None:
        """The same for a compiler."""
        buffer = self._buffer(STEP)
        self._state = state_of(self._buffer(SEED), buffer)
        if torch._functorch.config.activation_memory_budget < 1:
            # Backward then starts again from the graph's inputs, so the step that was read must not be written to.
            setattr(self.model, STEP, buffer + 1)
        else:
            buffer.add_(1)

    def _end(self, model: torch.nn.Module, args: Any, output: Any) -> None:
        if self.depth:  # not where another hook raised before ours began
            self.depth -= 1
        if not self.depth:
            self.calls.clear()
            self._now = self._state = None
            if self.unplaced:
                unplaced.tell(self)

    def counts_from(self, entry: torch.nn.Module) -> None:
        """Count the calls of a part as calls of the model, where they are not made inside one."""
        bond_of(self.model).handles += [  # type: ignore[union-attr,arg-type]
            entry.register_forward_pre_hook(self._begin),
            # always_call: a forward that raises has ended too
            entry.register_forward_hook(self._end, always_call=True),
        ]

    def _begin_with_part(self, name: str) -> None:
        """A dropout draws outside the model's forward: what counts is the outermost call of a part of it.

        Its first call is under way already; the next ones are seen by hooks.
        """
        entry = calls.outermost(self.parts())
        if entry is None:
            raise self._not_running(name)
        if self._first is None or self._first() is not entry:
            self.counts_from(entry)
            self._first = weakref.ref(entry)
            self.calls.clear()
            self._count()

    def _not_running(self, name: str) -> DropkitRuntimeError:
        if self.model is None:
            return DropkitRuntimeError(
                f"dropout {name!r} was bound with a {self.kind} that is gone, or of which this is a copied part: "
                "dropkit.torch.bind the model that it is in now"
            )
        return DropkitRuntimeError(
            f"dropout {name!r} is bound to a {self.kind} whose forward is not running, so its step is unknown: call "
            "the bound model; or dropkit.torch.unbind(part), which releases the part that you call, and bind it; or "
            "set dropkit.torch.at(step=...)"
        )

    def pieces(self, at: Coordinates) -> tuple[ranks.Piece, ...]:
        """Which piece of the batch the model gets on this rank."""
        if torch.compiler.is_compiling():
            return self._constant_pieces(ranks.placed(at))
        return self.batch.pieces(at)

    def _constant_pieces(self, placed: bool) -> tuple[ranks.Piece, ...]:
        return self.batch.pieces(Coordinates(together=frozenset([0])) if placed else Coordinates())

    _constant_pieces._dynamo_marked_constant = True  # type: ignore[attr-defined]  # which process this is will not change

    def words(self, name: str, at: Coordinates) -> Words:
        """Key words of the next call of a site."""
        if at.step is None and not self.depth:
            self._begin_with_part(name)
        number = self.calls.get(name, 0)
        if at.lane:
            number -= 1  # a later lane of a call that has counted
        elif self.depth or at.step is None:
            self.calls[name] = number + 1
        # One module called several times in a forward is several sites, or its masks would repeat.
        site = at.site if at.site is not None else name if number == 0 else f"{name}#{number}"
        site = coordinates.in_this_turn(site, at)
        if self._state is not None and at.seed is None and at.step is None and torch.compiler.is_compiling():
            return at_site(self._state, site)
        seed, step = self._running()
        return words_of(seed if at.seed is None else at.seed, site, step if at.step is None else at.step)

    @property
    def counted(self) -> int | None:
        """The number of the running forward; None outside of one, and where it is not to be had in Python."""
        return None if self._now is None else self._now[1]

    def _running(self) -> tuple[Any, Any]:
        """Seed and step of the running forward; tensors where their values are not to be had."""
        if torch.compiler.is_compiling():
            return self._buffer(SEED), self._buffer(STEP) - 1
        if self._now is not None:
            return self._now
        tracing.refuse_to_record(self.kind)
        if cuda.capturing():
            return self._buffer(SEED), self.captured
        if torch._C._are_functorch_transforms_active() and transforms.batched(self._buffer(SEED), self._buffer(STEP)):
            return self._buffer(SEED), self._buffer(STEP) - 1
        return self.seed, (self.step - 1) & MASK64


@dataclass(slots=True)
class BoundSite:
    """One dropout of a bound model."""

    clock: Clock = field(repr=False)
    name: str

    pieces: tuple[ranks.Piece, ...] = ()  # of its own; what is split over ranks besides the batch
    origin_known: bool = field(default=False, init=False, repr=False, compare=False)  # of what comes here

    def split(self, at: Coordinates) -> Split:
        """How the tensors of this call are split over processes."""
        pieces = self.pieces + self.clock.pieces(at)
        return coordinates.not_covered(pieces, at) if pieces else ()

    def words(self, at: Coordinates) -> Words:
        """Key words of this site's next call."""
        return self.clock.words(self.name, at)

    def seen(self, x: torch.Tensor) -> None:
        """Compare, on several processes, what is said of x with what can be seen of it."""
        sizes.look(self.clock, self.name, x)
        if not self.origin_known:
            unplaced.look(self, x)


def pieces_of(site: Any) -> tuple[ranks.Piece, ...]:
    """What is split over ranks besides the batch, as `ShardedDropout` said to the dropout of this site."""
    return site.pieces if isinstance(site, (BoundSite, Sharded)) else ()
