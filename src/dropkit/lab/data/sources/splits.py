"""Which samples are test samples: a fixed draw, the same for every run and seed."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import DataError, DropkitTypeError, DropkitValueError

FRACTION = 0.2
Index = NDArray[np.int64]


def fraction_of(test: Any) -> float | Path:
    """What `test` says: a fraction, or the file of a test part.

    Raises:
        DropkitValueError: a fraction outside (0, 1).
        DropkitTypeError: neither number nor path.

    >>> fraction_of(None), fraction_of("0.25"), fraction_of("held_out.csv").name
    (0.2, 0.25, 'held_out.csv')
    """
    if test is None:
        return FRACTION
    if isinstance(test, bool) or not isinstance(test, int | float | str | Path):
        raise DropkitTypeError(f"test must be a fraction such as 0.2, or a file, got {test!r}")
    try:
        value = float(str(test))
    except ValueError:
        return Path(str(test))
    if not 0 < value < 1:
        raise DropkitValueError(
            f"test must lie between 0 and 1, got {test}; 0.2 makes a fifth of the samples the test set"
        )
    return value


def divided(name: str, count: int, fraction: float, strata: NDArray | None) -> tuple[Index, Index]:
    """Training and test samples, in an order that mixes them; classes in proportion.

    Raises:
        DataError: too few samples, of a class or in all.

    >>> train, test = divided("a.csv", 10, 0.2, None)
    >>> sorted([*train.tolist(), *test.tolist()]) == list(range(10)), len(test)
    (True, 2)
    """
    from sklearn.model_selection import train_test_split

    held = round(count * fraction)
    if not 0 < held < count:
        raise DataError(
            f"{name}: {count} samples, of which a fraction of {fraction:g} makes {held} test samples; give more "
            "samples, "
            "or another --test"
        )
    if strata is not None:
        numbers, sizes = np.unique(strata, return_counts=True)
        if sizes.min() < 2:
            row = int(np.flatnonzero(strata == numbers[sizes.argmin()])[0])
            raise DataError(
                f"{name}: a class has one sample, row {row + 1}; it needs one to train and one to test: leave it "
                "out, or "
                "join it with another class"
            )
        held = min(max(held, len(numbers)), count - len(numbers))  # at least one of each class on both sides
    train, test = train_test_split(np.arange(count), test_size=held, random_state=0, stratify=strata)
    return train, test
