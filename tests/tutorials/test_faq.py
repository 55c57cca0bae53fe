"""docs/faq.md: each question has something to run, each command is one, each figure stands where it was measured.

Its Python blocks run in tests/test_readme.py, with what they claim asserted in them.
"""

import re
import shlex
from pathlib import Path

import pytest
import torch
import typer

from dropkit import cli
from dropkit.cli.lab import app
from dropkit.torch import enabled, strip

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "faq.md").read_text()
THEMES = re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
ANSWERS = dict(re.findall(r"^### (.+)\n((?:(?!^##).*\n)+)", PAGE, re.MULTILINE))
COMMANDS = [line.partition("#")[0].strip() for line in re.findall(r"^    ((?:dropkit|python) .+)$", PAGE, re.MULTILINE)]
OURS = [shlex.split(command)[1:] for command in COMMANDS if command.startswith("dropkit ")]
STUDIES = {command.rpartition(" ")[2] for command in COMMANDS if command.startswith("python benchmarks/studies.py ")}

# Figures that the page quotes: each is measured, with command and seeds, on another page.
QUOTED = ("+0.56 ± 0.62", "+0.60 ± 1.17", "0.0142 ± 0.0030", "0.0096 ± 0.0058", "+0.0046 to +0.0252")


def anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_the_page_was_read() -> None:
    assert len(THEMES) == 9 and len(ANSWERS) >= 70 and len(OURS) >= 20 and len(STUDIES) >= 4
    assert len(ANSWERS) == len(re.findall(r"^### ", PAGE, re.MULTILINE))  # none asked twice


def test_every_theme_is_in_the_contents_and_every_link_inside_the_page_leads_there() -> None:
    headings = {anchor(heading) for heading in (*THEMES, *ANSWERS)}
    assert {f"[{theme}](#{anchor(theme)})" for theme in THEMES} == set(re.findall(r"^\| (\[.+?\]\(.+?\))", PAGE, re.M))
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= headings


@pytest.mark.parametrize("question", ANSWERS)
def test_a_question_is_a_question_with_a_short_answer_and_something_to_run(question: str) -> None:
    answer = ANSWERS[question]
    assert question.endswith("?")
    assert re.search(r"^```python$|^    (dropkit|python) ", answer, re.MULTILINE)
    prose = re.split(r"^(?:```|    |\||<!--)", answer, maxsplit=1, flags=re.MULTILINE)[0]
    most = 170 if "](studies.md#" in answer else 110  # with the figures of a study
    assert 10 <= len(prose.split()) <= most, f"{len(prose.split())} words"


@pytest.mark.parametrize("words", OURS, ids=" ".join)
def test_a_command_is_one_that_dropkit_takes(words: list[str]) -> None:
    command = typer.main.get_command(app).commands[words[0]]  # type: ignore[attr-defined]
    command.make_context(words[0], words[1:])  # parses and checks, runs nothing


def test_a_question_that_a_study_answers_leads_to_its_figures() -> None:
    for question, answer in ANSWERS.items():
        if "python benchmarks/studies.py" in answer:
            assert "](studies.md#" in answer, question


STUDY = DOCS.parent / "benchmarks" / "studies.py"


def test_a_study_that_is_named_can_be_run() -> None:
    assert set(re.findall(r'^    "([\w-]+)": ', STUDY.read_text(), re.MULTILINE)) >= STUDIES


def test_figures_stand_on_the_page_that_measured_them() -> None:
    others = " ".join(" ".join(page.read_text().split()) for page in DOCS.glob("*.md") if page.name != "faq.md")
    for figure in QUOTED:
        assert figure in " ".join(PAGE.split()) and figure in others, figure


def test_what_answers_call_an_error_is_one() -> None:
    drop, x = torch.nn.Dropout(0.5), torch.ones(2, 8)
    with pytest.raises(ValueError, match="empty parameter list"):
        torch.optim.Adam(drop.parameters())
    with pytest.raises(RuntimeError, match="empty"):
        torch.autograd.grad(x.requires_grad_().sum(), list(drop.parameters()))
    with pytest.raises(TypeError, match="missing 2 required"):
        torch.dropout(x)  # type: ignore[call-arg]
    with pytest.raises(RuntimeError, match="randomness"):
        torch.func.vmap(drop)(x)
    layer = torch.nn.Linear(8, 1)
    with pytest.raises(ValueError, match="no dropout became active"), enabled(layer):
        layer(x)


def test_strip_refuses_while_a_functional_call_is_left() -> None:
    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.dropout(x, 0.5, self.training)

    with pytest.raises(ValueError, match="dropout"):
        strip(Net(), torch.ones(2, 8))


@pytest.mark.parametrize(
    ("activation", "same"), [("relu", True), ("leaky_relu", True), ("tanh", False), ("gelu", False), ("sigmoid", False)]
)
def test_on_which_side_of_an_activation_the_mask_makes_no_difference(activation: str, same: bool) -> None:
    function = getattr(torch.nn.functional, activation)
    x = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    scale = (torch.arange(64) % 2) * 2.0  # a mask of p = 0.5
    assert torch.allclose(function(x * scale), function(x) * scale) == same
    assert bool((function(torch.zeros(1)) == 0).all()) == (activation != "sigmoid")


@pytest.mark.parametrize("words", [words for words in OURS if words[0] == "doctor"], ids=" ".join)
def test_doctor_explains_the_findings_that_are_named(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert not ended.value.code and "*Mend*" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("explain mlp", "change the gradient of every trainable layer: hidden1, hidden2 and output."),
        ("explain gan-functional", "dropout is called 3 times in a forward, each with a mask of its own"),
        ("explain gan", "dropout1 changes the outputs of later layers"),
        ("explain gan:generator", "No dropout was found in this model."),
    ],
)
def test_explain_says_what_the_answers_say(words: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert shlex.split(words) in OURS
    with pytest.raises(SystemExit) as ended:
        cli.main(shlex.split(words))
    assert not ended.value.code and told in " ".join(capsys.readouterr().out.split())
