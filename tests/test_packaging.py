"""What a user gets: names, types, options of the command, extras, and a wheel that needs NumPy alone."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import dropkit
from dropkit import cli
from dropkit.lab import recipes

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert int(caught.value.code or 0) == 0
    return capsys.readouterr().out


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(dropkit.__file__).parent / "py.typed").read_bytes() == b""


def test_dir_shows_public_names_alone() -> None:
    shown = dir(dropkit)
    assert {"Drop", "Key", "doctor", "explain", "keep", "keras", "jax", "numpy", "torch", "probe", "lab"} <= set(shown)
    assert not {"Any", "TYPE_CHECKING", "import_module", "choice", "mask"} & set(shown)
    assert all(getattr(dropkit, name) is not None for name in shown if name not in ("jax", "keras", "lab"))


def test_a_star_import_loads_no_framework() -> None:
    code = "from dropkit import *\nimport sys\nprint(keep.__name__, explain.__name__, 'torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["keep", "explain", "False"]


def test_the_command_tells_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "--version") == f"dropkit {PROJECT['version']}\n"


def test_the_version_needs_numpy_alone() -> None:
    code = "import sys; sys.modules.update(typer=None, torch=None); from dropkit import cli; cli.main(['--version'])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == f"dropkit {dropkit.__version__}\n"


@pytest.mark.parametrize("arguments", [("-h",), ("compare", "-h"), ("explain", "-h")])
def test_help_has_a_short_option(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, *arguments) == printed(capsys, *arguments[:-1], "--help")


def test_the_list_of_commands_breaks_no_sentence_off(capsys: pytest.CaptureFixture[str]) -> None:
    listed = printed(capsys, "-h").partition("Commands:")[2].strip().splitlines()
    assert len(listed) >= 7 and all(line.endswith(".") and not line.endswith("...") for line in listed), listed


def test_the_lab_brings_what_is_small() -> None:
    lab = " ".join([*EXTRAS["lab"], *EXTRAS["images"]])
    assert "images" in EXTRAS["lab"][0] and "pillow" in lab and "optuna" in lab
    assert "plotly" not in lab


def test_recipes_say_what_they_need_and_whether_it_is_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dropkit.lab.recipes import recipe

    monkeypatch.setattr(recipe, "find_spec", lambda name: None if name == "keras" else name)
    lines = {line.split()[0]: line for line in printed(capsys, "recipes").splitlines()}
    assert lines.keys() == recipes.RECIPES.keys()
    assert lines["mlp"].endswith("(needs nothing else)")
    assert lines["gan"].endswith("(needs pillow, installed)")
    assert lines["transfer"].endswith('(needs Keras and pillow, not installed: pip install "dropkit[keras]")')


def test_the_wheel_is_built_without_frameworks() -> None:
    rule = re.search(r"^wheel:(.*)\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert rule is not None and "setup" not in rule[1]
    assert "torch" not in rule[2] and "[dev]" not in rule[2]


def test_the_first_screen_says_which_torch_is_needed() -> None:
    needed = EXTRAS["torch"][0].removeprefix("torch>=")
    screen = "\n".join((ROOT / "README.md").read_text().splitlines()[:40])
    assert f"torch >= {needed}" in screen and "pip install" in screen
