"""What a run is resumed from carries a sha256 of itself: damage is found before anything is taken from the file.

A file of tensors holds it in its header, computed over the whole file with zeros in its place. Plain values hold it
beside them, computed over their JSON without spaces and in the order of the names.
"""

import hashlib
import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import DropkitValueError

HEADER = "dropkit"
SUM = "sha256"
NONE = "0" * 64
# As it stands in a header: JSON, written as a string of the file's own JSON.
MARK = f'\\"{SUM}\\": \\"'.encode()
LENGTH = 8  # bytes that say how long the header is
MOST_HEADER = 100_000_000  # bytes, the format's own limit
MOST_JSON = 1 << 26  # bytes
DAMAGED = "it was damaged or changed since it was written (its sha256 does not match)"
UNSEALED = "it holds no sha256 of itself, by which damage would show: an older dropkit wrote it, or it was changed"


def header_text(header: Mapping[str, Any]) -> dict[str, str]:
    """Plain values as the metadata of a file of tensors, with room for the sum."""
    return {HEADER: json.dumps({SUM: NONE, **header})}


def seal(content: bytes) -> bytes:
    """A file of tensors with such a header, with its sum filled in."""
    place = content.index(MARK + NONE.encode()) + len(MARK)
    digest = hashlib.sha256(content).hexdigest().encode()
    return content[:place] + digest + content[place + len(digest) :]


def read_sealed(path: Path) -> tuple[bytes, dict[str, Any]]:
    """A file of tensors and the values in its header; these hold no `sha256` where the file never had one.

    Raises:
        OSError: it is missing or cannot be read.
        DropkitValueError: it is damaged, or no such file.
    """
    _regular(path)
    with path.open("rb") as file:
        size = path.stat().st_size
        start = file.read(LENGTH)
        length = int.from_bytes(start, "little")
        if len(start) < LENGTH or length > min(MOST_HEADER, size - LENGTH):
            raise DropkitValueError(f"{DAMAGED}, or it is no file of tensors")
        header = file.read(length)
        place = header.find(MARK)
        sealed = place >= 0
        if sealed:
            _check_sum(file, start + header, LENGTH + place + len(MARK))
    try:
        values = json.loads(json.loads(header)["__metadata__"][HEADER])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DropkitValueError(f"{DAMAGED}, or it is no file of dropkit's") from None
    if not isinstance(values, dict) or (SUM in values) != sealed:
        raise DropkitValueError(DAMAGED)
    return path.read_bytes(), values


def _check_sum(file: Any, start: bytes, place: int) -> None:
    found = start[place : place + len(NONE)]
    digest = hashlib.sha256(start[:place] + NONE.encode() + start[place + len(NONE) :])
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    if digest.hexdigest().encode() != found:
        raise DropkitValueError(DAMAGED)


def digest_of(value: Any) -> str:
    """The sum of plain values."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def with_sum(value: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values, as JSON has them, and their sum.

    >>> with_sum({"a": 1})["sha256"][:8]
    '015abd7f'
    """
    return {**value, SUM: digest_of(value)}


def without_sum(value: Any) -> dict[str, Any]:
    """Plain values whose sum is right, without it.

    Raises:
        DropkitValueError: it is not, or there is none.
    """
    if not isinstance(value, dict):
        raise DropkitValueError(f"it holds {type(value).__name__} where named values should be")
    rest = {name: part for name, part in value.items() if name != SUM}
    if SUM not in value:
        raise DropkitValueError(UNSEALED)
    if digest_of(rest) != value[SUM]:
        raise DropkitValueError(DAMAGED)
    return rest


def read_plain(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        OSError: it is missing or cannot be read.
        ValueError: it is not JSON, or far too large.
    """
    _regular(path)
    if path.stat().st_size > MOST_JSON:
        raise DropkitValueError(f"it has {path.stat().st_size} bytes, and at most {MOST_JSON} are read")
    try:
        return json.loads(path.read_bytes())
    except RecursionError:
        raise DropkitValueError("it is nested too deeply") from None


def _regular(path: Path) -> None:
    """Refuse folders, pipes and devices, of which a pipe would be waited for."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise DropkitValueError("it is no regular file")
