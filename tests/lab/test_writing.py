"""Writing: through a fresh name, following no link, one process at a time in a folder."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dropkit import cli, writing
from dropkit.errors import OutputError
from dropkit.lab import train
from dropkit.lab.files import claim, lock, write_bytes, write_rows, write_text
from dropkit.torch.moving.rate_log import _write as write_log

RUN = ["train", "mlp", "--size", "tiny", "--epochs", "1", "--device", "cpu"]
NAMES = ("report.html", "config.json", "result.json", "metrics.csv", "state.safetensors", "checkpoint.safetensors")


def test_planted_links_are_not_followed(tmp_path: Path) -> None:
    """R7: the names that a writer without care would use, and the targets themselves."""
    folder, victim = tmp_path / "run", tmp_path / "victim.txt"
    victim.write_text("mine")
    train("mlp", size="tiny", epochs=1, device="cpu", out=folder)
    for name in NAMES:
        (folder / f"{name}.partial").symlink_to(victim)
    for name in ("report.html", "result.json", "metrics.csv"):
        (folder / name).unlink()
        (folder / name).symlink_to(victim)
    with pytest.raises(SystemExit) as caught:
        cli.main([*RUN, "--resume", "--out", str(folder)])
    assert caught.value.code == 0
    assert victim.read_text() == "mine"
    for name in NAMES:
        assert (folder / name).is_file() and not (folder / name).is_symlink()


def test_a_planted_lock_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    for number, plant in enumerate((os.symlink, os.link)):
        folder = tmp_path / str(number)
        folder.mkdir()
        plant(victim, folder / lock.NAME)
        with (
            pytest.raises(OutputError, match=r"cannot write to|is no lock of dropkit's; delete it"),
            lock.locked(folder),
        ):
            pass
        assert victim.read_text() == "mine"
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / lock.NAME)
    with pytest.raises(OutputError, match="is no lock of dropkit's; delete it"), lock.locked(tmp_path / "pipe"):
        pass


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "inside").touch()
    with pytest.raises(OutputError, match=r"cannot write .*taken: .*; choose another folder with --out"):
        write_bytes(tmp_path / "taken", b"x")
    with pytest.raises(OutputError, match=r"cannot write .*none/file: No such file or directory"):
        write_bytes(tmp_path / "none" / "file", b"x")

    def full(number: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(writing.os, "fsync", full)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "file", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_names_are_fresh_and_files_as_others_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = iter(["a", "a", "b"])
    monkeypatch.setattr(writing.secrets, "token_hex", lambda size: next(names))
    (tmp_path / f"{writing.START}a{writing.END}").write_text("another's")
    write_text(tmp_path / "file", "whole \udcff")
    assert (tmp_path / "file").read_text() == "whole \\udcff"
    (tmp_path / "plain").touch()
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert (tmp_path / f"{writing.START}a{writing.END}").read_text() == "another's"


def test_a_log_of_rates_is_written_the_same_way(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "rates.csv.partial").symlink_to(tmp_path / "victim")
    write_log(tmp_path / "rates.csv", [{"epoch": 1, "drop": 0.5}])
    assert (tmp_path / "victim").read_text() == "mine"
    assert (tmp_path / "rates.csv").read_text() == "epoch,drop\n1,0.5\n"


def test_what_a_killed_process_left_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / f"{writing.START}0123{writing.END}").touch()
    (tmp_path / lock.NAME).write_text("4194303\n")
    with lock.locked(tmp_path):
        assert not claim(tmp_path, resume=False)
        assert [path.name for path in tmp_path.iterdir()] == [lock.NAME]
    assert list(tmp_path.iterdir()) == []


HOLD = """
import fcntl, os, sys, time
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
file.write(f"{os.getpid()}\\n")
file.flush()
print("held", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("words", [RUN, ["compare", *RUN[1:], "--seeds", "1"], ["tune", *RUN[1:], "--trials", "1"]])
def test_a_second_process_is_told_of_the_first(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """R15: then the first is killed, and the second may."""
    command = [sys.executable, "-S", "-c", HOLD, str(tmp_path / lock.NAME)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        status, err = main([*words, "--out", str(tmp_path)], capsys)
        assert status == 2 and err.count("\n") == 1
        assert f"another dropkit process is writing here: PID {other.pid}, in {tmp_path}; wait for it or choose" in err
        other.kill()
    with lock.locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def main(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    return int(caught.value.code or 0), capsys.readouterr().err


def test_a_thread_waits_for_no_other_and_its_own_blocks_nest(tmp_path: Path) -> None:
    found = []

    def second() -> None:
        try:
            with lock.locked(tmp_path):
                pass
        except OutputError as error:
            found.append(str(error))

    with lock.locked(tmp_path):
        with lock.locked(tmp_path / "."):
            pass
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
        assert (tmp_path / lock.NAME).exists()
    assert len(found) == 1 and f"PID {os.getpid()}" in found[0]


SCRIPT = """
import sys, time
from pathlib import Path
from dropkit.lab.files.lock import locked
from dropkit.errors import OutputError
folder, log = Path(sys.argv[1]), Path(sys.argv[2])
end = time.monotonic() + 1.0
while time.monotonic() < end:
    try:
        with locked(folder):
            taken = folder / "inside"
            taken.touch(exist_ok=False)  # fails if anybody else is in
            taken.unlink()
    except OutputError:
        pass
"""


@pytest.mark.slow
def test_many_processes_are_never_inside_together(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "shared"), str(tmp_path)]
    crowd = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    assert [each.communicate()[1] for each in crowd] == [""] * 4


def test_a_row_that_lacks_what_later_ones_have_is_written_with_nan(tmp_path: Path) -> None:
    """An older version's epochs, gone on with by one that measures more."""
    write_rows(tmp_path / "metrics.csv", [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25, "ece": 0.125}])
    assert (tmp_path / "metrics.csv").read_text() == "epoch,loss,ece\n1,0.5,nan\n2,0.25,0.125\n"
