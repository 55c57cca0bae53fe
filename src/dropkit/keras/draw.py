"""A draw: all that decides a noise besides its shape."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from keras import ops

from .. import mask
from ..counter import Key
from ..layout import Layout
from ..mask import known_place
from ..place import Part
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

    def place(self, noise: Sequence[Any]) -> Layout | Sequence[Any]:
        """A noise shape, or where it lies if rows say it; a draw that is shared along axis 0 has no rows."""
        return noise if self.rows is None or not noise else known_place(tuple(noise), (), Part(rows=self.rows))

    def of(self, noise: Sequence[Any], shape: Sequence[Any]) -> "Draw":
        """The same for a noise shape in a tensor of this one."""
        if self.rows is None or not noise or not isinstance(noise[0], int):
            return self
        return replace(self, rows=None) if noise[0] == 1 != shape[0] else self

    @property
    def t(self) -> Any:
        """Kept of 65536."""
        if isinstance(self.level, int):
            return mask.ONE - (self.level >> 15)
        if bits.BACKEND == "jax":
            return bits.word(mask.ONE) - (self.level >> bits.word(15))
        return bits.word(mask.ONE) - ops.right_shift(self.level, 15)
