"""Arrays in files: split once, taken as they are, and refused where they cannot be learned from."""

from pathlib import Path

import numpy as np
import pytest

from dropkit.errors import DataError, DropkitError, DropkitTypeError, DropkitValueError, UnknownNameError
from dropkit.lab.data.sources import load
from dropkit.lab.data.sources import numbers as numbers_module

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))
Y = np.repeat(np.arange(3), 20)


def saved(tmp_path: Path, **arrays: np.ndarray) -> Path:
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    return path


def test_one_set_is_split_once_in_proportion_and_mixed(tmp_path: Path) -> None:
    path = saved(tmp_path, X=X, y=Y)
    data, again = load(path), load(str(path))
    assert np.bincount(data.test_y).tolist() == [4, 4, 4]
    assert np.bincount(data.train_y).tolist() == [16, 16, 16]
    assert len(np.unique(data.train_y[:10])) == 3
    assert data.fingerprint == again.fingerprint
    assert sorted(map(tuple, np.concatenate([data.train_x, data.test_x]))) == sorted(map(tuple, X.astype(np.float32)))
    assert (data.kind, data.classes, data.labels, data.train_x.dtype) == (
        "classification",
        3,
        ("0", "1", "2"),
        np.float32,
    )


def test_the_fingerprint_tells_content_split_and_kind(tmp_path: Path) -> None:
    path = saved(tmp_path, X=X, y=Y % 2)
    first = load(path).fingerprint
    assert load(path, test=0.3).fingerprint != first
    assert load(path, kind="binary").fingerprint != first
    assert load(saved(tmp_path, X=X + 1e-3, y=Y % 2)).fingerprint != first


@pytest.mark.parametrize("x", ["X", "x"])
def test_parts_that_are_there_stay_as_they_are(tmp_path: Path, x: str) -> None:
    arrays = {f"{x}_train": X[:40], "y_train": Y[:40] % 2, f"{x}_test": X[40:], "y_test": Y[40:] % 2}
    data = load(saved(tmp_path, **arrays))
    assert np.array_equal(data.train_x, X[:40].astype(np.float32))
    assert np.array_equal(data.test_y, Y[40:] % 2)


def test_a_pair_of_files_and_a_column(tmp_path: Path) -> None:
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", X @ [1, 2, 3, 4])
    data = load(tmp_path / "X.npy", target="y.npy")
    assert (data.kind, data.classes) == ("regression", 1)
    assert np.allclose(data.train_x @ [1, 2, 3, 4], data.train_y, atol=1e-4)
    np.save(tmp_path / "all.npy", np.column_stack([X, Y]))
    data = load(tmp_path / "all.npy", target="-1")
    assert (data.kind, data.classes, data.shape) == ("classification", 3, (4,))


@pytest.mark.parametrize(
    ("y", "kind", "outputs", "labels"),
    [
        (Y, "classification", 3, ("0", "1", "2")),
        (Y + 5, "classification", 3, ("5", "6", "7")),
        (np.array(["ant", "bee", "cow"])[Y], "classification", 3, ("ant", "bee", "cow")),
        (np.eye(3)[Y], "classification", 3, ("0", "1", "2")),
        (Y[:, None], "classification", 3, ("0", "1", "2")),
        (Y == 1, "binary", 1, ("False", "True")),
        ((Y == 1).astype(float), "binary", 1, ("0", "1")),
        (Y % 2, "classification", 2, ("0", "1")),
        (np.column_stack([Y > 0, Y > 1, Y < 2]), "multi-label", 3, ("0", "1", "2")),
        (X[:, 0] * 2, "regression", 1, ()),
        (X[:, :2] * 2, "regression", 2, ()),
        (RNG.permutation(60) * 1000, "regression", 1, ()),
    ],
)
def test_the_kind_is_guessed_and_said(y: np.ndarray, kind: str, outputs: int, labels: tuple[str, ...]) -> None:
    data = load((X, y))
    assert (data.kind, data.classes, data.labels) == (kind, outputs, labels)
    assert any(f"taken as {kind}" in note and "--kind" in note for note in data.notes)
    assert data.train_y.dtype == (np.int64 if kind == "classification" else np.float32)


def test_an_asked_kind_wins() -> None:
    assert load((X, Y), kind="regression").train_y.dtype == np.float32
    assert load((X, Y % 2), kind="binary").classes == 1
    assert load((X, (Y % 2).astype(float)), kind="classification").classes == 2


def test_tokens_stay_whole_and_pixels_become_fractions() -> None:
    assert load((RNG.integers(0, 9, (60, 5)), Y)).train_x.dtype == np.int64
    pixels = load((RNG.integers(0, 256, (60, 3, 8, 8)).astype(np.uint8), Y))
    assert pixels.shape == (3, 8, 8) and 0.9 < pixels.train_x.max() <= 1
    assert any("divided by 255" in note for note in pixels.notes)


def test_a_target_far_from_one_is_told() -> None:
    assert any("standard deviation" in note for note in load((X, X[:, 0] * 1e4)).notes)
    assert not any("standard deviation" in note for note in load((X, X[:, 0] * 2)).notes)


def test_repeated_samples_are_counted() -> None:
    x = np.concatenate([X[:40], X[:5], X[41:56]])
    data = load((x[:40], Y[:40] % 2, x[40:], Y[40:] % 2))
    assert any("5 test samples are training samples too" in note for note in data.notes)
    assert not any("training samples too" in note for note in load((X, Y)).notes)


def wrong(place: tuple[int, ...], value: float) -> np.ndarray:
    x = X.copy()
    x[place] = value
    return x


BAD = {
    "nan": ({"X": wrong((7, 1), np.nan), "y": Y}, "1 NaN, the first in row 8"),
    "inf": ({"X": wrong((7, 1), np.inf), "y": Y}, "1 infinite or beyond float32, the first in row 8"),
    "beyond": ({"X": wrong((7, 1), 1e300), "y": Y}, "infinite or beyond float32"),
    "nan in y": ({"X": X, "y": wrong((3, 0), np.nan)[:, 0]}, "y holds 1 NaN, the first in row 4"),
    "one class": ({"X": X, "y": np.zeros(60, int)}, "y is '0' in all 60 rows"),
    "constant": ({"X": X, "y": np.full(60, 2.5)}, "y is 2.5 in all 60 rows"),
    "single": ({"X": X, "y": np.r_[Y[:-1], 9]}, "a class has one sample, row 60"),
    "lengths": ({"X": X, "y": Y[:-1]}, "x has 60 samples and y 59"),
    "empty": ({"X": X[:0], "y": Y[:0]}, "no samples"),
    "empty test": ({"X_train": X, "y_train": Y, "X_test": X[:0], "y_test": Y[:0]}, "the test part has no samples"),
    "new class": ({"X_train": X[:40], "y_train": Y[:40], "X_test": X[40:], "y_test": Y[40:]}, "not: '2'"),
    "text": ({"X": X.astype(str), "y": Y}, "x holds text where numbers belong"),
    "complex": ({"X": X * 1j, "y": Y}, "x holds complex numbers"),
    "leak": ({"X": np.column_stack([X, Y]), "y": Y}, "column 4 of x is the target once more"),
    "shapes": (
        {"X_train": X, "y_train": Y, "X_test": X[:, :3], "y_test": Y},
        r"shape \(4,\) and test samples of \(3,\)",
    ),
    "names": ({"a": X, "b": Y}, "holds a, b; name the arrays X and y"),
    "half": ({"X_train": X, "y_train": Y}, "name the arrays X and y, or X_train"),
    "y of one part": ({"X_train": X, "y_train": Y, "X_test": X}, "no array 'y_test'|one part alone"),
    "no target": ({"X": X}, "has no target"),
    "scalar": ({"X": np.float64(3), "y": Y}, "single number"),
    "deep target": ({"X": X, "y": X.reshape(60, 2, 2)}, "y has shape"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arrays_are_refused_in_one_line(tmp_path: Path, case: str) -> None:
    arrays, message = BAD[case]
    with pytest.raises(DataError, match=message) as caught:
        load(saved(tmp_path, **arrays))
    assert "\n" not in str(caught.value) and "data.npz" in str(caught.value)


@pytest.mark.parametrize(
    ("y", "kind", "message"),
    [
        (np.array(["a", "b", "c"])[Y], "regression", "y holds 'a' in row 1, and regression needs numbers"),
        (X[:, 0] * 2, "classification", "no class; use --kind regression"),
        (Y, "binary", "3 classes .* use --kind classification"),
        (Y, "multi-label", "no matrix of 0 and 1"),
        (X[:, :2] * 2, "classification", "--kind multi-label"),
        (np.ones((60, 2)), "multi-label", "the same in all 60 rows"),
        (np.arange(1000, 1060) ** 3, "classification", None),
        (Y, "next-token", "next-token needs token ids"),
    ],
)
def test_a_kind_that_does_not_fit_is_refused(y: np.ndarray, kind: str, message: str | None) -> None:
    if message is None:
        y, message = RNG.permutation(400) * 7, "400 different values in 400 rows"
        with pytest.raises(DataError, match=message):
            load((RNG.normal(size=(400, 2)), y), kind=kind)
        return
    with pytest.raises(DataError, match=message):
        load((X, y), kind=kind)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"kind": "clasification"}, UnknownNameError, "did you mean 'classification'"),
        ({"kind": "binary:3"}, DropkitValueError, "only next-token is followed"),
        ({"test": 1.0}, DropkitValueError, "between 0 and 1, got 1.0"),
        ({"test": "-0.1"}, DropkitValueError, "between 0 and 1, got -0.1"),
        ({"test": "nan"}, DropkitValueError, "between 0 and 1"),
        ({"test": True}, DropkitTypeError, "a fraction such as 0.2"),
        ({"test": 0.001}, DataError, "makes 0 test samples"),
    ],
)
def test_options_out_of_range(options: dict, error: type[DropkitError], message: str) -> None:
    with pytest.raises(error, match=message):
        load((X, Y), **options)


def test_pickled_arrays_and_code_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", X=np.array([{}, []], object), y=np.arange(2))
    np.save(tmp_path / "a.npy", np.array([{}, []], object))
    for name in ("a.npz", "a.npy"):
        with pytest.raises(DataError, match="holds Python objects"):
            load(tmp_path / name)
    for suffix in (".pkl", ".joblib", ".pt", ".pth"):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(b"\x80\x04.")
        with pytest.raises(DataError, match="loading it may run code"):
            load(path)


def test_damaged_and_unknown_files_are_refused(tmp_path: Path) -> None:
    whole = saved(tmp_path, X=X, y=Y).read_bytes()
    for content in (b"", whole[:100], b"PK\3\4" + bytes(100)):
        for name in ("b.npz", "b.npy"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(DataError, match=f"cannot read .*{name}"):
                load(tmp_path / name, target="0" if name == "b.npy" else None)
    (tmp_path / "b.weird").write_bytes(b"")
    with pytest.raises(DataError, match=r"its suffix '.weird'"):
        load(tmp_path / "b.weird")
    for name in ("absent.npz", "absent.npy"):
        with pytest.raises(DataError, match=r"absent\.np"):
            load(tmp_path / name)
    with pytest.raises(UnknownNameError, match="did you mean 'digits'"):
        load("digts")


def test_an_archive_that_would_become_too_large_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dropkit.lab.data.limits.MOST", 1000)
    with pytest.raises(DataError, match="at most"):
        load(saved(tmp_path, X=X, y=Y))


def test_large_arrays_are_converted_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load((X, Y)).fingerprint
    monkeypatch.setattr(numbers_module, "ROWS", 7)
    assert load((X, Y)).fingerprint == whole


def test_names_that_are_known_go_to_load_data() -> None:
    assert load("digits").name == "digits"
    with pytest.raises(DropkitValueError, match="--target 3 has no use"):
        load("digits", target="3")
    with pytest.raises(DropkitValueError, match="10 outputs for classification, not regression"):
        load("digits", kind="regression")
