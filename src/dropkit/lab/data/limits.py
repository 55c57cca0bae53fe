"""How large compressed input may become: looked up in headers before anything is unpacked, and held to while it is."""

import gzip
import io
import zipfile
import zlib
from typing import IO

from ...errors import DataError

MOST = 1 << 31  # bytes of a file of arrays, unpacked
MOST_IMAGE = 1 << 27  # bytes of one photo's file
MOST_PIXELS = 89_478_485  # of one photo: a quarter of a GiB in colour, where pillow begins to warn
MOST_CLASSES = 1 << 20  # a wrong label must not make a layer of billions
MOST_RATIO, SMALL = 100, 1 << 26  # a larger member of a model's archive that shrank more than this is no weights


def size(count: int) -> str:
    """A number of bytes for people.

    >>> size(999), size(1 << 31), size(600_000_000)
    ('999 bytes', '2048 MiB', '572 MiB')
    """
    return f"{count} bytes" if count < 1 << 20 else f"{count >> 20} MiB"


def check_arrays(content: IO[bytes]) -> None:
    """Refuse an .npz file whose arrays would be too large.

    Raises:
        ValueError: they would.
        zipfile.BadZipFile: it is no archive.
    """
    with zipfile.ZipFile(content) as archive:
        total = sum(member.file_size for member in archive.infolist())
    content.seek(0)
    if total > MOST:
        raise ValueError(f"it would become {size(total)}, and at most {size(MOST)} are unpacked; give fewer samples")


def check_model(content: IO[bytes]) -> None:
    """Refuse a .keras file with a member that becomes out of all proportion.

    Raises:
        ValueError: it has one.
        zipfile.BadZipFile: it is no archive.
    """
    with zipfile.ZipFile(content) as archive:
        for member in archive.infolist():
            if member.file_size > max(SMALL, MOST_RATIO * member.compress_size):
                raise ValueError(
                    f"its {member.filename} would become {size(member.file_size)}, more than {MOST_RATIO} times what "
                    "it takes: no weights shrink so; save the model again"
                )


class Unpacked:
    """What a gzip stream holds, never more of it than is asked for.

    Args:
        content: the compressed bytes.
        name, remedy: for errors.

    >>> Unpacked(gzip.compress(b"header, data"), "file", "download it again").read(6)
    b'header'
    """

    def __init__(self, content: bytes, name: str, remedy: str) -> None:
        self.file, self.name, self.remedy = gzip.GzipFile(fileobj=io.BytesIO(content)), name, remedy

    def read(self, count: int) -> bytes:
        """The next bytes, at most so many; fewer at the end, where the stream's own sum is checked.

        Raises:
            DataError: the stream is truncated or damaged.
        """
        try:
            return self.file.read(count)
        except (EOFError, OSError, zlib.error) as error:
            raise DataError(f"{self.name} is truncated or damaged ({error}); {self.remedy}") from error


def at_most(file: IO[bytes], most: int) -> bytes:
    """All of a file that holds no more than so many bytes.

    Raises:
        ValueError: it holds more.
    """
    content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it has more than {size(most)}")
    return content
