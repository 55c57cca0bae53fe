"""A draw: all that decides a noise besides its shape."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from ..counter import Key
from ..place import WHOLE, Part
from ..threshold import ONE
from . import bits

LEVEL_ONE = 1 << 31  # a level of 1.0: levels are in units of 2**-31


@dataclass(frozen=True, slots=True)
class Draw:
    """All that decides a noise besides its shape.

    Args:
        words: the two words of the key, ints or traced (two tensors, or on JAX an array of two).
        level: drop probability or standard deviation in units of 2**-31, an int or traced.
        key: the key, where its numbers are known.
        rows: row number in the whole of each entry of axis 0, where `at` says them.
    """

    words: Any
    level: Any
    key: Key | None = None
    rows: tuple[int, ...] | None = None

    def part_for(self, axes: Sequence[int]) -> Part:
        """Where a tensor lies whose axes share a draw; a draw that is shared along axis 0 has no rows."""
        if self.rows is None or 0 in axes:
            return WHOLE
        return Part(rows=np.array(self.rows, np.int64))

    @property
    def t(self) -> Any:
        """Kept of 65536."""
        return kept_of(self.level)


def kept_of(level: Any) -> Any:
    """A rate's level as kept of 65536."""
    if isinstance(level, int):
        return ONE - (level >> 15)
    if bits.BACKEND == "jax":
        return bits.word(ONE) - (level >> bits.word(15))
    return bits.word(ONE) - ops.right_shift(level, 15)
