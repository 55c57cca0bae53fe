"""What the tests of models of Keras and of flax.nnx share: arrays of every kind, and a command that is killed."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from dropkit.axes.rate import Gap
from dropkit.counter import Key
from dropkit.lab import Run, train
from dropkit.lab.data.sets import Data
from dropkit.mask import normal
from tests.lab.runs import numbers, stop_after
from tests.test_examples import EXAMPLES

ROOT = Path(__file__).parents[2]


def arrays(kind: str, samples: int = 48) -> Data:
    """Data of a kind: eight numbers a sample, or six tokens of five."""
    x = normal((samples, 8), Key(0, "x", 0)).astype(np.float32)
    weights = normal((8, 3), Key(0, "w", 0))
    z = x @ weights
    if kind == "next-token":
        rows = (np.arange(7) + np.arange(samples)[:, None]) % 5
        x, y = rows[:, :-1], rows[:, 1:].copy()
        y[0, -1] = -1  # padding
    else:
        y = {
            "classification": z.argmax(1),
            "binary": (z[:, 0] > 0).astype(np.int64),
            "multi-label": (z > 0).astype(np.float32),
            "regression": z[:, 0].astype(np.float32),
        }[kind]
    half = samples * 2 // 3
    return Data.of((x[:half], y[:half]), (x[half:], y[half:]), kind)


def saved(folder: Path) -> Path:
    """The same as a file."""
    data = arrays("classification")
    path = folder / "arrays.npz"
    np.savez(path, X_train=data.train_x, y_train=data.train_y, X_test=data.test_x, y_test=data.test_y)
    return path


KILLED = """
import importlib, json, os, signal, sys
modules, jobs = json.loads(sys.argv[1])
for module in ("dropkit.lab.experiment", "dropkit.lab.tuning", *modules):
    importlib.import_module(module)
from dropkit import cli
from dropkit.cli.console import Bar
told = Bar.__call__
children = []
for after, words in jobs:
    child = os.fork()  # before anything was computed, so that there are no threads yet
    if child:
        children.append(child)
        continue
    def called(self, plan, row):
        told(self, plan, row)
        if self.done == after:
            os.kill(os.getpid(), signal.SIGKILL)
    Bar.__call__ = called
    cli.main(words)
for child in children:
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
"""


def killed(modules: tuple[str, ...], *jobs: tuple[int, list[Any]]) -> None:
    """Commands, each in a process that ends itself by SIGKILL once so many epochs are done; what is slow to import is
    imported once.
    """
    given = json.dumps([modules, [[after, list(map(str, words))] for after, words in jobs]])
    path = os.pathsep.join([str(EXAMPLES), str(ROOT)])
    env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, given], env=env, cwd=EXAMPLES, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]


def killed_and_resumed(modules: tuple[str, ...], target: str, folder: Path, run: Callable[..., int]) -> None:
    """A model through train, compare and tune by the command; both comparisons killed and resumed to the same bits.

    Args:
        modules: of its framework.
        target: module:factory.
        folder: an empty one.
        run: the command in this process; its exit status.
    """
    words = [target, "--data", saved(folder), "--epochs", "2", "--batch-size", "32"]
    compared = ["compare", *words, "--seeds", "1"]
    tuned = ["tune", *words, "--trials", "1", "--seeds", "1", "--shared"]
    assert run("train", *words, "--out", folder / "once") == 0
    cut = {name: [*command, "--out", folder / f"cut-{name}"] for name, command in (("a", compared), ("b", tuned))}
    killed(modules, (1, cut["a"]), (1, cut["b"]))
    for name, command in (("a", compared), ("b", tuned)):
        place = folder / f"cut-{name}"
        assert not (place / "result.json").exists()
        assert run(*command, "--out", folder / name) == 0
        assert run(*cut[name], "--resume") == 0
        assert ends(place) == ends(folder / name)


def ends(folder: Path) -> dict[str, Any]:
    """Weights and scores; a state holds the clock's figures too."""
    paths = [*folder.rglob("checkpoint.safetensors"), *folder.rglob("scores.safetensors")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def resumed(make: Any, strategy: str, folder: Path, **more: Any) -> Run:
    """A run of three epochs, held to end bit for bit as one that is cut off after the first and resumed."""
    asked: Any = {"data": arrays("classification"), "epochs": 3, "device": "cpu", "seed": 2**40 + 3, **more}
    whole = train(make, strategy=strategy, out=folder / "whole", **asked)
    with pytest.raises(KeyboardInterrupt):
        train(make, strategy=strategy, out=folder / "cut", **asked, on_epoch=stop_after(1))
    cut = train(make, strategy=strategy, out=folder / "cut", **asked, resume=True)
    assert numbers(cut) == numbers(whole) and ends(folder / "cut") == ends(folder / "whole")
    return whole


def follows_the_gap(run: Run, site: str) -> None:
    """Hold that a rate stands after each epoch but the first where a controller puts it by the row before."""
    rate = Gap(0.05, start=run.rows[0][f"rate_{site}"], low=0.0, high=0.5, gain=2.0)
    for before, row in pairwise(run.rows):
        rate.update(train=before["train_eval_loss"], validation=before["validation_loss"])
        assert row[f"rate_{site}"] == pytest.approx(rate.at(0), abs=1e-6)
    assert len({row[f"rate_{site}"] for row in run.rows}) > 1


def weights_of(folder: Path) -> dict[str, Any]:
    """The weights of a run."""
    return load_file(folder / "checkpoint.safetensors")
