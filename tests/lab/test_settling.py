"""Seeds that are added until a comparison is settled: where that stops, what it says, and that it survives a kill."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from dropkit.errors import DropkitTypeError, DropkitValueError, OutputError
from dropkit.lab import Comparison, compare
from dropkit.lab.recipes import get
from dropkit.lab.settling import Settling

from .runs import numbers, run_of

TINY: dict[str, Any] = {"recipe": "numpy-mlp", "size": "tiny", "epochs": 1, "strategies": ["none", "fixed"]}
FIGURES = get("mlp").figures


def settled(out: Path, **more: Any) -> Comparison:
    return compare(**{**TINY, "until_settled": True, "margin": 0.2, "max_seeds": 9, **more}, out=out)


def test_seeds_are_added_one_by_one_until_all_is_settled_or_no_more_are_allowed() -> None:
    settling = Settling.make(FIGURES, None, 0.005, True, 9)

    def goes_on(seeds: int, *by: float) -> bool:
        none = [0.5, 0.52, 0.49, 0.51, 0.5, 0.53, 0.5, 0.52, 0.51, 0.5][:seeds]
        fixed = [value + by[k % len(by)] for k, value in enumerate(none)]
        return settling.goes_on({"none": [run_of(a) for a in none], "fixed": [run_of(a) for a in fixed]})

    assert not goes_on(5, 0.1, 0.101)  # better
    assert not goes_on(5, -0.1, -0.101)  # worse
    assert not goes_on(5, 0.0, 0.0001)  # within the margin
    assert goes_on(5, 0.1, -0.1) and goes_on(8, 0.1, -0.1)
    assert not goes_on(9, 0.1, -0.1)  # no more are allowed
    assert not Settling.make(FIGURES, 5, None, False, None).goes_on({"none": [run_of(0.5)], "fixed": [run_of(0.6)]})


def test_one_strategy_is_nothing_to_settle() -> None:
    assert not Settling.make(FIGURES, None, 0.005, True, 9).goes_on({"none": [run_of(0.5), run_of(0.9)] * 3})


def test_an_interrupted_one_ends_as_if_it_never_was(tmp_path: Path) -> None:
    whole = settled(tmp_path / "whole", margin=0.02, max_seeds=7)
    seen = []

    def stop(plan: Any, row: Any) -> None:
        seen.append(plan.seed)
        if len(seen) in (3, 9):
            raise KeyboardInterrupt

    for place in ("first seeds", "added ones"):
        with pytest.raises(KeyboardInterrupt):
            settled(tmp_path / "cut", margin=0.02, max_seeds=7, resume=True, on_epoch=stop)
        assert not (tmp_path / "cut" / "result.json").exists(), place
    again = settled(tmp_path / "cut", margin=0.02, max_seeds=7, resume=True)
    assert again.verdict == whole.verdict and again.config["seeds"] == whole.config["seeds"] > 5
    for name, group in whole.runs.items():
        assert [numbers(run) for run in again.runs[name]] == [numbers(run) for run in group]
    assert json.loads((tmp_path / "cut" / "config.json").read_text())["seeds"] == whole.config["seeds"]


def test_what_is_written(tmp_path: Path) -> None:
    found = settled(tmp_path)
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["margin"], result["until_settled"]) == (0.2, True)
    (pair,) = result["pairs"]
    assert (pair["strategy"], pair["against"]) == ("fixed", "none")
    assert pair["difference"]["low"] <= pair["difference"]["mean"] <= pair["difference"]["high"]
    assert pair["answer"] in ("better", "worse", "within the margin", "not settled")
    assert 0 <= pair["p_no_difference"] <= 1 and 0 <= pair["p_margin_or_more"] <= 1
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    (row,) = [row for row in rows if (row["strategy"], row["metric"]) == ("fixed", "test_accuracy")]
    assert float(row["difference"]) == pair["difference"]["mean"]
    assert float(row["difference_low"]) == pair["difference"]["low"]
    assert int(row["seeds"]) == found.config["seeds"]
    assert [row["difference"] for row in rows if row["strategy"] == "none"] == [""] * (len(rows) // 2)
    assert "holds at every look" in (tmp_path / "table.md").read_text()


def test_seeds_that_were_added_so_are_not_told_as_chosen_beforehand(tmp_path: Path) -> None:
    settled(tmp_path)
    with pytest.raises(OutputError, match="was compared with --until-settled, so how many seeds it has follows from"):
        compare(**TINY, seeds=20, resume=True, out=tmp_path)
    again = settled(tmp_path, resume=True, margin=0.25)  # another margin asks another question of the same sequence
    assert again.config["margin"] == 0.25


def test_a_comparison_of_few_seeds_may_go_on_until_it_is_settled(tmp_path: Path) -> None:
    few = compare(**TINY, seeds=2, out=tmp_path)
    assert few.verdict[0].startswith("2 seeds are too few to say")
    found = settled(tmp_path, resume=True)
    assert found.config["seeds"] >= 5 and "looks" not in found.config
    assert [numbers(run) for run in found.runs["none"][:2]] == [numbers(run) for run in few.runs["none"]]


def test_seeds_added_by_hand_are_told(tmp_path: Path) -> None:
    compare(**TINY, seeds=5, out=tmp_path)
    more = compare(**TINY, seeds=6, resume=True, out=tmp_path)
    assert more.config["looks"] == [5]
    assert any("told before, with 5 seeds" in words for words in more.verdict)
    again = compare(**TINY, seeds=6, resume=True, out=tmp_path)
    assert again.config["looks"] == [5] and again.verdict == more.verdict


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"margin": 0.0}, DropkitValueError, "margin must be above 0, got 0.0: it is a difference of test accuracy"),
        ({"margin": float("nan")}, DropkitValueError, "margin must be above 0, got nan"),
        (
            {"margin": 0.5},
            DropkitValueError,
            "margin 0.5 would be 50 points of test accuracy, .* half a point",
        ),
        ({"margin": "1"}, DropkitTypeError, "margin must be a number above 0, got '1' of type str"),
        ({"max_seeds": 9}, DropkitValueError, "max_seeds 9 is for --until-settled: add that"),
        (
            {"until_settled": True, "seeds": 3},
            DropkitValueError,
            "from 5 seeds on, got seeds 3; leave --seeds out",
        ),
        ({"until_settled": True, "max_seeds": 4}, DropkitValueError, "the first look's 5 and 1000, got 4"),
        ({"until_settled": True, "max_seeds": 1001}, DropkitValueError, "the first look's 5 and 1000, got 1001"),
        ({"until_settled": True, "max_seeds": 2.5}, DropkitTypeError, "max_seeds must be a whole number, got 2.5"),
        (
            {"recipe": "gan", "until_settled": True},
            DropkitValueError,
            "a --margin: a difference of Frechet distance",
        ),
    ],
)
def test_wrong_choices(tmp_path: Path, asked: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        compare(**{**TINY, **asked}, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
