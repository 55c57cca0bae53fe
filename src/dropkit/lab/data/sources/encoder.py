"""Columns of a table as numbers: standardised, or one of each category; all of it fitted on the training rows alone."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import DataError
from ....language import counted, say, template
from .columns import CATEGORIES, NUMBERS, as_numbers, kind_of, named

MOST_CATEGORIES = 50  # of a column; the rarer ones share one place
MISSING = "(missing)"


class Encoder:
    """What a table becomes: first the numbers, standardised, missing ones at the mean, with a column of 0 and 1 that
    says where; then a column of 0 and 1 for each category.

    Args:
        name: of the source, for messages.
        table: the training rows, as a pandas table.

    Raises:
        DataError: numbers and text in one column, infinity; nothing to learn from.

    >>> import pandas
    >>> table = pandas.DataFrame({"age": [20.0, 40.0, None], "town": ["Ulm", "Bonn", "Ulm"]})
    >>> Encoder("a.csv", table).transform(table).tolist()
    [[-1.0, 0.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0]]
    """

    def __init__(self, name: str, table: Any) -> None:
        from sklearn.impute import SimpleImputer
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import OneHotEncoder, StandardScaler

        kinds = {column: kind_of(name, column, table[column]) for column in table.columns}
        self.name, self.kinds = name, kinds
        self.numbers = [column for column, kind in kinds.items() if kind == NUMBERS]
        self.categories = [column for column, kind in kinds.items() if kind == CATEGORIES]
        if not self.numbers and not self.categories:
            raise DataError(
                f"{name}: no column is left to learn from; give numbers, or categories that repeat (text to read must "
                "become tokens first)"
            )
        filled = SimpleImputer(strategy="constant", fill_value=0, add_indicator=True, copy=False)
        self.scaled = make_pipeline(StandardScaler(copy=False), filled)
        self.coded = OneHotEncoder(
            handle_unknown="infrequent_if_exist", max_categories=MOST_CATEGORIES, sparse_output=False, dtype=np.float32
        )
        if self.numbers:
            self.scaled.fit(self._numbers(table))
        if self.categories:
            self.coded.fit(self._categories(table))

    def transform(self, table: Any) -> NDArray[np.float32]:
        """Rows as numbers, by what was measured on the training rows.

        Raises:
            DataError: infinity, or text in a column of numbers.
        """
        parts = []
        if self.numbers:
            parts.append(self.scaled.transform(self._numbers(table)).astype(np.float32))
        if self.categories:
            parts.append(self.coded.transform(self._categories(table)))
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _numbers(self, table: Any) -> NDArray[np.float64]:
        found = np.empty((len(table), len(self.numbers)))
        for place, column in enumerate(self.numbers):
            found[:, place] = as_numbers(self.name, column, table[column])
        return found

    def _categories(self, table: Any) -> NDArray:
        found = np.empty((len(table), len(self.categories)), object)
        for place, column in enumerate(self.categories):
            values = table[column].astype(object)
            found[:, place] = values.where(values.notna(), MISSING).astype(str)
        return found

    def notes(self, table: Any) -> tuple[str, ...]:
        """What was done, in sentences.

        Args:
            table: the training rows.
        """
        numbers = counted(len(self.numbers), "{n} column of numbers", "{n:,} columns of numbers")
        categories = counted(len(self.categories), "{n} column of categories", "{n:,} columns of categories")
        done = template("{numbers} standardised, {categories} one-hot encoded, as measured on the training part alone")
        notes = [say(done, numbers=numbers, categories=categories)]
        if missing := [column for column in self.numbers if table[column].isna().any()]:
            words = template("missing numbers are at the mean, and a column of 0 and 1 says where: {columns}")
            notes.append(say(words, columns=named(missing)))
        if many := [column for column in self.categories if table[column].nunique() >= MOST_CATEGORIES]:
            words = template("of more than {most} categories the rarer ones share a place: {columns}")
            notes.append(say(words, most=MOST_CATEGORIES, columns=named(many)))
        if left := [column for column, kind in self.kinds.items() if kind not in (NUMBERS, CATEGORIES)]:
            words = template("left out, since empty, or different in every row, or the row's number: {columns}")
            notes.append(say(words, columns=named(left)))
        return tuple(notes)
