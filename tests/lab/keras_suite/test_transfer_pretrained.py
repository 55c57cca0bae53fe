"""The recipes transfer-pretrained and transfer-random: a trunk trained on all classes but two, on digits."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from dropkit.errors import DropkitValueError  # noqa: E402
from dropkit.lab import Data, load_data, train  # noqa: E402
from dropkit.lab.recipes import features, get, trunk  # noqa: E402
from dropkit.lab.recipes.features import entering  # noqa: E402
from dropkit.lab.recipes.transfer_pretrained import FULL, TINY  # noqa: E402


@pytest.fixture(autouse=True)
def _cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DROPKIT_CACHE", str(cache))


@pytest.fixture(scope="module")
def data() -> Data:
    return load_data("digits")


def never(*_: Any) -> Any:
    raise AssertionError("it was made again")


def test_the_trunk_never_sees_the_two_classes_that_are_held_back(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(trunk, "train", lambda *given: seen.append(given) or trunk.Trunk(first, 0.5))
    fresh = trunk.frozen(TINY, (8, 8, 1))
    first = {weight.path.removeprefix("trunk/"): keras.ops.convert_to_numpy(weight) for weight in fresh.weights}
    found = trunk.prepare(data, replace(TINY, trunk_seed=7), None).data
    ((learned, _),) = seen
    assert learned.classes == 8 and sorted(set(learned.train_y)) == sorted(set(learned.test_y)) == list(range(8))
    others = np.flatnonzero(~np.isin(data.train_y, (3, 5)))
    assert np.array_equal(learned.train_x, data.train_x[others])
    pair = np.flatnonzero(np.isin(data.train_y, (3, 5)))[:32]
    assert found.classes == 2 and np.array_equal(found.train_y, (data.train_y[pair] == 5).astype(int))
    expected = np.asarray(trunk.frozen(TINY, (8, 8, 1), trunk.Trunk(first, None))(entering(data.train_x[pair])))
    assert np.allclose(found.train_x, expected, rtol=1e-3, atol=1e-5)
    assert len(found.test_x) == 32 and (found.name, found.fingerprint) == (data.name, data.fingerprint)


def test_a_trunk_is_trained_once_and_so_are_its_features(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    first = trunk.prepare(data, TINY, None)
    again = trunk.train(replace(trunk.of_classes(data, [0, 1, 2, 4, 6, 7, 8, 9]), classes=8), TINY)
    monkeypatch.setattr(trunk, "train", never)
    monkeypatch.setattr(features, "compute", never)
    kept = trunk.prepare(data, TINY, None)
    assert np.array_equal(kept.data.train_x, first.data.train_x) and kept.remarks == first.remarks
    assert f"on 8 classes, on whose test images it has accuracy {again.accuracy:.4f}; " in first.remarks[0]
    assert "classes 3 and 5 were held back, and the top tells these apart." in first.remarks[0]
    with pytest.raises(AssertionError, match="made again"):
        trunk.prepare(data, replace(TINY, trunk_seed=1), None)


def test_training_the_trunk_teaches_it(data: Data) -> None:
    learned = replace(trunk.of_classes(data, [0, 1, 2, 4, 6, 7, 8, 9]), classes=8)
    settings = replace(TINY, trunk_samples=None, channels=(16, 16), trunk_epochs=5)
    assert trunk.train(learned, settings).accuracy > 0.6  # by chance it is 0.125


def test_random_differs_in_the_trunks_weights_alone(data: Data, tmp_path: Path) -> None:
    one, other = get("transfer-pretrained"), get("transfer-random")
    for size in one.sizes:
        assert replace(other.settings(size, "digits"), trained=True) == one.settings(size, "digits")
    run = train(other, size="tiny", epochs=1, device="cpu", out=tmp_path)
    assert trunk.RANDOM in run.remarks and run.config["prepared"].endswith("classes 3 and 5 held back, first weights")
    assert run.config["settings"]["held_back"] == [3, 5] and "tutorial" not in one.sizes


def test_sets_of_few_classes(data: Data, tmp_path: Path) -> None:
    few = replace(trunk.of_classes(data, [0, 1, 2, 3]), classes=4)
    found = trunk.prepare(few, replace(TINY, trained=False), None)
    assert "classes 2 and 3 held back" in found.about
    assert np.array_equal(found.data.train_y, (few.train_y[few.train_y > 1] == 3)[:32].astype(int))
    three = replace(trunk.of_classes(data, [0, 1, 2]), classes=3, name="mine")
    with pytest.raises(DropkitValueError, match=r"takes 4 classes, and mine has 3: use --data digits or cifar10"):
        train("transfer-pretrained", data=three, size="tiny", out=tmp_path / "run")
    with pytest.raises(DropkitValueError, match=r"so --weights w.h5 has no use: leave it out, or use the recipe trans"):
        train("transfer-pretrained", size="tiny", weights="w.h5", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_colour_images_enter_in_keras_order_of_axes() -> None:
    images = np.random.default_rng(0).random((2, 3, 4, 5), np.float32)
    assert entering(images).shape == (2, 4, 5, 3) and np.allclose(entering(images)[1, 2, 3], 2 * images[1, :, 2, 3] - 1)
    assert entering(images[:, 0]).shape == (2, 4, 5, 1)
    model = trunk.frozen(FULL, (32, 32, 3))
    assert model.output_shape == (None, 4, 4, 128) and model.trainable_weights == []
