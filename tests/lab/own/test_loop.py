"""A loop of one's own: what it is called with, what it may return, and that nothing finished is lost."""

import importlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dropkit.cli import main
from dropkit.errors import (
    DataError,
    DropkitError,
    DropkitRuntimeError,
    DropkitTypeError,
    DropkitValueError,
    OutputError,
)
from dropkit.lab import compare
from dropkit.lab.own.chosen import Chosen

EXAMPLES = Path(__file__).parents[3] / "examples"
NAMES = ["none", "fixed:0.3"]


def scored(strategy: Chosen, seed: int) -> float:
    return 0.8 + strategy.p() / 10 + seed / 1000


def test_every_strategy_meets_every_seed_once_in_pairs(tmp_path: Path) -> None:
    calls: list[tuple[str, int]] = []

    def run(strategy: Chosen, seed: int) -> float:
        calls.append((strategy, seed))
        return scored(strategy, seed)

    found = compare(run=run, strategies=NAMES, seeds=3, out=tmp_path / "a")
    assert calls == [(name, seed) for seed in range(3) for name in NAMES]
    assert found.lines[1].values["score"] == pytest.approx((0.83, 0.831, 0.832))
    assert found.lines[1].differences == pytest.approx([0.03] * 3)
    assert "run" in found.verdict[0]
    for name in ("result.json", "table.md", "report.html", "config.json"):
        assert (tmp_path / "a" / name).exists()


def test_more_seeds_and_strategies_call_only_for_what_is_new(tmp_path: Path) -> None:
    calls: list[tuple[str, int]] = []

    def run(strategy: Chosen, seed: int) -> dict[str, float]:
        calls.append((strategy, seed))
        return {"accuracy": scored(strategy, seed)}

    first = compare(run=run, strategies=NAMES, seeds=2, out=tmp_path)
    calls.clear()
    found = compare(run=run, strategies=[*NAMES, "channel:0.1"], seeds=3, out=tmp_path, resume=True)
    assert sorted(calls) == [("channel:0.1", 0), ("channel:0.1", 1), ("channel:0.1", 2), ("fixed:0.3", 2), ("none", 2)]
    assert found.lines[0].values["accuracy"][:2] == first.lines[0].values["accuracy"]
    with pytest.raises(OutputError, match="already holds a run"):
        compare(run=run, strategies=NAMES, seeds=3, out=tmp_path)


RETURNS = {
    "float": (0.5, 0.5, None),
    "int": (3, 3.0, None),
    "tensor": (torch.tensor(0.5), 0.5, None),
    "row": (np.array([1.0, 0.0]), 0.5, 2),
    "bools of torch": ({"accuracy": torch.tensor([True, False, True, True])}, 0.75, 4),
    "list": ({"accuracy": [1, 0, 0, 0]}, 0.25, 4),
    "with gradient": ({"loss": torch.tensor([1.0, 2.0], requires_grad=True)}, 1.5, 2),
}


@pytest.mark.parametrize("form", RETURNS)
def test_what_may_be_returned(tmp_path: Path, form: str) -> None:
    value, mean, count = RETURNS[form]
    found = compare(run=lambda strategy, seed: value, strategies=["none"], seeds=1, out=tmp_path)
    (run,) = found.runs["none"]
    assert found.lines[0].compared.mean == mean
    scores = run.scores()  # type: ignore[attr-defined]
    assert (None if scores is None else len(scores)) == count


WRONG: dict[str, tuple[Any, type[DropkitError], str]] = {
    "nothing": (None, DropkitTypeError, "returned None; it must return a number"),
    "text": ("0.9", DropkitTypeError, "returned '0.9'"),
    "truth": (True, DropkitTypeError, "returned True"),
    "nan": (float("nan"), DropkitValueError, "nan cannot be compared; return a number for a run that failed"),
    "infinity": ({"loss": np.inf}, DropkitValueError, "for 'loss', and inf cannot be compared"),
    "one nan": ({"a": [1.0, np.nan]}, DropkitValueError, "nan cannot be compared"),
    "empty": ({}, DropkitValueError, "returned an empty dict"),
    "empty row": ({"a": []}, DropkitTypeError, "which holds nothing"),
    "table": ({"a": np.zeros((2, 2))}, DropkitTypeError, "returned an ndarray for 'a'|returned array"),
    "key": ({1: 0.5}, DropkitTypeError, "a figure called 1"),
    "reserved": ({"seconds": 0.5}, DropkitTypeError, "a figure called 'seconds'"),
    "pair": ((0.5, "x"), DropkitTypeError, "must return a number"),
    "complex": (1j, DropkitTypeError, "must return a number"),
}


@pytest.mark.parametrize("form", WRONG)
def test_a_wrong_return_names_strategy_and_seed_and_loses_nothing(tmp_path: Path, form: str) -> None:
    value, error, message = WRONG[form]
    wrong = True

    def run(strategy: Chosen, seed: int) -> Any:
        return value if wrong and (strategy, seed) == ("fixed:0.3", 1) else {"a": 0.5 + seed}

    with pytest.raises(error, match=message) as caught:
        compare(run=run, strategies=NAMES, seeds=2, out=tmp_path)
    text = str(caught.value)
    assert "run('fixed:0.3', 1)" in text and "kept" in text and "\n" not in text
    assert len(list(tmp_path.rglob("figures.json"))) == 3
    wrong = False
    assert compare(run=run, strategies=NAMES, seeds=2, out=tmp_path, resume=True).lines[1].values["a"] == (0.5, 1.5)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"b": 1.0}, "returned the figures b, and the call before a"),
        ({"a": [1.0, 0.0]}, "2 numbers for 'a', and the call before 3"),
    ],
)
def test_all_calls_return_the_same(tmp_path: Path, second: Any, message: str) -> None:
    def run(strategy: Chosen, seed: int) -> Any:
        return second if seed else {"a": [1.0, 0.0, 1.0]}

    with pytest.raises(DropkitValueError, match=message):
        compare(run=run, strategies=["none"], seeds=2, out=tmp_path)


def test_an_error_in_the_function_names_its_place(tmp_path: Path) -> None:
    def run(strategy: Chosen, seed: int) -> float:
        raise ZeroDivisionError("no\nscore")

    with pytest.raises(
        DropkitRuntimeError, match=r"run\('none', 0\) failed with ZeroDivisionError.*test_loop\.py:\d+; what"
    ) as caught:
        compare(run=run, strategies=["none"], out=tmp_path)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_first_call_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    fails = [True]

    def run(strategy: Any, seed: int) -> float:
        if fails:
            raise KeyError("depth")
        return 0.5 + seed / 100

    asked: Any = {"run": run, "strategies": ["none", "fixed:0.5"], "seeds": 2, "out": tmp_path}
    with pytest.raises(DropkitError, match="failed with KeyError"):
        compare(**asked)
    assert list(tmp_path.rglob("*")) == []
    fails.clear()
    assert [len(runs) for runs in compare(**asked).runs.values()] == [2, 2]


def test_generators_are_seeded_by_the_seed_and_given_back(tmp_path: Path) -> None:
    drawn: list[tuple[float, float]] = []

    def run(strategy: Chosen, seed: int) -> float:
        drawn.append((float(torch.rand(())), np.random.rand()))  # noqa: NPY002
        return 1.0

    before = torch.get_rng_state()
    compare(run=run, strategies=NAMES, seeds=2, out=tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert drawn[0] == drawn[1] and drawn[2] == drawn[3] and drawn[0] != drawn[2]


def test_which_figure_is_compared_and_which_side_is_better(tmp_path: Path) -> None:
    def run(strategy: Chosen, seed: int) -> dict[str, float]:
        return {"loss": 1 - strategy.p(), "accuracy": strategy.p() + seed / 9}

    found = compare(run=run, strategies=NAMES, seeds=2, out=tmp_path)
    kind = found.lines[0].figures
    assert (kind.compared, kind.lower_is_better) == ("loss", True)
    assert any("Compared by loss" in words for words in found.verdict)
    assert any("Less of loss is better" in words for words in found.verdict)
    again = compare(
        run=run, strategies=NAMES, seeds=2, out=tmp_path, resume=True, metric="accuracy", lower_is_better=True
    )
    assert (again.lines[0].figures.compared, again.lines[0].figures.lower_is_better) == ("accuracy", True)
    with pytest.raises(DropkitValueError, match="returned loss, accuracy and no 'f1'"):
        compare(run=run, strategies=NAMES, seeds=2, out=tmp_path, resume=True, metric="f1")


def test_a_changed_function_is_told(tmp_path: Path) -> None:
    compare(run=lambda strategy, seed: 1.0 + seed, strategies=["none"], seeds=2, out=tmp_path, data="mine")
    found = compare(
        run=lambda strategy, seed: 2.0 + seed, strategies=["none"], seeds=3, out=tmp_path, data="mine", resume=True
    )
    assert any("was changed since 2 of the 3 runs" in words for words in found.verdict)


@pytest.mark.parametrize("name", ["figures.json", "samples.safetensors", "config.json"])
def test_damage_is_found(tmp_path: Path, name: str) -> None:
    words: Any = {
        "run": lambda strategy, seed: {"a": [0.5, 1.0 + seed]},
        "strategies": ["none"],
        "seeds": 2,
        "out": tmp_path,
    }
    compare(**words)
    path = tmp_path / "none" / "seed1" / name
    content = path.read_bytes()
    path.write_bytes(content.replace(b"1", b"7") if name.endswith("json") else content[:-1] + b"\7")
    with pytest.raises(DataError, match=name):
        compare(**words, resume=True)


def test_other_strategies_in_one_folder_are_refused(tmp_path: Path) -> None:
    for names, message in (
        (["a b", "a/b"], "too like"),
        (["none", "none"], "given twice"),
        ([], "no strategies given"),
        ("none", "must be a list"),
        ([3], "got 3"),
    ):
        with pytest.raises((DropkitValueError, DropkitTypeError), match=message):
            compare(run=scored, strategies=names, out=tmp_path / "a")
    assert not (tmp_path / "a").exists()
    compare(run=lambda strategy, seed: 1.0, strategies=["../../up", "-", "ü:x"], seeds=1, out=tmp_path / "in")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_strategy_is_its_text_and_what_is_in_it() -> None:
    assert Chosen("scale:a:0.5").values == ("a", 0.5)
    assert [Chosen("step:10").p(step) for step in (0, 10, 1000)] == pytest.approx([0.5, 0.4, 0.1])
    with pytest.raises(DropkitValueError, match="'as-is' has no drop probability"):
        Chosen("as-is").p()


def test_arguments_that_do_not_fit() -> None:
    with pytest.raises(DropkitValueError, match=r"takes no epochs; it takes strategies, seeds, .*out, metric"):
        compare(run=scored, strategies=NAMES, epochs=3, out="x")
    with pytest.raises(DropkitTypeError, match="not several"):
        compare("mlp", run=scored, strategies=NAMES, out="x")
    with pytest.raises(DropkitTypeError, match="run must be a function"):
        compare(run="f", strategies=NAMES, out="x")  # type: ignore[arg-type]
    with pytest.raises(DropkitValueError, match="seeds must be at least 1"):
        compare(run=scored, strategies=NAMES, seeds=0, out="x")


def test_seeds_are_added_until_all_is_settled(tmp_path: Path) -> None:
    def run(strategy: Chosen, seed: int) -> dict[str, float]:
        luck = 0.01 * (seed % 3 - 1) if strategy.p() else 0.0
        return {"accuracy": 0.8 + strategy.p() / 10 + (seed * 7 % 5) / 1000 + luck}

    words: Any = {"run": run, "strategies": NAMES, "until_settled": True, "max_seeds": 30}
    found = compare(**words, metric="accuracy", out=tmp_path / "a")
    assert 5 <= found.lines[0].seeds < 30
    again = compare(**words, metric="accuracy", out=tmp_path / "a", resume=True)
    assert again.verdict == found.verdict
    with pytest.raises(DropkitValueError, match="needs a --margin"):
        compare(**words, metric="loss", out=tmp_path / "b")
    assert not (tmp_path / "b").exists()


KILLED = """
import os, signal, sys
sys.path.insert(0, {examples!r})
import own_loop, torch
from dropkit.lab import compare
from dropkit.lab.own import loop
torch.set_num_threads(1)
once, calls = loop._called, []
def called(*words):
    calls.append(words)
    if len(calls) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return once(*words)
loop._called = called
compare(run=own_loop.train_and_score, strategies=["none", "fixed:0.5"], seeds=2, out=sys.argv[1])
"""


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_the_example_killed_ends_as_if_never_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    code = KILLED.format(examples=str(EXAMPLES))
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")])
    assert done.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "a").rglob("figures.json"))) == 3
    monkeypatch.syspath_prepend(str(EXAMPLES))
    run = importlib.import_module("own_loop").train_and_score
    words: Any = {"run": run, "strategies": ["none", "fixed:0.5"], "seeds": 2}
    killed, whole = compare(**words, out=tmp_path / "a", resume=True), compare(**words, out=tmp_path / "b")
    for one, other in zip(killed.lines, whole.lines, strict=True):
        assert one.values["accuracy"] == other.values["accuracy"]
    assert not any("changed" in words for words in killed.verdict)
    scores = [group[1].scores() for found in (killed, whole) for group in found.runs.values()]
    assert all(np.array_equal(one, other) for one, other in zip(scores[:2], scores[2:], strict=True))


def test_the_command_compares_a_function_of_strategy_and_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("loop_of_mine.py").write_text(
        "def train_and_score(strategy, seed):\n    return {'accuracy': 0.8 + strategy.p() / 10 + seed / 1000}\n"
    )

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main(["compare", "loop_of_mine:train_and_score", *words])
        return (caught.value.code or 0, *capsys.readouterr())  # type: ignore[return-value]

    status, out, _ = run("--strategies", "none,fixed:0.5", "--seeds", "2")
    assert status == 0
    assert "fixed:0.5 seed 1: accuracy 0.8510" in out and "+5.00 ± 0.00" in out
    status, out, _ = run("--strategies", "none,fixed:0.5", "--seeds", "3", "--resume", "--lang", "zh")
    assert status == 0 and "seed 1" not in out
    for words, message in (
        ((), "--strategies says which"),
        (("--strategies", "none", "--epochs", "3"), "--epochs 3 has no use"),
        (("--strategies", "none", "--seeds", "0", "--out", "new"), "seeds must be at least 1"),
    ):
        status, _, err = run(*words)
        assert status == 2 and message in err and err.count("\n") == 1
    assert not Path("new").exists()
