import gzip
import hashlib
import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import requests

import dropkit.lab.data.sets
from dropkit.errors import DataError, UnknownNameError
from dropkit.lab import load_data
from dropkit.lab.data import cifar
from dropkit.lab.data.idx import parse_idx
from dropkit.lab.data.sets import FILES, SOURCES

SHARED = Path(os.environ.get("DROPKIT_DATA") or Path(__file__).parents[3] / "shared" / "data")


def idx(array: np.ndarray) -> bytes:
    sizes = b"".join(int(extent).to_bytes(4, "big") for extent in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four small files laid out as MNIST's: 12 training and 6 test images of 4 x 3 pixels, three classes."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 12), ("t10k", 6)):
        images = rng.integers(0, 256, (count, 4, 3))
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.arange(count) % 3)))
    return tmp_path


def test_digits_are_split_once_and_stratified() -> None:
    data = load_data("digits")
    assert (data.train_x.shape, data.test_x.shape, data.classes) == ((1297, 8, 8), (500, 8, 8), 10)
    assert (data.train_x.dtype, data.train_y.dtype) == (np.float32, np.int64)
    assert data.train_x.min() == 0 and data.train_x.max() == 1
    whole = np.bincount(np.concatenate([data.train_y, data.test_y]))
    assert np.abs(np.bincount(data.test_y) - whole * 500 / 1797).max() < 1
    rows = {row.tobytes() for row in data.train_x} | {row.tobytes() for row in data.test_x}
    assert len(rows) == 1797
    # A changed split would silently change every published digit of this recipe.
    assert data.fingerprint == "5bda09a49a4b110708c474f0aa583abbfbd80cedf8fd82835ef01ef4d128e816"


def test_folder(folder: Path) -> None:
    data = load_data(folder)
    assert (data.train_x.shape, data.test_y.tolist(), data.classes) == ((12, 4, 3), [0, 1, 2, 0, 1, 2], 3)
    assert data.train_x[0, 0, 0] == np.float32(np.random.default_rng(0).integers(0, 256, (12, 4, 3))[0, 0, 0]) / 255


def test_folder_without_gz(folder: Path) -> None:
    expected = load_data(folder).fingerprint
    for path in list(folder.iterdir()):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert load_data(folder).fingerprint == expected


def test_missing_file_in_folder(folder: Path) -> None:
    (folder / FILES[3]).unlink()
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz is missing"):
        load_data(folder)


@pytest.mark.parametrize("keep", [1, 10, 40])
def test_truncated_gz_in_folder(folder: Path, keep: int) -> None:
    path = folder / FILES[0]
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz is (truncated|not an IDX)"):
        load_data(folder)


def test_truncated_idx_names_both_lengths() -> None:
    whole = idx(np.zeros((3, 2, 2)))
    with pytest.raises(DataError, match=r"images is truncated: its header says 28 bytes, it has 27; download it again"):
        parse_idx(whole[:-1], "images")
    with pytest.raises(DataError, match="is too long"):
        parse_idx(whole + b"x", "images")


@pytest.mark.parametrize("content", [b"", b"\0\0", b"\0\0\x0d\1\0\0\0\1\0\0\0\0", b"<!doctype html>"])
def test_not_an_idx_file(content: bytes) -> None:
    with pytest.raises(DataError, match="page is not an IDX file of unsigned bytes"):
        parse_idx(content, "page")


def test_header_that_promises_too_much_allocates_nothing() -> None:
    with pytest.raises(DataError, match="truncated"):
        parse_idx(bytes([0, 0, 8, 3]) + b"\xff" * 12, "bomb")


def test_labels_and_images_that_do_not_belong_together(folder: Path) -> None:
    (folder / FILES[1]).write_bytes(gzip.compress(idx(np.zeros(5))))
    with pytest.raises(DataError, match="do not belong together"):
        load_data(folder)


def test_unknown_name_suggests() -> None:
    with pytest.raises(UnknownNameError, match="'fashion_mnst'; did you mean 'fashion-mnist'"):
        load_data("fashion_mnst")


def named(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "fashion_mnist").mkdir(parents=True)
    return root


def test_missing_named_file_says_where_from_and_which_sum(tmp_path: Path) -> None:
    root = named(tmp_path)
    with pytest.raises(DataError) as caught:
        load_data("fashion-mnist", root)
    message = str(caught.value)
    for part in (str(root / "fashion_mnist" / FILES[0]), SOURCES["fashion-mnist"].url + FILES[0], "--data-dir"):
        assert part in message
    assert SOURCES["fashion-mnist"].sums[FILES[0]] in message


def test_wrong_sum_names_both_sums(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = named(tmp_path)
    content = (folder / FILES[0]).read_bytes()
    (root / "fashion_mnist" / FILES[0]).write_bytes(content)
    monkeypatch.setenv("DROPKIT_DATA", str(root))
    with pytest.raises(DataError) as caught:
        load_data("fashion-mnist")
    assert hashlib.sha256(content).hexdigest() in str(caught.value)
    assert "expected " + SOURCES["fashion-mnist"].sums[FILES[0]] in str(caught.value)
    assert "replace it with https://" in str(caught.value)


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args, **kwargs):
        raise requests.ConnectionError("Name or service not known")

    monkeypatch.delenv("DROPKIT_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(requests.Session, "request", refuse)
    with pytest.raises(DataError) as caught:
        load_data("mnist")
    source = SOURCES["mnist"]
    for part in (f"cannot download {FILES[0]}", source.url, source.sums[FILES[0]], "--data-dir", "DROPKIT_DATA"):
        assert part in str(caught.value)
    assert "Name or service not known" in str(caught.value)


def test_download_with_another_sum_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Page(requests.Response):
        def iter_content(self, chunk_size=1, decode_unicode=False):
            yield b"<html>not the file</html>"

    def answer(*args, **kwargs):
        page = Page()
        page.status_code = 200
        return page

    monkeypatch.delenv("DROPKIT_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(requests.Session, "request", answer)
    with pytest.raises(DataError, match=r"cannot download .* Reason: .*hash"):
        load_data("mnist")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fashion-mnist", "mnist"])
def test_published_files(name: str) -> None:
    if not (SHARED / SOURCES[name].folder).is_dir():
        pytest.skip(f"no {SOURCES[name].folder}/ in {SHARED}; set DROPKIT_DATA")
    data = load_data(name, SHARED)
    assert (data.train_x.shape, data.test_x.shape, data.classes) == ((60000, 28, 28), (10000, 28, 28), 10)
    mean = {"fashion-mnist": 0.2860, "mnist": 0.1307}[name]
    assert data.train_x.mean(dtype=np.float64) == pytest.approx(mean, abs=5e-5)


def batch(labels: list[int]) -> tuple[bytes, dict[str, np.ndarray]]:
    """A batch of CIFAR-10's kind as records, and as a container holds it."""
    images = np.random.default_rng(len(labels)).integers(0, 256, (len(labels), 3, 32, 32), dtype=np.uint8)
    red, green, blue = images[:, 0], images[:, 1], images[:, 2]
    planes = np.stack([green, red - green, blue - green], axis=1)
    rows = np.diff(planes, axis=2, prepend=np.uint8(0))
    delta = np.diff(rows, axis=3, prepend=np.uint8(0))
    names = np.array(labels, np.uint8)
    return np.concatenate([names[:, None], images.reshape(len(labels), -1)], axis=1).tobytes(), {
        "delta": delta,
        "labels": names,
    }


@pytest.fixture
def small_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A CIFAR-10 of few images, half of it in containers, whose sums are taken for the published ones."""
    folder = tmp_path / "cifar10"
    folder.mkdir()
    sums = {}
    for number, name in enumerate(cifar.SUMS):
        records, container = batch([number, 9, number])
        sums[name] = hashlib.sha256(records).hexdigest()
        if number % 2:
            (folder / f"{name}.bin").write_bytes(records)
        else:
            np.savez_compressed(folder / f"{name}.npz", **container)
    monkeypatch.setattr(cifar, "SUMS", sums)
    return tmp_path


def test_cifar_from_records_and_containers(small_cifar: Path) -> None:
    data = load_data("cifar10", small_cifar)
    assert (data.train_x.shape, data.test_x.shape, data.classes) == ((15, 3, 32, 32), (3, 3, 32, 32), 10)
    assert data.train_y.tolist() == [0, 9, 0, 1, 9, 1, 2, 9, 2, 3, 9, 3, 4, 9, 4]
    records, _ = batch([0, 9, 0])
    first = np.frombuffer(records, np.uint8).reshape(3, -1)[:, 1:].reshape(3, 3, 32, 32)
    assert np.array_equal(data.train_x[:3], first.astype(np.float32) / np.float32(255))
    assert data.shape == (3, 32, 32)


def test_cifar_from_the_archive(small_cifar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = small_cifar / "archive.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for number, name in enumerate(cifar.SUMS):
            records, _ = batch([number, 9, number])
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            member.size = len(records)
            archive.addfile(member, io.BytesIO(records))
    whole = load_data("cifar10", small_cifar)
    monkeypatch.delenv("DROPKIT_DATA", raising=False)
    monkeypatch.setattr(dropkit.lab.data.sets, "_download", lambda source, file: (path, b""))
    assert load_data("cifar10").fingerprint == whole.fingerprint
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"archive.tar.gz is damaged .*; delete it, or replace it with https://"):
        load_data("cifar10")


def test_cifar_that_is_missing_damaged_or_another(small_cifar: Path) -> None:
    folder = small_cifar / "cifar10"
    (folder / "data_batch_2.bin").write_bytes(batch([1, 2, 3])[0])
    with pytest.raises(DataError, match=r"data_batch_2.bin is not the published batch: .* expected .*; replace it"):
        load_data("cifar10", small_cifar)
    (folder / "data_batch_2.bin").unlink()
    with pytest.raises(DataError, match=r"data_batch_2.bin is missing \(and data_batch_2.npz too\); unpack https://"):
        load_data("cifar10", small_cifar)
    (folder / "data_batch_1.npz").write_bytes(b"PK not a zip")
    with pytest.raises(DataError, match=r"cannot read .*data_batch_1.npz: .*; replace it with data_batch_1.bin of"):
        load_data("cifar10", small_cifar)


def test_a_container_with_pickled_arrays_is_refused(small_cifar: Path) -> None:
    delta, labels = np.array([{}], dtype=object), np.zeros(1, np.uint8)
    np.savez(small_cifar / "cifar10" / "data_batch_1.npz", delta=delta, labels=labels)
    with pytest.raises(DataError, match="allow_pickle"):
        load_data("cifar10", small_cifar)


@pytest.mark.slow
def test_published_cifar() -> None:
    if not (SHARED / cifar.FOLDER).is_dir():
        pytest.skip(f"no {cifar.FOLDER}/ in {SHARED}; set DROPKIT_DATA")
    data = load_data("cifar10", SHARED)
    assert np.bincount(data.train_y).tolist() == [5000] * 10 and np.bincount(data.test_y).tolist() == [1000] * 10
    means = data.train_x.mean((0, 2, 3), dtype=np.float64)
    assert means == pytest.approx([0.49140, 0.48216, 0.44653], abs=1e-5)
