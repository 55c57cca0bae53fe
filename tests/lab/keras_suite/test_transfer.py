"""The recipe transfer: frozen features, kept; InceptionV3 at its smallest, 75 x 75."""

import html
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
Image = pytest.importorskip("PIL.Image", reason="pillow is not installed")

from dropkit.errors import DataError, DropkitValueError  # noqa: E402
from dropkit.lab import Data, compare, load_data, train  # noqa: E402
from dropkit.lab.order import first_weights  # noqa: E402
from dropkit.lab.recipes import frozen as module  # noqa: E402
from dropkit.lab.recipes import get  # noqa: E402
from dropkit.lab.recipes.features import compute  # noqa: E402
from dropkit.lab.recipes.frozen import RANDOM, frozen, prepare  # noqa: E402
from dropkit.lab.recipes.transfer import TINY  # noqa: E402


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen noisy pictures of two classes, dark and light."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name, low in (("dark", 0), ("light", 120)):
        (folder / name).mkdir()
        for number in range(8):
            pixels = rng.integers(low, low + 135, (60, 70, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(autouse=True)
def _cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DROPKIT_CACHE", str(cache))


@pytest.fixture(scope="module")
def network() -> Any:
    return frozen((75, 75, 3), None)


@pytest.fixture(scope="module")
def data(photos: Path) -> Data:
    return load_data(photos, image_size=75)


def never(*_: Any) -> Any:
    raise AssertionError("features were computed again")


def test_the_frozen_part_is_inception_up_to_mixed7_and_nothing_in_it_learns(network: Any) -> None:
    assert network.output_shape == (None, 3, 3, 768) and network.layers[-1].name == "mixed7"
    assert network.count_params() == 8_975_264
    assert network.trainable_weights == []
    convolutions = [layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D)]
    number = network.layers.index(convolutions[3])
    kernel = keras.ops.convert_to_numpy(convolutions[3].kernel)
    std = (2 / np.prod(kernel.shape[:3])) ** 0.5
    assert np.array_equal(kernel, first_weights(kernel.shape, 0, f"frozen/{number}", std))


def test_size_tutorial_has_the_tutorials_top() -> None:
    settings = get("transfer").settings("tutorial", "flowers2")
    model = get("transfer").build(settings, (2, 2, 8), 2, 0)
    dense = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    assert [layer.units for layer in dense] == [512, 1024, 1]
    assert [layer.activation.__name__ for layer in dense] == ["relu", "relu", "sigmoid"]
    assert [type(layer).__name__ for layer in model.layers][-2] == "Dropout"
    for layer in dense:
        kernel = keras.ops.convert_to_numpy(layer.kernel)
        assert abs(kernel).max() == pytest.approx((6 / sum(kernel.shape)) ** 0.5, rel=0.01)


def test_features_are_those_of_the_images_whatever_the_batch(network: Any, data: Data) -> None:
    images = np.concatenate(
        [data.train_x, data.test_x, data.train_x, data.test_x, data.train_x[:1]]
    )  # 33: a full batch and one
    found = compute(network, images)
    alone = keras.ops.convert_to_numpy(network(2 * images[-1:].transpose(0, 2, 3, 1) - 1, training=False))
    assert found.shape == (33, 3, 3, 768)
    assert np.allclose(found[-1:], alone, rtol=1e-3, atol=1e-4 * np.abs(alone).max())
    assert np.allclose(found[:16], found[16:32], rtol=1e-3, atol=1e-4 * np.abs(alone).max())
    assert 0.05 < found.std() < 20  # random weights neither drown nor blow up the signal


def test_features_are_computed_once(
    photos: Path, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    first = compare("transfer", data=photos, size="tiny", seeds=2, epochs=1, device="cpu", out=tmp_path / "first")
    assert [line.strategy for line in first.lines] == ["none", "fixed", "step"]
    kept = list((cache / "features").iterdir())
    assert [path.suffix for path in kept] == [".safetensors"]
    monkeypatch.setattr(module, "frozen", never)
    again = train("transfer", data=photos, size="tiny", strategy="step", epochs=1, device="cpu", out=tmp_path / "again")
    one, other = ({**run.rows[0], "seconds": 0} for run in (again, first.runs["step"][0]))
    assert one == other
    for words in (first.verdict, again.remarks):
        assert RANDOM in words
        assert f"Frozen features of 16 images, computed once and kept in {kept[0]}." in words
        assert "that without them it would take about" in words[-1] and words[-1].endswith("times as long.")
    page = (tmp_path / "again" / "report.html").read_text()
    assert RANDOM in html.unescape(re.sub("<[^>]+>", "", page))
    with pytest.raises(AssertionError, match="computed again"):  # other images are not taken for the same
        prepare(load_data(photos, image_size=76), TINY, None)


def test_a_damaged_file_of_features_is_computed_again(data: Data, cache: Path) -> None:
    whole = prepare(data, TINY, None).data.train_x
    (path,) = (cache / "features").iterdir()
    path.write_bytes(path.read_bytes()[:1000])
    assert np.array_equal(prepare(data, TINY, None).data.train_x, whole)
    assert path.stat().st_size > 1000


def test_a_folder_that_cannot_be_written_costs_the_cache_alone(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: Any
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DROPKIT_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(module, "frozen", lambda *_: network)
    found = prepare(data, TINY, None)
    assert len(found.data.train_x) == len(data.train_x)
    assert "not kept (" in found.remarks[-1] and "set DROPKIT_CACHE to a folder" in found.remarks[-1]


def test_weights_of_a_file_are_the_frozen_ones(photos: Path, data: Data, tmp_path: Path) -> None:
    base = keras.applications.InceptionV3(include_top=False, weights=None, input_shape=(75, 75, 3))
    file = tmp_path / "trained.weights.h5"
    base.save_weights(file)
    found = prepare(data, TINY, file)
    model = keras.Model(base.input, base.get_layer("mixed7").output)
    assert np.array_equal(found.data.test_x, compute(model, data.test_x))
    assert not np.allclose(found.data.test_x, prepare(data, TINY, None).data.test_x)
    assert RANDOM not in found.remarks and "weights of sha256" in found.about


def test_weights_that_do_not_fit_are_named_before_anything_is_written(photos: Path, tmp_path: Path) -> None:
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    other.save_weights(tmp_path / "other.weights.h5")
    (tmp_path / "text.h5").write_text("no weights")
    for file in ("other.weights.h5", "text.h5"):
        with pytest.raises(DataError, match=rf"{file} does not hold the weights of InceptionV3 without its top: "):
            train("transfer", data=photos, size="tiny", weights=tmp_path / file, device="cpu", out=tmp_path / "run")
    with pytest.raises(DataError, match=r"cannot read the weights .*none.h5: No such file or directory; use https"):
        train("transfer", data=photos, size="tiny", weights=tmp_path / "none.h5", device="cpu", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_data_that_do_not_fit_are_named(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DropkitValueError, match=r"tells two classes apart, and digits has 10: use --data flowers2, or"):
        train("transfer", data="digits", size="tiny", device="cpu", out=tmp_path / "run")
    with pytest.raises(DropkitValueError, match=r"at least 75 x 75 pixels, got images of shape \(3, 32, 32\)"):
        train("transfer", data=load_data(photos), size="tiny", device="cpu", out=tmp_path / "run")
