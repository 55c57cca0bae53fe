"""Data sets: scikit-learn's digits (embedded), Fashion-MNIST, MNIST, CIFAR-10 (sha256 checked), or IDX files."""

import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...counter import Key
from ...errors import DataError, UnknownNameError
from ...mask import uniform
from . import cifar, images
from .idx import parse_idx
from .limits import MOST_CLASSES
from .sources.dividing import of_parts

FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a named set lives: its folder under the data folder, its official address, the sha256 of each file."""

    folder: str
    url: str
    sums: dict[str, str]


SOURCES = {
    "fashion-mnist": Source(
        "fashion_mnist",
        # The authors' repository, at a fixed commit.
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/b2617bb6d3ffa2e429640350f613e3291e10b141/data/fashion/",
        dict(
            zip(
                FILES,
                (
                    "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                    "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                    "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                    "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                ),
                strict=True,
            )
        ),
    ),
    "mnist": Source(
        "mnist",
        # The mirror that torchvision uses; the original server answers no more.
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        dict(
            zip(
                FILES,
                (
                    "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                    "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                    "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                    "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                ),
                strict=True,
            )
        ),
    ),
}
CIFAR = "cifar10"
# Photos of the flower_photos archive (CC BY 2.0) in 128 x 128 JPEG: train and val, daisy and dandelion.
FLOWERS, FLOWERS_FILE = "flowers2", "flowers2/flowers2_128px_jpeg.zip"
FLOWERS_SUM = "f3dba2a2843bf8ee846308a83c267154abbe1e35866fe46eb4a628963fb52518"
NAMES = ("digits", *SOURCES, CIFAR, FLOWERS)
IMAGE_SIZE = 32


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """Samples and their targets, split into training and test set.

    Args:
        name: "digits", "fashion-mnist", "mnist", "cifar10", "flowers2", the path of a folder or file, or any other.
        train_x, test_x: samples along the first axis; of the sets that have names float32 in [0, 1], of shape
            (samples, height, width), in colour (samples, 3, height, width).
        train_y, test_y: of kind "classification" int64, shape (samples,), values in [0, classes); see `kind`.
        classes: how many outputs a model has for a sample: classes, labels or numbers; of tokens how many there are.
        fingerprint: sha256 over the arrays, so that a resumed run meets the data it began with.
        kind: of the targets: "classification", "binary" (int64, 0 or 1), "multi-label" (float32, 0 or 1, of shape
            (samples, classes)), "regression" (float32, (samples,) or (samples, classes)), or "next-token" (int64,
            (samples, time), the samples' tokens moved on by one; below 0 is padding).
        labels: names of the classes, or of the columns of the target, where there are any.
        notes: sentences on how the source was understood.

    >>> data = load_data("digits")
    >>> data.name, data.shape, data.kind
    ('digits', (8, 8), 'classification')
    """

    name: str
    train_x: NDArray[Any]
    train_y: NDArray[Any]
    test_x: NDArray[Any]
    test_y: NDArray[Any]
    classes: int
    fingerprint: str
    kind: str = "classification"
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        train: tuple[ArrayLike, ArrayLike],
        test: tuple[ArrayLike, ArrayLike],
        kind: str | None = None,
        name: str = "arrays",
    ) -> "Data":
        """Data of arrays.

        Args:
            train, test: (X, y), samples along the first axis of both.
            kind: of the targets, see docs/data.md; by default what they look like.
            name: what the data are called.

        Raises:
            UnknownNameError: no such kind.
            DataError: the arrays do not belong together, or do not fit the kind.

        >>> X, y = np.eye(4, dtype=np.float32), np.array([0, 1, 2, 1])
        >>> Data.of((X, y), (X, y)).classes
        3
        """
        return cls(**of_parts(train, test, kind, name))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image."""
        return self.train_x.shape[1:]


def load_data(name: str | Path = "digits", data_dir: str | Path | None = None, image_size: int | None = None) -> Data:
    """Load a data set by name, from a folder with MNIST's four files (gzipped or not), or from images in sub-folders.

    Args:
        name: "digits", "fashion-mnist", "mnist", "cifar10", "flowers2", a folder, or a .zip archive of images.
        data_dir: the folder in which `fashion_mnist/`, `mnist/`, `cifar10/` and `flowers2/` lie; without it the
            environment variable DROPKIT_DATA, and without that the files are downloaded once into a cache (all but
            flowers2).
        image_size: side to which images of files are resized (`flowers2`, folders and archives of images); 32 by
            default.

    Raises:
        UnknownNameError: neither a data set nor a folder.
        DataError: a file is missing, truncated, cannot be downloaded or has another sha256 than published.

    >>> data = load_data("digits")
    >>> data.train_x.shape, data.test_x.shape, data.classes
    ((1297, 8, 8), (500, 8, 8), 10)
    """
    if name == "digits":
        return _digits()
    if name in SOURCES:
        return _named(str(name), data_dir)
    if name == CIFAR:
        return _cifar(data_dir)
    if name == FLOWERS:
        return _flowers(data_dir, image_size or IMAGE_SIZE)
    place = Path(name)
    if place.is_dir() and not _holds_idx(place) and any(path.is_dir() for path in place.iterdir()):
        return _data(str(name), images.read(place, image_size or IMAGE_SIZE), 255)
    if place.is_dir():
        return _folder(place)
    if place.is_file() and place.suffix.lower() == ".zip":
        return _data(str(name), images.read(place, image_size or IMAGE_SIZE), 255)
    raise UnknownNameError("data set (and no folder of that name)", str(name), NAMES)


def _digits() -> Data:
    """scikit-learn's 1797 digits, split once and for all into 1297 and 500, stratified by class."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    # Sorted by class and shuffled inside each, every 3.594th sample is a test sample: each class to within one.
    order = np.lexsort((uniform(labels.shape, Key(0, "lab/digits", 0)), labels))
    test = np.zeros(len(labels), bool)
    test[order[np.arange(500) * len(labels) // 500]] = True
    # Pixels run from 0 to 16.
    pixels = images.reshape(-1, 8, 8).astype(np.uint8)
    return _data("digits", (pixels[~test], labels[~test], pixels[test], labels[test]), 16)


def _data(name: str, arrays: tuple[NDArray, NDArray, NDArray, NDArray], white: int) -> Data:
    train_x, train_y, test_x, test_y = arrays
    lowest, highest = (int(pick([pick(y) for y in (train_y, test_y)])) for pick in (np.min, np.max))
    if lowest < 0 or highest >= MOST_CLASSES:
        raise DataError(
            f"{name}: labels run from {lowest} to {highest}; they must be class numbers from 0, below {MOST_CLASSES}"
        )
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(repr(array.shape).encode())
        # Up to 256 classes are bytes, whatever type they come in.
        kind = np.dtype(np.uint8) if array.max(initial=0) < 256 else np.dtype("<i8")
        digest.update(np.ascontiguousarray(array, kind).tobytes())
    return Data(
        name=name,
        train_x=train_x.astype(np.float32) / np.float32(white),
        train_y=train_y.astype(np.int64),
        test_x=test_x.astype(np.float32) / np.float32(white),
        test_y=test_y.astype(np.int64),
        classes=highest + 1,
        fingerprint=digest.hexdigest(),
    )


def _cifar(data_dir: str | Path | None) -> Data:
    root = data_dir or os.environ.get("DROPKIT_DATA")
    if root:
        return _data(CIFAR, cifar.read_folder(Path(root) / cifar.FOLDER), 255)
    path, _ = _download(Source(cifar.FOLDER, cifar.SITE, {cifar.ARCHIVE: cifar.ARCHIVE_SUM}), cifar.ARCHIVE)
    return _data(CIFAR, cifar.read_archive(path), 255)


def _named(name: str, data_dir: str | Path | None) -> Data:
    found = [published(SOURCES[name], file, data_dir) for file in FILES]
    return _checked(name, [parse_idx(content, str(path)) for path, content in found])


def published(source: Source, file: str, data_dir: str | Path | None) -> tuple[Path, bytes]:
    """A published file and its content: of the data folder, else of DROPKIT_DATA's, else downloaded once.

    Raises:
        DataError: it is missing, cannot be downloaded or has another sha256 than published.
    """
    root = data_dir or os.environ.get("DROPKIT_DATA")
    path, content = _read(Path(root) / source.folder / file, source, file) if root else _download(source, file)
    found = hashlib.sha256(content).hexdigest()
    if found != source.sums[file]:
        raise DataError(
            f"{path} is not the published file: sha256 {found}, expected {source.sums[file]}; "
            f"replace it with {source.url}{file}"
        )
    return path, content


def _read(path: Path, source: Source, file: str) -> tuple[Path, bytes]:
    try:
        return path, path.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror}; put {source.url}{file} there (sha256 {source.sums[file]}), or "
            f"point --data-dir or DROPKIT_DATA at the folder that holds {source.folder}/"
        ) from error


def _download(source: Source, file: str) -> tuple[Path, bytes]:
    import pooch

    cache = Path(pooch.os_cache("dropkit")) / source.folder
    # pooch tells of every download; what matters is said by the error below.
    pooch.get_logger().setLevel(logging.ERROR)
    try:
        path = pooch.retrieve(
            source.url + file, source.sums[file], fname=file, path=cache, downloader=pooch.HTTPDownloader(timeout=30)
        )
        return Path(path), Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"cannot download {file} from {source.url}{file} (sha256 {source.sums[file]}); get it on a machine with "
            f"network, put it into a folder {source.folder}/ and point --data-dir or DROPKIT_DATA at the folder above "
            f"it, or use --data digits, which needs no network. Reason: {reason[:200]}"
        ) from error


def _flowers(data_dir: str | Path | None, side: int) -> Data:
    root = data_dir or os.environ.get("DROPKIT_DATA")
    if not root:
        raise DataError(
            f"{FLOWERS} is not downloaded: point --data-dir or DROPKIT_DATA at the folder that holds {FLOWERS_FILE}, "
            f"or give photos of your own with --data DIR ({images.LAYOUT})"
        )
    path = Path(root) / FLOWERS_FILE
    found = hashlib.sha256(_bytes(path)).hexdigest()
    if found != FLOWERS_SUM:
        raise DataError(f"{path} is not the archive that is known: sha256 {found}, expected {FLOWERS_SUM}")
    return _data(FLOWERS, images.read(path, side), 255)


def _holds_idx(folder: Path) -> bool:
    return any((folder / name).is_file() for file in FILES for name in (file, file.removesuffix(".gz")))


def _folder(folder: Path) -> Data:
    if not _holds_idx(folder):
        raise DataError(
            f"{folder} holds no data: give a folder with {images.LAYOUT.removeprefix('a ')}, or with {', '.join(FILES)}"
        )
    arrays: list[NDArray[np.integer]] = []
    for file in FILES:
        found = [path for path in (folder / file, folder / file.removesuffix(".gz")) if path.is_file()]
        if not found:
            raise DataError(f"{folder / file} is missing (with or without .gz); a data folder holds {', '.join(FILES)}")
        arrays.append(parse_idx(_bytes(found[0]), str(found[0])))
    return _checked(str(folder), arrays)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def _checked(name: str, arrays: list[NDArray[np.integer]]) -> Data:
    train_x, train_y, test_x, test_y = arrays
    for part, x, y in (("train", train_x, train_y), ("t10k", test_x, test_y)):
        if x.dtype != np.uint8:
            raise DataError(f"{name}: {part} images are of {x.dtype}; pixels are unsigned bytes, from 0 to 255")
        if x.ndim != 3 or y.ndim != 1 or len(x) != len(y) or not len(x):
            raise DataError(
                f"{name}: {part} images of shape {x.shape} and labels of shape {y.shape} do not belong together; "
                "images need 3 axes, labels 1, and as many of each, at least one"
            )
    if train_x.shape[1:] != test_x.shape[1:]:
        raise DataError(f"{name}: train images of {train_x.shape[1:]} and t10k images of {test_x.shape[1:]} pixels")
    return _data(name, (train_x, train_y, test_x, test_y), 255)
