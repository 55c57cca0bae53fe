"""`dropkit doctor --ignore` from the outside."""

import json
import sys
from pathlib import Path

import pytest

from dropkit import cli

MODEL = """
from torch import nn

def model():
    return nn.Sequential(nn.Linear(12, 24), nn.SELU(), nn.Dropout(0.8), nn.Linear(24, 3))
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ignoring.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "ignoring", raising=False)


def doctor(*options: str, target: str = "ignoring:model") -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(["doctor", target, "--input", "12", *options])
    return int(caught.value.code or 0)


def test_codes_are_ignored(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor() == 1
    assert [line[:5] for line in capsys.readouterr().out.splitlines() if line.startswith("DK")] == ["DK111", "DK115"]
    assert doctor("--ignore", "DK115", "--json") == 1
    assert [found["code"] for found in json.loads(capsys.readouterr().out)["findings"]] == ["DK111"]
    assert doctor("--ignore", "DK115", "--ignore", "dk111") == 0
    assert capsys.readouterr().out == "0 findings on 1 dropout.\n"


def test_an_unknown_code_is_refused_before_anything_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor("--ignore", "DK15", target="nowhere:model") == 2
    assert "unknown code 'DK15'; did you mean 'DK115'" in capsys.readouterr().err


def test_dropout_by_hand_is_exit_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "byhand.py").write_text(
        "import torch\nfrom torch import nn\n\n\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.one, self.two = nn.Linear(12, 64), nn.Linear(64, 3)\n\n"
        "    def forward(self, h, p=0.5):\n"
        "        h = self.one(h).relu()\n"
        "        if self.training:\n"
        "            h = h * torch.bernoulli(torch.full_like(h, 1 - p))\n"
        "        return self.two(h)\n"
    )
    assert doctor(target="byhand:Net") == 1
    out = capsys.readouterr().out
    assert "DK116 :bernoulli" in out and "byhand.py:13" in out and "1 finding on 1 dropout." in out
