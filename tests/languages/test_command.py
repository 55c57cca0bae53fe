"""`--lang` and DROPKIT_LANG: what is told in the language, what stays as it is, and an error before anything runs."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dropkit
from dropkit import cli
from dropkit.lab import compare

from .english import english, english_of_page

NAMES = ("mlp", "digits", "none", "fixed", "step", "dropout", "numpy-mlp", "torch", "flatten", "Dropout", "Linear")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DROPKIT_LANG", raising=False)
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error."""
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    printed = capsys.readouterr()
    return int(left.value.code or 0), printed.out, printed.err


def test_explain_tells_in_chinese(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    arguments = ("explain", "mlp", "--size", "tiny", "--lang", "zh", "--html", "page.html", "--json", "all.json")
    status, out, err = told(capsys, *arguments)
    assert status == 0 and english(out, NAMES) == [] and "随机置零一部分" in out, out
    assert err.startswith("页面：")
    assert english_of_page((here / "page.html").read_text(encoding="utf-8"), NAMES) == []
    read = json.loads((here / "all.json").read_text())  # for programs: the same in every language
    assert any("zeroes a part of" in sentence for sentence in read["sentences"])
    assert all(line == line.rstrip() or line.strip() for line in out.splitlines())


def test_the_variable_names_the_language_and_the_option_comes_first(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DROPKIT_LANG", "zh_CN.UTF-8")
    assert "测量" in told(capsys, "doctor", "dk109")[1]
    assert "Measured" in told(capsys, "doctor", "DK109", "--lang", "en")[1]
    # A library reads no variable of the command.
    layers = (dropkit.probe.Layer(name="", parent=None, kind="Net"),)
    net = dropkit.probe.Explanation(model="Net", framework="torch", inputs=(), layers=layers, sites=())
    assert str(net) == "No dropout was found in this model."


@pytest.mark.parametrize(
    "arguments",
    [
        ("explain", "no_such_module:net", "--lang", "xy"),
        ("doctor", "no_such_module:net", "--lang", "xy"),
        ("train", "mlp", "--size", "tiny", "--lang", "xy"),
        ("compare", "mlp", "--size", "tiny", "--lang", "xy"),
        ("tune", "mlp", "--size", "tiny", "--lang", "xy"),
    ],
)
def test_an_unknown_language_is_an_error_before_anything_runs(
    capsys: pytest.CaptureFixture[str], here: Path, arguments: tuple[str, ...]
) -> None:
    status, out, err = told(capsys, *arguments)
    assert (status, out) == (2, "")
    assert err == "dropkit: error: unknown language 'xy'; Known: en, zh\n"
    assert list(here.iterdir()) == []


def test_train_tells_in_chinese_and_writes_for_programs_in_english(
    capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    arguments = ("numpy-mlp", "--size", "tiny", "--epochs", "1", "--lang", "zh", "--out", "run")
    status, out, _ = told(capsys, "train", *arguments)
    assert status == 0 and english(out.replace(str(here), ""), NAMES) == [], out
    assert "轮次 1/1，损失" in out and "报告：" in out and "谈不上哪一种更好" in out
    page = (here / "run" / "report.html").read_text(encoding="utf-8")
    assert '<html lang="zh-CN">' in page and english_of_page(page, NAMES) == []
    config = json.loads((here / "run" / "config.json").read_text())
    assert "lang" not in config and config["recipe"] == "numpy-mlp"
    assert (here / "run" / "metrics.csv").read_text().startswith("epoch,")


def test_compare_in_python_writes_its_tables_in_the_language(here: Path) -> None:
    asked = {"size": "tiny", "epochs": 1, "seeds": 1, "strategies": ["none", "fixed"], "out": here / "c"}
    found = compare("numpy-mlp", **asked, lang="zh")
    assert "One seed is too few to say" in found.verdict[0]  # its text stays English, and can be told
    assert english((here / "c" / "table.md").read_text(encoding="utf-8"), NAMES) == []
    assert "One seed is too few to say" in json.loads((here / "c" / "result.json").read_text())["verdict"][0]
    # A report may be written again in another language: what is told is no part of a run.
    compare("numpy-mlp", **asked, resume=True)
    assert '<html lang="en">' in (here / "c" / "report.html").read_text()


def test_no_catalogue_is_read_for_english() -> None:
    program = """
import builtins, sys, io
from pathlib import Path
opened = []
sys.addaudithook(lambda event, found: opened.append(str(found[0])) if event == "open" else None)
import dropkit, dropkit.language, dropkit.finding
print(dropkit.finding.Finding("DK1", "title", "", "m", "r", "l").text().splitlines()[0])
assert not [name for name in opened if "languages" in name], opened
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"DK1 \(the model\): title\n", done.stdout)
