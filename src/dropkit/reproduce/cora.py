"""Cora: 2708 papers, the words in them, who cites whom, and the split that everybody uses."""

import hashlib
import io
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

FILE = "cora/cora.npz"
NAMES = ("x", "y", "edge_index", "train_idx", "val_idx", "test_idx")
SHAPES = ((2708, 1433), (2708,), (2, 10556), (140,), (500,), (1000,))
# Over the six arrays as little-endian int32, in this order: of what Planetoid published, duplicates of edges left out.
CONTENT = "caba90cd586a965590f34972ab47ec7d437ed4c0543700695b39363aac2f3bdc"


@dataclass(frozen=True, slots=True, eq=False)
class Cora:
    """A graph of papers.

    Args:
        x: which of 1433 words a paper has, 0 or 1, (2708, 1433).
        y: its class, of 7, (2708,).
        edges: both directions of 5278 citations, sorted, (2, 10556).
        train, val, test: numbers of papers, 140, 500 and 1000: Planetoid's split.
    """

    x: NDArray[Any]
    y: NDArray[Any]
    edges: NDArray[Any]
    train: NDArray[Any]
    val: NDArray[Any]
    test: NDArray[Any]


def load_cora(data_dir: str | Path | None) -> Cora:
    """Cora from the file cora/cora.npz of the data folder, else of the folder that DROPKIT_DATA names.

    Raises:
        DataError: there is no such file, or it does not hold what was published.
    """
    root = data_dir or os.environ.get("DROPKIT_DATA")
    if not root:
        raise DataError(
            f"Cora is not downloaded, since it is published as pickles: point --data-dir or DROPKIT_DATA at the folder "
            f"that holds {FILE}; docs/reproduce.md says how it is made of Planetoid's files"
        )
    path = Path(root) / FILE
    arrays = _arrays(path)
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.astype("<i4").tobytes())
    if digest.hexdigest() != CONTENT:
        raise DataError(
            f"{path} does not hold the Cora that Planetoid published; docs/reproduce.md says how it is made"
        )
    return Cora(*arrays)


def _arrays(path: Path) -> list[NDArray[Any]]:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as held:
            arrays = [held[name] for name in NAMES]
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror or error}; docs/reproduce.md says how it is made"
        ) from error
    except (ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is no file of the arrays {', '.join(NAMES)}: {error}") from error
    for name, array, shape in zip(NAMES, arrays, SHAPES, strict=True):
        if array.dtype.kind not in "iu" or array.shape != shape:
            raise DataError(f"{path}: {name} is {array.dtype} of shape {array.shape}, not whole numbers of {shape}")
    return arrays
