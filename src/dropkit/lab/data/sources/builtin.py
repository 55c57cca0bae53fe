"""The data sets that come with scikit-learn."""

from typing import Any

from ....errors import DataError, UnknownNameError
from .raw import Part, Raw

PREFIX = "sklearn:"
CACHED = "california_housing"
NAMES = ("breast_cancer", CACHED, "diabetes", "digits", "iris", "linnerud", "wine")


def read(name: str) -> Raw:
    """A data set by its name behind "sklearn:"; nothing is downloaded.

    Raises:
        UnknownNameError: there is none of that name.
        DataError: it is not in scikit-learn's cache.

    >>> read("sklearn:wine").labels
    ('class_0', 'class_1', 'class_2')
    """
    from sklearn import datasets

    word = name.removeprefix(PREFIX)
    if word not in NAMES:
        raise UnknownNameError("data set of scikit-learn", word, NAMES)
    found: Any
    if word == CACHED:
        try:
            found = datasets.fetch_california_housing(as_frame=True, download_if_missing=False)
        except OSError as error:
            raise DataError(
                f"{name} is not in scikit-learn's cache, and nothing is downloaded: call "
                "sklearn.datasets.fetch_california_housing() once where there is a network"
            ) from error
    else:
        found = getattr(datasets, f"load_{word}")(as_frame=True)
    classes = word in ("breast_cancer", "digits", "iris", "wine")
    labels = tuple(str(label) for label in found.target_names) if classes or word == "linnerud" else ()
    y = found.target.to_numpy()
    return Raw(name, Part(found.data, y), None, "target", labels)
