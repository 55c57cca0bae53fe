"""Tables: CSV and TSV, gzipped or not, and Parquet, by pandas; which column is the target, and whether it leaks."""

import gzip
import io
import zlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ....errors import DataError, DropkitValueError
from ....language import say, template
from ....visible import one_line
from ..limits import MOST, size
from .columns import listed, named, near, shown
from .raw import Part, Raw

SEPARATORS = {".csv": ",", ".tsv": "\t"}
PARQUET = (".parquet", ".pq")
SUFFIXES = (*SEPARATORS, *PARQUET)
USUAL = ("target", "label", "labels", "class", "y")
EXTRA = 'pip install "dropkit[tables]"'


def suffix_of(path: Path) -> str:
    """The suffix that says what a file holds, ".gz" behind that of a table left out.

    >>> suffix_of(Path("a.CSV.gz")), suffix_of(Path("a.parquet"))
    ('.csv', '.parquet')
    """
    inner = Path(path.stem).suffix.lower()
    return inner if path.suffix.lower() == ".gz" and inner in SEPARATORS else path.suffix.lower()


def read(path: Path) -> Any:
    """The table in a file, for pandas.

    Raises:
        DataError: it is missing, damaged, too large, or no such table.
        DropkitValueError: a package is not installed.
    """
    if find_spec("pandas") is None:
        raise DropkitValueError(f"reading {path} needs pandas, which is not installed: {EXTRA}")
    try:
        table = _parquet(path) if suffix_of(path) in PARQUET else _text(path)
    except (DropkitValueError, DataError):
        raise
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read {path}: it is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except Exception as error:  # parsers raise whatever they meet
        raise DataError(f"cannot read {path}: {_reason(error)}; give a table with a line of column names") from error
    if not len(table):
        raise DataError(f"{path} has no rows; a table has a line of column names and a line for each sample")
    return table.reset_index(drop=True)


def _reason(error: Exception) -> str:
    return one_line(getattr(error, "strerror", None) or error)[:300]


class _Bounded(io.RawIOBase):
    """A stream that holds no more than so many bytes, whatever it unpacks."""

    def __init__(self, file: Any) -> None:
        self.file, self.left = file, MOST

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self.file.read(len(buffer))
        self.left -= len(content)
        if self.left < 0:
            raise DataError(
                f"it becomes more than {size(MOST)}, and no more is unpacked; give fewer rows, or .npy arrays"
            )
        buffer[: len(content)] = content
        return len(content)


def _text(path: Path) -> Any:
    import pandas

    if not path.is_file():  # a pipe would be waited for
        raise DataError(f"there is no file {path}" if not path.exists() else f"{path} is no regular file")
    zipped = path.suffix.lower() == ".gz"
    try:
        with gzip.open(path) if zipped else path.open("rb") as file:
            stream = io.BufferedReader(_Bounded(file), 1 << 20)
            header = stream.peek(1 << 16)[: 1 << 16].partition(b"\n")[0].decode("utf-8-sig").strip("\r")
            separator = _separator(header, SEPARATORS[suffix_of(path)])
            named_ = any(not _number(word) for word in header.split(separator))
            return pandas.read_csv(
                stream, sep=separator, header=0 if named_ else None, encoding="utf-8-sig", low_memory=False
            )
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is truncated or damaged ({error}); get it again") from error


def _separator(header: str, usual: str) -> str:
    """What stands between the columns: the usual, unless the first line has none and has another."""
    if usual in header:
        return usual
    return next((other for other in (";", "\t", ",") if other in header), usual)


def _number(word: str) -> bool:
    try:
        float(word.strip().strip('"'))
    except ValueError:
        return False
    return True


def _parquet(path: Path) -> Any:
    if find_spec("pyarrow") is None:
        raise DropkitValueError(f"reading {path} needs pyarrow, which is not installed: {EXTRA}")
    from pyarrow import parquet

    if not path.is_file():
        raise DataError(f"there is no file {path}")
    with parquet.ParquetFile(path) as file:
        about = file.metadata
        groups = sum(about.row_group(number).total_byte_size for number in range(about.num_row_groups))
        total = max(groups, 8 * about.num_rows * about.num_columns)
        if total > MOST:
            raise DataError(
                f"{path} would become {size(total)}, and at most {size(MOST)} are unpacked; give fewer rows"
            )
        return file.read().to_pandas(ignore_metadata=True)


def parted(name: str, tables: Sequence[Any], target: str | None) -> Raw:
    """Tables of all parts with the target's columns taken out.

    Raises:
        DataError: no such column, none said, none left, or one that is the target again.
    """
    first = tables[0]
    for other in tables[1:]:
        if lacking := [column for column in first.columns if column not in set(other.columns)]:
            raise DataError(
                f"{name}: the test part lacks the column {shown(lacking[0])}; {near(str(lacking[0]), other.columns)}"
            )
    columns = _targets(name, list(first.columns), target)
    rest = [column for column in first.columns if column not in columns]
    if not rest:
        raise DataError(f"{name}: there is no column beside the target {listed(columns)}; it needs some to learn from")
    parts = [Part(table[rest], _values(table, columns)) for table in tables]
    _check_leak(name, parts[0], columns[0] if len(columns) == 1 else None)
    labels = tuple(map(str, columns)) if len(columns) > 1 else ()
    called = listed(columns)
    found = Raw(name, parts[0], parts[1] if len(parts) > 1 else None, called, labels)
    if target is None:
        words = template("the target is the column {column}, by its name; another is said with --target")
        found = found.noted(say(words, column=called))
    return found.noted(*_twins(parts[0]))


def _values(table: Any, columns: list[Any]) -> Any:
    if len(columns) > 1:
        return table[columns].to_numpy()
    values = table[columns[0]]
    kinds = getattr(values.dtype, "kind", "O")
    return values.to_numpy() if kinds in "biuf" and not hasattr(values.dtype, "na_value") else _objects(values)


def _objects(values: Any) -> Any:
    """A column of text, categories, or numbers that may be missing, as numbers where all are."""
    return values.astype(object).where(values.notna(), None).to_numpy(object)


def _targets(name: str, columns: list[Any], target: str | None) -> list[Any]:
    """The columns that are meant: by name, several with commas between them, or by number."""
    by_name = {str(column): column for column in columns}
    if target is None:
        usual = [by_name[word] for word in by_name if word.lower() in USUAL]
        if len(usual) == 1:
            return usual
        raise DataError(f"{name}: which column is to be predicted? Say --target COLUMN, one of {listed(columns)}")
    wanted = [target] if target in by_name else [word.strip() for word in target.split(",")]
    found = [_column(name, word, columns, by_name) for word in wanted]
    if len(set(found)) < len(found):
        raise DataError(f"{name}: --target {target} names a column twice")
    return found


def _column(name: str, word: str, columns: list[Any], by_name: dict[str, Any]) -> Any:
    if word in by_name:
        return by_name[word]
    try:
        return columns[int(word)]
    except (ValueError, IndexError):
        raise DataError(f"{name} has no column {shown(word)}; {near(word, columns)}") from None


def _check_leak(name: str, part: Part, target: Any) -> None:
    """Refuse a column that is the target once more."""
    for column in part.x.columns if target is not None else ():
        values = part.x[column].to_numpy(object)
        if values[0] == part.y[0] and values[-1] == part.y[-1] and bool((values == part.y).all()):
            raise DataError(
                f"{name}: column {shown(column)} is the target {shown(target)} once more, value for value, so that "
                "everything would be predicted from it; leave one of them out of the file"
            )


def _twins(part: Part) -> tuple[str, ...]:
    """A warning of columns that tell the class under another name."""
    import pandas

    if part.y.ndim != 1 or part.y.dtype.kind == "f" or any(value is None for value in part.y[:1]):
        return ()
    y = pandas.factorize(part.y)[0]
    classes = int(y.max()) + 1
    if classes * 10 > len(y):
        return ()
    found = []
    for column in part.x.columns:
        if part.x[column].iloc[:1000].nunique() > classes:
            continue
        numbers = pandas.factorize(part.x[column])[0]
        if int(numbers.max()) + 1 == classes and len(np.unique(numbers * classes + y)) == classes:
            found.append(column)
    words = template("warning: these columns tell the target one to one, and may be it under another name: {columns}")
    return (say(words, columns=named(found)),) if found else ()
