"""Damaged files: a run that is resumed ends as if nothing had happened, or says in one line which file it is."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dropkit import cli
from dropkit.errors import DataError
from dropkit.lab import train, tune
from dropkit.lab.files import read_sealed_json, sealed, write_sealed
from dropkit.lab.runs.run import check_files
from dropkit.visible import one_line

RUN = ["train", "mlp", "--size", "tiny", "--device", "cpu"]
SEARCH = ["tune", "mlp", "--size", "tiny", "--epochs", "1", "--trials", "2", "--seeds", "1", "--device", "cpu"]


def outcome(folder: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit status of a resumed command, and what went to stderr."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        cli.main([*words, "--resume", "--out", str(folder)])
    return int(caught.value.code or 0), capsys.readouterr().err


def result(folder: Path) -> str:
    """What a run found, without the clock."""
    text = json.loads((folder / "result.json").read_text())
    return (
        json.dumps(text, sort_keys=True) if "trials" in text else json.dumps([text["last"]["test_loss"], text["seed"]])
    )


def mutations(content: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Flipped bits, lost and doubled pieces, other bytes, an end too early, text in other encodings, nothing."""
    rng = np.random.Generator(np.random.Philox(seed))
    yield b""
    yield content[:-1]
    yield content + b"\xff"
    yield b"\xff\xfe" + content
    yield content.replace(b"1", b"2")
    for number in range(count):
        at = int(rng.integers(len(content)))
        size = int(rng.integers(1, 40))
        piece = content[at : at + size]
        yield [
            content[:at] + bytes([content[at] ^ (1 << int(rng.integers(8)))]) + content[at + 1 :],
            content[:at],
            content[:at] + piece + content[at:],
            content[:at] + content[at + size :],
            content[:at] + rng.bytes(size) + content[at + size :],
        ][number % 5]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("damage") / "run"
    train("mlp", size="tiny", epochs=1, device="cpu", out=out, validation=0.2)
    return out


@pytest.mark.parametrize("name", ["state.safetensors", "checkpoint.safetensors", "scores.safetensors", "config.json"])
def test_every_mutation_of_what_a_run_is_resumed_from_is_found(name: str, finished: Path, tmp_path: Path) -> None:
    """R3: 105 mutations of each file, as `train`, `compare` and `tune` look at it before they train anything."""
    whole = (finished / name).read_bytes()
    check_files(finished)
    values = json.loads(whole) if name == "config.json" else None
    for content in mutations(whole, 100, seed=len(name)):
        (tmp_path / name).write_bytes(content)
        try:
            check_files(tmp_path)
        except DataError as error:
            assert name in str(error) and str(error).endswith("; delete its folder and run again")
            assert len(one_line(error)) < 400
        else:  # spaces between values may come and go
            assert values is not None and json.loads(content) == values


@pytest.mark.parametrize("name", ["state.safetensors", "checkpoint.safetensors", "config.json", "metrics.csv"])
def test_no_mutation_of_a_runs_files_changes_its_result(
    name: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """R3, R8. Resuming a finished run reads all that resuming reads, and trains nothing."""
    folder = tmp_path / "run"
    for content in mutations((finished / name).read_bytes(), 0, seed=0):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(finished, folder)
        (folder / name).write_bytes(content)
        status, err = outcome(folder, [*RUN, "--epochs", "1", "--validation", "0.2"], capsys)
        assert "Traceback" not in err
        assert status == 0 if name == "metrics.csv" else status == 2 or name == "config.json"
        if status == 0:  # the table is counted for the bar, and written anew
            assert result(folder) == result(finished)
            assert name == "config.json" or (folder / name).read_bytes() == (finished / name).read_bytes()
        else:
            assert status == 2 and err.count("\n") == 1 and name in err and "run again" in err, err


def test_a_flipped_bit_of_a_weight_is_one_line(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    state = tmp_path / "run" / "state.safetensors"
    content = bytearray(state.read_bytes())
    content[-1000] ^= 0x40
    state.write_bytes(content)
    status, err = outcome(tmp_path / "run", [*RUN, "--epochs", "2", "--validation", "0.2"], capsys)
    assert status == 2
    assert err == (
        f"dropkit: error: cannot resume from {state}: it was damaged or changed since it was written (its sha256 does "
        "not match); delete its folder and run again\n"
    )


@pytest.mark.parametrize(
    ("old", "new"), [('\\"step\\": ', '\\"step\\": 9'), ('\\"best_epoch\\": 1', '\\"best_epoch\\": 7')]
)
def test_a_number_of_the_header_is_as_safe_as_a_weight(
    old: str, new: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    state = tmp_path / "run" / "state.safetensors"
    content = state.read_bytes()
    assert old.encode() in content
    changed = content.replace(old.encode(), new.encode(), 1)
    length = int.from_bytes(changed[:8], "little") + len(changed) - len(content)
    state.write_bytes(length.to_bytes(8, "little") + changed[8:])
    status, err = outcome(tmp_path / "run", [*RUN, "--epochs", "1", "--validation", "0.2"], capsys)
    assert status == 2 and "its sha256 does not match" in err


@pytest.mark.parametrize("name", ["state.safetensors", "checkpoint.safetensors", "config.json", "metrics.csv"])
@pytest.mark.parametrize("kind", ["folder", "pipe", "link to nowhere", "link to itself"])
def test_something_else_in_a_files_place(
    kind: str, name: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    path = folder / name
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)  # to open it would wait for a writer
    else:
        path.symlink_to(path if kind == "link to itself" else tmp_path / "nowhere")
    status, err = outcome(folder, [*RUN, "--epochs", "1", "--validation", "0.2"], capsys)
    assert "Traceback" not in err
    if status == 0:
        assert result(folder) == result(finished)
    else:
        assert status == 2 and err.count("\n") == 1 and str(folder) in err, err
    assert not (tmp_path / "nowhere").exists()


def test_the_state_of_another_run_is_refused(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "other"
    train("mlp", size="tiny", epochs=1, seed=1, device="cpu", out=out, validation=0.2)
    shutil.copy(finished / "state.safetensors", out / "state.safetensors")
    status, err = outcome(out, [*RUN, "--epochs", "1", "--seed", "1", "--validation", "0.2"], capsys)
    assert status == 2 and "state.safetensors: it belongs to another run; delete its folder" in err


def test_a_state_without_a_sum_is_refused(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As older versions wrote them: nobody knows whether it is what was written."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    state = folder / "state.safetensors"
    with safe_open(state, "pt") as file:
        header = json.loads(file.metadata()["dropkit"])
    del header["sha256"]
    save_file(load_file(state), state, {"dropkit": json.dumps(header)})
    status, err = outcome(folder, [*RUN, "--epochs", "1", "--validation", "0.2"], capsys)
    assert status == 2 and err.count("\n") == 1
    assert "it holds no sha256 of itself, by which damage would show: an older dropkit wrote it" in err
    shutil.copy(finished / "state.safetensors", state)
    config = json.loads((folder / "config.json").read_text())
    del config["sha256"]
    (folder / "config.json").write_text(json.dumps(config))
    status, err = outcome(folder, [*RUN, "--epochs", "1", "--validation", "0.2"], capsys)
    assert status == 2 and "config.json: it holds no sha256 of itself" in err


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("damage") / "search"
    tune("mlp", size="tiny", epochs=1, trials=2, seeds=1, device="cpu", out=out)
    return out


@pytest.mark.parametrize(
    "name", ["trials.json", "config.json", "yardstick/config.json", "yardstick/fixed/seed0/state.safetensors"]
)
def test_no_mutation_of_a_searchs_files_changes_its_result(
    name: str, searched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """R3, R23: what the comparison at the end would read is checked before a trial is trained."""
    folder, wanted = tmp_path / "search", result(searched)
    for content in mutations((searched / name).read_bytes(), 0, seed=0):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(searched, folder)
        (folder / name).write_bytes(content)
        words = list(SEARCH)
        words[words.index("--trials") + 1] = "3"
        status, err = outcome(folder, words, capsys)
        if status == 0:  # spaces, say
            assert json.loads(wanted)["trials"] == json.loads(result(folder))["trials"][:2]
        else:
            assert status == 2 and err.count("\n") == 1 and name in err and "Traceback" not in err, err
            assert not (folder / "trial-2").exists()


def test_sealed_values_come_back_and_nothing_else_does(tmp_path: Path) -> None:
    path = tmp_path / "values.json"
    value = {"a": [1, 2.5, None, "\x1b\u202e\x7f\u00fc"], "b": {"c": float("nan")}}
    write_sealed(path, value)
    assert read_sealed_json(path) == {**value, "b": {"c": None}}
    assert b"\x7f" not in path.read_bytes() and b"\x1b" not in path.read_bytes()
    for text in ("[]", "3", "null", "{}", '{"a": 1}', "nonsense", "[" * 100_000, "1" * 10_000, '"\ud800"'):
        path.write_bytes(text.encode(errors="surrogatepass"))
        with pytest.raises(DataError, match=r"cannot read .*values\.json: .*; delete its folder and run again"):
            read_sealed_json(path)
    path.write_bytes(b" " * (sealed.MOST_JSON + 1))
    with pytest.raises(DataError, match="at most 67108864 are read"):
        read_sealed_json(path)
