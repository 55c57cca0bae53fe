"""Text from elsewhere, made safe to print: a terminal obeys control characters, whoever wrote them."""

import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

# C0 and C1, delete; line and paragraph separators; marks and overrides of the writing direction, and other characters
# without a shape that change what is read; halves of characters, which no encoding takes. Tab and newline are layout.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_COLOUR = re.compile("\x1b\\[[0-9;:]*m")
_SPELLED = "ndarray", "nnx", "nn."
_LIKE_YOU = re.compile("(?i:uint|ufunc|uuid|unet|unit|uniform|union|universal|use)")  # begin as "you" does
_ADDRESS = re.compile(r"(?<=\w) at 0x[0-9A-Fa-f]{5,16}\b")


def visible(text: str) -> str:
    r"""The text with control characters, and others that cannot be seen, written as escapes; raw bytes of names too.

    >>> visible("red: \x1b[31m, title: \x9d0;x\x07, backwards: \u202e")
    'red: \\x1b[31m, title: \\x9d0;x\\x07, backwards: \\u202e'
    >>> visible("a tab\t, a line\n, an umlaut: \u00fc")
    'a tab\t, a line\n, an umlaut: \xfc'
    """
    return _HIDDEN.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is no text
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def one_line(text: object) -> str:
    r"""An error's message as one line that is the same each time: without colours and without addresses of objects.

    >>> one_line("cannot read \x1b[1m<_io.BytesIO object at 0x7f3a5c0de110>\x1b[0m:\n  it is empty")
    'cannot read <_io.BytesIO object>: it is empty'
    """
    return visible(" ".join(_ADDRESS.sub("", _COLOUR.sub("", str(text))).split()))


def a_type(value: object) -> str:
    """The name of a value's type, with its article.

    >>> a_type(3), a_type("text"), a_type(range(2))
    ('an int', 'a str', 'a range')
    """
    return article(type(value).__name__)


def article(name: str) -> str:
    """A name of code with its article, by how it is said: letters one by one where it begins with several capitals.

    >>> article("Embedding"), article("LSTM"), article("MLP"), article("GRU"), article("ndarray"), article("uint8")
    ('an Embedding', 'an LSTM', 'an MLP', 'a GRU', 'an ndarray', 'a uint8')
    """
    spelled = name[:2].isupper() or name.startswith(_SPELLED)
    vowel = name[:1].upper() in ("AEFHILMNORSX" if spelled else "AEIOU") and not _LIKE_YOU.match(name)
    return f"{'an' if vowel else 'a'} {name}"


def written(value: object) -> str:
    """A value as it is written in code; of a class that does not say how, its name, since an address is never the same.

    >>> written((2, 3)), written(object())
    ('(2, 3)', 'object()')
    """
    plain = type(value).__repr__ is object.__repr__
    return f"{type(value).__name__}()" if plain else one_line(repr(value))


class Visible(io.TextIOBase):
    r"""A stream that shows what it is given: control characters as escapes, what it cannot encode too.

    >>> shown = Visible(io.StringIO())
    >>> shown.write("a title \x1b]0;owned\x07")
    18
    >>> shown.stream.getvalue()
    'a title \\x1b]0;owned\\x07'
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write the text, and say that all of it was."""
        safe = visible(text)
        try:
            self.stream.write(safe)
        except UnicodeEncodeError as error:
            self.stream.write(safe.encode(error.encoding, "backslashreplace").decode(error.encoding))
        return len(text)

    def flush(self) -> None:
        """Pass on what is held back."""
        self.stream.flush()

    def isatty(self) -> bool:
        """Whether a person looks on."""
        return self.stream.isatty()

    def fileno(self) -> int:
        """The number of the file below, for what writes past Python."""
        return self.stream.fileno()

    def writable(self) -> bool:
        """It is."""
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """As of the stream below."""
        return self.stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """As of the stream below."""
        return self.stream.errors


@contextmanager
def shown() -> Iterator[None]:
    """Standard output and standard error as `Visible` streams, inside the block."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = Visible(sys.stdout), Visible(sys.stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
