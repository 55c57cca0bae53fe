"""Layouts, memory and expected values for the kernel tests, with `dropkit.mask` as the oracle."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dropkit.counter import Key
from dropkit.layout import Layout, layout
from dropkit.mask import alpha_factors, keep, threshold


def widen(a: NDArray[Any], dtype: str) -> NDArray[Any]:
    """The values of an array; bfloat16 travels as uint16."""
    if dtype == "bfloat16":
        return (a.astype(np.uint32) << 16).view(np.float32)
    return a.astype(np.float64 if dtype == "float64" else np.float32)


def narrow(a: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Values rounded to nearest even in `dtype`."""
    if dtype != "bfloat16":
        with np.errstate(over="ignore"):
            return np.asarray(a, dtype)
    bits = np.asarray(a, np.float32).view(np.uint32)
    rounded = (bits.astype(np.uint64) + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(a), (bits >> 16) | 0x40, rounded).astype(np.uint16)


def storage(dtype: str) -> np.dtype:
    return np.dtype("uint16" if dtype == "bfloat16" else dtype)


def numbers(shape: Sequence[int], dtype: str, seed: int, specials: bool = True) -> NDArray[Any]:
    """Normal numbers, with infinities, NaN, subnormals and the largest finite ones strewn in."""
    draw = np.random.default_rng(seed)
    values = draw.standard_normal(tuple(shape)).astype(np.float64 if dtype == "float64" else np.float32)
    if specials and values.size:
        # Too large to be scaled, and too small to be normal, in the type itself.
        huge, tiny = {"float16": (65504, 6e-8), "float64": (1.7e308, 5e-324)}.get(dtype, (3.3e38, 1e-40))
        strewn = np.array([np.nan, np.inf, -np.inf, huge, -huge, tiny, -tiny, -0.0])
        where = draw.random(tuple(shape)) < 0.1
        values[where] = draw.choice(strewn, int(where.sum())).astype(values.dtype)
    return narrow(values, dtype)


def same(a: NDArray[Any], b: NDArray[Any], dtype: str) -> None:
    """Equal bit for bit, any NaN for any NaN."""
    left, right = widen(a, dtype), widen(b, dtype)
    nan = np.isnan(left)
    np.testing.assert_array_equal(nan, np.isnan(right))
    unsigned = np.uint64 if dtype == "float64" else np.uint32
    np.testing.assert_array_equal(np.where(nan, 0, left.view(unsigned)), np.where(nan, 0, right.view(unsigned)))


@dataclass(frozen=True)
class Case:
    """One mask on one tensor: everything that `walk` is told, and the keep bits that the oracle says."""

    shape: tuple[int, ...]
    p: float
    key: Key
    share: tuple[int, ...] = ()
    offset: tuple[int, ...] | None = None
    global_shape: tuple[int, ...] | None = None
    rows: tuple[int, ...] | None = None

    @property
    def _rows(self) -> NDArray[np.uint64] | None:
        return None if self.rows is None else np.array(self.rows, np.uint64)

    @property
    def layout(self) -> Layout:
        return layout(self.shape, self.share, self.offset, self.global_shape, self._rows)

    @property
    def t(self) -> int:
        return threshold(self.p)

    @property
    def place(self) -> dict[str, Any]:
        """Arguments `noise`, `base` and `rows` of `walk` and `words`."""
        where = self.layout
        # An axis of one element does not move the noise, unless its row is given.
        noise = [0 if size == 1 else stride for size, stride in zip(where.shape, where.strides, strict=True)]
        if where.rows is not None:
            noise[0] = where.strides[0]
        rows = None if where.rows is None else np.ascontiguousarray(where.rows).view(np.int64)
        return {"noise": noise, "base": where.base, "rows": rows}

    def keep(self, p: Any = None) -> NDArray[np.bool_]:
        return keep(
            self.shape,
            self.p if p is None else p,
            self.key,
            share=self.share,
            offset=self.offset,
            global_shape=self.global_shape,
            rows=self._rows,
        )

    def dropped(self, x: NDArray[Any], dtype: str) -> NDArray[Any]:
        """`keep ? x * scale : 0` by NumPy."""
        return narrow(self.dropped_wide(x, dtype), dtype)

    def alpha_dropped(self, x: NDArray[Any], dtype: str) -> NDArray[Any]:
        """`keep ? x * scale + shift : dropped` by NumPy, with the factors of alpha dropout."""
        wide = widen(x, dtype)
        factor, shift, gone = (wide.dtype.type(value) for value in alpha_factors(self.t))
        with np.errstate(all="ignore"):
            return narrow(np.where(self.keep(), wide * factor + shift, gone), dtype)

    def dropped_wide(self, x: NDArray[Any], dtype: str) -> NDArray[Any]:
        wide = widen(x, dtype)
        factor = wide.dtype.type(65536 / self.t if self.t else 0)
        with np.errstate(all="ignore"):
            return np.where(self.keep(), wide * factor, wide.dtype.type(0))


KEY = Key(seed=3, site="kernels", step=5)

LAYOUTS = {
    "empty": Case((0,), 0.1, KEY),
    "scalar": Case((), 0.1, KEY),
    "one": Case((1,), 0.1, KEY),
    "odd tail": Case((5, 37), 0.1, KEY),
    "several windows": Case((9001,), 0.3, KEY),
    "spatial": Case((3, 7, 5, 9), 0.5, KEY, share=(2, 3)),
    "long spatial": Case((3, 2, 70, 70), 0.5, KEY, share=(2, 3)),
    "rows of a batch": Case((6, 11), 0.25, KEY, share=(1,)),
    "locked in time": Case((2, 40, 19), 0.1, KEY, share=(1,)),
    "locked, long": Case((2, 3, 5000), 0.1, KEY, share=(1,)),
    "all shared": Case((4, 5), 0.5, KEY, share=(0, 1)),
    "batch shared": Case((4, 5, 6), 0.1, KEY, share=(0,)),
    "inner extents of one": Case((3, 1, 4, 1), 0.1, KEY, share=(2,)),
    "shard of columns": Case((6, 50), 0.2, KEY, offset=(0, 51), global_shape=(6, 101)),
    "shard of rows": Case((3, 100), 0.2, KEY, offset=(2, 0), global_shape=(6, 100)),
    "one column": Case((65, 1), 0.2, KEY, offset=(0, 700), global_shape=(65, 999)),
    "shared shard": Case((2, 3, 4, 4), 0.5, KEY, share=(2, 3), offset=(1, 2, 1, 1), global_shape=(5, 6, 9, 9)),
    "far": Case((3, 40), 0.1, KEY, offset=(0, (1 << 37) - 20), global_shape=(1 << 20, 1 << 40)),
    "end of the index": Case((70,), 0.1, KEY, offset=((1 << 63) - 70,), global_shape=(1 << 63,)),
    "gathered rows": Case((4, 3, 21), 0.1, KEY, rows=(7, 0, 7, 123456789)),
    "gathered numbers": Case((5,), 0.1, KEY, rows=(700, 3, 2, 1 << 40, 0)),
    "gathered, shared": Case((3, 8, 5), 0.5, KEY, share=(1,), rows=(9, 8, 1)),
    "identity": Case((5, 37), 0.0, KEY),
    "nothing": Case((5, 37), 1.0, KEY),
    "almost identity": Case((5, 37), 1e-7, KEY),
}


def memory(shape: Sequence[int], dtype: np.dtype, kind: str) -> NDArray[Any]:
    """Uninitialised memory of a shape: contiguous, reversed axes (as channels last), every second element, reversed."""
    if not shape:
        return np.empty((), dtype)
    if kind == "reversed axes":
        return np.empty(tuple(shape)[::-1], dtype).T
    if kind == "sliced":
        return np.empty([2 * size + 1 for size in shape], dtype)[tuple(slice(1, None, 2) for _ in shape)]
    if kind == "backwards":
        return np.empty(tuple(shape), dtype)[tuple(slice(None, None, -1) for _ in shape)]
    return np.empty(tuple(shape), dtype)


MEMORY = ("contiguous", "reversed axes", "sliced", "backwards")
