"""`dropkit explain` and `dropkit doctor` from the outside: targets, inputs, what is written, errors, exit statuses."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from dropkit import cli
from dropkit.cli import target

ROOT = Path(__file__).parents[2]
MODELS = """
import torch
from torch import nn

def mlp():
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 2))

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.drop, self.head = nn.Linear(4, 16), nn.Dropout(0.5), nn.Linear(16, 2)
    def forward(self, x, bias=None):
        y = self.head(self.drop(self.hidden(x)))
        return y if bias is None else y + bias

class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.drop, self.head = nn.Embedding(7, 8), nn.Dropout(0.5), nn.Linear(8, 2)
    def forward(self, words):
        return self.head(self.drop(self.table(words)))

class Space:
    high = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.8), nn.Linear(16, 2))
    limit = 3

plain = nn.Sequential(nn.Linear(4, 4))

def with_tensor():
    return mlp(), torch.ones(3, 4)

def with_several():
    return Net(), (torch.ones(3, 4), torch.ones(2))

def with_names():
    return Net(), {"x": torch.ones(5, 4), "bias": torch.ones(2)}

def talks():
    print("hello from the factory")
    return mlp(), torch.ones(3, 4)

def sized(width):
    return nn.Linear(width, width)

def fails():
    return nn.Linear(2, 2)(torch.ones(3, 9))

def leaves():
    raise SystemExit("bye")

def text():
    return "not a model"
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module of models, as the current one; what is imported from it is forgotten afterwards."""
    (tmp_path / "my_models.py").write_text(MODELS)
    (tmp_path / "my_broken.py").write_text("import not_there_at_all\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for name in ("my_models", "my_broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


def status(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    return int(caught.value.code or 0)


def read(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """The JSON that a command prints, after checking that it succeeded."""
    assert status(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of an error, after checking that nothing else was printed."""
    assert status(*arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1 and "Traceback" not in printed.err
    return printed.err.strip().removeprefix("dropkit: error: ")


def test_explain_prints_tree_and_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("explain", "mlp", "--size", "tiny") == 0
    out = capsys.readouterr().out
    for line in (
        "├── dropout1  Dropout  p 0.2: each of 256 units, per sample\n",
        "Not affected by any dropout: flatten.\n",
        "dropout2 changes the output of a later layer: output.\n",
    ):
        assert line in out, out
    assert out.startswith("torch, input 8 x 8 x 8, ")
    assert max(map(len, out.splitlines())) <= 80
    assert "DK1" not in out


@pytest.mark.parametrize(
    ("target", "rates"),
    [
        ("mlp", [0.2, 0.5]),
        ("mlp-functional", [0.2, 0.2]),
        ("vgg-adaptive", [0.5, 0.5]),
        ("gan", [0.1, 0.1, 0.1]),
        ("gan:discriminator", [0.1, 0.1, 0.1]),
        ("gan:generator", []),
    ],
)
def test_recipes_carry_their_fixed_rates(capsys: pytest.CaptureFixture[str], target: str, rates: list[float]) -> None:
    found = read(capsys, "explain", target, "--size", "tiny", "--batch", "4")
    assert [site["p"] for site in found["sites"]] == pytest.approx(rates)
    assert found["model"] == {"gan": "gan:discriminator"}.get(target, target)
    assert found["inputs"][0][0] == 4
    assert all(site["train"] and not site["eval"] for site in found["sites"])


def test_a_strategy_of_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    tiny = ("mlp", "--size", "tiny")
    found = read(capsys, "explain", *tiny, "--strategy", "fixed:0.1:0.3")
    assert [site["p"] for site in found["sites"]] == pytest.approx([0.1, 0.3])
    assert [site["p"] for site in read(capsys, "explain", *tiny, "--strategy", "step")["sites"]] == [0.5, 0.5]
    assert len(read(capsys, "explain", *tiny, "--strategy", "concrete")["sites"]) == 2
    assert "unknown strategy 'fixd'; did you mean 'fixed'?" in error(capsys, "explain", *tiny, "--strategy", "fixd")


def test_doctor_exits_with_1_for_findings_and_0_without(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("doctor", "my_models:Space.high", "--input", "4") == 1
    out = capsys.readouterr().out
    assert out.startswith("DK115 1: rate of 0.6 or more\n  measured: p = 0.8") and "docs/doctor.md#dk115" in out
    assert out.endswith("1 finding on 1 dropout.\n")
    assert status("doctor", "my_models:mlp", "--input", "4") == 0
    assert capsys.readouterr().out == "0 findings on 1 dropout.\n"
    assert status("doctor", "my_models:Space.high", "--input", "4", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["format"], found["sites"], [each["code"] for each in found["findings"]]) == (1, 1, ["DK115"])
    assert status("explain", "my_models:Space.high", "--input", "4") == 0
    assert "DK115 1: rate of 0.6 or more\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("attribute", "inputs"),
    [
        ("mlp", [[8, 4]]),
        ("Net", [[8, 4]]),
        ("plain", [[8, 4]]),
        ("Space.high", [[8, 4]]),
        ("with_tensor", [[3, 4]]),
        ("with_several", [[3, 4], [2]]),
        ("with_names", [[5, 4], [2]]),
    ],
)
def test_what_a_module_may_name(capsys: pytest.CaptureFixture[str], attribute: str, inputs: list[list[int]]) -> None:
    own = [] if attribute.startswith("with") else ["--input", "4"]
    assert read(capsys, "explain", f"my_models:{attribute}", *own)["inputs"] == inputs


def test_inputs_asked_for_come_before_those_of_the_factory(capsys: pytest.CaptureFixture[str]) -> None:
    found = read(capsys, "explain", "my_models:with_tensor", "--input", "6,4", "--batch", "2")
    assert found["inputs"] == [[2, 6, 4]]


def test_what_a_factory_prints_stays_out_of_the_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("explain", "my_models:talks", "--json") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["framework"] == "torch"
    assert "hello from the factory" in printed.err


def test_the_same_command_prints_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    command = ("explain", "my_models:mlp", "--input", "4")
    first = read(capsys, *command)
    assert read(capsys, *command) == first
    other = read(capsys, *command, "--seed", "1")
    assert other["layers"][-1]["variance_ratio"] != first["layers"][-1]["variance_ratio"]


def test_indices_lie_below_the_first_embedding(capsys: pytest.CaptureFixture[str]) -> None:
    found = read(capsys, "explain", "my_models:Words", "--input", "9:int64", "--batch", "32")
    assert found["inputs"] == [[32, 9]]
    message = error(capsys, "explain", "my_models:mlp", "--input", "4:int64")
    assert message.startswith("--input 4:int64 asks for whole numbers") and message.endswith("such as 4:int64:1000")


def test_samples_from_files(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    x = np.random.default_rng(0).normal(size=(40, 4))  # float64, where the model is float32
    np.save("x.npy", x)
    np.savez("plain.npz", x)
    np.savez("named.npz", bias=np.ones((40, 2)), x=x)
    save_file({"x": x}, "x.safetensors")
    target = ("explain", "my_models:Net")
    assert read(capsys, *target, "--data", "x.npy")["inputs"] == [[8, 4]]
    assert read(capsys, *target, "--data", "plain.npz", "--batch", "11")["inputs"] == [[11, 4]]
    assert read(capsys, *target, "--data", "named.npz")["inputs"] == [[8, 2], [8, 4]]
    assert read(capsys, *target, "--data", "x.safetensors")["inputs"] == [[8, 4]]
    assert "both say what the model is run with" in error(capsys, *target, "--data", "x.npy", "--input", "4")


def test_files_of_samples_that_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    np.save("objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save("scalar.npy", np.float32(3))
    Path("torn.npz").write_bytes(b"PK\x03\x04 torn")
    for name, reason in (
        ("objects.npy", "allow_pickle"),
        ("scalar.npy", "holds no samples"),
        ("torn.npz", "cannot read --data torn.npz"),
        ("missing.npy", "No such file"),
        ("x.csv", "samples are taken from .npy, .npz, .safetensors files"),
    ):
        assert reason in error(capsys, "explain", "my_models:Net", "--data", name)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("numpy-mlp", "recipe 'numpy-mlp' is made of NumPy layers, and explained are models of torch and Keras"),
        ("gan:generater", "recipe 'gan' has no part 'generater': give gan:discriminator or gan:generator"),
        ("mlp:head", "recipe 'mlp' has no part 'head': give mlp"),
        ("mpl", "'mpl' is no target; did you mean 'mlp'? A target is a recipe (mlp, "),
        ("zzz", "'zzz' is no target. A target is a recipe (mlp, "),
        ("my_modules:mlp", "there is no module 'my_modules' here or installed: run the command in the folder that it "),
        ("my_modules:mlp", "; did you mean 'my_models'"),
        ("my_models:nett", "my_models has no 'nett'; did you mean 'Net'"),
        ("my_models:Space.hihg", "my_models.Space has no 'hihg'; did you mean 'high'?"),
        ("my_models:Space.limit", "my_models:Space.limit is an int, and neither a model nor a function without"),
        ("my_models:text", "my_models:text makes a str, and explained are models of torch and Keras"),
        (
            "my_models:sized",
            "my_models:sized cannot be called without arguments (missing a required argument: 'width')",
        ),
        ("my_models:fails", "my_models:fails failed with RuntimeError: "),
        ("my_models:leaves", "my_models:leaves failed with SystemExit: bye at "),
        ("my_broken:net", "importing my_broken failed with ModuleNotFoundError: No module named 'not_there_at_all'"),
        ("my_models.py:mlp", "'my_models.py' is a path, and a module is named as in Python: my_models:mlp"),
        ("src/my_models.py:mlp", "a path, and a module is named as in Python: src.my_models:mlp"),
        (
            "my_models:mlp",
            "Sequential is a torch model, which does not tell what it takes: give --input",
        ),
        ("missing.keras", "there is no file missing.keras"),
        ("net.pt", "net.pt is not read: loading it may run code"),
        ("net.pkl", "load it in a function of your own and give that, such as my_model:make"),
        ("net.h5", "net.h5 is not read: it may hold weights without a model, or code; save the model as a .keras file"),
    ],
)
def test_targets_that_are_none(capsys: pytest.CaptureFixture[str], target: str, message: str) -> None:
    assert message in error(capsys, "explain", target)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--input", "3;4"], "--input '3;4' is no shape: write one sample's lengths, without the batch axis"),
        (["--input", "3,x"], "--input '3,x' is no shape"),
        (["--input", "3,,4"], "--input '3,,4' is no shape"),
        (["--input", "4:complex64"], "--input '4:complex64' is no shape"),
        (["--input", "4:float32:9"], "--input '4:float32:9' is no shape"),
        (["--input", "0,4"], "--input '0,4' is no shape"),
        (["--input", "4", "--batch", "0"], "batch must be at least 1, got 0"),
        (["--input", "5"], "5"),  # of the model's own complaint
        (["--input", "4", "--strategy", "none"], "--strategy is for recipes, and 'my_models:mlp' is none of mlp, "),
        (["--input", "4", "--size", "tiny"], "--size is for recipes"),
        (["--input", "4", "--html", "no/such/page.html"], "cannot write no/such/page.html"),
        (["--input", "4", "--json", "no/such/file.json"], "give another file with --json"),
    ],
)
def test_options_that_do_not_fit(capsys: pytest.CaptureFixture[str], options: list[str], message: str) -> None:
    assert status("doctor", "my_models:mlp", *options) == 2
    assert message in capsys.readouterr().err


def test_recipes_know_their_inputs(capsys: pytest.CaptureFixture[str]) -> None:
    assert error(capsys, "explain", "mlp", "--input", "8,8") == "recipe 'mlp' knows its inputs: leave --input out"


def test_json_and_page_are_written(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    command = ("my_models:mlp", "--input", "4", "--html", "page.html", "--json")
    assert status("explain", *command, "found.json") == 0
    printed = capsys.readouterr()
    assert "Dropout" in printed.out and f"Page: {here / 'page.html'}\n" in printed.err
    page = (here / "page.html").read_text()
    found = json.loads((here / "found.json").read_text())
    assert page.startswith("<!doctype html>") and all(sentence in page for sentence in found["sentences"])
    assert status("explain", *command) == 0  # a --json that nothing follows
    assert json.loads(capsys.readouterr().out) == found
    assert status("doctor", "my_models:mlp", "--json", "--input", "4") == 0
    assert json.loads(capsys.readouterr().out)["findings"] == []
    left = {path.name for path in here.iterdir()} - {"__pycache__", "my_models.py", "my_broken.py"}
    assert left == {"found.json", "page.html"}


def test_folds_open_with_all(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    block = "class Block(nn.Sequential):\n    def __init__(self):\n"
    block += "        super().__init__(nn.Linear(4, 4), nn.Dropout(0.1), nn.ReLU())\n"
    deep = "def deep():\n    return nn.Sequential(*(Block() for _ in range(6)), nn.Linear(4, 2))\n"
    (here / "my_models.py").write_text(MODELS + block + deep)
    assert status("explain", "my_models:deep", "--input", "4") == 0
    assert "blocks alike" in capsys.readouterr().out
    assert status("explain", "my_models:deep", "--input", "4", "--all") == 0
    out = capsys.readouterr().out
    assert "blocks alike" not in out and out.count("  Block  ") == 6


def test_without_keras_its_files_name_what_to_install(
    capsys: pytest.CaptureFixture[str], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "net.keras").write_bytes(b"")
    monkeypatch.setattr(target, "find_spec", lambda name: None)
    message = 'net.keras is read with keras, which is not installed: pip install "dropkit[lab,keras]"'
    assert error(capsys, "explain", "net.keras") == message


def test_help_loads_no_framework() -> None:
    code = (
        "import sys\nfrom dropkit import cli\n"
        "try:\n    cli.main(['explain', '--help'])\nexcept SystemExit:\n    pass\n"
        "print(*sys.modules, sep='\\n')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--json [FILE]" in run.stdout
    assert not {"torch", "keras", "rich.console", "jinja2"} & set(run.stdout.split("\n"))


@pytest.mark.slow
def test_keras_targets() -> None:
    for package in ("keras", "torch"):
        if not importlib.util.find_spec(package):
            pytest.skip(f"{package} is not installed")
    env = os.environ | {"KERAS_BACKEND": "torch", "DROPKIT_KERAS_SUITE": "1"}
    suite = "tests/probe/keras_suite/test_commands.py"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", suite]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
