import json
from pathlib import Path
from typing import Any

import pytest

from dropkit.errors import DropkitTypeError, DropkitValueError, OutputError
from dropkit.lab import Comparison, compare, train
from dropkit.lab.statistics.interval import mean_interval
from dropkit.lab.telling.table import LAST, cells, figures, headings, lines, markdown
from dropkit.lab.telling.verdict import verdict

from .runs import run_of as run


def test_a_seeds_figure_is_the_mean_of_its_last_epochs() -> None:
    found = figures(run(0.1, 0.2, 0.7, 0.8, 0.9, train=0.95))
    assert LAST == 3
    assert found["test_accuracy"] == pytest.approx(0.8)
    assert found["gap"] == pytest.approx(0.15)
    assert found["seconds"] == 10
    assert figures(run(0.2, 0.4))["test_accuracy"] == pytest.approx(0.3)


def test_differences_are_paired_by_seed() -> None:
    none, fixed = lines({"none": [run(0.5), run(0.7)], "fixed": [run(0.52), run(0.71)]})
    assert none.difference is None
    assert fixed.differences == pytest.approx((0.02, 0.01))
    assert fixed.difference.half == pytest.approx(mean_interval([0.02, 0.01]).half)


def test_cells() -> None:
    none, fixed = lines({"none": [run(0.5), run(0.5)], "fixed": [run(0.6), run(0.6)]})
    assert cells(none)[:3] == ("none", "50.00 ± 0.00", "-")
    assert cells(fixed)[2] == "+10.00 ± 0.00 *"
    assert cells(fixed)[4] == "+30.00 ± 0.00"
    (single,) = lines({"fixed": [run(0.6)]})
    assert cells(single)[1:3] == ("60.00", "-")


def test_shares_are_told_in_percent_wherever_they_stand_and_losses_as_numbers() -> None:
    found = lines({"none": [run(0.9841)] * 5, "fixed": [run(0.9861)] * 5})
    answer, *_ = verdict(found, "toys")
    table = dict(zip(headings(found[1].figures), cells(found[1]), strict=True))
    assert "+0.2 points" in answer
    assert table["test accuracy, %"] == "98.61 ± 0.00" and table["test loss"] == "0.5000 ± 0.0000"
    assert table["difference from none, points"].startswith("+0.20 ± 0.00")
    assert table["gap, train - test, points"].startswith("-8.61")
    (alone,) = verdict(found[1:], "toys")
    assert "reaches test accuracy 98.61 % on toys over 5 seeds; the train-test gap is -8.61 points." in alone
    assert any("(-8.41 points), narrowest" in words or "-8.41 points" in words for words in verdict(found, "toys"))


@pytest.mark.parametrize(("scores", "shown"), [((0.9841, 0.9841), "98.41"), ((97.5, 97.5), "97.5000")])
def test_what_is_in_percent_already_is_left_so(tmp_path: Path, scores: tuple[float, ...], shown: str) -> None:
    found = compare(run=lambda strategy, seed: {"accuracy": scores[seed]}, strategies=["none"], seeds=2, out=tmp_path)
    assert cells(found.lines[0])[1] == f"{shown} ± {'0.00' if shown == '98.41' else '0.0000'}"
    assert shown.rstrip("0") in (tmp_path / "table.md").read_text()


def test_markdown_states_what_the_figures_are() -> None:
    text = markdown(lines({"none": [run(0.5), run(0.5)], "fixed": [run(0.6), run(0.6)]}), epochs=7)
    assert "mean of the last 3 of 7 epochs" in text and "95 % t interval over 2 seeds" in text
    assert text.count("\n|") == 3


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder = tmp_path_factory.mktemp("runs") / "out"
    return compare("mlp", size="tiny", device="cpu", out=folder)


def test_the_folder_of_a_comparison(finished: Comparison) -> None:
    names = {str(path.relative_to(finished.folder)) for path in finished.folder.rglob("*") if path.is_file()}
    each = {
        "checkpoint.safetensors",
        "config.json",
        "metrics.csv",
        "result.json",
        "scores.safetensors",
        "state.safetensors",
    }
    runs = {f"{strategy}/seed{seed}/{name}" for strategy in finished.runs for seed in (0, 1) for name in each}
    assert names == {"config.json", "result.json", "report.html", "table.csv", "table.md"} | runs
    result = json.loads((finished.folder / "result.json").read_text())
    assert result["verdict"] == list(finished.verdict)
    assert [line["strategy"] for line in result["table"]] == ["none", "fixed", "step"]
    report = (finished.folder / "report.html").read_text()
    assert "<dd>mlp</dd>" in report and "<dd></dd>" not in report
    for line, found in zip(result["table"], finished.lines, strict=True):
        assert line["figures"]["test_accuracy"]["mean"] == found.interval("test_accuracy").mean


def test_a_run_of_a_comparison_is_the_run_alone(finished: Comparison, tmp_path: Path) -> None:
    alone = train("mlp", size="tiny", strategy="step", seed=1, device="cpu", out=tmp_path)
    assert [row["test_loss"] for row in alone.rows] == [row["test_loss"] for row in finished.runs["step"][1].rows]


def test_interrupted_comparison_resumes_to_the_same_table(finished: Comparison, tmp_path: Path) -> None:
    rows = []

    def stop(plan, row):
        rows.append(row)
        if len(rows) == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare("mlp", size="tiny", device="cpu", out=tmp_path, on_epoch=stop)
    resumed = compare("mlp", size="tiny", device="cpu", out=tmp_path, resume=True, on_epoch=stop)
    assert len(rows) == 2 * 3 * 3
    assert [cells(line)[:-1] for line in resumed.lines] == [cells(line)[:-1] for line in finished.lines]
    assert resumed.verdict == finished.verdict


def test_seeds_and_strategies_may_be_added(tmp_path: Path) -> None:
    choices = {"size": "tiny", "epochs": 1, "device": "cpu", "out": tmp_path}
    compare("mlp", strategies=["none"], seeds=1, **choices)
    grown = compare("mlp", strategies=["none", "fixed:0.5"], seeds=2, resume=True, **choices)
    assert {name: len(runs) for name, runs in grown.runs.items()} == {"none": 2, "fixed:0.5": 2}
    assert (tmp_path / "fixed-0.5" / "seed1" / "metrics.csv").exists()
    with pytest.raises(OutputError, match=r"seeds 2, this one has 1; it may grow on --resume, not shrink"):
        compare("mlp", strategies=["none", "fixed:0.5"], seeds=1, resume=True, **choices)
    with pytest.raises(OutputError, match=r"strategies \['none', 'fixed:0.5'\], this one has \['none'\]"):
        compare("mlp", strategies=["none"], seeds=2, resume=True, **choices)


def test_resume_of_nothing_starts(tmp_path: Path) -> None:
    found = compare("mlp", size="tiny", epochs=1, seeds=1, strategies=["none"], resume=True, out=tmp_path / "new")
    assert len(found.runs["none"][0].rows) == 1


@pytest.mark.parametrize(
    ("choices", "error", "message"),
    [
        ({"strategies": []}, DropkitValueError, "no strategies given; choose from none, fixed, step, concrete"),
        ({"strategies": "none"}, DropkitTypeError, "must be a list of names, got the string 'none'"),
        ({"strategies": ["fixed:.2", "fixed:0.20"]}, DropkitValueError, "strategy 'fixed:0.2' is given twice"),
        ({"seeds": 0}, DropkitValueError, "seeds must be at least 1, got 0"),
    ],
)
def test_wrong_choices(tmp_path: Path, choices: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        compare("mlp", size="tiny", out=tmp_path / "run", **choices)
    assert not (tmp_path / "run").exists()
