"""Arrays with a JSON header in one safetensors file: what engines without torch keep their weights and states in."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from ..errors import DropkitValueError
from .checkpoint import HEADER
from .files import write_bytes


def save_arrays(path: Path, arrays: Mapping[str, NDArray], header: Mapping[str, Any]) -> None:
    """Write arrays by name, and plain values; whole or not at all."""
    whole = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    write_bytes(path, save(whole, {HEADER: json.dumps(header)}))


def load_arrays(path: Path, names: set[str]) -> tuple[dict[str, NDArray], dict[str, Any]]:
    """The arrays of these names, and the plain values.

    Raises:
        DropkitValueError: the file holds other names.
        OSError, SafetensorError, KeyError, TypeError, ValueError: it is missing, damaged or of another kind.
    """
    with safe_open(path, framework="np") as file:
        found, header = set(file.keys()), json.loads(file.metadata()[HEADER])
        if found != names:
            raise DropkitValueError(f"it holds other variables ({min(names ^ found)})")
        return {name: file.get_tensor(name) for name in found}, header
