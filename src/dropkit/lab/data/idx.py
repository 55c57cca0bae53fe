"""IDX, the format of MNIST's files: two zero bytes, a type, the number of axes, sizes, data; all big-endian."""

import io
import math

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from .limits import MOST, Unpacked, size

REMEDY = "download it again"
TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4"}  # labels of more than 256 classes need the wider ones
MOST_AXES = 32


def parse_idx(content: bytes, name: str) -> NDArray[np.integer]:
    """The array in an IDX file of unsigned bytes or integers, gzipped or not; the header is read before the rest.

    Args:
        content: the file's bytes.
        name: what error messages call the file.

    Raises:
        DataError: a broken gzip stream, a wrong header, data shorter or longer than the header says, or more of it than
            is unpacked.

    >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]), "labels")
    array([7, 8, 9], dtype=uint8)
    """
    zipped = content[:2] == b"\x1f\x8b"
    stream = Unpacked(content, name, REMEDY) if zipped else io.BytesIO(content)
    head = stream.read(4)
    known = len(head) == 4 and head[:2] == b"\0\0" and head[2] in TYPES and head[3] <= MOST_AXES
    if not known and zipped:
        stream.read(1 << 20)  # says so where it is the stream that is damaged
    if not known:
        raise DataError(
            f"{name} is not an IDX file of unsigned bytes or integers (it starts with {head.hex()}); {REMEDY}"
        )
    sizes, dtype = stream.read(4 * head[3]), np.dtype(TYPES[head[2]])
    shape = tuple(int.from_bytes(sizes[at : at + 4], "big") for at in range(0, 4 * head[3], 4))
    start, length = 4 + 4 * head[3], math.prod(shape) * dtype.itemsize
    if zipped and length > MOST:
        raise DataError(f"{name} would become {size(length)}, and at most {size(MOST)} are unpacked; {REMEDY}")
    found = stream.read(min(length, MOST) + 1) if zipped else content[start:]
    if len(sizes) + len(found) != start - 4 + length:
        short = len(sizes) + len(found) < start - 4 + length
        what, has = "is truncated" if short else "is too long", f"{4 + len(sizes) + len(found)}"
        has = f"more than {start + length}" if zipped and not short else has
        raise DataError(f"{name} {what}: its header says {start + length} bytes, it has {has}; {REMEDY}")
    array = np.frombuffer(found, dtype)
    return array.astype(dtype.newbyteorder("="), copy=False).reshape(shape)
