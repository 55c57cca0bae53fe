"""What the tests of models of Keras and of flax.nnx share: arrays of every kind, and a command that is killed."""

import os
import signal
import subprocess
import sys
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
import os, signal, sys
from dropkit import cli
from dropkit.cli.console import Bar
told, after = Bar.__call__, int(sys.argv.pop(1))
def called(self, plan, row):
    told(self, plan, row)
    if self.done == after:
        os.kill(os.getpid(), signal.SIGKILL)
Bar.__call__ = called
cli.main(sys.argv[1:])
"""


def killed(after: int, *words: Any) -> None:
    """The command in a process that ends itself by SIGKILL once so many epochs are done."""
    command = [sys.executable, "-c", KILLED, str(after), *map(str, words)]
    path = os.pathsep.join([str(EXAMPLES), str(ROOT)])
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": path}, cwd=EXAMPLES, capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]


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
