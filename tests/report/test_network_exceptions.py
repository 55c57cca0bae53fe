"""The page of a network shows the exception, not the rule; findings come first, with all that is known of them."""

from dataclasses import replace
from pathlib import Path

import pytest

from dropkit import cli
from dropkit.probe.explanation import Explanation, Layer, Site
from dropkit.probe.findings import RULES, Finding
from dropkit.probe.findings.about import about
from dropkit.probe.fold import fold
from dropkit.probe.page import words
from dropkit.probe.page.network import render_network

ROOT = Path(__file__).parents[2]
LAYER = Layer(
    name="a", parent="", kind="Linear", output_shape=(2, 3), parameters=9, trainable=9, changed_by=("drop",),
    gradient="changed", gradient_by=("drop",), variance_ratio=1.004,
)  # fmt: skip
FINDING = Finding("DK109", "dropout before BatchNorm", "drop", "1.3", "Move it.", "docs/doctor.md#dk109")


def page(layers: int, *findings: Finding, odd: Layer | None = None) -> str:
    inside = [replace(LAYER, name=f"a{n}", kind=f"Kind{n}") for n in range(layers)] + ([odd] if odd else [])
    site = Site(name="drop", kind="Dropout", layer="", p=0.5, train=True)
    root = Layer(name="", parent=None, kind="Net", output_shape=(2, 3))
    read = Explanation(model="Net", framework="torch", inputs=((2, 3),), layers=(root, *inside), sites=(site,))
    return render_network(read, fold(read), ["A summary."], findings)


def test_a_layer_says_what_is_not_as_in_the_others() -> None:
    assert words.layer_facts(LAYER, usual=True) == ["2 × 3", "9 parameters"]
    odd = replace(LAYER, training=False, trainable=0, variance_ratio=1.3)
    assert words.layer_facts(odd, usual=True) == ["2 × 3", "9 parameters", "frozen", "in eval mode", "variance × 1.3"]


def test_gradients_are_marked_where_they_are_not_as_in_most_layers() -> None:
    html = page(5, odd=replace(LAYER, name="odd", gradient="unchanged", gradient_by=()))
    boxes = html[html.index('<ol class="boxes">') : html.index('<svg id="lines"')]
    assert 'data-mark="gradient-changed"' not in boxes
    assert boxes.count('data-mark="gradient-unchanged"') == 1


def test_findings_come_before_the_summary_and_carry_their_explanation() -> None:
    html = page(2, FINDING)
    assert html.index("DK109") < html.index("A summary.")
    assert "Variance Shift" in html and "docs/doctor.md" not in html


def test_large_networks_have_an_overview_of_a_cell_for_each_layer() -> None:
    assert page(30).count('id="cell-') == 30
    assert 'id="cell-' not in page(5)


def test_the_package_carries_the_documentation_of_each_code() -> None:
    text = (ROOT / "docs" / "doctor.md").read_text()
    assert (ROOT / "src/dropkit/probe/findings/doctor.md").read_text() == text
    assert all(about(code) and about(code) in text for code, *_ in RULES)


def test_the_command_prints_what_a_code_means(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["doctor", "dk109"])
    assert not caught.value.code
    assert capsys.readouterr().out.startswith("**Dropout before BatchNorm.**")
