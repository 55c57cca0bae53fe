import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load
from scipy import linalg

from dropkit.errors import DropkitValueError
from dropkit.lab import load_data
from dropkit.lab.engines.judge import Training, judge
from dropkit.lab.engines.quality import class_shares, frechet_distance, precision_recall
from dropkit.lab.pictures import grid

DIGITS = load_data("digits")


def test_frechet_distance_of_two_normal_laws() -> None:
    draw = np.random.default_rng(0)
    root, other = draw.normal(size=(5, 5)), draw.normal(size=(5, 5))
    mean = draw.normal(size=5)
    x, y = draw.normal(size=(60_000, 5)) @ root, draw.normal(size=(60_000, 5)) @ other + mean
    s, t = root.T @ root, other.T @ other
    exact = mean @ mean + np.trace(s + t - 2 * linalg.sqrtm(s @ t).real)
    # With 60 000 samples a side a mean is known to about 0.01, and the distance to about a hundredth of itself.
    assert frechet_distance(x, y) == pytest.approx(exact, rel=0.02)
    # On the samples' own moments the formula is exact, whatever way the root is taken.
    s, t = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    apart = ((x.mean(0) - y.mean(0)) ** 2).sum()
    assert frechet_distance(x, y) == pytest.approx(apart + np.trace(s + t - 2 * linalg.sqrtm(s @ t).real), rel=1e-9)


def test_frechet_distance_of_one_axis_has_a_closed_form() -> None:
    x, y = np.array([0.0, 2, 4]), np.array([10.0, 11, 12])
    # (m - n)^2 + (s - t)^2, with the deviations 2 and 1
    assert frechet_distance(x[:, None], y[:, None]) == pytest.approx(81 + 1)
    assert frechet_distance(y[:, None], x[:, None]) == pytest.approx(82)
    # A shift alone, also of a covariance that is singular: fewer samples than features.
    few = np.random.default_rng(1).normal(size=(4, 9))
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(few, few + 2) == pytest.approx(9 * 4)


def test_frechet_distance_refuses_and_tells_what_it_cannot_take() -> None:
    assert np.isnan(frechet_distance(np.zeros((3, 2)), np.full((3, 2), np.nan)))
    with pytest.raises(DropkitValueError, match=r"of shape \(samples, features\), got \(3,\) and \(3, 2\)"):
        frechet_distance(np.zeros(3), np.zeros((3, 2)))


def test_precision_and_recall() -> None:
    draw = np.random.default_rng(0)
    real = np.concatenate([draw.normal(0, 0.1, (100, 3)), draw.normal(5, 0.1, (100, 3))])
    one_mode = draw.normal(0, 0.1, (200, 3))
    precision, recall = precision_recall(real, one_mode)
    assert precision > 0.8 and 0.4 < recall <= 0.5  # what is made is real, and half of what is real is made
    assert precision_recall(real, real) == (1, 1)
    assert precision_recall(real, real + 100) == (0, 0)
    assert np.isnan(precision_recall(real, real * np.nan)).all()
    with pytest.raises(DropkitValueError, match="need more than k=3 samples, got 200 and 3"):
        precision_recall(real, real[:3])


def test_class_shares() -> None:
    assert class_shares(np.array([3, 3, 0, 1]), 5) == (0.25, 0.25, 0, 0.5, 0)


@pytest.mark.slow
def test_the_judge_knows_digits_and_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DROPKIT_CACHE", str(tmp_path))
    found = judge(DIGITS)
    assert found.accuracy > 0.98
    features, labels = found.look(torch.from_numpy(DIGITS.test_x))
    assert features.shape == (500, 128) and (labels == DIGITS.test_y).mean() == found.accuracy
    (path,) = (tmp_path / "judges").glob("*.safetensors")
    assert found.where == f"kept in {path}"
    before = path.read_bytes()
    again = judge(DIGITS)
    assert (again.accuracy, again.seconds) == (found.accuracy, found.seconds)
    assert np.array_equal(again.look(torch.from_numpy(DIGITS.test_x))[0], features)
    assert path.read_bytes() == before


def test_a_judge_is_trained_the_same_again_and_a_damaged_file_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DROPKIT_CACHE", str(tmp_path))
    small = Training(channels=(4, 8), features=8, least_steps=1, epochs=1)
    torch.manual_seed(1)
    first = judge(DIGITS, small)
    (path,) = (tmp_path / "judges").iterdir()
    whole = load(path.read_bytes())
    path.write_bytes(path.read_bytes()[:100])
    torch.manual_seed(2)
    assert judge(DIGITS, small).accuracy == first.accuracy
    again = load(path.read_bytes())
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    other = judge(DIGITS, replace(small, epochs=2))
    assert len(list((tmp_path / "judges").iterdir())) == 2 and other.accuracy != first.accuracy
    monkeypatch.setenv("DROPKIT_CACHE", str(path))
    assert "not kept (" in judge(DIGITS, small).where


def test_grids_of_colour_and_of_odd_numbers() -> None:
    images = np.zeros((3, 3, 28, 28))
    images[2, 0] = 2.0  # clipped to red
    sheet = np.asarray(Image.open(io.BytesIO(grid(images, 2))))
    assert sheet.shape == (2 * 30 + 2, 2 * 30 + 2, 3)
    assert sheet[40, 10].tolist() == [255, 0, 0] and sheet[40, 50].tolist() == [128, 128, 128]
