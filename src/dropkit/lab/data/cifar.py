"""CIFAR-10: the authors' binary files, or the same images in a smaller container. Nothing is unpickled.

A record of the binary version is a label byte and 3072 bytes: the red, green and blue plane of 32 x 32 pixels, row by
row. The container is `<name>.npz` with `labels` (samples,) and `delta` (samples, 3, 32, 32), both uint8: the planes G,
R - G and B - G, each differenced along rows and columns, all modulo 256. Either way the records must have the published
sha256.
"""

import hashlib
import io
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from .limits import at_most, check_arrays

FOLDER = "cifar10"
SITE, ARCHIVE = "https://www.cs.toronto.edu/~kriz/", "cifar-10-binary.tar.gz"
URL = SITE + ARCHIVE
ARCHIVE_SUM = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
SUMS = {
    "data_batch_1": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}
SHAPE = (3, 32, 32)
RECORD = 1 + 3 * 32 * 32
BATCH = 10_000 * RECORD

Arrays = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]


def read_folder(folder: Path) -> Arrays:
    """Training images and labels, test images and labels, from a folder that holds the six batches.

    Returns:
        uint8 arrays: images (samples, 3, 32, 32), labels (samples,); 50,000 and 10,000 samples.

    Raises:
        DataError: a batch is missing, damaged, or not the published one.
    """
    return _arrays(lambda name: _batch(folder, name))


def read_archive(path: Path) -> Arrays:
    """The same from the authors' archive, cifar-10-binary.tar.gz, without unpacking it.

    Raises:
        DataError: the archive is damaged or lacks a batch.
    """
    try:
        with tarfile.open(path) as archive:
            found = {
                Path(member.name).stem: at_most(file, BATCH)
                for member in archive
                if member.name.endswith(".bin") and (file := archive.extractfile(member)) is not None
            }
        return _arrays(lambda name: (path, found[name]))
    except (OSError, EOFError, KeyError, ValueError, tarfile.TarError, zlib.error) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is damaged ({error}); delete it, or replace it with {URL}") from error


def _arrays(read: Callable[[str], tuple[Path, bytes]]) -> Arrays:
    parts = []
    for name, expected in SUMS.items():
        path, records = read(name)
        found = hashlib.sha256(records).hexdigest()
        if found != expected:
            raise DataError(
                f"{path} is not the published batch: its records have sha256 {found}, expected {expected}; "
                f"replace it with {name}.bin of {URL}"
            )
        parts.append(np.frombuffer(records, np.uint8).reshape(-1, RECORD))
    train, test = np.concatenate(parts[:-1]), parts[-1]
    return train[:, 1:].reshape(-1, *SHAPE), train[:, 0], test[:, 1:].reshape(-1, *SHAPE), test[:, 0]


def _batch(folder: Path, name: str) -> tuple[Path, bytes]:
    """A batch as records of the binary version."""
    for path, unpack in ((folder / f"{name}.bin", bytes), (folder / f"{name}.npz", _records)):
        try:
            with path.open("rb") as file:
                return path, unpack(at_most(file, BATCH))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(f"cannot read {path}: {error}; replace it with {name}.bin of {URL}") from error
    raise DataError(
        f"{folder / name}.bin is missing (and {name}.npz too); unpack {URL} (sha256 {ARCHIVE_SUM}) into {folder}, or "
        f"point --data-dir or DROPKIT_DATA at the folder that holds {FOLDER}/"
    )


def _records(content: bytes) -> bytes:
    """The records in a container.

    >>> import io
    >>> file = io.BytesIO()
    >>> np.savez(file, delta=np.zeros((2, 3, 32, 32), np.uint8), labels=np.array([7, 9], np.uint8))
    >>> records = _records(file.getvalue())
    >>> len(records) == 2 * RECORD, records[0], records[RECORD]
    (True, 7, 9)
    """
    check_arrays(io.BytesIO(content))
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        delta, labels = file["delta"], file["labels"]
    if delta.shape != (len(labels), *SHAPE) or delta.dtype != np.uint8 or labels.dtype != np.uint8:
        raise ValueError(f"delta of shape {delta.shape} and type {delta.dtype} is no batch of CIFAR-10")
    planes = np.cumsum(np.cumsum(delta, axis=2, dtype=np.uint8), axis=3, dtype=np.uint8)
    green = planes[:, 0]
    images = np.stack([planes[:, 1] + green, green, planes[:, 2] + green], axis=1)
    return np.concatenate([labels[:, None], images.reshape(len(labels), -1)], axis=1).tobytes()
