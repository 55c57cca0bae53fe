"""The mask of attention weights, a block at a time, for who writes kernels of attention."""

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .counter import Key
from .errors import DropkitTypeError, DropkitValueError
from .mask import keep
from .place import Part

AXES = ("batch", "heads", "queries", "keys")


def attention_mask_block(
    p: float, key: Key, *, shape: Sequence[int], q: tuple[int, int] | None = None, k: tuple[int, int] | None = None
) -> NDArray[np.bool_]:
    """Which attention weights dropout keeps, of some queries and some keys: a block of `keep(shape, p, key)`.

    Args:
        p: drop probability in [0, 1].
        key: the mask's coordinates.
        shape: (batch, heads, queries, keys) of all weights.
        q: the first query and one past the last; all by default.
        k: the first key and one past the last; all by default.

    Returns:
        Bool array of shape (batch, heads, q1 - q0, k1 - k0); True is kept.

    Raises:
        DropkitValueError, DropkitTypeError: a shape that does not have four axes; a range that is none, or lies outside
            of it; p outside [0, 1].

    Source: mask specification v1 (docs/mask.md).

    >>> whole = attention_mask_block(0.5, Key(seed=1, site="attention"), shape=(1, 2, 4, 8))
    >>> block = attention_mask_block(0.5, Key(seed=1, site="attention"), shape=(1, 2, 4, 8), q=(2, 4), k=(3, 8))
    >>> np.array_equal(block, whole[:, :, 2:4, 3:8])
    True
    """
    local, part = block_of(shape, q, k)
    return keep(local, p, key, offset=part.offset, global_shape=part.global_shape)


def block_of(
    shape: Sequence[int], q: tuple[int, int] | None, k: tuple[int, int] | None
) -> tuple[tuple[int, int, int, int], Part]:
    """The shape of a block, and where it lies.

    Raises:
        DropkitValueError, DropkitTypeError: as `attention_mask_block`.
    """
    try:
        batch, heads, queries, keys = (operator.index(size) for size in shape)
    except (TypeError, ValueError):
        raise DropkitValueError(f"shape must be four numbers, ({', '.join(AXES)}), got {shape!r}") from None
    q0, q1 = _range("q", q, queries)
    k0, k1 = _range("k", k, keys)
    return (batch, heads, q1 - q0, k1 - k0), Part((0, 0, q0, k0), (batch, heads, queries, keys))


def _range(name: str, asked: Any, size: int) -> tuple[int, int]:
    if asked is None:
        return 0, size
    try:
        first, last = (operator.index(number) for number in asked)
    except (TypeError, ValueError):
        raise DropkitTypeError(
            f"{name} must be (first, one past the last), such as (0, {size}), got {asked!r}"
        ) from None
    if not 0 <= first <= last <= size:
        raise DropkitValueError(
            f"{name}={(first, last)} does not lie in the {size} there are: 0 <= first <= last <= {size}"
        )
    return first, last
