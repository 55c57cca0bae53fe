"""Tables: read by pandas, encoded by what the training rows say alone."""

import gzip
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas
import pytest

from dropkit.errors import DataError
from dropkit.lab.data.sources import load
from dropkit.lab.data.sources.splits import divided

RNG = np.random.default_rng(1)
ROWS = 80


def table() -> pandas.DataFrame:
    age = RNG.normal(40, 10, ROWS)
    town = RNG.choice(["Ulm", "Bonn", "Kiel"], ROWS)
    return pandas.DataFrame(
        {
            "age": np.round(age, 3),
            "town": town,
            "member": RNG.random(ROWS) < 0.5,
            "price": np.round(age * 3 + RNG.normal(size=ROWS), 3),
            "kind": np.where(RNG.random(ROWS) < 0.4, "yes", "no"),
        }
    )


def written(path: Path, frame: pandas.DataFrame) -> Path:
    if path.name.endswith(".parquet"):
        frame.to_parquet(path)
    elif path.name.endswith(".tsv"):
        frame.to_csv(path, index=False, sep="\t")
    else:
        frame.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz", "a.parquet", "A.CSV"])
def test_every_format_gives_the_same(tmp_path: Path, name: str) -> None:
    frame = table()
    data = load(written(tmp_path / name, frame), target="price")
    expected = load(written(tmp_path / "b.csv", frame), target="price")
    assert data.fingerprint == expected.fingerprint
    assert (data.kind, data.shape) == ("regression", (7,))


def test_numbers_are_standardised_and_categories_one_hot(tmp_path: Path) -> None:
    data = load(written(tmp_path / "a.csv", table()), target="kind")
    numbers, hot = data.train_x[:, :3], data.train_x[:, 3:]
    assert np.allclose(numbers.mean(axis=0), 0, atol=1e-6) and np.allclose(numbers.std(axis=0), 1, atol=1e-6)
    assert set(np.unique(hot)) == {0, 1} and (hot.sum(axis=1) == 1).all()
    assert data.labels == ("no", "yes")


@pytest.mark.parametrize("change", ["numbers", "missing", "category", "flag"])
def test_the_encoder_never_sees_test_rows(tmp_path: Path, change: str) -> None:
    frame = table()
    before = load(written(tmp_path / "a.csv", frame), target="price")
    _, test = divided("a.csv", ROWS, 0.2, None)
    if change == "numbers":
        frame.loc[test, "age"] *= -1000
    elif change == "missing":
        frame.loc[test, ["age", "town"]] = np.nan
    elif change == "category":
        frame.loc[test, "town"] = "Rome"
    else:
        frame["member"] = frame["member"].astype(object)
        frame.loc[test, "member"] = None
    after = load(written(tmp_path / "a.csv", frame), target="price")
    assert after.train_x.tobytes() == before.train_x.tobytes()
    assert after.test_x.tobytes() != before.test_x.tobytes()
    assert np.isfinite(after.test_x).all()


def test_missing_numbers_are_marked_and_said(tmp_path: Path) -> None:
    frame = table()
    frame.loc[::3, "age"] = np.nan
    data = load(written(tmp_path / "a.csv", frame), target="price")
    assert data.shape == (8,)
    assert any("missing numbers" in note and note.endswith("age") for note in data.notes)


def test_columns_that_name_rows_are_left_out_and_said(tmp_path: Path) -> None:
    frame = table()
    frame.insert(0, "id", range(1, ROWS + 1))
    frame["name"] = [f"person {row}" for row in range(ROWS)]
    frame["nothing"] = np.nan
    data = load(written(tmp_path / "a.csv", frame), target="price")
    assert data.shape == (7,)
    assert any("left out" in note and note.endswith("id, name, nothing") for note in data.notes)
    more = frame.assign(**{f"empty {n}": np.nan for n in range(9)})
    assert any(note.endswith("6 more") for note in load(written(tmp_path / "b.csv", more), target="price").notes)


def test_rare_categories_share_a_place(tmp_path: Path) -> None:
    frame = pandas.DataFrame({"code": [f"c{n % 70}" for n in range(400)], "y": np.arange(400.0) % 7 + 0.5})
    data = load(written(tmp_path / "a.csv", frame), target="y")
    assert data.shape == (50,)
    assert any("rarer ones share" in note for note in data.notes)


def test_the_usual_name_is_taken_as_target_and_said(tmp_path: Path) -> None:
    frame = table().rename(columns={"kind": "label"})
    data = load(written(tmp_path / "a.csv", frame))
    assert data.kind == "classification" and any("column label" in note for note in data.notes)


def test_several_targets(tmp_path: Path) -> None:
    frame = table()
    frame["other"] = 1 - frame["price"]
    data = load(written(tmp_path / "a.csv", frame), target="price,other")
    assert (data.kind, data.classes, data.labels) == ("regression", 2, ("price", "other"))


def test_a_test_file_beside_it(tmp_path: Path) -> None:
    frame = table()
    train, test = written(tmp_path / "a.csv", frame[:60]), written(tmp_path / "b.csv", frame[60:])
    data = load(train, target="price", test=str(test))
    assert (len(data.train_x), len(data.test_x)) == (60, 20)
    with pytest.raises(DataError, match="different columns"):
        load(train, target="price", test=written(tmp_path / "c.csv", frame[["age", "price"]]))


def test_semicolons_and_no_header(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a;b;y\n" + "".join(f"{n / 7};{n % 5};{n % 2}\n" for n in range(40)))
    assert load(path, target="y").shape == (2,)
    path.write_text("".join(f"{n / 7},{n % 5},{n % 2}\n" for n in range(40)))
    data = load(path, target="2")
    assert (len(data.train_x) + len(data.test_x), data.shape, data.kind) == (40, (2,), "classification")


def test_windows_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(("\ufeffa,y\r\n" + "".join(f"{n / 7},{n % 2}\r\n" for n in range(40))).encode())
    assert load(path, target="y").shape == (1,)


def with_column(**columns: object) -> pandas.DataFrame:
    return table().assign(**columns)


def spoiled(column: str, row: int, value: object) -> pandas.DataFrame:
    frame = table()
    frame[column] = frame[column].astype(object)
    frame.loc[row, column] = value
    return frame


BAD = {
    "no such column": (table(), "prize", r"no column 'prize'; did you mean 'price'\? it has age, town"),
    "case": (table(), "PRICE", "did you mean 'price'"),
    "none said": (table(), None, "Say --target COLUMN, one of age, town"),
    "text among numbers": (spoiled("age", 6, "old"), "price", "column 'age' holds 'old' in row 7 where numbers belong"),
    "infinite": (spoiled("age", 6, np.inf), "price", "column 'age' is infinite in row 7"),
    "missing target": (spoiled("price", 6, None), "price", "price holds 1 NaN, the first in row 7"),
    "missing class": (spoiled("kind", 6, None), "kind", "kind is missing in 1 of 80 rows, the first in row 7"),
    "leak": (
        with_column(again=table()["town"].iloc[0]).assign(again=lambda t: t["price"]),
        "price",
        "'again' is the target",
    ),
    "alone": (table()[["price"]], "price", "no column beside the target"),
    "one class": (with_column(kind="yes"), "kind", "kind is 'yes' in all 80 rows"),
    "nothing left": (
        pandas.DataFrame({"text": [f"a long text {n}" for n in range(40)], "y": np.arange(40) % 2}),
        "y",
        "no column is left to learn from",
    ),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_bad_tables_are_refused_in_one_line(tmp_path: Path, case: str, suffix: str) -> None:
    frame, target, message = BAD[case]
    if suffix == ".parquet" and case == "text among numbers":
        frame = frame.assign(age=frame["age"].astype(str))
    with pytest.raises(DataError, match=message) as caught:
        load(written(tmp_path / f"a{suffix}", frame), target=target)
    assert "\n" not in str(caught.value) and f"a{suffix}" in str(caught.value)


def test_dates_durations_and_decimals_are_numbers(tmp_path: Path) -> None:
    days = pandas.date_range("2020", periods=ROWS)[RNG.permutation(ROWS)]
    for column in (days, days.tz_localize("UTC"), days - days[0], days.date, [Decimal(n * n) / 7 for n in range(ROWS)]):
        data = load(written(tmp_path / "a.parquet", table().assign(day=column)), target="kind")
        assert data.shape == (7,) and abs(data.train_x[:, 3].mean()) < 1e-5


def test_what_no_table_holds_is_refused(tmp_path: Path) -> None:
    for column, message in (
        ([[1, 2]] * ROWS, "holds (a list|an ndarray)"),
        ([b"a"] * ROWS, "holds a bytes"),
        (["1,5"] * 40 + ["2,25"] * 40, "a decimal comma; write a point"),
    ):
        with pytest.raises(DataError, match=message):
            load(written(tmp_path / "a.parquet", table().assign(other=column)), target="kind")
    with pytest.raises(DataError, match="a target is of numbers or of labels"):
        load(written(tmp_path / "a.parquet", table().assign(y=pandas.date_range("2020", periods=ROWS))), target="y")
    with pytest.raises(DataError, match="two columns 'a'"):
        load(pandas.DataFrame(RNG.normal(size=(40, 3)), columns=["a", "a", "y"]), target="y")


def test_names_with_spaces_around_them(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a, town , y\n" + "".join(f"{n / 7}, {'Ulm' if n % 3 else 'Bonn'}, {n % 2}\n" for n in range(40)))
    assert load(path, target="y").shape == (3,)


def test_a_table_that_would_become_too_large_is_not_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.csv", table())
    monkeypatch.setattr("dropkit.lab.data.sources.encoder.MOST", 1000)
    with pytest.raises(DataError, match=r"64 rows of 7 columns would be 1792 bytes"):
        load(path, target="price")


def test_a_class_under_another_name_is_warned_of(tmp_path: Path) -> None:
    frame = with_column(code=lambda t: (t["kind"] == "yes") + 3)
    data = load(written(tmp_path / "a.csv", frame), target="kind")
    assert any(note.startswith("warning: these columns tell the target") and "code" in note for note in data.notes)


@pytest.mark.parametrize("content", [b"", b"a,y\n", b"\xff\xfe\x00\x01", b'a,y\n"1,2\n', b"a,y\n1,2\n1,2,3\n"])
def test_damaged_tables(tmp_path: Path, content: bytes) -> None:
    for name in ("a.csv", "a.parquet"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=name) as caught:
            load(tmp_path / name, target="y")
        assert "\n" not in str(caught.value)


def test_truncated_and_bursting_gzip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = gzip.compress(b"a,y\n" + b"1,2\n3,4\n" * 10_000)
    (tmp_path / "a.csv.gz").write_bytes(content[:-20])
    with pytest.raises(DataError, match=r"a\.csv\.gz"):
        load(tmp_path / "a.csv.gz", target="y")
    monkeypatch.setattr("dropkit.lab.data.sources.tables.MOST", 1000)
    (tmp_path / "a.csv.gz").write_bytes(content)
    with pytest.raises(DataError, match="no more is unpacked"):
        load(tmp_path / "a.csv.gz", target="y")


def test_names_with_control_characters_are_made_visible(tmp_path: Path) -> None:
    frame = table().rename(columns={"age": "\x1b[31mage"})
    with pytest.raises(DataError) as caught:
        load(written(tmp_path / "a.csv", frame), target="nothing")
    assert "\x1b" not in str(caught.value)


def test_scikit_learns_own_sets() -> None:
    wine, diabetes = load("sklearn:wine"), load("sklearn:diabetes")
    assert (wine.kind, wine.classes, wine.labels[0], wine.shape) == ("classification", 3, "class_0", (13,))
    assert (diabetes.kind, diabetes.classes, diabetes.shape) == ("regression", 1, (10,))
    assert load("sklearn:breast_cancer", kind="binary").classes == 1
    with pytest.raises(DataError, match="nothing is downloaded"):
        load("sklearn:california_housing")
