"""Photos in folders and archives."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dropkit.errors import DataError
from dropkit.lab import load_data

Image = pytest.importorskip("PIL.Image", reason="pillow is not installed")

COLOURS = {"red": (250, 10, 10), "blue": (10, 10, 250)}


def picture(path: Path, name: str, size: tuple[int, int] = (40, 30), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, COLOURS[name]).convert(mode).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten red and five blue pictures of several sizes."""
    folder = tmp_path / "photos"
    for name, count in (("red", 10), ("blue", 5)):
        for number in range(count):
            picture(folder / name / f"{number}.png", name, (20 + number, 30))
    return folder


def test_every_fifth_of_a_class_is_a_test_image(photos: Path) -> None:
    data = load_data(photos)
    assert (data.train_x.shape, data.test_x.shape, data.classes) == ((12, 3, 32, 32), (3, 3, 32, 32), 2)
    # blue is 0: classes count in the order of their names
    assert np.bincount(data.train_y).tolist() == [4, 8] and np.bincount(data.test_y).tolist() == [1, 2]
    for x, y in ((data.train_x, data.train_y), (data.test_x, data.test_y)):
        for image, label in zip(x, y, strict=True):
            expected = np.array(COLOURS[["blue", "red"][label]]) / 255
            assert np.allclose(image, expected[:, None, None], atol=1e-6)
    assert sorted(data.train_y) != data.train_y.tolist()  # the classes are mixed
    again = load_data(str(photos))
    assert again.fingerprint == data.fingerprint and np.array_equal(again.train_y, data.train_y)
    assert load_data(photos, image_size=75).shape == (3, 75, 75)
    assert load_data(photos, image_size=75).fingerprint != data.fingerprint


def archive(folder: Path, path: Path, around: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for picture in sorted(folder.rglob("*.*")):
            file.writestr(around + picture.relative_to(folder).as_posix(), picture.read_bytes())
        file.writestr("__MACOSX/red/._0.png", b"no image")
    return path


@pytest.mark.parametrize("around", ["", "downloaded/"])
def test_archives_are_read_as_folders_are(photos: Path, tmp_path: Path, around: str) -> None:
    (photos / "red" / ".DS_Store").write_bytes(b"")
    (photos / "red" / "notes.txt").write_text("not an image")
    found = load_data(archive(photos, tmp_path / "photos.zip", around))
    assert found.fingerprint == load_data(photos).fingerprint


@pytest.mark.parametrize(
    ("tests", "used"), [(("val",), "val"), (("val", "validation"), "validation"), (("val", "test"), "test")]
)
def test_folders_that_are_split_stay_split(tmp_path: Path, tests: tuple[str, ...], used: str) -> None:
    for part, count in (("train", 3), *((name, 1 + (name == used)) for name in tests)):
        for name in COLOURS:
            for number in range(count):
                picture(tmp_path / "set" / part / name / f"{number}.jpg", name)
    data = load_data(tmp_path / "set")
    assert (len(data.train_x), len(data.test_x)) == (6, 4)


def test_grey_and_transparent_pictures_become_rgb(tmp_path: Path) -> None:
    for number, mode in enumerate(("L", "RGBA", "P")):
        picture(tmp_path / "red" / f"{number}.png", "red", mode=mode)
        picture(tmp_path / "blue" / f"{number}.png", "blue", mode=mode)
    assert load_data(tmp_path).train_x.shape == (4, 3, 32, 32)


def test_what_is_wrong_with_a_folder_is_named(photos: Path, tmp_path: Path) -> None:
    (photos / "red" / "3.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"photos: red/3.png is no image that can be read .*; replace or remove it"):
        load_data(photos)
    (photos / "red" / "3.png").unlink()
    picture(photos / "loose.png", "red")
    with pytest.raises(DataError, match=r"loose.png lies outside; it needs a sub-folder of images for each class, or"):
        load_data(photos)
    (tmp_path / "empty" / "cats").mkdir(parents=True)
    with pytest.raises(DataError, match=r"empty: no images are there; it needs a sub-folder of images"):
        load_data(tmp_path / "empty")
    picture(tmp_path / "one" / "red" / "0.png", "red")
    with pytest.raises(DataError, match=r"one holds images of the classes red; it needs a sub-folder"):
        load_data(tmp_path / "one")
    picture(tmp_path / "one" / "blue" / "0.png", "blue")
    with pytest.raises(
        DataError, match=r"the class (red|blue) has one image, .*; it needs one to train and one to test"
    ):
        load_data(tmp_path / "one")
    picture(tmp_path / "half" / "train" / "red" / "0.png", "red")
    picture(tmp_path / "half" / "more" / "red" / "0.png", "red")
    with pytest.raises(DataError, match=r"half has train/ and no test set; put one into test/ beside it"):
        load_data(tmp_path / "half")


def test_damaged_archives_are_named(photos: Path, tmp_path: Path) -> None:
    whole = archive(photos, tmp_path / "whole.zip").read_bytes()
    for content in (b"", whole[: len(whole) // 2]):
        (tmp_path / "cut.zip").write_bytes(content)
        with pytest.raises(DataError, match=r"cannot read .*cut.zip: .*; give a folder or a .zip archive of images"):
            load_data(tmp_path / "cut.zip")


def test_flowers_must_be_the_known_archive(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DROPKIT_DATA", raising=False)
    with pytest.raises(DataError, match=r"flowers2 is not downloaded: point --data-dir or DROPKIT_DATA at the folder"):
        load_data("flowers2")
    with pytest.raises(DataError, match=r"cannot read .*flowers2_128px_jpeg.zip"):
        load_data("flowers2", tmp_path)
    (tmp_path / "flowers2").mkdir()
    archive(photos, tmp_path / "flowers2" / "flowers2_128px_jpeg.zip")
    with pytest.raises(DataError, match=r"flowers2_128px_jpeg.zip is not the archive that is known: sha256 "):
        load_data("flowers2", tmp_path)


def test_a_picture_is_read_upright_and_in_its_colours(tmp_path: Path) -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:8, :16] = (255, 128, 0)  # the upper left
    for name in ("a", "b"):
        for number in range(2):
            (tmp_path / name).mkdir(exist_ok=True)
            content = io.BytesIO()
            Image.fromarray(pixels).save(content, "png")
            (tmp_path / name / f"{number}.png").write_bytes(content.getvalue())
    image = load_data(tmp_path).train_x[0]
    assert np.allclose(image, pixels.transpose(2, 0, 1) / 255, atol=1e-6)
