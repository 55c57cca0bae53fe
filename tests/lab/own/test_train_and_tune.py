"""A loop of one's own through train and tune: the same folders, and nothing that was finished is lost."""

import csv
import functools
import json
import os
import signal
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dropkit import cli
from dropkit.errors import DropkitError, DropkitTypeError, DropkitValueError, OutputError
from dropkit.lab import Tuning, compare, train, tune
from dropkit.lab.own.chosen import Chosen
from dropkit.language import told
from tests.test_examples import EXAMPLES

CALLS: list[tuple[str, int]] = []


def valley(strategy: Chosen, seed: int) -> dict[str, Any]:
    """Best at 0.3, with kinds of which "channel" is better."""
    CALLS.append((str(strategy), seed))
    better = 0.1 if strategy.name == "channel" else 0.0
    loss = (strategy.p() - 0.3) ** 2 - better + seed % 7 / 1e5
    return {"accuracy": [1.0, float(seed % 2), 1 - loss], "validation_loss": loss}


def plain(strategy: Chosen, seed: int) -> float:
    return 0.9 - (strategy.p() - 0.3) ** 2 + seed % 3 / 1000


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "table.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["metric"] != "seconds"]


def figures(folder: Path) -> dict[str, Any]:
    found = {path.relative_to(folder): json.loads(path.read_text()) for path in folder.rglob("figures.json")}
    return {str(path): value["figures"] for path, value in found.items()}


def test_train_runs_one_strategy_and_compare_goes_on_with_its_folder(tmp_path: Path) -> None:
    CALLS.clear()
    found = train(run=valley, strategy="fixed:0.3", seeds=2, out=tmp_path)
    assert CALLS == [("fixed:0.3", 0), ("fixed:0.3", 1)]
    assert [line.strategy for line in found.lines] == ["fixed:0.3"] and found.lines[0].seeds == 2
    assert {row["strategy"] for row in rows(tmp_path)} == {"fixed:0.3"}
    CALLS.clear()
    compare(run=valley, strategies=["none", "fixed:0.3"], seeds=2, out=tmp_path, resume=True)
    assert CALLS == [("none", 0), ("none", 1)]


def test_the_strategy_of_train_is_the_loops_own_or_none(tmp_path: Path) -> None:
    def usual(strategy: Any = "fixed:0.2", seed: int = 0) -> float:
        return 0.5

    assert list(train(run=usual, out=tmp_path / "a").runs) == ["fixed:0.2"]
    assert list(train(run=plain, seed=7, out=tmp_path / "b").runs) == ["none"]
    assert (tmp_path / "b" / "none" / "seed7" / "figures.json").exists()
    with pytest.raises(OutputError, match="holds a run with first_seed 7"):
        train(run=plain, seed=8, out=tmp_path / "b", resume=True)


@pytest.mark.parametrize("recipe", ["mlp", "numpy-mlp"])
def test_train_writes_the_table_for_programs(recipe: str, tmp_path: Path) -> None:
    run = train(recipe, size="tiny", epochs=1, device="cpu", out=tmp_path)
    table = {row["metric"]: row for row in rows(tmp_path)}
    assert float(table["test_accuracy"]["mean"]) == run.rows[-1]["test_accuracy"]
    assert table["test_accuracy"]["seeds"] == "1" and table["test_accuracy"]["low"] == ""


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Tuning:
    return tune(run=valley, strategies=["fixed", "channel"], trials=16, seeds=2, out=tmp_path_factory.mktemp("a"))


def test_rate_and_kind_are_chosen_by_the_validation_figure_and_confirmed_on_other_seeds(tuned: Tuning) -> None:
    best = tuned.trials[tuned.best]
    assert best.strategy.name == "channel" and abs(tuned.rates["p"] - 0.3) < 0.15
    assert {trial.strategy.name for trial in tuned.trials} == {"fixed", "channel"}
    assert tuned.figure == "validation_loss" and best.loss == min(trial.loss for trial in tuned.trials)
    assert [line.strategy for line in tuned.yardstick.lines] == ["none", str(best.strategy)]
    assert tuned.yardstick.lines[0].figures.compared == "accuracy"
    tried = {path.split("/")[-2] for path in figures(tuned.folder) if path.startswith("trial-")}
    told = {path.split("/")[-2] for path in figures(tuned.folder) if path.startswith("yardstick")}
    assert tried == {"seed1000", "seed1001"} and told == {"seed0", "seed1"}
    result = json.loads((tuned.folder / "result.json").read_text())
    assert result["chosen_by"] == "validation_loss" and result["best"]["strategy"] == str(best.strategy)
    assert "Rates were chosen by validation_loss." in tuned.yardstick.verdict


def test_more_trials_go_on_and_call_for_nothing_that_is_there(tuned: Tuning, tmp_path: Path) -> None:
    words: Any = {"run": valley, "strategies": ["fixed", "channel"], "seeds": 2, "out": tmp_path}
    tune(**words, trials=11)
    CALLS.clear()
    found = tune(**words, trials=16, resume=True)
    assert found.trials == tuned.trials and found.best == tuned.best
    assert sum(seed >= 1000 for _, seed in CALLS) == 2 * 5
    assert rows(tmp_path / "yardstick") == rows(tuned.folder / "yardstick")


def test_a_rate_chosen_by_the_compared_figure_is_said_to_be_optimistic(tmp_path: Path) -> None:
    found = tune(run=plain, trials=12, seeds=1, out=tmp_path)
    best = found.trials[found.best]
    assert best.loss == max(trial.loss for trial in found.trials)  # of a score more is better
    assert abs(found.rates["p"] - 0.3) < 0.2
    assert "chosen by score itself" in found.words[0] and "optimistic" in found.words[0]
    assert found.words[0] in found.yardstick.verdict
    assert "chosen by score itself" in (tmp_path / "yardstick" / "report.html").read_text()
    assert "optimistic" not in "".join(told(list(found.words), "zh"))


@pytest.mark.parametrize(
    ("figures", "metric", "chosen", "lower"),
    [
        (("loss", "validation"), None, "validation", True),
        (("accuracy", "validation"), None, "validation", False),
        (("accuracy", "val_loss", "val_accuracy"), None, "val_accuracy", False),
        (("test_loss", "val_accuracy"), None, "val_accuracy", False),
        (("valley", "values"), None, "valley", False),
        (("accuracy", "val_loss"), "val_loss", "val_loss", True),
    ],
)
def test_which_figure_rates_are_chosen_by(figures: Any, metric: Any, chosen: str, lower: bool, tmp_path: Path) -> None:
    def run(strategy: Chosen, seed: int) -> dict[str, float]:
        return {name: strategy.p() for name in figures}

    found = tune(run=run, trials=2, seeds=1, metric=metric, out=tmp_path)
    losses = [trial.loss for trial in found.trials]
    assert found.figure == chosen
    assert found.best == losses.index(min(losses) if lower else max(losses))


WRONG: dict[str, tuple[Any, dict[str, Any], type[DropkitError], str]] = {
    "kind with a number": (
        tune,
        {"strategies": ["fixed:0.3"]},
        DropkitValueError,
        "names alone, such as fixed,channel",
    ),
    "none": (tune, {"strategies": ["none"]}, DropkitValueError, "names alone"),
    "one text": (tune, {"strategies": "fixed"}, DropkitTypeError, "must be a list of names"),
    "low": (tune, {"low": 0.5, "high": 0.5}, DropkitValueError, "low must lie below high"),
    "trials": (tune, {"trials": 0}, DropkitValueError, "trials must be at least 1"),
    "epochs": (tune, {"epochs": 3}, DropkitValueError, r"tune\(run=...\) takes no epochs; it takes strategies, trials"),
    "no function": (tune, {"run": 3}, DropkitTypeError, "run must be a function"),
    "seeds": (train, {"seeds": 0}, DropkitValueError, "seeds must be at least 1"),
    "seed": (train, {"seed": -1}, DropkitValueError, "seed"),
    "strategy": (train, {"strategy": ""}, DropkitTypeError, "are names such as"),
    "size": (train, {"size": "tiny"}, DropkitValueError, r"train\(run=...\) takes no size; it takes strategy, seed"),
    "estimators": (train, {"run": None, "estimators": {}}, DropkitTypeError, "trains itself, by fit: compare"),
    "searched": (tune, {"run": None, "estimators": {}}, DropkitTypeError, "RandomizedSearchCV"),
}


@pytest.mark.parametrize("form", WRONG)
def test_wrong_arguments_are_told_before_anything_is_written(form: str, tmp_path: Path) -> None:
    function, words, error, message = WRONG[form]
    with pytest.raises(error, match=message) as caught:
        function(**{"run": plain, "out": tmp_path / "a", **words})
    assert "\n" not in str(caught.value) and not (tmp_path / "a").exists()


LOOP = """import numpy as np, os, signal
CALLS, LIMIT = [], int(os.environ.get("LIMIT", "1000"))
def score(strategy, seed):
    CALLS.append(seed)
    if len(CALLS) > LIMIT:
        os.kill(os.getpid(), signal.SIGKILL)
    rng = np.random.default_rng(seed)
    return {"accuracy": rng.random(50) < 0.8 + strategy.p() / 10, "validation_loss": (strategy.p() - 0.3) ** 2}
"""


def command(*words: object) -> int:
    with pytest.raises(SystemExit) as left:
        cli.main([str(word) for word in words])
    return int(left.value.code or 0)


def killed(limit: int, loop: Any, *words: object) -> None:
    """The command in a process that ends itself by SIGKILL in a call after so many."""
    with warnings.catch_warnings():
        for kind in (DeprecationWarning, RuntimeWarning):  # that a process with threads is forked
            warnings.simplefilter("ignore", kind)
        child = os.fork()
    if child:
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
        return
    torch.set_num_threads(1)  # the threads of the parent are not in its child
    loop.LIMIT = limit + len(loop.CALLS)
    try:
        cli.main([str(word) for word in words])
    finally:
        os._exit(0)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    name = f"killed_loop_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(LOOP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return __import__(name)


COMMANDS = {
    "train": (("--strategy", "fixed:0.3", "--seeds", "4"), 2, "."),
    "compare": (("--strategies", "none,fixed:0.3", "--seeds", "3"), 3, "."),
    "tune in a trial": (("--trials", "3", "--seeds", "2"), 3, "yardstick"),
    "tune in the comparison": (("--trials", "2", "--seeds", "2", "--strategies", "fixed,channel"), 6, "yardstick"),
}


@pytest.mark.parametrize("form", COMMANDS)
def test_a_command_killed_in_a_call_goes_on_to_the_same_table(form: str, here: Any, tmp_path: Path) -> None:
    options, after, place = COMMANDS[form]
    words = [form.split()[0], f"{here.__name__}:score", *options]
    assert command(*words, "--out", "whole") == 0
    killed(after, here, *words, "--out", "cut")
    assert len(figures(tmp_path / "cut")) == after and not (tmp_path / "cut" / "result.json").exists()
    before = len(here.CALLS)
    assert command(*words, "--out", "cut", "--resume") == 0
    assert len(here.CALLS) - before == len(figures(tmp_path / "whole")) - after
    assert figures(tmp_path / "cut") == figures(tmp_path / "whole")
    assert rows(tmp_path / "cut" / place) == rows(tmp_path / "whole" / place)


def test_what_the_commands_print_and_refuse(here: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = f"{here.__name__}:score"
    assert command("tune", target, "--trials", "2", "--seeds", "1", "--out", "tuned") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "trial strategy validation_loss" in out and "Best by validation_loss: trial" in out
    assert "With other seeds: One seed is too few" in out
    assert command("train", target, "--out", "once") == 0
    out = capsys.readouterr().out
    assert "none seed 0: accuracy" in out and "with one seed" in " ".join(out.split())
    for words, message in (
        (("train", target, "--epochs", "3"), "--epochs 3 has no use"),
        (("tune", target, "--shared"), "--shared has no use"),
        (("tune", target, "--strategies", "fixed:0.1"), "names alone"),
        (("train", "mlp", "--seeds", "3"), "compare with --strategies fixed --seeds 3"),
        (("tune", "mlp", "--strategies", "fixed,step"), "leave it out, or compare with --strategies fixed,step"),
    ):
        assert command(*words, "--out", "new") == 2
        out, err = capsys.readouterr()
        assert message in err and err.count("\n") == 1 and not out
    assert not (tmp_path / "new").exists()


def counted(function: Any, limit: int) -> Any:
    """The function in a process that ends itself by SIGKILL in a call after so many."""
    calls: list[int] = []

    @functools.wraps(function)
    def called(strategy: Any, seed: int) -> Any:
        calls.append(seed)
        if len(calls) > limit:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(strategy, seed)

    return called


def test_the_example_is_trained_compared_tuned_killed_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    target, module = "own_loop:train_and_score", __import__("own_loop")
    assert command("train", target, "--strategy", "fixed:0.2", "--out", tmp_path / "a") == 0
    for words in (
        ("compare", target, "--strategies", "none,fixed:0.2", "--seeds", "2"),
        ("tune", target, "--trials", "2", "--seeds", "1"),
    ):
        whole, cut = tmp_path / f"{words[0]}-whole", tmp_path / f"{words[0]}-cut"
        assert command(*words, "--out", whole) == 0
        with monkeypatch.context() as patch:
            patch.setattr(module, "train_and_score", counted(module.train_and_score, 1))
            killed(0, SimpleNamespace(CALLS=[]), *words, "--out", cut)
        assert not (cut / "result.json").exists()
        assert command(*words, "--out", cut, "--resume") == 0
        assert figures(cut) == figures(whole) and len(figures(cut)) >= 3
    torch.set_num_threads(threads)
    found = json.loads((tmp_path / "tune-cut" / "result.json").read_text())
    assert found["chosen_by"] == "validation_loss" and np.isfinite(found["best"]["validation_loss"]["mean"])
