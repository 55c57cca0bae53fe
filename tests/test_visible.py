"""Nothing that is printed reaches a terminal as a control character, and errors are the same at each run."""

import csv
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from dropkit import cli
from dropkit.cli.console import Bar
from dropkit.cli.terminal import SafeConsole, console
from dropkit.visible import Visible, one_line, shown, visible

HOSTILE = "\x1b]0;owned\x07\x1b[31m\x9b2J\x7f\r\u202e\u2066\u2028"
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")

MODELS = f"""
import sys
from torch import nn, ones

class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.add_module({HOSTILE!r}, nn.Linear(4, 4))
        self.add_module("drop" + {HOSTILE!r}, nn.Dropout(0.5))

    def forward(self, x):
        for layer in self.children():
            x = layer(x)
        return x

def make():
    print({HOSTILE!r})
    print({HOSTILE!r}, file=sys.stderr)
    return Named(), ones(3, 4)

def fail():
    raise ValueError({HOSTILE!r} + repr(object()))
"""


def run(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit status and what was printed, after checking that a terminal could show it."""
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    printed = capsys.readouterr()
    for text in printed:
        assert not RAW.search(text), ascii(RAW.search(text))
    return int(caught.value.code or 0), printed.out, printed.err


def test_all_that_is_hidden_is_shown_and_nothing_else() -> None:
    for code in (*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x2028, 0x2029, 0x200E):
        text = visible(chr(code))
        assert text == (chr(code) if chr(code) in "\t\n" else f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")
    assert visible("Aé中🎉 ±\u00a0") == "Aé中🎉 ±\u00a0"
    assert visible(os.fsdecode(b"a\xff")) == "a\\xff"


def test_streams_show_what_they_cannot_encode() -> None:
    below = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    stream = Visible(below)
    print("±", HOSTILE, file=stream, flush=True)
    assert below.buffer.getvalue() == b"\\xb1 " + visible(HOSTILE).encode() + b"\n"
    assert (stream.encoding, stream.isatty(), stream.writable()) == ("ascii", False, True)
    before = sys.stdout
    with shown():
        assert isinstance(sys.stdout, Visible) and isinstance(sys.stderr, Visible)
    assert sys.stdout is before


@pytest.mark.parametrize("terminal", [True, False])
def test_a_console_has_colours_of_its_own_alone(terminal: bool) -> None:
    stream = io.StringIO()
    out = SafeConsole(file=stream, force_terminal=terminal, color_system="truecolor" if terminal else None, width=200)
    table, tree = Table(title=HOSTILE), Tree(HOSTILE)
    table.add_column(HOSTILE)
    table.add_row(Text(HOSTILE, style="red"))
    tree.add(Text(HOSTILE))
    for each in (HOSTILE, Text(HOSTILE, style="bold"), table, tree, f"[{HOSTILE}]"):
        out.print(each)
    out.print(Text(HOSTILE), soft_wrap=True)
    with Progress(TextColumn("{task.description}"), console=out, transient=True) as progress:
        progress.add_task(HOSTILE, total=1)
        print(HOSTILE)
        progress.refresh()
    found = re.sub("\x1b\\[(\\?25[lh]|[0-9;]*m|2K|1A|[0-9]*[ABCD])|\r", "", stream.getvalue())
    assert not RAW.search(found), ascii(found)
    assert stream.getvalue().count(r"\x1b]0;owned") >= 7
    assert ("\x1b[31m\\x1b]0" in stream.getvalue()) == terminal  # its own red, not theirs


def test_the_console_writes_below_the_stream_that_shows(capsys: pytest.CaptureFixture[str]) -> None:
    with shown():
        console().print(Text("a[b]" + HOSTILE))
    assert capsys.readouterr().out == "a[b]" + visible(Text(HOSTILE).plain) + "\n"


@pytest.mark.parametrize("command", ["explain", "doctor"])
def test_names_in_a_model(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("hostile_models.py").write_text(MODELS)
    monkeypatch.delitem(sys.modules, "hostile_models", raising=False)
    _, out, err = run([command, "hostile_models:make", "--html", f"page{HOSTILE}.html"], capsys)
    assert "\\x1b]0;owned\\x07" in out + err
    (page,) = tmp_path.glob("page*.html")
    text = page.read_text()
    assert not RAW.search(text) and "\\x1b]0;owned\\x07" in text
    _, out, _ = run([command, "hostile_models:make", "--json"], capsys)
    names = json.dumps(json.loads(out), ensure_ascii=False)
    assert command == "doctor" or "owned" in names
    status, out, err = run([command, "hostile_models:fail"], capsys)
    assert status == 2 and out == "" and err.count("\n") == 1
    assert "\\x1b]0;owned" in err and "<object object>" in err and " at 0x" not in err


@pytest.mark.parametrize(
    "words",
    [
        ["train", HOSTILE],
        ["train", "mlp", "--data", HOSTILE],
        ["train", "mlp", "--strategy", HOSTILE],
        ["train", "mlp", "--" + HOSTILE],
        ["compare", "mlp", "--strategies", HOSTILE],
        [HOSTILE],
        ["explain", HOSTILE],
        ["doctor", f"{HOSTILE}:x"],
        ["explain", f"{HOSTILE}.keras"],
        ["explain", "mlp", "--data", f"{HOSTILE}.npy"],
        ["doctor", "mlp", "--ignore", HOSTILE],
        ["train", "mlp", "--size", "tiny", "--out", f"/dev/null/{HOSTILE}"],
        ["train", "mlp", "--data", "\udcff"],
    ],
    ids=range(13),
)
def test_words_of_the_command_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(words, capsys)
    assert status == 2 and out == "" and err


def test_a_folder_and_a_member_of_an_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """R6: the smallest case."""
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for name in ("a/\x1b]0;owned\x07.png", "a/1.png", "b/1.png", "b/2.png"):
            archive.writestr(name, "no image")
    status, _, err = run(["train", "mlp", "--data", str(tmp_path / "photos.zip"), "--out", str(tmp_path / "o")], capsys)
    assert status == 2 and err.count("\n") == 1
    out = tmp_path / f"out{HOSTILE}"
    words = ["compare", "mlp", "--size", "tiny", "--epochs", "1", "--seeds", "1", "--strategies", "none,fixed"]
    status, printed, _ = run([*words, "--out", str(out)], capsys)
    assert status == 0 and "Report: " in printed and "\\x1b]0;owned" in printed
    assert not RAW.search((out / "report.html").read_text())


def test_progress_is_told_where_output_is_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """E9: a line at the end of each run, at once."""
    words = ["compare", "mlp", "--size", "tiny", "--epochs", "2", "--seeds", "2", "--strategies", "none,fixed"]
    _, out, _ = run([*words, "--out", str(tmp_path / "o")], capsys)
    told = [line for line in out.splitlines() if "epochs in all" in line]
    assert [line.split(" epoch ")[0] for line in told] == [
        "none seed 0",
        "fixed seed 0",
        "none seed 1",
        "fixed seed 1",
    ]
    assert told[-1].endswith(", 8/8 epochs in all")


@pytest.mark.parametrize("recipe", ["mlp", "gan"])
def test_a_training_prints_a_line_for_each_epoch_where_output_is_no_terminal(
    recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The losses that tutorials print, at once, and of each epoch the row's own."""
    validation = ["--validation", "0.2"] if recipe == "mlp" else []
    words = ["train", recipe, "--size", "tiny", "--epochs", "2", *validation, "--out", str(tmp_path / "o")]
    status, out, _ = run(words, capsys)
    told = [line for line in out.splitlines() if line.startswith("epoch ")]
    with (tmp_path / "o" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    printed = {
        "mlp": {
            "loss": "train_loss",
            "train accuracy": "train_accuracy",
            "validation loss": "validation_loss",
            "test accuracy": "test_accuracy",
        },
        "gan": {
            "D_loss": "discriminator_loss",
            "G_loss": "generator_loss",
            "D(x)": "real_probability",
            "D(G(z))": "fake_probability",
            "spread": "spread",
            "Frechet distance": "frechet",
        },
    }[recipe]
    assert status == 0 and len(rows) == 2
    assert told == [
        ", ".join([f"epoch {row['epoch']}/2", *(f"{word} {float(row[name]):.4f}" for word, name in printed.items())])
        for row in rows
    ]


def test_a_training_prints_the_same_lines_on_a_terminal() -> None:
    stream = io.StringIO()
    out = SafeConsole(file=stream, force_terminal=True, width=100, color_system=None)
    from dropkit.cli.console import progress_bar
    from dropkit.lab.plan import Choices, Plan

    plan = Plan.make(Choices.make("mlp", size="tiny", epochs=2, device="cpu"), "none", 0)
    with progress_bar(out, epochs=True) as bar:
        bar.begin(0, 2)
        bar(plan, {"epoch": 1, "train_loss": 1.25, "train_accuracy": 0.5, "test_accuracy": 0.625})
    assert "epoch 1/2, loss 1.2500, train accuracy 0.5000, test accuracy 0.6250\n" in stream.getvalue()


def test_what_is_counted_in_iterations_is_called_so() -> None:
    from dropkit.cli.console import epoch_line
    from dropkit.lab.recipes import get

    row = {"epoch": 2, "step": 40, "train_eval_loss": 1.25}
    assert epoch_line(get("numpy-layer").figures, row, 60, 20) == "iteration 40/1200, train loss 1.2500"
    assert epoch_line(get("numpy-layer").figures, row, 60) == "epoch 2/60, train loss 1.2500"


def test_the_bar_says_what_it_prepares() -> None:
    stream = io.StringIO()
    out = SafeConsole(file=stream, force_terminal=True, width=100, color_system=None)
    from dropkit.cli.console import progress_bar

    with progress_bar(out, "preparing mlp: the data digits, the model") as bar:
        assert isinstance(bar, Bar)
        bar.progress.refresh()
        before = stream.getvalue()
        bar.begin(1, 8)
        bar.progress.refresh()
    assert "preparing mlp: the data digits, the model" in before
    assert "0/?" not in stream.getvalue() and "left" not in before and "-:--" not in before
    assert "1/8" in stream.getvalue() and "left" in stream.getvalue()


STOPPED = """
import os, signal, sys
sys.argv = ["dropkit"]
place = {place!r}
class Stop:
    def find_spec(self, name, path=None, target=None):
        if name == place:
            os.kill(os.getpid(), signal.SIGINT)
sys.orig_argv = [sys.executable, "-m", "dropkit.cli"]
sys.meta_path.insert(0, Stop())
from dropkit import cli
cli.main({words!r})
"""


@pytest.mark.parametrize("place", ["numpy", "dropkit.cli.lab", "torch", "dropkit.lab.experiment"])
def test_ctrl_c_while_modules_load_is_one_word(place: str, tmp_path: Path) -> None:
    """E9."""
    words = ["compare", "mlp", "--out", str(tmp_path / "o")]
    command = [sys.executable, "-c", STOPPED.format(place=place, words=words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped\n")
    assert not (tmp_path / "o").exists()


def test_ctrl_c_before_there_is_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dropkit.lab import experiment

    def stop(*rest: object, **asked: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment.Choices, "make", stop)
    status, _, err = run(["train", "mlp", "--size", "tiny", "--out", str(tmp_path / "o")], capsys)
    assert status == 130 and err.strip() == f"stopped; nothing was written to {tmp_path / 'o'} yet"


def test_an_error_is_the_same_at_each_run() -> None:
    """R20."""
    first, second = (one_line(f"cannot read {io.BytesIO()!r}, \x1b[1m{object()!r}\x1b[0m\n and\t{print}") for _ in "ab")
    assert first == second == "cannot read <_io.BytesIO object>, <object object> and <built-in function print>"
    assert one_line("sha256 0x7f3a at 0x12") == "sha256 0x7f3a at 0x12"
