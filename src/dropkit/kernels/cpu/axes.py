"""Arrays of more axes than the kernels walk at once: the same walk, slice by slice."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

from .codes import MOST_AXES


def walk(
    run: Callable[..., None],
    op: int,
    dtype: int,
    extents: Sequence[int],
    noise: Sequence[int],
    out: int,
    out_strides: Sequence[int],
    inputs: Sequence[int],
    input_strides: Sequence[Sequence[int]],
    k0: int,
    k1: int,
    t: int,
    base: int,
    rows: int,
    rows_axis: int,
    *rest: Any,
    sizes: Sequence[int],
) -> None:
    """`_cpu.walk` over any number of axes; arguments as there.

    The shortest axes are walked here, so that slices are few and large. Axes of length 1 go nowhere, and are left out.

    Args:
        run: `_cpu.walk`.
        sizes: bytes of an element of the output and of each input.
    """
    kept = [axis for axis, extent in enumerate(extents) if extent != 1 or (rows and axis == rows_axis)]
    candidates = sorted((axis for axis in kept if not rows or axis != rows_axis), key=lambda axis: extents[axis])
    cut = candidates[: max(0, len(kept) - MOST_AXES)]
    inner = [axis for axis in kept if axis not in cut]

    def steps(strides: Sequence[int]) -> list[int]:
        return [strides[axis] for axis in inner]

    for place in product(*(range(extents[axis]) for axis in cut)):

        def moved(strides: Sequence[int], place: Sequence[int] = place) -> int:
            return sum(coordinate * strides[axis] for coordinate, axis in zip(place, cut, strict=True))

        run(
            op, dtype, steps(extents), steps(noise), out + sizes[0] * moved(out_strides), steps(out_strides),
            [at + size * moved(strides) for at, size, strides in zip(inputs, sizes[1:], input_strides, strict=True)],
            [steps(strides) for strides in input_strides], k0, k1, t, base + moved(noise), rows,
            inner.index(rows_axis) if rows else 0, *rest,
        )  # fmt: skip
