"""The former name of `dropkit.place`."""

from collections.abc import Sequence
from typing import Any

from .place import MAX_INDEX as MAX_INDEX
from .place import Part, place_of
from .place import Place as Layout
from .place import check_last_row as check_last_row
from .place import noise_shape as noise_shape
from .place import symbolic_place as symbolic_layout
from .place import whole_place as whole_layout

__all__ = ["MAX_INDEX", "Layout", "check_last_row", "layout", "noise_shape", "symbolic_layout", "whole_layout"]


def layout(
    shape: Sequence[int],
    share: Sequence[int] = (),
    offset: Sequence[int] | None = None,
    global_shape: Sequence[int] | None = None,
    rows: Any = None,
    split: Sequence[tuple[int, int, int]] = (),
) -> Layout:
    """`dropkit.place.place_of` with the part as four arguments."""
    return place_of(shape, share, Part.of(offset, global_shape, rows)._replace(split=tuple(split)))
