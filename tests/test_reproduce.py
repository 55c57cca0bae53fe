"""`dropkit reproduce`: what is published is said whole; what is refused is so before a run; a run repeats itself."""

import hashlib
import json
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dropkit import reproduce as tables
from dropkit.cli import main
from dropkit.errors import DataError, DropkitError
from dropkit.reproduce import (
    TABLES,
    Outcome,
    Row,
    Table,
    char_gpt,
    char_lstm,
    characters,
    cora,
    dropedge_cora,
    grand_cora,
)

ROWS = (Row("one", 1.0, 0.5), Row("two", 9.0, 0.5))
COUNTS = Table("counts", "nobody 2020", "count", ROWS, "none", "none", 3, 0.1, "n")


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A table that trains nothing; what was trained."""
    trained: list[Any] = []

    def train(prepared: Any, row: str, seed: int) -> float:
        trained.append((prepared, row, seed))
        return 1.0 + seed / 10

    work = SimpleNamespace(prepare=lambda data_dir: f"data of {data_dir}", train=train)
    monkeypatch.setitem(sys.modules, "dropkit.reproduce.n", work)
    monkeypatch.setitem(TABLES, "counts", COUNTS)
    return trained


def said(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> Any:
    with pytest.raises(SystemExit) as left:
        main(["reproduce", *words])
    assert (left.value.code or 0) == status
    return capsys.readouterr()


@pytest.mark.parametrize("name", TABLES)
def test_a_table_says_all_that_there_is_to_know(name: str) -> None:
    table = TABLES[name]
    for told in (table.title, table.paper, table.figure, table.band, table.settings):
        assert told.isprintable() and told and not told.endswith(".")
    assert table.seeds >= 1 and table.minutes > 0
    assert len({row.name for row in table.rows}) == len(table.rows) > 0
    assert all((row.band > 0) == (row.published is not None) and row.name.isprintable() for row in table.rows)
    work = import_module(f"dropkit.reproduce.{table.module}")
    assert callable(work.prepare) and callable(work.train)
    if hasattr(work, "SETTINGS"):  # a setting for each row
        assert list(work.SETTINGS) == [row.name for row in table.rows]


def test_every_row_is_trained_with_every_seed_and_compared_with_its_band(counts: list[Any]) -> None:
    told: list[Any] = []
    found = tables.reproduce("counts", data_dir="here", told=lambda *run: told.append(run))
    assert counts == [("data of here", row, seed) for row in ("one", "two") for seed in range(3)]
    assert told == [(row, seed, 1 + seed / 10) for row in ("one", "two") for seed in range(3)]
    assert [(outcome.inside, outcome.ours.n) for outcome in found] == [(True, 3), (False, 3)]
    assert found[0].ours.mean == pytest.approx(1.1) and found[0].values == (1.0, 1.1, 1.2)
    assert [outcome.row.name for outcome in tables.reproduce("counts", rows=["two"], seeds=1)] == ["two"]
    assert Outcome(Row("edge", 1.0, 0.25), (1.25,), 0.0).inside and not Row("edge", 1.0, 0.25).holds(1.26)


def test_the_command_prints_what_was_published_beside_ours(counts: list[Any], capsys: Any) -> None:
    lines = said(capsys, "counts", "--seeds", "2").out.splitlines()
    one, two = (next(line for line in lines if line.startswith(name)) for name in ("one", "two"))
    assert one.split()[:4] == ["one", "1", "±", "0.5"] and " 1.05 ± 0.64 " in one and " yes " in one
    assert " no " in two
    assert "counts" in said(capsys).out and "一半" in said(capsys, "counts", "--lang", "zh").out
    plain = json.loads(said(capsys, "counts", "--json", "--row", "two").out)
    assert [row["name"] for row in plain["rows"]] == ["two"]
    assert plain["rows"][0]["published"] == 9 and plain["rows"][0]["values"] == [1.0, 1.1, 1.2]
    assert [each["name"] for each in json.loads(said(capsys, "--json").out)] == list(TABLES)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["nothing"], "unknown table 'nothing'"),
        (["counts", "--row", "three"], "unknown row 'three'; Known: one, two"),
        (["counts", "--seeds", "0"], "seeds must be at least 1, got 0"),
        (["counts", "--lang", "xx"], "unknown language 'xx'"),
    ],
)
def test_what_is_wrong_is_one_line_before_anything_runs(
    counts: list[Any], capsys: Any, words: list[str], why: str
) -> None:
    printed = said(capsys, *words, status=2)
    assert why in printed.err and printed.err.count("\n") == 1 and not printed.out and not counts


def test_a_file_that_is_not_cora_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.delenv("DROPKIT_DATA", raising=False)
    with pytest.raises(DataError, match="Cora is not downloaded"):
        cora.load_cora(None)
    with pytest.raises(DataError, match="cannot read"):
        cora.load_cora(tmp_path)
    file = tmp_path / "cora" / "cora.npz"
    file.parent.mkdir()
    arrays: dict[str, Any] = {
        name: np.zeros(shape, np.int32) for name, shape in zip(cora.NAMES, cora.SHAPES, strict=True)
    }
    for changed, why in (
        ({}, "does not hold the Cora that Planetoid published"),
        ({"y": np.zeros(3, np.int32)}, "y is int32 of shape"),
        ({"x": np.zeros(cora.SHAPES[0])}, "x is float64 of shape"),
        ({"y": np.array([print], dtype=object)}, "is no file of the arrays"),
    ):
        np.savez(file, **{**arrays, **changed})
        with pytest.raises(DropkitError, match=why):
            cora.load_cora(tmp_path)
    file.write_bytes(b"PK\x03\x04 no archive")
    assert "cora.npz" in said(capsys, "dropedge-cora", "--data-dir", str(tmp_path), status=2).err


def graph(papers: int = 60) -> cora.Cora:
    """Two classes, whose papers share words and cite their own."""
    random = np.random.default_rng(0)
    y = np.arange(papers) % 2
    x = (random.random((papers, 20)) < np.where(np.arange(20) < 10, 0.6, 0.1)).astype(int)
    x[y == 1] = x[y == 1][:, ::-1]
    x[:, 0] |= x.sum(1) == 0
    edges = random.integers(0, papers // 2, (2, 150)) * 2
    edges = np.concatenate([edges, edges + 1], 1)
    parts = np.split(np.arange(papers), [10, 20])
    return cora.Cora(x, y, np.concatenate([edges, edges[::-1]], 1), *parts)


def test_graphs_are_learned_and_a_seed_repeats_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dropedge_cora, "load_cora", lambda data_dir: graph())
    monkeypatch.setattr(dropedge_cora, "EPOCHS", 60)
    prepared = dropedge_cora.prepare(None)
    row = "semi-supervised, 2 layers, DropEdge"
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    first = dropedge_cora.train(prepared, row, 0)
    assert first > 80  # of two classes
    assert dropedge_cora.train(prepared, row, 0) == first
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == threads


def test_a_setting_beside_the_published_ones_has_no_band(counts: list[Any], capsys: Any) -> None:
    TABLES["counts"] = replace(COUNTS, rows=(Row("one", 1.0, 0.5), Row("ours")))
    line = next(line for line in said(capsys, "counts", "--seeds", "2").out.splitlines() if line.startswith("ours"))
    assert line.split()[:4] == ["ours", "1.05", "±", "0.64"] and " yes " not in line and " no " not in line
    (plain,) = json.loads(said(capsys, "counts", "--json", "--row", "ours").out)["rows"]
    assert plain["published"] is None and plain["inside"] is None


def test_a_text_that_is_not_the_published_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DROPKIT_DATA", raising=False)
    with pytest.raises(DataError, match="point --data-dir or DROPKIT_DATA at the folder that holds tiny_shakespeare"):
        characters.load_text(None)
    with pytest.raises(DataError, match="cannot read"):
        characters.load_text(tmp_path)
    file = tmp_path / characters.FILE
    file.parent.mkdir()
    file.write_bytes(b"to be, or not to be")
    with pytest.raises(DataError, match="is not the published file: replace it with https"):
        characters.load_text(tmp_path)
    monkeypatch.setattr(characters, "CONTENT", hashlib.sha256(b"to be, or not to be").hexdigest())
    text = characters.load_text(tmp_path)
    assert (len(text.train), len(text.val), text.alphabet) == (17, 2, len(set("to be, or not to be")))


@pytest.mark.parametrize(
    ("work", "row", "sizes"),
    [
        (
            char_gpt,
            "ten passes, p = 0.1",
            {"LAYERS": 1, "HEADS": 2, "WIDTH": 16, "BLOCK": 8, "BATCH": 4, "EVALUATED": 4},
        ),
        (char_lstm, "weight drop, locked and embedding dropout", {"WIDTH": 16, "BLOCK": 10, "BATCH": 4, "PASSES": 6}),
    ],
    ids=["gpt", "lstm"],
)
def test_characters_are_learned_and_a_seed_repeats_itself(
    monkeypatch: pytest.MonkeyPatch, work: Any, row: str, sizes: dict[str, int]
) -> None:
    """Of a text that repeats ten characters: better than guessing, which is ln 10."""
    numbers = torch.arange(10).repeat(120)
    monkeypatch.setattr(work, "load_text", lambda data_dir: characters.Text(numbers[:800], numbers[800:], 10))
    for name, size in sizes.items():
        monkeypatch.setattr(work, name, size)
    prepared, state = work.prepare(None), torch.get_rng_state()
    first = work.train(prepared, row, 0)
    assert first < 1.5 < np.log(10)
    assert work.train(prepared, row, 0) == first
    assert torch.equal(torch.get_rng_state(), state)


def test_draws_of_nodes_learn_to_agree_and_a_seed_repeats_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grand_cora, "load_cora", lambda data_dir: graph())
    monkeypatch.setattr(grand_cora, "EPOCHS", 80)
    prepared = grand_cora.prepare(None)
    first = grand_cora.train(prepared, "GRAND", 0)
    assert first > 80 and grand_cora.train(prepared, "GRAND", 0) == first
    dense = prepared.adjacency.to_dense()
    model = grand_cora.Grand(20, torch.Generator().manual_seed(0)).eval()
    powers = sum(torch.linalg.matrix_power(dense, n) for n in range(9)) / 9
    torch.testing.assert_close(model.propagated(prepared.x, prepared.adjacency), powers @ prepared.x / 2)


def test_consistency_is_none_where_draws_agree_on_what_is_sure_and_grows_as_they_differ() -> None:
    sure, other = torch.tensor([[50.0, 0.0]]), torch.tensor([[0.0, 50.0]])
    assert grand_cora.consistency([sure, sure]).item() == pytest.approx(0, abs=1e-6)
    # of two opposite ones the mean is (1/2, 1/2), and so it is sharpened: (1/2)^2 + (1/2)^2 each
    assert grand_cora.consistency([sure, other]).item() == pytest.approx(0.5)
    half = torch.log(torch.tensor([[0.75, 0.25]]))  # sharpened 9/10 and 1/10
    assert grand_cora.consistency([half, half]).item() == pytest.approx(2 * 0.15**2)
