"""Photos in a folder or a zip archive, a sub-folder for each class, as arrays of one size.

Either `<class>/...`, of which every fifth image of a class becomes a test image, or `train/<class>/...` beside one of
`test/`, `validation/`, `valid/` and `val/` (the first that is there), which is then the test set.
"""

import io
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from ...counter import Key
from ...errors import DataError, DropkitError, DropkitValueError
from ...mask import uniform
from ...visible import one_line
from .limits import MOST_IMAGE, MOST_PIXELS, at_most, size

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")
TRAIN, TESTS = "train", ("test", "validation", "valid", "val")
EVERY = 5  # where nothing is split yet, one image in so many is a test image
LAYOUT = "a sub-folder of images for each class, or train/ and test/ with such sub-folders"

Arrays = tuple[NDArray[np.uint8], NDArray[np.unsignedinteger], NDArray[np.uint8], NDArray[np.unsignedinteger]]
Contents = Mapping[PurePosixPath, Callable[[], bytes]]


def read(place: Path, side: int) -> Arrays:
    """Training images and labels, test images and labels; classes count from 0 in the order of their names.

    Args:
        place: a folder or a .zip archive.
        side: images are resized to side x side pixels, bilinearly, their aspect ratio not kept.

    Returns:
        images, uint8, (samples, 3, side, side), and labels, of the smallest unsigned type that holds them, (samples,),
        in an order that mixes the classes.

    Raises:
        DataError: no images, fewer than two classes, a file that is no image, or one that is too large: 128 MiB, or 89
            megapixels.
        DropkitValueError: the package pillow is not installed.
    """
    if place.is_dir():
        return _arrays(place, _in_folder(place), side)
    try:
        with zipfile.ZipFile(place) as archive:
            return _arrays(place, _in_archive(archive), side)
    except DropkitError:
        raise
    except Exception as error:  # zipfile raises whatever it meets: struct.error, UnicodeDecodeError, ...
        raise DataError(f"cannot read {place}: {error}; give a folder or a .zip archive of images") from error


def _in_folder(folder: Path) -> Contents:
    def reader(path: Path) -> Callable[[], bytes]:
        def read() -> bytes:
            if not path.is_file():  # a pipe would be waited for
                raise ValueError("it is no regular file")
            with path.open("rb") as file:
                return at_most(file, MOST_IMAGE)

        return read

    return {PurePosixPath(path.relative_to(folder).as_posix()): reader(path) for path in folder.rglob("*.*")}


def _in_archive(archive: zipfile.ZipFile) -> Contents:
    def reader(member: zipfile.ZipInfo) -> Callable[[], bytes]:
        def read() -> bytes:
            if member.file_size > MOST_IMAGE:  # as it says; what it does not say is not unpacked either
                raise ValueError(
                    f"it would become {size(member.file_size)}, and at most {size(MOST_IMAGE)} are unpacked"
                )
            with archive.open(member) as file:
                return at_most(file, MOST_IMAGE)

        return read

    return {PurePosixPath(member.filename): reader(member) for member in archive.infolist()}


def _arrays(place: Path, contents: Contents, side: int) -> Arrays:
    images = {path: contents[path] for path in sorted(contents) if _is_image(path)}
    train, test = _parts(place, images)
    classes = sorted({path.parts[0] for path in (*train, *test)})
    if len(classes) < 2 or {path.parts[0] for path in train} != set(classes):
        raise DataError(f"{place} holds images of the classes {', '.join(classes) or 'none'}; it needs {LAYOUT}")
    if not test:
        train, test = _split(place, train)
    decode = decoder(place, side)
    numbers = {name: number for number, name in enumerate(classes)}
    kind = np.min_scalar_type(len(classes) - 1)  # bytes up to 256 classes
    arrays: list[NDArray] = []
    for part in (train, test):
        # Sorted by class, a batch or the first few samples would show one class alone.
        paths = [list(part)[index] for index in np.argsort(uniform((len(part),), Key(0, "lab/images", 0)))]
        arrays.append(np.stack([decode(path, part[path]) for path in paths]))
        arrays.append(np.array([numbers[path.parts[0]] for path in paths], kind))
    train_x, train_y, test_x, test_y = arrays
    return train_x, train_y, test_x, test_y


def _is_image(path: PurePosixPath) -> bool:
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden


def _parts(place: Path, images: Contents) -> tuple[Contents, Contents]:
    """Training and test images by class and name; without a test set where the place has none."""
    tops = {path.parts[0] for path in images}
    while len(tops) == 1 and all(len(path.parts) > 2 for path in images):  # a folder around it all, as archives have
        images = {_below(path): content for path, content in images.items()}
        tops = {path.parts[0] for path in images}
    loose = [path for path in images if len(path.parts) < (3 if TRAIN in tops else 2)]
    if loose or not images:
        found = f"{loose[0]} lies outside" if loose else "no images are there"
        raise DataError(f"{place}: {found}; it needs {LAYOUT} ({', '.join(SUFFIXES)})")
    if TRAIN not in tops:
        return images, {}
    tests = [name for name in TESTS if name in tops]
    if not tests:
        raise DataError(f"{place} has {TRAIN}/ and no test set; put one into {TESTS[0]}/ beside it")
    train, test = (
        {_below(path): content for path, content in images.items() if path.parts[0] == name}
        for name in (TRAIN, tests[0])
    )
    return train, test


def _below(path: PurePosixPath) -> PurePosixPath:
    return PurePosixPath(*path.parts[1:])


def _split(place: Path, images: Contents) -> tuple[Contents, Contents]:
    """Every fifth image of each class as a test image, drawn once and for all."""
    paths = list(images)
    draws = uniform((len(paths),), Key(0, "lab/split", 0))
    test: set[PurePosixPath] = set()
    members: dict[str, list[int]] = {}
    for index, path in enumerate(paths):
        members.setdefault(path.parts[0], []).append(index)
    for name, inside in members.items():
        if len(inside) < 2:
            raise DataError(
                f"{place}: the class {name} has one image, {paths[inside[0]]}; it needs one to train and one to test"
            )
        inside.sort(key=lambda index: draws[index])
        test |= {paths[index] for index in inside[: max(1, len(inside) // EVERY)]}
    return {p: images[p] for p in paths if p not in test}, {p: images[p] for p in paths if p in test}


def decoder(place: Path, side: int) -> Callable[[PurePosixPath, Callable[[], bytes]], NDArray[np.uint8]]:
    """What makes (3, side, side) bytes of an image's name and of what reads its content.

    Raises:
        DropkitValueError: the package pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError:
        raise DropkitValueError(
            'reading images needs pillow, which is not installed: pip install "dropkit[images]"'
        ) from None

    def decode(path: PurePosixPath, content: Callable[[], bytes]) -> NDArray[np.uint8]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what pillow thinks of a photo's metadata
                with Image.open(io.BytesIO(content())) as image:
                    if image.width * image.height > MOST_PIXELS:  # nothing is decoded yet
                        raise ValueError(
                            f"it has {image.width} x {image.height} pixels, and at most {MOST_PIXELS // 10**6} "
                            "megapixels are decoded"
                        )
                    pixels = np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR))
        except Exception as error:  # decoders raise whatever they meet; of an encrypted member a RuntimeError
            raise DataError(
                f"{place}: {path} is no image that can be read ({one_line(error)}); replace or remove it"
            ) from error
        return pixels.transpose(2, 0, 1)

    return decode
