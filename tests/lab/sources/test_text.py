"""Token ids: cut without overlap, sequences with the next token, and what is no tokens."""

from pathlib import Path

import numpy as np
import pytest

from dropkit.errors import DataError
from dropkit.lab.data.sources import load

STREAM = np.arange(1000) % 30


def test_a_stream_is_cut_without_overlap_between_training_and_test(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(1000))
    data = load(tmp_path / "a.npy", kind="next-token:10", test=0.3)
    assert (data.kind, data.classes, data.shape) == ("next-token", 1000, (10,))
    assert (len(data.train_x), len(data.test_x)) == (69, 29)
    for x, y in ((data.train_x, data.train_y), (data.test_x, data.test_y)):
        assert np.array_equal(y, x + 1) and x.dtype == np.int64
    seen = set(data.train_x.flat) | set(data.train_y.flat)
    assert not seen & (set(data.test_x.flat) | set(data.test_y.flat))
    assert max(seen) < 700


@pytest.mark.parametrize("form", ["npy", "npz", "same", "bytes"])
def test_whole_numbers_without_another_target_are_tokens(tmp_path: Path, form: str) -> None:
    if form == "npy":
        np.save(tmp_path / "a.npy", STREAM)
        data = load(tmp_path / "a.npy")
    elif form == "npz":
        np.savez(tmp_path / "a.npz", tokens=STREAM)
        data = load(tmp_path / "a.npz")
    elif form == "same":
        data = load((STREAM, STREAM))
    else:
        data = load(STREAM.astype(np.uint8))
    assert (data.kind, data.classes, data.shape, data.train_x.dtype) == ("next-token", 30, (128,), np.int64)
    assert any("taken as next-token" in note for note in data.notes)


def test_sequences_predict_their_next_token() -> None:
    rows = np.arange(200).reshape(20, 10)
    data = load(rows)
    assert (data.shape, len(data.train_x), len(data.test_x)) == ((9,), 16, 4)
    assert np.array_equal(data.train_y, data.train_x + 1)
    shifted = load((rows[:, :-1], rows[:, 1:]))
    assert shifted.fingerprint == data.fingerprint


def test_parts_of_text(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", X_train=STREAM[:800], X_test=STREAM[800:])
    data = load(tmp_path / "a.npz", kind="next-token:50")
    assert (data.train_x.shape, data.test_x.shape) == ((15, 50), (3, 50))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (STREAM[:20], "make no sample of 128.*--kind next-token:"),
        (STREAM - 5, "tokens run from -5"),
        (STREAM * 1.5, "needs token ids"),
        (STREAM.reshape(-1, 1), "two or more each"),
        (STREAM.reshape(10, 10, 10), "needs token ids"),
    ],
)
def test_what_is_no_text_is_refused(x: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(x, kind="next-token")


def test_another_target_than_the_next_token_is_refused() -> None:
    with pytest.raises(DataError, match="neither x nor the tokens that follow"):
        load((STREAM.reshape(20, 50), STREAM.reshape(20, 50)[:, ::-1].copy()), kind="next-token")
