"""What a column of a table holds: numbers, categories, or nothing to learn from."""

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import DataError
from ....language import LIST, joined, say
from ....visible import a_type, one_line

NUMBERS, CATEGORIES, NOTHING = "numbers", "categories", "nothing"
IDENTIFIES, FEW = 0.5, 20  # text with more different values than this part of the rows, and than so many, names rows
MIXED = 0.9  # a column of text of which at least so much is numbers should be one of numbers
DAY = 86_400 * 10**9  # nanoseconds
SHOWN = 6


def kind_of(name: str, column: Any, values: Any) -> str:
    """What a pandas column holds.

    Raises:
        DataError: numbers and text; lists or other objects.

    >>> import pandas
    >>> kind_of("a.csv", "town", pandas.Series(["Ulm", "Bonn", "Ulm"]))
    'categories'
    """
    from pandas import api

    values = plain(values)
    known = values.dropna()
    if not len(known) or _counts_rows(values):
        return NOTHING
    if isinstance(values.dtype, api.types.CategoricalDtype().__class__):
        return CATEGORIES
    if api.types.is_numeric_dtype(values) or api.types.is_datetime64_any_dtype(values):
        return NUMBERS
    if not api.types.is_object_dtype(values) and not api.types.is_string_dtype(values):
        raise DataError(f"{name}: column {shown(column)} holds {values.dtype}; give numbers or text, or leave it out")
    if api.types.is_object_dtype(values):
        _check_objects(name, column, known)
        if all(isinstance(value, bool | int | float | np.number) for value in known):
            return NUMBERS
    return _of_text(name, column, known, len(values))


def plain(values: Any) -> Any:
    """A column of Python's dates or decimals, or of durations, as pandas has dates and numbers."""
    from pandas import api, to_datetime

    if api.types.is_timedelta64_dtype(values):
        return values.dt.total_seconds() / 86_400
    known = values.dropna() if api.types.is_object_dtype(values) else ()
    kinds = set(map(type, known))
    if kinds == {Decimal}:
        return values.astype(float)
    return to_datetime(values) if kinds and all(issubclass(kind, date) for kind in kinds) else values


def _counts_rows(values: Any) -> bool:
    """Whether a column says which row of the file it is, as saved indices do."""
    if len(values) <= FEW or values.dtype.kind not in "iu":
        return False
    offsets = values.to_numpy() - values.index.to_numpy()
    return bool((offsets == offsets[0]).all())


def _check_objects(name: str, column: Any, known: Any) -> None:
    for row, value in known.items():
        if not isinstance(value, str | bool | int | float | np.number | np.bool_):
            raise DataError(
                f"{name}: column {shown(column)} holds {a_type(value)} in row {row + 1}, and tables hold "
                "numbers and text; leave the column out, or give arrays (.npz)"
            )


def _of_text(name: str, column: Any, known: Any, rows: int) -> str:
    from pandas import to_numeric

    numbers = to_numeric(known.astype(str), errors="coerce")
    if numbers.notna().all():
        return NUMBERS
    if numbers.notna().mean() >= MIXED:
        raise _mixed(name, column, known, numbers)
    pointed = to_numeric(known.astype(str).str.replace(",", ".", regex=False), errors="coerce")
    if pointed.notna().all():
        raise DataError(
            f"{name}: column {shown(column)} holds {shown(known.iloc[0])}, numbers with a decimal comma; write a point"
        )
    different = known.nunique()
    return NOTHING if different > max(FEW, IDENTIFIES * rows) else CATEGORIES


def _mixed(name: str, column: Any, known: Any, numbers: Any) -> DataError:
    text = known[numbers.isna()]
    return DataError(
        f"{name}: column {shown(column)} holds {shown(text.iloc[0])} in row {text.index[0] + 1} where numbers belong "
        f"({len(text)} of {len(known)} values are text); correct it, or leave it empty where the number is missing"
    )


def as_numbers(name: str, column: Any, values: Any) -> NDArray[np.float64]:
    """A column of numbers as floats; dates as days; NaN where one is missing.

    Raises:
        DataError: infinity, or text.
    """
    from pandas import api, to_numeric

    values = plain(values)
    if api.types.is_datetime64_any_dtype(values):
        days = values.to_numpy("datetime64[ns]")
        found = np.where(np.isnat(days), np.nan, days.astype(np.int64) / DAY)
    elif api.types.is_numeric_dtype(values):
        found = values.to_numpy(np.float64, na_value=np.nan)
    else:
        numbers = to_numeric(values.astype(object), errors="coerce")
        if (lost := numbers.isna() & values.notna()).any():
            raise _mixed(name, column, values[lost], numbers[lost])
        found = numbers.to_numpy(np.float64, na_value=np.nan)
    if (wrong := np.isinf(found)).any():
        raise DataError(
            f"{name}: column {shown(column)} is infinite in row {values.index[wrong.argmax()] + 1}; leave it empty "
            "where the number is missing"
        )
    return found


def shown(value: Any) -> str:
    """A column's name or a value in a message."""
    return one_line(repr(str(value)))


def named(columns: Sequence[Any]) -> str:
    """Names of columns in a sentence, the first ones."""
    names: list[str] = [one_line(column) for column in columns[:SHOWN]]
    more = len(columns) - len(names)
    return joined((*names, say("{more} more", more=f"{more:,}") if more else ""), LIST)


def listed(columns: Sequence[Any]) -> str:
    """Names of columns in an error."""
    names = [one_line(column) for column in columns[: 2 * SHOWN]]
    return ", ".join(names) + (f", ... ({len(columns)} in all)" if len(columns) > len(names) else "")


def near(wanted: str, columns: Sequence[Any]) -> str:
    """What may have been meant, for the end of an error."""
    import difflib

    names = [str(column) for column in columns]
    lower = {name.lower(): name for name in names}
    found = [lower[name] for name in difflib.get_close_matches(wanted.lower(), lower, n=3, cutoff=0.5)]
    hint = f"did you mean {' or '.join(map(shown, found))}? " if found else ""
    return f"{hint}it has {listed(names)}"
