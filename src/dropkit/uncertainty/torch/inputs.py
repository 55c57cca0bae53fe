"""What is predicted, as torch takes it: batches as they come, and blocks in which each row has its slot."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils import _pytree as pytree

from ...errors import DropkitTypeError, DropkitValueError
from ..asked import Block, blocks, row_numbers


class Inputs(NamedTuple):
    """What a forward takes."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Batch(NamedTuple):
    """Inputs with their row numbers."""

    inputs: Inputs
    rows: NDArray[np.int64]


def mapped(inputs: Inputs, function: Callable[[torch.Tensor], Any]) -> Inputs:
    args, kwargs = pytree.tree_map(lambda x: function(x) if isinstance(x, torch.Tensor) else x, tuple(inputs))
    return Inputs(args, kwargs)


def on_device(device: torch.device, inputs: Inputs) -> Inputs:
    return mapped(inputs, lambda x: x.to(device))


def rows_of(inputs: Inputs, rows: Any) -> Inputs:
    return mapped(inputs, lambda x: x[torch.as_tensor(rows)])


def _inputs(given: Any, batch: bool) -> Inputs:
    """What a forward takes, of what the user gave: of a loader's batch, the inputs without the targets."""
    if isinstance(given, Mapping):
        named = {
            name: _as_tensor(value) for name, value in given.items() if not (batch and name in ("labels", "label"))
        }
        return Inputs((), named)
    if isinstance(given, list | tuple) and (batch or isinstance(given, tuple)):
        parts = given[:1] if batch else given
        return Inputs(tuple(_as_tensor(part) for part in parts), {})
    return Inputs((_as_tensor(given),), {})


def _as_tensor(x: Any) -> Any:
    if isinstance(x, torch.Tensor):
        return x.detach()
    try:
        array = np.asarray(x)
        return torch.from_numpy(array.astype(np.float32) if array.dtype == np.float64 else array)
    except (TypeError, ValueError) as error:
        raise DropkitTypeError(
            f"x must be a tensor, an array, a mapping of them or a loader of batches, got {type(x).__name__}"
        ) from error


def batches(x: Any, rows: Any) -> Iterator[Batch]:
    """The inputs in the pieces in which they come."""
    whole = isinstance(x, torch.Tensor | np.ndarray | Mapping | tuple | list)
    if not whole and not hasattr(x, "__iter__"):
        raise DropkitTypeError(
            f"x must be a tensor, an array, a mapping of them or a loader of batches, got {type(x).__name__}"
        )
    if whole:
        inputs = _inputs(x, False)
        count = _length(inputs)
        if count:
            yield Batch(inputs, row_numbers(rows, count))
        return
    done = 0
    known = None if rows is None else np.asarray(rows)
    for given in x:
        inputs = _inputs(given, True)
        count = _length(inputs)
        numbers = np.arange(done, done + count) if known is None else row_numbers(known[done : done + count], count)
        done += count
        yield Batch(inputs, numbers)
    if known is not None and len(known) != done:
        raise DropkitValueError(f"rows has {len(known)} numbers for {done} inputs: give each input its own")


def _length(inputs: Inputs) -> int:
    sizes = {x.shape[0] if x.dim() else -1 for x in pytree.tree_leaves(tuple(inputs)) if isinstance(x, torch.Tensor)}
    if len(sizes) != 1 or -1 in sizes:
        raise DropkitValueError(
            f"every input must have the batch as its first axis, and they have the lengths {sorted(sizes)}"
        )
    return sizes.pop()


def in_blocks(batches: Iterator[Batch], size: int) -> Iterator[tuple[Inputs, Block]]:
    """Full blocks as soon as they are, and at the end the others."""
    waiting: Batch | None = None
    begin = 0  # the place of the first that waits
    for batch in batches:
        if waiting is not None and _shapes(waiting.inputs) != _shapes(batch.inputs):  # padded to other lengths
            yield from _all(waiting, begin, size)
            begin, waiting = begin + len(waiting.rows), None
        waiting = batch if waiting is None else _joined(waiting, batch)
        if len(waiting.rows) >= 64 * size:
            yield from _all(waiting, begin, size)
            begin, waiting = begin + len(waiting.rows), None
    if waiting is not None:
        yield from _all(waiting, begin, size)


def _all(batch: Batch, begin: int, size: int) -> Iterator[tuple[Inputs, Block]]:
    for block in blocks(batch.rows, size):
        index = np.full(size, block.places[0])  # an empty slot holds some input, or a model may fail there
        index[block.slots] = block.places
        yield rows_of(batch.inputs, index), Block(block.slots, block.places + begin, block.rows)


def _shapes(inputs: Inputs) -> list[Any]:
    return [x.shape[1:] if isinstance(x, torch.Tensor) else x for x in pytree.tree_leaves(tuple(inputs))]


def _joined(a: Batch, b: Batch) -> Batch:
    leaves, spec = pytree.tree_flatten(tuple(a.inputs))
    others = pytree.tree_leaves(tuple(b.inputs))
    both = [torch.cat([x, y]) if isinstance(x, torch.Tensor) else x for x, y in zip(leaves, others, strict=True)]
    return Batch(Inputs(*pytree.tree_unflatten(both, spec)), np.concatenate([a.rows, b.rows]))
