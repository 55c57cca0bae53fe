"""`load`: whatever `--data` takes, as arrays to train on and to test on."""

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

from ....errors import DataError, DropkitValueError, UnknownNameError
from ...imported import generators_kept, imported
from ...imported import made as made_by
from ..sets import IMAGE_SIZE, NAMES, Data, load_data
from . import arrays, builtin, hub, objects, tables
from .dividing import made
from .raw import Raw
from .splits import fraction_of
from .targets import BINARY, CLASSIFICATION, Kind

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
            "module:function", which is called, or the function; what such a function may give; or a Data.
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

    >>> import numpy as np
    >>> x, y = np.arange(20.0).reshape(10, 2), np.arange(10) % 2
    >>> data = load((x, y), test=0.4)
    >>> data.kind, data.train_x.shape, data.test_x.shape, data.classes
    ('classification', (6, 2), (4, 2), 2)
    """
    if image_size is not None and image_size < 1:
        raise DropkitValueError(f"image size must be at least 1, got {image_size}: it is a side in pixels, such as 32")
    asked = None if kind is None else Kind.parse(kind)
    fraction = fraction_of(test)
    if isinstance(source, Data):
        return _as_kind(source, asked)
    if isinstance(source, str | Path) and is_known(str(source)):
        _no_use(source, target=target, test=test)
        return _as_kind(load_data(source, data_dir, image_size), asked)
    raw = read(source, target, image_size)
    if isinstance(fraction, Path):
        raw = _with_test(raw, read(fraction, target, image_size))
    elif raw.test is not None and test is not None:
        raise DropkitValueError(f"{raw.name} has a test part of its own, so --test {test} has no use; leave it out")
    return Data(**made(raw, asked, fraction if isinstance(fraction, float) else 0.0))


def read(source: Any, target: str | None = None, image_size: int | None = None) -> Raw:
    """What a source of one's own holds, before it is divided and encoded; see `load`."""
    side = image_size or IMAGE_SIZE
    if not isinstance(source, str | Path):
        name = "data"
        if inspect.isroutine(source):
            name, source = source.__name__, _called(source.__name__, source)
        return objects.taken(name, source, target, side).checked()
    text, path = str(source), Path(source)
    if "://" in text:
        raise DataError(f"{text} is an address, and nothing is downloaded; fetch it yourself and give the file")
    suffix = tables.suffix_of(path)
    if text.startswith(builtin.PREFIX):
        _no_use(source, target=target)
        return builtin.read(text).checked()
    if suffix in PICKLED and path.exists():
        raise DataError(
            f"{path} is not read: loading it may run code; save the arrays with numpy.savez (X=..., y=...), or load it "
            "in a function of your own and give that, such as my_data:load"
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
        return objects.taken(text, _called(text, imported(text)), target, side).checked()
    if path.is_file():
        raise DataError(
            f"{path} is no data that is read by its suffix {path.suffix!r}; give {KNOWN}, or module:function"
        )
    raise UnknownNameError(f"data set (and no file or folder of that name; give {KNOWN}, or one by name)", text, NAMES)


def _called(text: str, found: Any) -> Any:
    """What a function gives, the same each time as far as it draws from the usual generators; else what is there."""
    if not inspect.isroutine(found) and not inspect.isclass(found):
        return found
    with generators_kept():
        return made_by(text, found, 0, f"a function without arguments that gives {objects.GIVES}")


def is_known(text: str) -> bool:
    """Whether `load_data` reads it: a data set by name, or a folder or archive of images."""
    path = Path(text)
    if not text.strip():
        return False
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
    return replace(data, kind=BINARY, classes=1)
