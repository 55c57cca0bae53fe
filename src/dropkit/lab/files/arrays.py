"""Arrays with a JSON header in one safetensors file: what engines without torch keep their weights and states in."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from ...errors import DropkitValueError
from . import write_bytes
from .sealed import header_text, read_sealed, seal


def save_arrays(path: Path, arrays: Mapping[str, NDArray], header: Mapping[str, Any]) -> None:
    """Write arrays by name, and plain values, with a sum over all; whole or not at all."""
    whole = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    write_bytes(path, seal(save(whole, header_text(header))))


def load_arrays(path: Path, names: set[str]) -> tuple[dict[str, NDArray], dict[str, Any]]:
    """The arrays of these names, and the plain values.

    Raises:
        DropkitValueError: the file is damaged or holds other names.
        OSError, SafetensorError: it is missing or of another kind.
    """
    content, header = read_sealed(path)
    arrays = load(content)
    if set(arrays) != names:
        raise DropkitValueError(f"it holds other variables ({min(names ^ set(arrays))})")
    return arrays, header
