"""The examples of models of one's own: each trained, compared, tuned, killed and resumed, by the command."""

import os
import signal
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dropkit import cli
from dropkit.counter import Key
from dropkit.mask import normal
from tests.test_examples import EXAMPLES


@dataclass(frozen=True)
class Example:
    """What a model is trained on, and the options of its command."""

    target: str
    data: Callable[[Path], Path]
    options: tuple[str, ...]


def photos(folder: Path) -> Path:
    noise = np.clip(128 + 60 * normal((48, 12, 12, 3), Key(0, "photos", 0)), 0, 255).astype(np.uint8)
    for number, pixels in enumerate(noise):
        part, name = ("train", "test")[number % 3 == 2], ("dark", "light")[number % 2]
        (folder / "photos" / part / name).mkdir(parents=True, exist_ok=True)
        bright = pixels // 2 + (100 if name == "light" else 0)
        Image.fromarray(bright.astype(np.uint8)).save(folder / "photos" / part / name / f"{number}.png")
    return folder / "photos"


def tokens(folder: Path) -> Path:
    rows = (np.arange(13) * (1 + np.arange(60)[:, None] % 3) + np.arange(60)[:, None]) % 16
    np.savez(folder / "tokens.npz", X=rows[:, :-1], y=rows[:, 1:])
    return folder / "tokens.npz"


def houses(folder: Path) -> Path:
    numbers = normal((80, 4), Key(0, "houses", 0))
    named = (("red" if row[2] > 0 else "blue", "yes" if row.sum() > 0 else "no") for row in numbers)
    rows = [
        f"{row[0]:.3f},{row[1]:.3f},{colour},{row.sum():.3f},{dear}"
        for row, (colour, dear) in zip(numbers, named, strict=True)
    ]
    (folder / "houses.csv").write_text("\n".join(["area,rooms,colour,price,dear", *rows]))
    return folder / "houses.csv"


EXAMPLES_OF = {
    "cnn": Example("own_cnn:cnn", photos, ("--image-size", "12", "--insert", "conv2=channel:0.1")),
    "transformer": Example("own_transformer:Model", tokens, ("--kind", "next-token")),
    "price": Example("own_mlp:price", houses, ("--target", "price", "--metric", "mae", "--schedule", "cosine")),
    "dear": Example("own_mlp:dear", houses, ("--target", "dear", "--optimizer", "adamw")),
}


@pytest.fixture(params=EXAMPLES_OF)
def arguments(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found = EXAMPLES_OF[request.param]
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return [found.target, "--data", str(found.data(tmp_path)), *found.options, "--epochs", "4"]


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as left:
        cli.main([str(word) for word in words])
    return int(left.value.code or 0)


def killed(after: int, *words: object) -> None:
    """The command in a process that ends itself by SIGKILL once so many epochs are done."""
    with warnings.catch_warnings():
        for kind in (DeprecationWarning, RuntimeWarning):  # that a process with threads is forked, JAX's among them
            warnings.simplefilter("ignore", kind)
        child = os.fork()
    if child:
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
        return
    from dropkit.cli.console import Bar

    torch.set_num_threads(1)  # the threads of the parent are not in its child
    told = Bar.__call__

    def called(self: Bar, plan: object, row: dict[str, object]) -> None:
        told(self, plan, row)  # type: ignore[arg-type]
        if self.done == after:
            os.kill(os.getpid(), signal.SIGKILL)

    Bar.__call__ = called  # type: ignore[method-assign]  # in this process alone, which is about to end
    try:
        cli.main([str(word) for word in words])
    finally:
        os._exit(0)


def ends(folder: Path) -> dict[str, bytes]:
    """Weights and scores; a state holds the clock's figures too."""
    paths = [*folder.rglob("checkpoint.safetensors"), *folder.rglob("scores.safetensors")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_an_example_is_compared_killed_and_resumed_to_the_same_bits(arguments: list[str], tmp_path: Path) -> None:
    words = ["compare", *arguments, "--seeds", "1"]
    assert run(*words, "--out", tmp_path / "whole") == 0
    killed(6, *words, "--out", tmp_path / "cut")
    assert not (tmp_path / "cut" / "result.json").exists()
    assert run(*words, "--out", tmp_path / "cut", "--resume") == 0
    whole, cut = ends(tmp_path / "whole"), ends(tmp_path / "cut")
    assert whole == cut and sum(name.endswith("scores.safetensors") for name in whole) == 2


def test_an_example_is_trained_and_tuned_killed_and_resumed(arguments: list[str], tmp_path: Path) -> None:
    arguments[-1] = "1"  # epoch
    assert run("train", *arguments, "--out", tmp_path / "once") == 0
    words: list[object] = ["tune", *arguments, "--trials", "1", "--seeds", "1", "--shared", "--out", tmp_path / "tuned"]
    assert run(*words) == 0
    words[-1] = tmp_path / "cut"
    killed(1, *words)
    assert not (tmp_path / "cut" / "result.json").exists()
    assert run(*words, "--resume") == 0
    assert ends(tmp_path / "cut") == ends(tmp_path / "tuned")


WRONG = "tests.lab.wrong:"
ASKED_WRONG = {
    "strategy": (("--strategies", "none,nun"), "unknown strategy 'nun'"),
    "number": (("--strategies", "none,fixed:7"), "must lie in"),
    "validation": (("--strategies", "none,gap"), "hold one out with --validation"),
    "seeds": (("--seeds", "0"), "seeds must be at least 1"),
    "margin": (("--margin", "-1"), "margin must be above 0"),
    "precision": (("--precision", "8-bit"), "unknown precision '8-bit'"),
    "device": (("--device", "tpu"), "unknown device 'tpu'"),
    "no strategies": (("--strategies", ","), "unknown strategy ''"),
    "rates": (("--strategies", "fixed:.1:.2:.3"), "takes one rate, for the one site, got 3"),
    "optimizer": (("--optimizer", "torch.optim:Nope"), "torch.optim has no 'Nope'"),
    "learning rate": (("--learning-rate", "nan"), "the learning rate must be a number above 0, got nan"),
    "image size": (("--image-size", "0"), "image size must be at least 1, got 0"),
    "nothing named": (("--loss", "tests.lab.wrong:"), "names nothing in a module: write module:name"),
    "loss without a gradient": (("--loss", f"{WRONG}detached"), "has no gradient: compute it from the outputs"),
    "loss that fails": (("--loss", f"{WRONG}fails"), "failed with KeyError: 'no such column' at"),
    "loss of text": (("--loss", f"{WRONG}text"), "gave a str: it must give a tensor of numbers"),
    "loss of others": (("--loss", f"{WRONG}other_samples"), "of shape (3,) for 4 samples: return one number, or one"),
    "loss of nan": (("--loss", f"{WRONG}not_a_number"), "is nan on the first 4 samples, before any training"),
    "metric of words": (("--metric", f"{WRONG}words"), "gave 'good': it must give one number, or one for each"),
    "metric that fails": (("--metric", f"{WRONG}fails"), "failed with KeyError: 'no such column' at"),
    "metric's side": (("--metric", f"{WRONG}wrong_side"), "turn one of them round"),
    "schedule below 0": (("--schedule", f"{WRONG}falls_below"), "gave -0.49 at step 99 of 100: give a number of at"),
    "schedule that fails": (("--schedule", f"{WRONG}late_failure"), "failed with IndexError: list index out of"),
    "schedule of words": (("--schedule", f"{WRONG}no_number"), "could not convert string to float: 'half'"),
}
NO_MODEL = {
    "nothing": "makes None, and models of torch, Keras and flax.nnx are trained: give a function",
    "a_class": "makes the class Linear, and models of torch, Keras and flax.nnx are trained",
    "instance": "is a model, and each run needs one with first weights of its own: give a function",
    "Nan": "gives nan for the first 4 samples, before any training",
}


@pytest.mark.parametrize("form", [*ASKED_WRONG, *NO_MODEL])
def test_what_is_wrong_is_told_before_anything_else(
    form: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    words, message = ASKED_WRONG[form] if form in ASKED_WRONG else ((), NO_MODEL[form])
    target = "own_mlp:dear" if form in ASKED_WRONG else WRONG + form
    data = ("--data", houses(tmp_path), "--target", "dear", "--epochs", "1", "--out", tmp_path / "out")
    capsys.readouterr()
    assert run("compare", target, *data, *words) == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_taken_is_told_before_anything_else(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    data = ("--data", houses(tmp_path), "--target", "dear", "--epochs", "1", "--out", tmp_path / "out")
    assert run("train", "own_mlp:dear", *data) == 0
    before = (tmp_path / "out" / "result.json").read_bytes()
    capsys.readouterr()
    assert run("train", "own_mlp:dear", *data) == 2
    out, err = capsys.readouterr()
    assert out == "" and "already holds a run" in err and err.count("\n") == 1
    assert (tmp_path / "out" / "result.json").read_bytes() == before


def test_what_was_chosen_is_told_first(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    data = houses(tmp_path)
    words = ("train", "own_mlp:price", "--data", data, "--target", "price", "--epochs", "1", "--out", tmp_path / "out")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(EXAMPLES)
        patch.syspath_prepend(str(EXAMPLES))
        assert run(*words) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "regression, 1 output; 64 training samples, 16 test samples." in told
    assert "Loss mse, optimizer adam, learning rate 0.001 (constant), batches of 8, 1 epoch; compared by" in told
    assert "Sites, and their rates as the model is: 2 0.2." in told
