import gzip
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dropkit import cli
from dropkit.lab.engines import loop

COMMAND = [sys.executable, "-m", "dropkit.cli"]
TINY = ["--size", "tiny", "--epochs", "1", "--device", "cpu"]


def status(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    return int(caught.value.code or 0)


def one_line(capsys) -> str:
    """What went to stderr, after checking that it is one line and that nothing was printed."""
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1 and "Traceback" not in printed.err
    return printed.err.strip()


def test_compare_prints_table_verdict_and_where_the_report_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert status("compare", "mlp", *TINY, "--strategies", "none, fixed:0.3", "--seeds", "2", "--out", "o") == 0
    out = capsys.readouterr().out
    for part in ("on digits", "2 seeds are too few to say", "fixed:0.3", "difference from", "±"):
        assert part in out
    assert f"Report: {tmp_path / 'o' / 'report.html'}\n" in out
    assert (tmp_path / "o" / "fixed-0.3" / "seed1" / "checkpoint.safetensors").exists()


def test_info_works_with_numpy_alone() -> None:
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['typer', 'torch', 'rich', 'scipy'], None))\n"
        "from dropkit import cli\n"
        "cli.main(['info'])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    facts = dict(line.split(None, 1) for line in run.stdout.splitlines())
    assert {"dropkit", "python", "numpy", "torch", "CPU"} <= facts.keys()


def test_impossible_cpu_path_is_one_line() -> None:
    run = subprocess.run(
        [*COMMAND, "info"], capture_output=True, text=True, env={**os.environ, "DROPKIT_CPU": "avx9000"}, check=False
    )
    assert run.returncode == 2
    assert run.stderr.startswith("dropkit: error: DROPKIT_CPU=avx9000 cannot be met") and run.stderr.count("\n") == 1


def test_default_folder_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert status("train", "mlp", *TINY, "--strategy", "step", "--seed", "7") == 0
    assert (tmp_path / "runs" / "mlp-digits-tiny-step-seed7" / "report.html").exists()
    assert status("compare", "mlp", *TINY, "--strategies", "none", "--seeds", "1") == 0
    assert (tmp_path / "runs" / "mlp-digits-tiny" / "report.html").exists()
    capsys.readouterr()
    assert status("compare", "mlp", *TINY, "--strategies", "none", "--seeds", "1") == 2
    assert "already holds a run and nothing was changed; continue it with --resume" in one_line(capsys)
    assert status("compare", "mlp", *TINY, "--strategies", "none", "--seeds", "1", "--resume") == 0


def test_recipes_are_listed_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("recipes") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        "mlp",
        "mlp-functional",
        "numpy-mlp",
        "numpy-layer",
        "vgg-adaptive",
        "vgg-everywhere",
        "vgg-channels",
        "cnn",
        "dense",
        "transfer",
        "transfer-pretrained",
        "transfer-random",
        "gan",
        "gan-functional",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "mpl"], "unknown recipe 'mpl'; did you mean 'mlp' or 'numpy-mlp'? Known: cnn, dense, "),
        (["train", "mpl"], "unknown recipe 'mpl'; did you mean 'mlp'"),
        (["compare", "mlp", "--strategies", "none,fixd"], "unknown strategy 'fixd'; did you mean 'fixed'?"),
        (["compare", "mlp", "--strategies", "fixed:1.5"], "strategy 'fixed:1.5': p must lie in [0, 1], got 1.5"),
        (["compare", "mlp", "--strategies", "fixed:nan"], "p must lie in [0, 1], got nan"),
        (["train", "mlp", "--strategy", "fixed:half"], "a number must follow each colon, got 'half'"),
        (["compare", "mlp", "--strategies", ""], "unknown strategy ''"),
        (
            ["compare", "mlp", "--data", "digitz"],
            "unknown data set (and no folder of that name) 'digitz'; did you mean",
        ),
        (["compare", "mlp", "--size", "huge"], "unknown size 'huge'"),
        (["compare", "mlp", "--epochs", "0"], "epochs must be at least 1, got 0"),
        (["compare", "mlp", "--validation", "1.5"], "validation must lie in [0, 1), got 1.5"),
        (["train", "mlp", "--device", "gpu"], "unknown device 'gpu'"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert status(*arguments) == 2
    line = one_line(capsys)
    assert line.startswith("dropkit: error: ") and message in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare"], "Missing argument 'TARGET'; see dropkit compare -h"),
        (["compare", "mlp", "--epochs", "many"], "got 'many'; see dropkit compare -h"),
        (["compare", "mlp", "--bad"], "No such option"),
        (["compere"], "No such command 'compere'"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(*arguments) == 2
    assert message in one_line(capsys)


def test_unwritable_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert status("compare", "mlp", *TINY, "--out", str(tmp_path / "file" / "run")) == 2
    assert "cannot write to" in one_line(capsys)


def test_truncated_data_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(1000))[:20])
    assert status("compare", "mlp", "--data", str(tmp_path), "--out", str(tmp_path / "run")) == 2
    assert "train-images-idx3-ubyte.gz is truncated or damaged" in one_line(capsys)


def test_missing_data_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--data", "fashion-mnist", "--data-dir", str(tmp_path), "--out", str(tmp_path / "run")]
    assert status("train", "mlp", *arguments) == 2
    assert "fashion_mnist/train-images-idx3-ubyte.gz: No such file or directory; put https://" in one_line(capsys)


def test_missing_extra_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "dropkit.cli.lab", None)
    with pytest.raises(ModuleNotFoundError):
        # A module of our own that is missing is a fault, not a missing extra.
        cli.main(["recipes"])
    monkeypatch.delitem(sys.modules, "dropkit.cli.lab")
    monkeypatch.setitem(sys.modules, "typer", None)
    assert status("recipes") == 2
    assert one_line(capsys) == 'dropkit: error: typer is not installed; the lab needs it: pip install "dropkit[lab]"'


def test_interrupt_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    once = loop.Loop.epoch

    def interrupted(self, number, step):
        if number == 2:
            raise KeyboardInterrupt
        return once(self, number, step)

    out = ["--out", str(tmp_path / "run")]
    tiny = ["--size", "tiny", "--device", "cpu"]
    monkeypatch.setattr(loop.Loop, "epoch", interrupted)
    assert status("train", "mlp", *tiny, *out) == 130
    assert "the same command with --resume continues" in capsys.readouterr().err
    monkeypatch.undo()
    assert status("train", "mlp", *tiny, *out, "--resume") == 0
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 1 + 3


@pytest.mark.slow
def test_the_real_command_stops_at_sigint(tmp_path: Path) -> None:
    arguments = ["train", "mlp", "--epochs", "100000", "--device", "cpu", "--out", str(tmp_path / "run")]
    # A signal that is ignored here, as in a job under nohup, would be ignored there too; one with a handler is not.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        signal.signal(signal.SIGINT, before)
        try:
            while process.poll() is None and not (tmp_path / "run" / "metrics.csv").exists():
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            error = process.communicate(timeout=60)[1]
        finally:
            process.kill()
    assert process.returncode == 130, error
    assert "--resume continues" in error and "Traceback" not in error


def test_the_real_command_fails_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run([*COMMAND, "compare", "nothing"], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("dropkit: error: unknown recipe 'nothing'")


@pytest.mark.parametrize("arguments", [["--help"], ["recipes"], ["compare", "--help"]])
def test_light_commands_load_no_framework(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom dropkit.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n"
        "    heavy = {'torch', 'sklearn', 'scipy'} & set(sys.modules)\n"
        "    sys.exit(end.code or (3 if heavy else 0))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "mlp" in done.stdout or "Usage" in done.stdout
