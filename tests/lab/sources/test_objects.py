"""What a function gives: arrays in any of the usual orders, torch's data sets and loaders, Hugging Face's, tables."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from dropkit.errors import DataError, DropkitRuntimeError, DropkitTypeError, DropkitValueError
from dropkit.lab.data.sources import load

RNG = np.random.default_rng(2)
X = RNG.normal(size=(50, 3)).astype(np.float32)
Y = np.arange(50) % 2
SET = TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
TRAIN, TEST = Subset(SET, range(40)), Subset(SET, range(40, 50))


class Stream(IterableDataset):
    def __iter__(self) -> Any:
        return iter(zip(torch.from_numpy(X[:40]), torch.from_numpy(Y[:40]), strict=True))


class Noisy(Dataset):
    """A data set that augments with torch's generator."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.from_numpy(X[index]) + torch.rand(3), int(Y[index])


GIVEN: dict[str, Callable[[], Any]] = {
    "four": lambda: (X[:40], Y[:40], X[40:], Y[40:]),
    "four, as scikit-learn splits": lambda: (X[:40], X[40:], Y[:40], Y[40:]),
    "pairs": lambda: ((X[:40], Y[:40]), (X[40:], Y[40:])),
    "dict": lambda: {"X_train": X[:40], "y_train": Y[:40], "X_test": X[40:], "y_test": Y[40:]},
    "parts": lambda: {"train": (X[:40], Y[:40]), "test": (X[40:], Y[40:])},
    "tensors": lambda: tuple(map(torch.from_numpy, (X[:40], Y[:40], X[40:], Y[40:]))),
    "lists": lambda: (X[:40].tolist(), Y[:40].tolist(), X[40:].tolist(), Y[40:].tolist()),
    "data sets": lambda: (TRAIN, TEST),
    "dict of data sets": lambda: {"train": TRAIN, "test": TEST},
    "loaders": lambda: (DataLoader(TRAIN, batch_size=7, shuffle=True, drop_last=True), DataLoader(TEST, batch_size=3)),
    "sampled": lambda: (
        DataLoader(SET, sampler=torch.utils.data.SubsetRandomSampler(range(40))),
        DataLoader(SET, batch_sampler=[[40, 41, 42, 43, 44], [45, 46, 47, 48, 49]]),
    ),
    "streams": lambda: (Stream(), TEST),
}


@pytest.mark.parametrize("form", GIVEN)
def test_every_usual_form_gives_the_same(form: str) -> None:
    data = load(GIVEN[form]())
    assert np.array_equal(data.train_x, X[:40]) and np.array_equal(data.test_x, X[40:])
    assert np.array_equal(data.train_y, Y[:40]) and np.array_equal(data.test_y, Y[40:])


def test_what_is_random_is_drawn_once_and_disturbs_nobody() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second = load(Noisy()), load(Noisy())
    assert first.fingerprint == second.fingerprint
    assert torch.equal(torch.get_rng_state(), before)
    assert any("drawn once" in note for note in first.notes)


def test_a_function_is_called_the_same_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("own_data_here.py").write_text(
        "import numpy as np, torch\n"
        "def load():\n    return np.random.randn(40, 2), np.arange(40) % 2\n"
        "def torches():\n    return torch.randn(40, 2), torch.arange(40) % 2\n"
        "def loads(path):\n    return path\n"
        "def breaks():\n    raise RuntimeError('disk\\nfull')\n"
        "X = (np.ones((4, 2)), np.arange(4) % 2)\n"
    )
    assert load("own_data_here:load").fingerprint == load("own_data_here:load").fingerprint
    assert load("own_data_here:torches").fingerprint == load("own_data_here:torches").fingerprint
    assert load("own_data_here:X", test=0.5).shape == (2,)
    for text, error, message in (
        ("own_data_here:laod", DropkitValueError, "has no 'laod'; did you mean 'load'"),
        ("own_data_her:load", DropkitValueError, "no module 'own_data_her'.*did you mean 'own_data_here'"),
        ("own_data_here.py:load", DropkitValueError, "named as in Python"),
        ("own_data_here:loads", DropkitTypeError, "without arguments"),
        ("own_data_here:breaks", DropkitRuntimeError, "failed with RuntimeError: disk"),
    ):
        with pytest.raises(error, match=message):
            load(text)


class Many(Dataset):
    def __len__(self) -> int:
        return 10**9

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.zeros(100), index % 2


class Uneven(Dataset):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.zeros(index + 1), index % 2


class Pictures(Many):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return Image.new("RGB", (4, 4)), index % 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Many(), r"would become .* MiB, and at most 2048 MiB .* torch\.utils\.data\.Subset"),
        (Uneven(), "Uneven cannot be read: RuntimeError"),
        (Pictures(), "Pictures cannot be read: TypeError"),
        (TensorDataset(*[torch.zeros(4, 1)] * 3), "samples hold 3 things"),
        (TensorDataset(torch.zeros(0, 1), torch.zeros(0)), "no samples"),
        ((1, 2, 3), r"gives 3 things \(int, int, int\)"),
        (None, "gives a NoneType where an array belongs"),
        (([[1, 2], [3]], [0, 1]), "a list is no array"),
        ({"a": X}, "holds a; name the arrays"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(given: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(given)
    assert "\n" not in str(caught.value)


def test_tables_of_pandas() -> None:
    frame = pandas.DataFrame(X, columns=list("abc")).assign(y=Y)
    whole, pair = load(frame, target="y"), load((frame[list("abc")], frame["y"]))
    assert whole.fingerprint == pair.fingerprint
    assert abs(whole.train_x.mean()) < 1e-6


def hub(tmp_path: Path, found: Any) -> Path:
    found.save_to_disk(str(tmp_path / "set"))
    return tmp_path / "set"


def test_images_of_hugging_face(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    images = [Image.new("RGB", (6, 5), (255 * (n % 2), 0, 0)) for n in range(20)]
    found = datasets.Dataset.from_dict({"image": images, "label": [n % 2 for n in range(20)]}, features)
    data = load(hub(tmp_path, found), image_size=4)
    assert (data.shape, data.kind, data.labels, len(data.test_x)) == ((3, 4, 4), "classification", ("cat", "dog"), 4)
    assert np.array_equal(data.train_x[:, 0, 0, 0], data.train_y)


def test_columns_tokens_and_parts_of_hugging_face(tmp_path: Path) -> None:
    columns = {"a": X[:, 0].tolist(), "b": ["u", "v"] * 25, "label": Y.tolist()}
    table = load(hub(tmp_path / "1", datasets.Dataset.from_dict(columns)))
    assert (table.kind, table.shape) == ("classification", (3,))
    rows = {"input_ids": [[1, 2, 3][: 1 + n % 3] for n in range(50)], "label": Y.tolist()}
    both = datasets.DatasetDict(
        train=datasets.Dataset.from_dict(rows).select(range(40)),
        validation=datasets.Dataset.from_dict(rows).select(range(40, 50)),
    )
    data = load(hub(tmp_path / "2", both))
    assert (data.shape, len(data.train_x), len(data.test_x), data.train_x.dtype) == ((3,), 40, 10, np.int64)
    assert data.train_x[0].tolist() == [1, 0, 0]
    text = datasets.Dataset.from_dict({"input_ids": [list(range(20))] * 30, "attention_mask": [[1] * 20] * 30})
    assert load(hub(tmp_path / "3", text)).kind == "next-token"
    ragged = datasets.Dataset.from_dict({"input_ids": [list(range(5 + n)) for n in range(40)]})
    assert load(hub(tmp_path / "4", ragged), kind="next-token:16").shape == (16,)


def test_bad_sets_of_hugging_face(tmp_path: Path) -> None:
    found = datasets.Dataset.from_dict({"x": X.tolist(), "label": Y.tolist()})
    folder = hub(tmp_path / "1", found)
    assert np.allclose(np.sort(load(folder).train_x, axis=0)[0], np.sort(load((X, Y)).train_x, axis=0)[0])
    with pytest.raises(DataError, match="no column 'lable'; did you mean 'label'"):
        load(folder, target="lable")
    next(folder.glob("*.arrow")).write_bytes(b"ARROW1")
    with pytest.raises(DataError, match=r"cannot read .*save_to_disk"):
        load(folder)
    parts = datasets.DatasetDict(a=found, b=found)
    with pytest.raises(DataError, match="the parts a, b and none is 'train'"):
        load(hub(tmp_path / "2", parts))
