"""What compressed input may become is known before it is unpacked; and classes may be as many as there are."""

import gzip
import io
import json
import struct
import tracemalloc
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dropkit.cli import inputs, target
from dropkit.errors import DataError, DropkitError
from dropkit.lab import load_data, train
from dropkit.lab.data import cifar, limits
from dropkit.lab.data.idx import parse_idx
from dropkit.lab.data.sets import FILES


@contextmanager
def little_memory(most: int = 40 << 20) -> Iterator[None]:
    """Fails where a block takes more memory at once."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def zeros(head: bytes, count: int) -> bytes:
    """A gzip stream of a header and zeros, made without holding them."""
    out = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts = [out.compress(head)]
    chunk = bytes(1 << 20)
    parts += [out.compress(chunk) for _ in range(count >> 20)]
    return b"".join([*parts, out.flush()])


def test_a_gzip_stream_is_read_no_further_than_its_header_says() -> None:
    """R18."""
    bomb = zeros(b"", 60 << 20)
    with little_memory(), pytest.raises(DataError, match=r"labels is not an IDX file .* \(it starts with 00000000\)"):
        parse_idx(bomb, "labels")
    bomb = zeros(bytes([0, 0, 8, 1, 0, 0, 0, 5]), 60 << 20)
    with little_memory(), pytest.raises(DataError, match="labels is too long: its header says 13 bytes, it has more"):
        parse_idx(bomb, "labels")
    header = bytes([0, 0, 8, 3]) + struct.pack(">3I", 1 << 20, 1 << 10, 1 << 10)
    with little_memory(), pytest.raises(DataError, match="would become 1048576 MiB, and at most 2048 MiB are unpacked"):
        parse_idx(gzip.compress(header), "images")
    with pytest.raises(DataError, match="is truncated: its header says"):
        parse_idx(gzip.compress(bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0])), "images")
    with pytest.raises(DataError, match="is not an IDX file"):
        parse_idx(bytes([0, 0, 8, 255]) + bytes([0, 0, 0, 1]) * 255 + b"x", "images")


def photo(size: tuple[int, int], mode: str = "RGB") -> bytes:
    content = io.BytesIO()
    Image.new(mode, size).save(content, "png")
    return content.getvalue()


def photos(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {
            **dict.fromkeys(("a/0.png", "a/1.png", "b/1.png", "b/2.png"), photo((8, 8))),
            **members,
        }.items():
            archive.writestr(name, content)
    return path


def test_a_member_of_an_archive_is_not_unpacked_where_it_is_no_photo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dropkit.lab.data.images.MOST_IMAGE", 1 << 20)
    path = photos(tmp_path / "bomb.zip", {"a/2.png": bytes(60 << 20)})
    with (
        little_memory(),
        pytest.raises(DataError, match=r"a/2.png is no image .*would become 60 MiB, and at most 1 MiB"),
    ):
        load_data(path)
    # A header that lies: no more is unpacked than it says.
    content = path.read_bytes()
    path.write_bytes(content.replace(struct.pack("<I", 60 << 20), struct.pack("<I", 1000)))
    with little_memory(), pytest.raises(DataError, match=r"a/2.png is no image that can be read"):
        load_data(path)
    folder = tmp_path / "folder"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for number in (0, 1):
            (folder / name / f"{number}.png").write_bytes(photo((8, 8)))
    (folder / "a" / "2.png").write_bytes(bytes(3 << 20))
    with little_memory(), pytest.raises(DataError, match=r"a/2.png is no image .*it has more than 1 MiB"):
        load_data(folder)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
def test_a_photo_of_too_many_pixels_is_not_decoded(suffix: str, tmp_path: Path) -> None:
    """R18: 100 megapixels of one bit; pillow's warning would be an error here."""
    content = photo((10_000, 10_000), "1") if suffix == "png" else photo((8, 8))
    if suffix == "bmp":
        content = b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, 20_000, 5_000, 1, 24, 0, 0, 0, 0, 0, 0)
    if suffix == "jpg":
        small = io.BytesIO()
        Image.new("RGB", (8, 8)).save(small, "jpeg")
        content = small.getvalue()
        at = content.index(b"\xff\xc0") + 5
        content = content[:at] + struct.pack(">HH", 10_000, 10_000) + content[at + 4 :]
    path = photos(tmp_path / "large.zip", {f"a/2.{suffix}": content})
    with little_memory(), warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=r"a/2\.\w+ is no image .*0 pixels, and at most 89 megapixels are decoded"):
            load_data(path)


def test_a_member_that_needs_a_password_or_an_unknown_method_is_one_line(tmp_path: Path) -> None:
    path = photos(tmp_path / "photos.zip", {})
    content = path.read_bytes()
    encrypted, unknown = bytearray(content), bytearray(content)
    for mark, flags, method in ((b"PK\x03\x04", 6, 8), (b"PK\x01\x02", 8, 10)):
        at = content.index(mark)
        encrypted[at + flags] |= 1
        unknown[at + method] = 99
    for changed in (encrypted, unknown):
        assert changed != content
        path.write_bytes(changed)
        with pytest.raises(DataError, match=r"is no image that can be read .*; replace or remove it"):
            load_data(path)


def test_any_damage_to_an_archive_is_one_line(tmp_path: Path) -> None:
    path = photos(tmp_path / "photos.zip", {"b/3.png": photo((30, 20))})
    whole, rng = path.read_bytes(), np.random.Generator(np.random.Philox(5))
    for _ in range(60):
        content = bytearray(whole)
        for _ in range(int(rng.integers(1, 4))):
            content[int(rng.integers(len(content)))] = int(rng.integers(256))
        path.write_bytes(content)
        try:
            load_data(path)
        except DropkitError as error:
            assert str(path) in str(error)


def test_arrays_are_measured_before_they_are_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "samples.npz"
    np.savez_compressed(path, x=np.zeros((100, 1000, 100), np.uint8))
    monkeypatch.setattr(limits, "MOST", 1 << 20)
    with little_memory(), pytest.raises(DataError, match=r"samples\.npz: it would become 9 MiB, and at most 1 MiB are"):
        inputs.load(path, None)
    batch = tmp_path / "data_batch_1.npz"
    batch.write_bytes(path.read_bytes())
    with little_memory(), pytest.raises(DataError, match=r"data_batch_1\.npz: it would become 9 MiB"):
        cifar.read_folder(tmp_path)
    with (tmp_path / "data_batch_1.bin").open("wb") as file:
        file.truncate(1 << 33)
    with little_memory(80 << 20), pytest.raises(DataError, match=r"data_batch_1\.bin: it has more than 29 MiB"):
        cifar.read_folder(tmp_path)


def test_a_model_is_measured_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "net.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.json", "{}")
        with archive.open("config.json", "w") as member:
            for _ in range(70):
                member.write(b" " * (1 << 20))
    with little_memory(), path.open("rb") as file, pytest.raises(ValueError, match=r"config\.json would become 70 MiB"):
        limits.check_model(file)
    if target.find_spec("keras") is None:
        pytest.skip("keras is not installed")


# ---- any number of classes


def classes(folder: Path, count: int) -> Path:
    """Two photos a class, each of a shade of its own."""
    for number in range(count):
        (folder / f"{number:04d}").mkdir(parents=True)
        for each in range(2):
            Image.new("RGB", (4, 4), (number % 256, number // 256, each)).save(folder / f"{number:04d}" / f"{each}.bmp")
    return folder


@pytest.mark.parametrize("count", [256, 257, 300])
def test_any_number_of_classes_of_photos(count: int, tmp_path: Path) -> None:
    """R5."""
    data = load_data(classes(tmp_path / "photos", count), image_size=4)
    assert data.classes == count and data.train_y.dtype == np.int64
    assert sorted(data.train_y.tolist()) == sorted(data.test_y.tolist()) == list(range(count))
    for x, y in ((data.train_x, data.train_y), (data.test_x, data.test_y)):
        shade = np.rint(x[:, 0, 0, 0] * 255) + 256 * np.rint(x[:, 1, 0, 0] * 255)
        assert (shade == y).all()


def test_a_run_on_300_classes(tmp_path: Path) -> None:
    place = classes(tmp_path / "photos", 300)
    run = train("mlp", data=place, size="tiny", epochs=1, device="cpu", out=tmp_path / "run")
    assert run.rows[0]["test_loss"] == pytest.approx(np.log(300), rel=0.2)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["fingerprint"] == load_data(place).fingerprint


def write_idx(folder: Path, labels: np.ndarray, code: int) -> Path:
    folder.mkdir()
    images = np.zeros((len(labels), 2, 2), np.uint8)
    for name, array, kind in zip(FILES, (images, labels, images, labels), (8, code, 8, code), strict=True):
        head = bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
        (folder / name).write_bytes(gzip.compress(head + array.tobytes()))
    return folder


@pytest.mark.parametrize(("code", "dtype"), [(0x0B, ">i2"), (0x0C, ">i4")])
def test_labels_of_idx_files_may_be_wider_than_bytes(code: int, dtype: str, tmp_path: Path) -> None:
    labels = np.arange(300) * 7 % 300
    data = load_data(write_idx(tmp_path / "wide", labels.astype(dtype), code))
    assert data.classes == 300 and (data.train_y == labels).all()
    shifted = load_data(write_idx(tmp_path / "shifted", ((labels + 256) % 300).astype(dtype), code))
    assert shifted.fingerprint != data.fingerprint  # not modulo 256


@pytest.mark.parametrize("label", [-1, 1 << 20, (1 << 31) - 1])
def test_labels_that_are_no_class_numbers(label: int, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels run from .*; they must be class numbers from 0, below 1048576"):
        load_data(write_idx(tmp_path / "wrong", np.array([0, 1, label], ">i4"), 0x0C))


def test_the_same_labels_have_the_same_fingerprint_in_any_type(tmp_path: Path) -> None:
    labels = np.array([0, 1, 2, 1])
    narrow = load_data(write_idx(tmp_path / "narrow", labels.astype("u1"), 8))
    wide = load_data(write_idx(tmp_path / "wide", labels.astype(">i4"), 0x0C))
    assert narrow.fingerprint == wide.fingerprint
