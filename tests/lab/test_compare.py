import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from dropkit.errors import DropkitTypeError, DropkitValueError, OutputError
from dropkit.lab import Comparison, Run, compare, train
from dropkit.lab.telling.stats import mean_interval
from dropkit.lab.telling.table import LAST, cells, figures, lines, markdown
from dropkit.lab.telling.verdict import verdict


def run(*accuracies: float, loss: float = 0.5, train: float = 0.9, on: float = 0.8) -> Run:
    rows = tuple(
        {
            "test_accuracy": accuracy,
            "test_loss": loss,
            "train_eval_accuracy": train,
            "train_eval_loss": 0.4,
            "train_accuracy": on,
            "train_loss": 0.6,
            "seconds": 2.0,
        }
        for accuracy in accuracies
    )
    return Run({}, rows, len(rows))


def words(**accuracies: list[float]) -> str:
    return "\n".join(verdict(lines({name: [run(a) for a in seeds] for name, seeds in accuracies.items()}), "toys"))


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
    assert cells(none)[:3] == ("none", "0.5000 ± 0.0000", "-")
    assert cells(fixed)[2] == "+0.1000 ± 0.0000 *"
    assert cells(fixed)[4] == "+0.3000 ± 0.0000"
    (single,) = lines({"fixed": [run(0.6)]})
    assert cells(single)[1:3] == ("0.6000", "-")


def test_markdown_states_what_the_figures_are() -> None:
    text = markdown(lines({"none": [run(0.5), run(0.5)], "fixed": [run(0.6), run(0.6)]}), epochs=7)
    assert "mean of the last 3 of 7 epochs" in text and "95 % t interval over 2 seeds" in text
    assert text.count("\n|") == 3


def test_a_clear_winner_is_called_one() -> None:
    text = words(none=[0.50, 0.60, 0.55, 0.52, 0.58], fixed=[0.70, 0.81, 0.74, 0.73, 0.78])
    assert text.startswith("fixed is best on toys: test accuracy 0.7520 over 5 paired seeds.")
    assert "It beats no dropout by +0.2020 (95 % interval +0.1" in text
    assert "One comparison at 95 %" in text
    assert "few" not in text


def test_runs_that_do_not_separate_are_said_to_not_separate() -> None:
    text = words(none=[0.50, 0.60, 0.55, 0.52, 0.58], fixed=[0.51, 0.59, 0.57, 0.51, 0.59])
    assert "fixed has the highest mean test accuracy on toys" in text
    assert "these runs do not tell it apart from no dropout" in text
    assert "is best" not in text and "beats" not in text
    seeds = int(re.search(r"about (\d+) seeds would show it four times in five", text)[1])
    assert seeds > 5 and f"--resume --seeds {seeds}" in text


def test_no_dropout_can_win_and_others_are_not_repeated() -> None:
    text = words(none=[0.7, 0.8, 0.75], fixed=[0.5, 0.61, 0.54], step=[0.4, 0.52, 0.44])
    assert text.startswith("no dropout is best on toys")
    assert "It beats fixed by" in text and "It beats step by" in text
    assert "3 seeds are few" in text


def test_number_of_comparisons_and_bonferroni_are_told() -> None:
    text = words(none=[0.50, 0.60, 0.55], fixed=[0.70, 0.80, 0.75], step=[0.701, 0.7995, 0.753])
    assert "3 pairs can be compared, each at 95 % and uncorrected" in text
    assert "in up to 15 % of such experiments" in text
    assert "With Bonferroni's correction for all 3, the lead over no dropout still excludes 0." in text
    weak = words(none=[0.50, 0.60, 0.55], fixed=[0.51, 0.622, 0.567], step=[0.51, 0.60, 0.565])
    assert "With Bonferroni's correction for all 3, no lead still excludes 0." in weak


def test_a_strategy_worse_than_none_is_called_worse() -> None:
    text = words(none=[0.5, 0.6, 0.55], fixed=[0.7, 0.8, 0.75], step=[0.3, 0.41, 0.35])
    assert "step is worse than no dropout: -0.19" in text


def test_one_seed_and_one_strategy_claim_nothing() -> None:
    assert "one seed has no interval, so this run cannot tell a difference from chance" in words(
        none=[0.5], fixed=[0.6]
    )
    assert "One strategy alone says nothing" in words(fixed=[0.5, 0.6])
    assert "with one seed, so without an interval" in words(fixed=[0.5])


def test_equal_strategies() -> None:
    text = words(none=[0.5, 0.6], fixed=[0.5, 0.6])
    assert "do not tell it apart from fixed" in text and "no difference was seen at all" in text


def test_divergence_is_told() -> None:
    runs = {"none": [run(0.5), run(0.6)], "fixed": [run(0.1, loss=math.nan), run(0.6)]}
    assert "fixed diverged (loss not finite) in 1 of 2 seeds." in verdict(lines(runs), "toys")


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
    assert names == {"config.json", "result.json", "report.html", "table.md"} | runs
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


def test_whether_adapting_helped_is_told_against_fixed_and_none() -> None:
    text = words(
        none=[0.50, 0.51, 0.52],
        fixed=[0.60, 0.61, 0.62],
        concrete=[0.701, 0.711, 0.720],
        gap=[0.40, 0.41, 0.421],
        disarm=[0.60, 0.62, 0.61],
    )
    assert (
        "Adapting the rate helped against fixed: concrete did better, gap did worse, "
        "disarm cannot be told apart from it."
    ) in text
    assert "Adapting the rate helped against no dropout: concrete and disarm did better, gap did worse." in text
    details = text[text.index("Paired differences: ") :].splitlines()[0]
    assert details.startswith(
        "Paired differences: concrete +0.1007 (95 % interval +0.0992 to +0.1021) against fixed and"
    )
    assert [name in details for name in ("gap -0.19", "disarm +0.0000")] == [True, True]
    # Said once, not again among those that are compared with "none" alone.
    assert "gap is worse than no dropout" not in text


def test_adapting_that_loses_is_said_to_lose() -> None:
    text = words(none=[0.5, 0.51], fixed=[0.6, 0.611], gap=[0.40, 0.4101])
    assert "Adapting the rate did not visibly help against fixed: gap did worse." in text
    assert "Adapting the rate did not visibly help against no dropout: gap did worse." in text
    assert "Adapting" not in words(none=[0.5], gap=[0.6])
    assert "Adapting" not in words(none=[0.5, 0.51], step=[0.6, 0.61])
