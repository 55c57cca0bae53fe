"""The search over constant rates: what it tries, what it chooses by, and that stopping changes nothing."""

import builtins
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import ttest_rel

from dropkit import cli
from dropkit.errors import DataError, DropkitTypeError, DropkitValueError, OutputError
from dropkit.lab import Tuning, compare, tune
from dropkit.lab.recipes import get
from dropkit.lab.recipes.recipe import Strategy
from dropkit.lab.searching import STARTUP, Search, Trial
from dropkit.lab.telling.table import LAST

SITES = ("dropout1", "dropout2")


def tiny(out: Path, **choices: Any) -> Tuning:
    choices = {"trials": 3, "seeds": 2, "epochs": 1, "size": "tiny", "device": "cpu", **choices}
    return tune("mlp", out=out, **choices)


def stop_after(rows: int):
    left = iter(range(rows))

    def stop(plan: Any, row: Any) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt

    return stop


def bowl(strategy: Strategy) -> float:
    """A loss whose lowest point is at the rates 0.3 and 0.6."""
    one, two = strategy.values
    return (one - 0.3) ** 2 + (two - 0.6) ** 2


def searched(search: Search, trials: int, loss=bowl) -> list[Trial]:
    done: list[Trial] = []
    for _ in range(trials):
        strategy = search.suggest(done)
        done.append(Trial(strategy, (loss(strategy),)))
    return done


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Tuning:
    return tiny(tmp_path_factory.mktemp("whole") / "run")


def test_the_best_is_the_lowest_mean_validation_loss_of_its_runs(whole: Tuning) -> None:
    for number, trial in enumerate(whole.trials):
        for seed, loss in zip((1000, 1001), trial.losses, strict=True):
            folder = whole.folder / f"trial-{number}" / f"seed{seed}"
            assert json.loads((folder / "config.json").read_text())["strategy"] == str(trial.strategy)
            assert json.loads((folder / "result.json").read_text())["last"]["validation_loss"] == loss
    means = [sum(trial.losses) / 2 for trial in whole.trials]
    assert len(set(means)) == 3
    assert whole.best == means.index(min(means))
    assert whole.rates == dict(zip(SITES, whole.trials[whole.best].strategy.values, strict=True))


def test_what_is_written_is_what_was_found(whole: Tuning) -> None:
    found = json.loads((whole.folder / "result.json").read_text())
    assert found["best"] == found["trials"][whole.best]
    assert found["best"]["rates"] == whole.rates
    assert [tuple(trial["per_seed"]) for trial in found["trials"]] == [trial.losses for trial in whole.trials]
    best = str(whole.trials[whole.best].strategy)
    assert [line["strategy"] for line in found["yardstick"]["test"]] == ["none", "fixed", best]
    for line, entry in zip(whole.yardstick.lines, found["yardstick"]["test"], strict=True):
        assert entry["test_accuracy"]["mean"] == sum(line.values["test_accuracy"]) / 2
    assert (whole.folder / "yardstick" / "report.html").exists()


def test_the_best_is_compared_with_seeds_that_it_was_not_chosen_by(whole: Tuning) -> None:
    tried = {run.name for run in whole.folder.glob("trial-*/seed*")}
    compared = {run.name for run in (whole.folder / "yardstick").glob("*/seed*")}
    assert (tried, compared) == ({"seed1000", "seed1001"}, {"seed0", "seed1"})


def test_one_seed_tries_the_same_rates(whole: Tuning, tmp_path: Path) -> None:
    assert tiny(tmp_path).trials == whole.trials
    assert searched(Search(SITES, 0.0, 0.8, False, 1), 1) != searched(Search(SITES, 0.0, 0.8, False, 0), 1)


def test_a_search_stopped_anywhere_ends_like_one_that_never_was(whole: Tuning, tmp_path: Path) -> None:
    stops = (0, 2, 3, 5)  # first run of a trial, of another, its second run, the yardstick
    for number, rows in enumerate(stops):
        with pytest.raises(KeyboardInterrupt):
            tiny(tmp_path, on_epoch=stop_after(rows if number == 0 else rows - stops[number - 1]), resume=number > 0)
    again = tiny(tmp_path, resume=True)
    assert again.trials == whole.trials and again.best == whole.best
    assert again.yardstick.lines[0].values["test_loss"] == whole.yardstick.lines[0].values["test_loss"]
    assert (tmp_path / "trials.json").read_bytes() == (whole.folder / "trials.json").read_bytes()


def test_a_longer_search_begins_with_the_shorter_one(whole: Tuning, tmp_path: Path) -> None:
    first = tiny(tmp_path, trials=1)
    assert first.best == 0
    seen: list[tuple[int, int]] = []
    longer = tiny(tmp_path, trials=3, resume=True, on_start=lambda done, total: seen.append((done, total)))
    assert longer.trials == whole.trials and first.trials == whole.trials[:1]
    assert seen == [(2 + 6, 12)]
    with pytest.raises(OutputError, match="holds a run with trials 3, this one has 2; it may grow on --resume"):
        tiny(tmp_path, trials=2, resume=True)
    for changed in ({"high": 0.7}, {"seed": 1}, {"epochs": 2}, {"seeds": 3}, {"shared": True}):
        with pytest.raises(OutputError, match=f"holds a run with {next(iter(changed))} "):
            tiny(tmp_path, resume=True, **changed)
    with pytest.raises(OutputError, match="already holds a run"):
        tiny(tmp_path)


def test_other_strategies_and_seeds_join_the_yardstick(tmp_path: Path) -> None:
    found = tiny(tmp_path, trials=1, seeds=1)
    names = [line.strategy for line in found.yardstick.lines]
    choices: dict[str, Any] = {"size": "tiny", "epochs": 1, "validation": 0.1, "device": "cpu", "resume": True}
    more = compare("mlp", strategies=[*names, "gap"], seeds=2, out=tmp_path / "yardstick", **choices)
    for line, before in zip(more.lines, found.yardstick.lines, strict=False):
        assert line.values["test_loss"][0] == before.values["test_loss"][0]
    assert tiny(tmp_path, trials=1, seeds=1, resume=True).yardstick.lines[0].values == found.yardstick.lines[0].values


def test_a_runs_loss_is_the_mean_of_its_last_epochs(tmp_path: Path) -> None:
    found = tiny(tmp_path, trials=1, seeds=1, epochs=LAST + 1)
    rows = (tmp_path / "trial-0" / "seed1000" / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("validation_loss")
    losses = [float(row.split(",")[column]) for row in rows[1:]]
    assert len(losses) == LAST + 1
    assert found.trials[0].losses == (pytest.approx(sum(losses[-LAST:]) / LAST, rel=1e-12),)


def test_one_rate_for_all_sites(tmp_path: Path) -> None:
    found = tiny(tmp_path, trials=1, seeds=1, shared=True)
    (p,) = found.trials[0].strategy.values
    assert found.rates == {"dropout1": p, "dropout2": p}


def test_the_sampler_learns_from_the_trials() -> None:
    # Over twenty searches; random trials alone would leave the two means the same.
    first, later = [], []
    for seed in range(20):
        losses = [trial.loss for trial in searched(Search(SITES, 0.0, 0.8, False, seed), 2 * STARTUP)]
        first.append(sum(losses[:STARTUP]) / STARTUP)
        later.append(sum(losses[STARTUP:]) / STARTUP)
    assert ttest_rel(first, later, alternative="greater").pvalue < 1e-4


def test_rates_stay_between_the_bounds_and_diverged_trials_are_no_obstacle() -> None:
    search = Search(SITES, 0.123456, 0.2, False, 0)
    done = searched(search, STARTUP + 5, lambda strategy: math.inf if strategy.values[0] > 0.16 else bowl(strategy))
    assert all(0.123456 <= p <= 0.2 for trial in done for p in trial.strategy.values)
    assert any(trial.interval is None for trial in done)
    assert sum(trial.interval is None for trial in done[STARTUP:]) <= 2


def test_a_recipe_that_always_diverges_is_told(tmp_path: Path) -> None:
    mlp = get("mlp")
    wild = replace(mlp, settings=lambda size, data: replace(mlp.settings(size, data), learning_rate=1e30))
    choices: dict[str, Any] = {"trials": 2, "seeds": 1, "epochs": 1, "size": "tiny", "device": "cpu"}
    for resume in (False, True):  # null in trials.json reads as infinite again
        with pytest.raises(DropkitValueError, match="none of 2 trials ended with a finite validation loss"):
            tune(wild, out=tmp_path, resume=resume, **choices)
    assert json.loads((tmp_path / "trials.json").read_text())[0]["losses"] == [None]


@pytest.mark.parametrize(
    ("choices", "error", "message"),
    [
        ({"validation": 0.0}, DropkitValueError, "validation 0.0 holds out no sample: hold some out with --validation"),
        ({"validation": 0.0001}, DropkitValueError, "validation 0.0001 holds out no sample"),
        ({"low": 0.5, "high": 0.2}, DropkitValueError, "low must lie below high, got low 0.5 and high 0.2"),
        ({"low": 0.2, "high": 0.2}, DropkitValueError, "low must lie below high"),
        ({"high": 1.5}, DropkitValueError, r"high must lie in \[0, 1\], got 1.5"),
        ({"low": -0.1}, DropkitValueError, r"low must lie in \[0, 1\], got -0.1"),
        ({"low": "half"}, DropkitTypeError, r"low must be a number in \[0, 1\], got 'half'"),
        ({"trials": 0}, DropkitValueError, "trials must be at least 1, got 0"),
        ({"trials": 2.5}, DropkitTypeError, "trials must be a whole number, got 2.5"),
        ({"seeds": 0}, DropkitValueError, "seeds must be at least 1, got 0"),
        ({"seed": -1}, DropkitValueError, "seed .*-1"),
    ],
)
def test_wrong_choices_are_said_before_anything_is_written(
    tmp_path: Path, choices: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        tiny(tmp_path / "run", **choices)
    assert not (tmp_path / "run").exists()


def test_damaged_trials_are_refused(tmp_path: Path) -> None:
    tiny(tmp_path, trials=1, seeds=1)
    for text in ("[{}]", '[{"strategy": "fixed:2", "losses": []}]', "nonsense", "3"):
        (tmp_path / "trials.json").write_text(text)
        with pytest.raises(DataError, match=r"cannot read .*trials\.json"):
            tiny(tmp_path, trials=1, seeds=1, resume=True)


def without_optuna(monkeypatch: pytest.MonkeyPatch) -> None:
    known = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name == "optuna":
            raise ModuleNotFoundError("No module named 'optuna'", name="optuna")
        return known(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)


def test_without_optuna_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_optuna(monkeypatch)
    with pytest.raises(ModuleNotFoundError, match=r'tune needs Optuna .*: pip install "dropkit\[lab\]"'):
        tiny(tmp_path / "run")
    with pytest.raises(SystemExit) as caught:
        cli.main(["tune", "mlp", "--size", "tiny", "--out", str(tmp_path / "run")])
    printed = capsys.readouterr()
    assert caught.value.code == 2 and printed.out == ""
    assert printed.err.startswith("dropkit: error: tune needs Optuna") and 'pip install "dropkit[lab]"' in printed.err
    assert not (tmp_path / "run").exists()


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["tune", "mlp", "--size", "tiny", "--epochs", "1", "--trials", "2", "--seeds", "2", "--device", "cpu"]
    with pytest.raises(SystemExit) as caught:
        cli.main([*words, "--high", "0.5", "--shared"])
    assert caught.value.code == 0
    printed = capsys.readouterr()
    folder = tmp_path / "runs" / "mlp-digits-tiny-tune"
    best = json.loads((folder / "result.json").read_text())["best"]
    assert f"Lowest validation loss: trial {best['trial']}, {best['strategy']}." in printed.out
    for part in ("dropout1", "validation loss", "none", "fixed", "±", "Report: "):
        assert part in printed.out
    assert "study" not in printed.err
    with pytest.raises(SystemExit) as caught:
        cli.main([*words, "--validation", "0", "--out", "other"])
    assert caught.value.code == 2
    assert "hold some out with --validation" in capsys.readouterr().err
