"""`dropkit methods`: what the grid says, as a list, as one entry, as JSON."""

import json

import pytest

pytest.importorskip("typer")

from dropkit import grid
from dropkit.cli import main


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as left:
        main(["methods", *words])
    assert left.value.code in (0, None)
    return capsys.readouterr().out


def test_all_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys).splitlines()
    assert [line.split()[0] for line in lines] == list(grid)
    assert all(line.endswith(variant.paper) for line, variant in zip(lines, grid.values(), strict=True))


def test_one_is_told_with_all_its_facts(capsys: pytest.CaptureFixture[str]) -> None:
    for name, variant in grid.items():
        told = " ".join(said(capsys, name).split())
        for fact in (variant.formula, variant.applies, variant.form, variant.paper, str(variant.default)):
            assert " ".join(fact.split()) in told
        assert " ".join(variant.bibtex.split()) in told


def test_json_holds_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    every = json.loads(said(capsys, "--json"))
    assert [each["name"] for each in every] == list(grid)
    assert json.loads(said(capsys, "zoneout", "--json"))["formula"] == grid["zoneout"].formula


def test_an_unknown_one_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["methods", "zonout\x1b[31m"])
    assert left.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("dropkit: error: unknown variant 'zonout") and "\x1b" not in error
    assert error.count("\n") == 1
