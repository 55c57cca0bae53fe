"""Hugging Face data sets that lie on disk, as `save_to_disk` leaves them: images, tokens or columns, with labels."""

import io
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import DataError, DropkitError, DropkitValueError
from ....visible import one_line
from .. import images
from ..limits import MOST, size
from . import tables
from .arrays import X
from .columns import listed, near, shown
from .raw import Part, Raw
from .tokens import Ragged

MARKS = ("dataset_dict.json", "state.json")
TRAIN, TESTS = "train", ("test", "validation", "valid", "val", "dev")


def is_saved(folder: Path) -> bool:
    """Whether a folder is what `save_to_disk` makes."""
    return any((folder / mark).is_file() for mark in MARKS)


def read(folder: Path, target: str | None, side: int) -> Raw:
    """The data set in a folder.

    Raises:
        DataError: it is damaged, or holds what cannot be learned from.
        DropkitValueError: the package datasets is not installed.
    """
    if find_spec("datasets") is None:
        raise DropkitValueError(f"reading {folder} needs datasets, which is not installed: {tables.EXTRA}")
    import datasets

    try:
        found = datasets.load_from_disk(str(folder))
    except Exception as error:  # readers raise whatever they meet
        raise DataError(f"cannot read {folder}: {one_line(error)[:300]}; save it again with save_to_disk") from error
    return taken(str(folder), found, target, side)


def taken(name: str, found: Any, target: str | None, side: int) -> Raw:
    """A Dataset, or a DatasetDict with a test part or without.

    Raises:
        DataError: see `read`.
    """
    splits = _splits(name, found)
    try:
        return _taken(name, splits, target, side)
    except DropkitError:
        raise
    except Exception as error:  # a file may be other than its description
        raise DataError(f"cannot read {name}: {one_line(error)[:300]}; save it again with save_to_disk") from error


def _splits(name: str, found: Any) -> list[Any]:
    if not isinstance(found, Mapping):
        return [found]
    names = list(found)
    train = TRAIN if TRAIN in found else names[0] if len(names) == 1 else None
    if train is None:
        raise DataError(f"{name} has the parts {listed(names)} and none is {TRAIN!r}; name one so")
    test = next((word for word in TESTS if word in found and word != train), None)
    return [found[train]] if test is None else [found[train], found[test]]


def _taken(name: str, splits: list[Any], target: str | None, side: int) -> Raw:
    features = splits[0].features
    for column in splits[-1].features.keys() ^ features.keys():
        raise DataError(f"{name}: the column {shown(column)} is in one part alone; give both the same columns")
    if target is not None and target not in features and "," not in target:
        raise DataError(f"{name} has no column {shown(target)}; {near(target, list(features))}")
    usual = [column for column in features if column.lower() in tables.USUAL]
    wanted = target or (usual[0] if len(usual) == 1 else None)
    x = _main(features, wanted)
    if x is None:
        return _columns(name, splits, features, wanted or target)
    parts = [
        Part(_array(name, split, x, side), None if wanted is None else _array(name, split, wanted, side))
        for split in splits
    ]
    labels = _labels(features, wanted)
    return Raw(name, parts[0], parts[1] if len(parts) > 1 else None, wanted or x, labels)


def _labels(features: Any, column: str | None) -> tuple[str, ...]:
    return tuple(getattr(features.get(column), "names", None) or ())


def _main(features: Any, target: str | None) -> str | None:
    """The column that is x by itself: images, tokens or arrays; None where columns are x together."""
    import datasets

    rest = {column: feature for column, feature in features.items() if column != target}
    pictures = [column for column, feature in rest.items() if isinstance(feature, datasets.Image)]
    arrays = [
        column for column, feature in rest.items() if not isinstance(feature, datasets.Value | datasets.ClassLabel)
    ]
    named = [column for column in arrays if column.lower() in (*X, "image", "pixel_values")]
    found = pictures or named or arrays
    return found[0] if found else None


def _columns(name: str, splits: list[Any], features: Any, target: str | None) -> Raw:
    whole = [split.with_format("arrow")[:] for split in splits]
    found = tables.parted(name, [table.to_pandas(ignore_metadata=True) for table in whole], target)
    labels = _labels(features, target)
    return Raw(found.name, found.train, found.test, found.target, labels or found.labels, found.notes)


def _array(name: str, split: Any, column: str, side: int) -> Any:
    """A column as an array; sequences of different lengths as they are."""
    import datasets

    feature = split.features[column]
    if isinstance(feature, datasets.Image):
        return _pictures(name, split, column, side)
    values = split.with_format("arrow")[:].column(column).combine_chunks()
    if values.null_count:
        raise DataError(
            f"{name}: column {shown(column)} is missing in {values.null_count} of {len(values)} rows; fill it"
        )
    if hasattr(values, "to_numpy_ndarray"):
        return values.to_numpy_ndarray()
    storage = getattr(values, "storage", values)
    return _nested(name, column, storage)


def _nested(name: str, column: str, values: Any) -> Any:
    """Arrow lists as an array, or as they are where their lengths differ."""
    import pyarrow

    if not hasattr(values, "flatten"):
        return values.to_numpy(zero_copy_only=False)
    if isinstance(values.type, pyarrow.StructType):
        raise DataError(f"{name}: column {shown(column)} holds {values.type}; give numbers, lists of them, or images")
    lengths = values.value_lengths().to_numpy()
    inner = values.flatten()
    if inner.null_count:
        raise DataError(f"{name}: column {shown(column)} has {inner.null_count} missing values; fill them")
    inside = _nested(name, column, inner)
    if isinstance(inside, Ragged):
        raise DataError(f"{name}: column {shown(column)} holds lists of lists of different lengths; make them arrays")
    if len(lengths) and (lengths == lengths[0]).all():
        return inside.reshape(len(lengths), int(lengths[0]), *inside.shape[1:])
    if inside.ndim > 1:
        raise DataError(f"{name}: column {shown(column)} holds arrays of different lengths; pad or cut them")
    return Ragged(inside, np.cumsum(lengths))


def _pictures(name: str, split: Any, column: str, side: int) -> NDArray[np.uint8]:
    import datasets

    if len(split) * 3 * side * side * 4 > MOST:
        raise DataError(
            f"{name}: {len(split)} images of {side} x {side} would become {size(len(split) * 12 * side * side)}, "
            "and at "
            f"most {size(MOST)} are unpacked; make them smaller with --image-size, or give fewer"
        )
    decode = images.decoder(Path(name), side)
    found = np.empty((len(split), 3, side, side), np.uint8)
    for row, entry in enumerate(split.select_columns([column]).cast_column(column, datasets.Image(decode=False))):
        content, path = entry[column]["bytes"], entry[column]["path"] or f"row {row + 1}"
        if content is None:
            raise DataError(
                f"{name}: image {row + 1} is a path, {one_line(path)}, and files elsewhere are not read; save the "
                "data set "
                "again with save_to_disk, which puts images into it"
            )
        found[row] = decode(PurePosixPath(path), io.BytesIO(content).read)
    return found
