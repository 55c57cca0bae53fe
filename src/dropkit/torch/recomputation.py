"""Recomputed forwards draw what they drew at first.

Activation checkpointing runs part of a forward again inside backward. By then the clock has moved on, the rate may
have changed, a `with at(...)` block has been left, and the generator may not have been rewound. So a dropout that runs
where a recomputation can follow records its draw, and the recomputation takes the recorded draws in the same order:

- non-reentrant checkpoints show themselves as the innermost saved-tensor hook, whose frame is the same object in the
  forward and in its recomputation;
- reentrant ones (torch's, and the many hand-written autograd Functions of that kind) run the forward without gradient
  and the recomputation under the very autograd node which that forward made. Nodes are numbered in order of creation,
  so the draws to repeat are those that were recorded after this node.

Outside checkpointed code nothing is recorded and nothing is looked up.
"""

import threading
from collections.abc import Callable
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch

# A key's two words; an int64 pair where a compiler looks on; a key in device memory where a CUDA graph is captured.
Words = Any

_KEPT = 16384  # draws remembered without gradient; forwards that wait for their backward have far fewer


class Draw(NamedTuple):
    """All that decides a mask besides the tensor's shape: the key, the rate, and where the tensor lies."""

    key: Words
    rate: Any  # t, kept of 65536; or a tensor of drop probabilities
    offset: tuple[int, ...] | None = None
    global_shape: tuple[int, ...] | None = None
    rows: torch.Tensor | None = None
    split: tuple[tuple[int, int, int], ...] | None = None


_by_frame: WeakKeyDictionary[Any, list[Draw]] = WeakKeyDictionary()
_replayed: WeakKeyDictionary[Any, int] = WeakKeyDictionary()  # pack hook of a recomputation -> draws taken so far
_without_grad: list[tuple[int, Draw]] = []  # number of the next autograd node at the time, draw
_forgotten = 0  # how many of its oldest are gone, so that a place in it keeps its meaning
_top_hooks = torch._C._autograd._top_saved_tensors_default_hooks
_local = threading.local()  # backward runs in a thread for each device


def in_backward() -> bool:
    """Whether this thread is inside a backward pass, so that a forward running now is a recomputation."""
    return torch._C._current_graph_task_id() != -1


def draw(fresh: Callable[[Any], Draw], rate: Any) -> Draw:
    """`fresh(rate)` in a forward; in the recomputation of one, the draw which that forward recorded."""
    if torch.compiler.is_compiling():  # the compiler keeps the key itself among the saved tensors
        return fresh(rate)
    if _top_hooks(True) is None and torch.is_grad_enabled() and not in_backward():  # by far the most frequent case
        return fresh(rate)
    recording, recomputation = _checkpoints()
    if recomputation is not None:
        recorded = _next_of_frame(*recomputation)
    else:
        recorded = _next_after_node() if in_backward() else None
    new = fresh(rate) if recorded is None else recorded
    for frame in recording:
        _by_frame.setdefault(frame, []).append(new)
    if not torch.is_grad_enabled() and not torch.is_inference_mode_enabled():
        _remember(new)
    return new


def _remember(new: Draw) -> None:
    global _forgotten
    _without_grad.append((torch._C._autograd._get_sequence_nr(), new))
    if len(_without_grad) > 2 * _KEPT:
        del _without_grad[:_KEPT]
        _forgotten += _KEPT


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
    draws = _by_frame.get(frame, [])
    position = _replayed.get(pack, 0)
    _replayed[pack] = position + 1
    return draws[position] if position < len(draws) else None


def _next_after_node() -> Draw | None:
    node = torch._C._current_autograd_node()
    if node is None:
        return None
    recomputation = (torch._C._current_graph_task_id(), node._sequence_nr())
    last, position = getattr(_local, "cursor", (None, 0))
    if recomputation != last:
        position = len(_without_grad) + _forgotten
        while position > _forgotten and _without_grad[position - _forgotten - 1][0] > node._sequence_nr():
            position -= 1
    if not 0 <= position - _forgotten < len(_without_grad):
        return None
    _local.cursor = (recomputation, position + 1)
    return _without_grad[position - _forgotten][1]
