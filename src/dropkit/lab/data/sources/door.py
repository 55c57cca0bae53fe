"""`load`: whatever `--data` takes, as arrays to train on and to test on."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import DataError, DropkitValueError, UnknownNameError
from ....language import counted, say, template
from ..sets import IMAGE_SIZE, NAMES, Data, load_data
from . import arrays, builtin, hub, modules, objects, tables
from .encoder import Encoder
from .numbers import notes_on, numbers, repeated
from .raw import Raw
from .splits import divided, fraction_of
from .targets import BINARY, CLASSIFICATION, NEXT_TOKEN, Kind, Target, check_classes, understood
from .tokens import Ragged, is_text, pairs

PICKLED = {".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt", ".dill", ".bin"}
ARRAYS = (".npz", ".npy")
KNOWN = "a .npz, .npy, .csv, .tsv or .parquet file, a folder or .zip of images, a data set of Hugging Face on disk"


def load(
    source: Any,
    *,
    target: str | None = None,
    test: float | str | Path | None = None,
    kind: str | None = None,
    data_dir: str | Path | None = None,
    image_size: int | None = None,
) -> Data:
    """Data of one's own, or a data set by name, as arrays to train on and to test on.

    Args:
        source: a name that `load_data` knows; a file (.npz, .npy, .csv, .tsv, .parquet, the text ones also with .gz); a
            folder or .zip of images; a folder that Hugging Face's `save_to_disk` made; "sklearn:NAME";
            "module:function", which is called; what such a function may give; or a Data.
        target: the column that is predicted, of tables; several with commas between them; the other file of .npy.
        test: which part is the test set where the source has none: a fraction, 0.2 by default, drawn once and for all,
            classes in proportion; or the file of a test part.
        kind: "classification", "binary", "multi-label", "regression" or "next-token" ("next-token:256" cuts a stream
            of tokens into samples of 256); guessed by default.
        data_dir, image_size: see `load_data`.

    Returns:
        Data, whose `notes` say how the source was understood.

    Raises:
        DataError: missing or damaged files, values that cannot be learned from; the message names the remedy.
        DropkitValueError, DropkitTypeError, UnknownNameError: an option that does not fit.

    >>> x, y = np.arange(20.0).reshape(10, 2), np.arange(10) % 2
    >>> data = load((x, y), test=0.4)
    >>> data.kind, data.train_x.shape, data.test_x.shape, data.classes
    ('classification', (6, 2), (4, 2), 2)
    """
    asked = None if kind is None else Kind.parse(kind)
    fraction = fraction_of(test)
    if isinstance(source, Data):
        return _as_kind(source, asked)
    if isinstance(source, str | Path) and _is_known(str(source)):
        _no_use(source, target=target, test=test)
        return _as_kind(load_data(source, data_dir, image_size), asked)
    raw = read(source, target, image_size)
    if isinstance(fraction, Path):
        raw = _with_test(raw, read(fraction, target, image_size))
    elif raw.test is not None and test is not None:
        raise DropkitValueError(f"{raw.name} has a test part of its own, so --test {test} has no use; leave it out")
    return made(raw, asked, fraction if isinstance(fraction, float) else 0.0)


def read(source: Any, target: str | None = None, image_size: int | None = None) -> Raw:
    """What a source of one's own holds, before it is divided and encoded; see `load`."""
    side = image_size or IMAGE_SIZE
    if not isinstance(source, str | Path):
        return objects.taken("data", source, target, side).checked()
    text, path = str(source), Path(source)
    suffix = tables.suffix_of(path)
    if text.startswith(builtin.PREFIX):
        _no_use(source, target=target)
        return builtin.read(text).checked()
    if suffix in PICKLED and path.exists():
        raise DataError(
            f"{path} is not read: loading it may run code; save the arrays with numpy.savez (X=..., y=...), or "
            "load it in "
            "a function of your own and give that, such as my_data:load"
        )
    if path.is_dir() and hub.is_saved(path):
        return hub.read(path, target, side).checked()
    if suffix in tables.SUFFIXES:
        return tables.parted(text, [tables.read(path)], target).checked()
    if suffix == ".npz":
        return arrays.read_archive(path, target).checked()
    if suffix == ".npy":
        return arrays.read_array(path, target).checked()
    if ":" in text and not path.exists():
        return objects.taken(text, modules.called(text), target, side).checked()
    if path.is_file():
        raise DataError(
            f"{path} is no data that is read by its suffix {path.suffix!r}; give {KNOWN}, or module:function"
        )
    raise UnknownNameError(f"data set (and no file or folder of that name; give {KNOWN}, or one by name)", text, NAMES)


def _is_known(text: str) -> bool:
    path = Path(text)
    return (
        text in NAMES
        or (path.is_dir() and not hub.is_saved(path))
        or (path.suffix.lower() == ".zip" and path.is_file())
    )


def _no_use(source: Any, **options: Any) -> None:
    for name, value in options.items():
        if value is not None:
            raise DropkitValueError(f"{source} says that itself, so --{name} {value} has no use; leave it out")


def _with_test(raw: Raw, test: Raw) -> Raw:
    """One source as the training part, another as the test part."""
    if raw.test is not None or test.test is not None:
        raise DropkitValueError(
            f"{raw.name} and {test.name}: one of them has a training and a test part already; give it alone"
        )
    table = hasattr(raw.train.x, "columns")
    if table != hasattr(test.train.x, "columns") or (table and list(raw.train.x.columns) != list(test.train.x.columns)):
        raise DataError(f"{raw.name} and {test.name} have different columns; give both the same, in the same order")
    return replace(raw, test=test.train)


def _as_kind(data: Data, kind: Kind | None) -> Data:
    """A set of images as the kind that is asked for."""
    if kind is None or kind.name == data.kind:
        return data
    if data.kind != CLASSIFICATION or kind.name != BINARY or data.classes != 2:
        remedy = "leave --kind out" if data.classes != 2 else f"leave --kind out, or ask for {BINARY}"
        raise DropkitValueError(
            f"{data.name} is data of {data.classes} outputs for {data.kind}, not {kind.name}; {remedy}"
        )
    train, test = (y.astype(np.float32) for y in (data.train_y, data.test_y))
    return replace(data, kind=BINARY, classes=1, train_y=train, test_y=test)


def made(raw: Raw, kind: Kind | None, fraction: float) -> Data:
    """Raw data divided, encoded and checked.

    Raises:
        DataError: see `load`.
    """
    if (kind is not None and kind.name == NEXT_TOKEN) or (kind is None and is_text(raw.train.x, raw.train.y)):
        return _text(raw, kind or Kind(NEXT_TOKEN), fraction)
    if raw.train.y is None:
        raise DataError(
            f"{raw.name} has no target: give {arrays.NAMES}, or --target; token ids that predict the next one are "
            "--kind "
            f"{NEXT_TOKEN}"
        )
    ys = [np.asarray(part.y) for part in raw.parts]
    if len({y.shape[1:] for y in ys}) > 1:
        raise DataError(f"{raw.name}: targets of shape {ys[0].shape} and {ys[1].shape}; give both parts the same")
    together = ys[0] if len(ys) == 1 else np.concatenate(ys)
    found = understood(raw.name, raw.target, together, None if kind is None else kind.name, raw.labels)
    return divide(raw, found, *_index(raw, found, fraction))


def _index(raw: Raw, found: Target, fraction: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    count = len(raw.train.x)
    if raw.test is None:
        return divided(raw.name, count, fraction, found.strata)
    return np.arange(count), np.arange(count, count + len(raw.test.x))


def divide(raw: Raw, found: Target, train: NDArray[np.int64], test: NDArray[np.int64]) -> Data:
    """Data of some samples to train on and others to test on, counted through all parts.

    Raises:
        DataError: classes that only the test part has; samples that cannot be learned from.
    """
    train_y, test_y = found.y[train], found.y[test]
    check_classes(raw.name, found, train_y, test_y)
    train_x, test_x, notes = _samples(raw, found, train, test)
    if train_x.shape[1:] != test_x.shape[1:]:
        raise DataError(
            f"{raw.name}: training samples of shape {train_x.shape[1:]} and test samples of {test_x.shape[1:]}; "
            "give both "
            "the same"
        )
    if same := repeated(train_x, test_x):
        words = template(
            "warning: {same} are training samples too, value for value, so that the test is easier than new samples"
        )
        notes = (*notes, say(words, same=counted(same, "{n} test sample", "{n:,} test samples")))
    return _data(raw, found, (train_x, train_y, test_x, test_y), (*raw.notes, *found.notes, *notes))


def _samples(raw: Raw, found: Target, train: NDArray, test: NDArray) -> tuple[NDArray, NDArray, tuple[str, ...]]:
    parts = [part.x.padded(raw.name) if isinstance(part.x, Ragged) else part.x for part in raw.parts]
    notes: tuple[str, ...] = ()
    if isinstance(raw.train.x, Ragged):
        width = max(part.shape[1] for part in parts)
        parts = [np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in parts]
        notes = (say("sequences are padded with 0 behind, to {width}", width=width),)
    if hasattr(parts[0], "columns"):
        first, second = _tables(parts, train, test)
        encoder = Encoder(raw.name, first)
        return encoder.transform(first), encoder.transform(second), encoder.notes(first)
    arrays.check_leak(raw.name, np.asanyarray(parts[0]), np.asarray(raw.train.y))
    if raw.test is None:
        first, second = (numbers(raw.name, parts[0], index) for index in (train, test))
    else:
        first, second = (numbers(raw.name, part) for part in parts)
    return first, second, (*notes, *notes_on(first, parts[0]))


def _tables(parts: list[Any], train: NDArray, test: NDArray) -> tuple[Any, Any]:
    if len(parts) > 1:
        return parts[0], parts[1]
    return parts[0].iloc[train], parts[0].iloc[test]


def _text(raw: Raw, kind: Kind, fraction: float) -> Data:
    train, test, vocabulary, note = pairs(raw, kind.block, fraction)
    first = say("taken as {kind}: {n} different tokens", kind=NEXT_TOKEN, n=vocabulary)
    found = Target(NEXT_TOKEN, train[1], vocabulary, (), (first, note))
    return _data(raw, found, (*train, *test), (*raw.notes, *found.notes))


def _data(raw: Raw, found: Target, four: tuple[NDArray, ...], notes: tuple[str, ...]) -> Data:
    train_x, train_y, test_x, test_y = four
    return Data(
        name=raw.name,
        train_x=train_x,
        train_y=train_y,
        test_x=test_x,
        test_y=test_y,
        classes=found.outputs,
        fingerprint=fingerprint(found.kind, four),
        kind=found.kind,
        labels=found.labels,
        notes=notes,
    )


def fingerprint(kind: str, four: tuple[NDArray, ...]) -> str:
    """sha256 over the kind and what is trained and tested on, in its order."""
    digest = hashlib.sha256(kind.encode())
    for array in four:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
