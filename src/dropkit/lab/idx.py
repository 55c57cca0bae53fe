"""IDX, the format of MNIST's files: two zero bytes, a type (8: unsigned bytes), the number of axes, sizes, data."""

import gzip
import math
import zlib

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

REMEDY = "download it again"


def parse_idx(content: bytes, name: str) -> NDArray[np.uint8]:
    """The array in an IDX file of unsigned bytes, gzipped or not.

    Args:
        content: the file's bytes.
        name: what error messages call the file.

    Raises:
        DataError: a broken gzip stream, a wrong header, or data shorter or longer than the header says.

    >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]), "labels")
    array([7, 8, 9], dtype=uint8)
    """
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            raise DataError(f"{name} is truncated or damaged ({error}); {REMEDY}") from error
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise DataError(f"{name} is not an IDX file of unsigned bytes (it starts with {content[:4].hex()}); {REMEDY}")
    start = 4 + 4 * content[3]
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4))
    expected = start + math.prod(shape)
    if len(content) != expected:
        what = "is truncated" if len(content) < expected else "is too long"
        raise DataError(f"{name} {what}: its header says {expected} bytes, it has {len(content)}; {REMEDY}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
