"""Recomputed forwards draw what they drew at first.

Activation checkpointing runs part of a forward again inside backward. By then the clock has moved on, the rate may
have changed, a `with at(...)` block has been left, and the generator may not have been rewound. So a dropout that runs
where a recomputation can follow records its draw, and the recomputation takes the recorded draws in the same order:

- non-reentrant checkpoints show themselves as the innermost saved-tensor hook, whose frame is the same object in the
  forward and in its recomputation;
- reentrant ones (torch's, and the many hand-written autograd Functions of that kind) run the forward without gradient,
  inside `Function.forward`, and the recomputation inside the backward of the same object, their `ctx`.

The record lives on that frame or that `ctx` and goes with it; outside checkpointed code nothing is recorded and nothing
is looked up. A draw that states its coordinates, by an explicit key or by an `at` inside the code that is run again, is
a function of them and needs no record. Only what it took from an `at` outside that code is remembered, under its key.
"""

import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any
from weakref import WeakKeyDictionary

import torch

from ..draw import Draw, Words


@dataclass(slots=True)
class _Record:
    """What one checkpointed piece of a forward drew."""

    draws: list[Draw] = field(default_factory=list)  # in order
    placed: dict[Words, Draw] = field(default_factory=dict)  # of calls with a key, where an `at` said their place
    taken: tuple[int, int] = (-1, 0)  # the backward pass that draws them again, and how many it has taken


_of_frame: WeakKeyDictionary[Any, _Record] = WeakKeyDictionary()
_replayed: WeakKeyDictionary[Any, int] = WeakKeyDictionary()  # pack hook of a recomputation -> draws taken so far
_ON_CTX = "_dropkit_record"

# A Function with `setup_context` runs its forward before there is a ctx. It is known by the number of its node instead,
# since nodes are numbered in order of creation: (number of the next node at the time, draw).
_without_ctx: deque[tuple[int, Draw]] = deque(maxlen=1024)
_local = threading.local()  # backward runs in a thread for each device

# looked up once, since they are asked at every draw
_is_compiling, _is_grad_enabled = torch.compiler.is_compiling, torch.is_grad_enabled
_is_inference = torch.is_inference_mode_enabled
_graph_task = torch._C._current_graph_task_id
_top_hooks = torch._C._autograd._top_saved_tensors_default_hooks
_APPLY = torch.autograd.Function.apply.__func__.__code__  # type: ignore[attr-defined]
_SETUP = torch.autograd.Function.setup_context


def in_backward() -> bool:
    """Whether this thread is inside a backward pass, so that a forward running now is a recomputation."""
    return torch._C._current_graph_task_id() != -1


def never_repeated() -> bool:
    """Whether this call can neither be repeated later nor be a repetition itself: by far the most frequent case.

    Also under a compiler, which keeps the key itself among the saved tensors.
    """
    return _is_compiling() or (
        _top_hooks(True) is None
        and _graph_task() == -1
        and (_is_grad_enabled() or _is_inference() or not _in_a_function())
    )


def draw(fresh: Callable[[], Draw], stated: bool) -> Draw:
    """`fresh()` in a forward; in the recomputation of one, the draw which that forward recorded.

    Args:
        fresh: makes the draw of this call.
        stated: whether the seed, the site and the step are all stated right here: then no other key can be meant.
    """
    recording, recomputation = _checkpoints()
    if recomputation is not None:
        recorded = _next_of_frame(*recomputation)
    else:
        recorded = _next_of_node() if in_backward() else None
    if recorded is None:
        new = fresh()
    elif stated:
        stated_draw = fresh()
        new = recorded if recorded.key == stated_draw.key else stated_draw
    else:
        new = recorded
    forwards = _running_forwards()
    if recording or forwards:
        for record in _records(recording, forwards):
            record.draws.append(new)
        if None in forwards:
            _without_ctx.append((torch._C._autograd._get_sequence_nr(), new))
    return new


def keyed(new: Draw, took_place: bool) -> Draw:
    """A draw with a key of its own: it is a function of the key, so nothing of it is recorded or looked up.

    What can be lost until a recomputation is the place that an `at` around the checkpoint said. That is remembered
    under the key, and used by the call that repeats it and says nothing else.

    Args:
        new: the draw, by the call's arguments and the `at` around it.
        took_place: whether that `at` said the place, or a part of it.
    """
    recording, recomputation = _checkpoints()
    if took_place:
        for record in _records(recording, _running_forwards()):
            record.placed.setdefault(new.key, new)
    elif in_backward() and new.part.whole:
        forward = _of_node() if recomputation is None else _of_frame.get(recomputation[1])
        before = None if forward is None else forward.placed.get(new.key)
        return new if before is None else before._replace(lowered=new.lowered)
    return new


def holders() -> list[Any]:
    """What may run this call again: the checkpoints that it is inside of, as far as they have begun."""
    recording, _ = _checkpoints()
    return [*recording, *(ctx for ctx in _running_forwards() if ctx is not None)]


@dataclass(slots=True)
class _Inside:
    """What a checkpoint runs again, inside a context."""

    run: Callable[..., Any]
    context: Callable[[], AbstractContextManager[Any]]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self.context():
            return self.run(*args, **kwargs)


def again_inside(holder: Any, context: Callable[[], AbstractContextManager[Any]]) -> None:
    """Have a checkpoint run its part again inside a context, unless it does so already or is of a kind unknown here."""
    for name in ("recompute_fn", "run_function"):
        run = getattr(holder, name, None)
        if run is not None and not isinstance(run, _Inside):
            setattr(holder, name, _Inside(run, context))


def _records(frames: list[Any], forwards: list[Any]) -> list[_Record]:
    """The records of the non-reentrant checkpoints and of the running Functions that this call is inside of."""
    records = [_of_frame.setdefault(frame, _Record()) for frame in frames]
    for ctx in forwards:
        if ctx is not None:
            record = getattr(ctx, _ON_CTX, None)
            if record is None:
                record = _Record()
                setattr(ctx, _ON_CTX, record)
            records.append(record)
    return records


def _in_a_function() -> bool:
    """Whether the forward of an autograd Function is running in this thread, as that of a reentrant checkpoint."""
    frame = sys._getframe(2).f_back
    while frame is not None:
        if frame.f_code is _APPLY:
            return True
        frame = frame.f_back
    return False


def _running_forwards() -> list[Any]:
    """The ctx of each autograd Function whose forward is running in this thread; None for one that has none yet."""
    if torch.is_grad_enabled() or torch.is_inference_mode_enabled():
        return []
    found = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        caller = frame.f_back
        if caller is not None and caller.f_code is _APPLY:
            found.append(_ctx(frame))
        frame = caller
    return found


def _ctx(forward: FrameType) -> Any:
    """What a running `Function.forward`, or a decorator around it, got as its first argument, if that is a ctx."""
    code = forward.f_code
    arguments = forward.f_locals
    first = arguments.get(code.co_varnames[0]) if code.co_varnames else None
    if isinstance(first, tuple) and first:  # *args
        first = first[0]
    return first if isinstance(first, torch._C._FunctionBase) else None


def _checkpoints() -> tuple[list[Any], tuple[Any, Any] | None]:
    """The checkpoints around us, innermost first, up to the nearest that is being recomputed; and that one."""
    recording: list[Any] = []
    above: list[Any] = []  # hooks taken off to see the one below
    hooks = torch._C._autograd
    try:
        while (top := _top_hooks(True)) is not None:
            reference = _captured(top[0], "target_frame_ref")
            if reference is not None:
                return recording, (top[0], reference())
            frame = _captured(top[0], "frame")
            if frame is None:
                break
            recording.append(frame)
            hooks._pop_saved_tensors_default_hooks()
            above.append(top)
    finally:
        for top in reversed(above):
            hooks._push_saved_tensors_default_hooks(*top)
    return recording, None


def _captured(pack: Any, name: str) -> Any:
    """A variable that a pack hook of torch.utils.checkpoint closes over, or None for another hook."""
    function = getattr(pack, "_torchdynamo_orig_callable", pack)
    code = getattr(function, "__code__", None)
    if code is None or name not in code.co_freevars or function.__module__ != "torch.utils.checkpoint":
        return None
    return function.__closure__[code.co_freevars.index(name)].cell_contents


def _next_of_frame(pack: Any, frame: Any) -> Draw | None:
    record = _of_frame.get(frame)
    position = _replayed.get(pack, 0)
    _replayed[pack] = position + 1
    return record.draws[position] if record is not None and position < len(record.draws) else None


def _of_node() -> _Record | None:
    """The record of the autograd node whose backward is running."""
    return getattr(torch._C._current_autograd_node(), _ON_CTX, None)


def _next_of_node() -> Draw | None:
    record = _of_node()
    if record is None:
        return _next_by_number()
    task = torch._C._current_graph_task_id()
    position = record.taken[1] if record.taken[0] == task else 0
    record.taken = (task, position + 1)
    return record.draws[position] if position < len(record.draws) else None


def _next_by_number() -> Draw | None:
    """The same for a Function with `setup_context`."""
    node = torch._C._current_autograd_node()
    if getattr(getattr(node, "_forward_cls", None), "setup_context", _SETUP) is _SETUP:
        return None
    recomputation = (torch._C._current_graph_task_id(), node._sequence_nr())
    last, place = getattr(_local, "cursor", (None, 0))
    if recomputation != last:  # the first of its draws came right after the node
        place = next((i for i, (number, _) in enumerate(_without_ctx) if number == recomputation[1] + 1), -1)
    if not 0 <= place < len(_without_ctx):
        return None
    _local.cursor = (recomputation, place + 1)
    return _without_ctx[place][1]
