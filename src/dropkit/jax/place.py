"""Where an array lies in a larger one, of which a compiled program may know more than is known when it is traced."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..axes.share import Axes, Refining, Sharing, share_of
from ..counter import MASK32
from ..errors import DropkitTypeError
from ..mask import WORD, known_place
from ..place import Part, Place, Unknown, place_of
from .formula import Pair, plus, times


@dataclass(frozen=True)
class Rows:
    """Row numbers as pairs of words, low and high: uint32, shape (rows, 2)."""

    words: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the numbers."""
        return tuple(self.words.shape[:-1])


def told(part: Part) -> Part:
    """The same with traced offsets as `Unknown` pairs of words, known ones as ints, and rows as `Rows`.

    Raises:
        DropkitTypeError: a traced offset or traced rows that are no integers.
    """
    offset = part.offset
    if offset is not None:
        offset = tuple(
            Unknown(_coordinate(axis, entry)) if isinstance(entry, jax.core.Tracer) else operator.index(entry)
            for axis, entry in enumerate(offset)
        )
    rows = part.rows
    if isinstance(rows, jax.core.Tracer):
        if not jnp.issubdtype(rows.dtype, jnp.integer):
            raise DropkitTypeError(f"rows must hold integers, got dtype {rows.dtype}")
        rows = Rows(jnp.stack(_words(rows), axis=-1))
    return part._replace(offset=offset, rows=rows)


def located(shape: tuple[int, ...], axes: Sequence[int], part: Part) -> tuple[Place, Any, bool]:
    """The place of an array that `told` tells of, its rows as pairs of words; the index of its first element, low and
    high word; and whether that is known to be a multiple of 32.
    """
    unknown: dict[int, Pair] = {}
    if part.offset is not None:
        unknown = {axis: entry.value for axis, entry in enumerate(part.offset) if isinstance(entry, Unknown)}
        part = part._replace(offset=tuple(0 if axis in unknown else entry for axis, entry in enumerate(part.offset)))
    pairs = None
    if isinstance(part.rows, Rows):
        place = place_of(shape, axes, part)
        pairs = None if place.rows is None else part.rows.words
    else:
        place = known_place(shape, axes, part)
        if place.rows is not None:
            pairs = place.rows.astype("<u8").view("<u4").reshape(-1, 2)
    # Strides of axes of size 1 are those of the whole here, since the offset moves along them.
    start: Any = np.uint32(place.base & MASK32), np.uint32(place.base >> 32)
    aligned = place.base % WORD == 0
    for axis, entry in unknown.items():
        start = plus(start, times(entry, place.strides[axis]))
        aligned = aligned and place.strides[axis] % WORD == 0
    base = jnp.stack(start) if unknown else np.array(start, np.uint32)
    return replace(place, base=0, rows=pairs), base, aligned


def _coordinate(axis: int, entry: jax.Array) -> Pair:
    if not jnp.issubdtype(entry.dtype, jnp.integer) or entry.ndim:
        raise DropkitTypeError(f"offset[{axis}] must be an integer, got {entry.dtype} of shape {entry.shape}")
    return _words(entry)


def _words(numbers: jax.Array) -> Pair:
    """Low and high words of integers of any width."""
    high = (numbers >> 32).astype(jnp.uint32) if numbers.dtype.itemsize == 8 else np.zeros(numbers.shape, np.uint32)
    return numbers.astype(jnp.uint32), high


def sharing_too(share: Any, axes: Sequence[int]) -> Sharing:
    """A share, given as one or as axes, that shares a draw along further axes.

    Raises:
        DropkitTypeError: a share that refines its draws cannot, or axes that are no integers.

    >>> sharing_too((2,), (3,)), sharing_too((), ())
    (Axes(axes=(3, 2)), Axes(axes=()))
    """
    share = share_of(share)
    if not len(axes):
        return share
    if isinstance(share, Refining):
        raise DropkitTypeError(
            f"share {share!r} cannot share the axes {tuple(axes)} besides; leave out the one of them"
        )
    return Axes(tuple(dict.fromkeys((*axes, *share.axes))))
