"""What `explain` and `doctor` return prints, shows in a notebook, and saves itself."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

import dropkit
from dropkit.errors import DropkitRuntimeError, OutputError
from dropkit.probe.findings import Findings
from dropkit.probe.sentences import to_json


@pytest.fixture(scope="module")
def read() -> dropkit.probe.Explanation:
    model = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Dropout(0.8), nn.Linear(32, 3))
    return dropkit.explain(model, torch.ones(4, 6))


def test_an_explanation_prints_as_sentences_and_findings(read: dropkit.probe.Explanation) -> None:
    text = str(read)
    assert text.startswith("2 (Dropout, p 0.8) zeroes a part of what is behind 0 (Linear; relu): each of 32 units")
    assert all(sentence in text for sentence in read.sentences)
    assert "DK115 2: rate of 0.6 or more" in text
    assert "Site(" not in text and len(text) < 1500


def test_an_explanation_has_a_short_repr(read: dropkit.probe.Explanation) -> None:
    assert repr(read) == "<Explanation of Sequential: 5 layers, 1 dropout, 1 finding>"


def test_plain_values_hold_what_the_command_writes_as_json(read: dropkit.probe.Explanation) -> None:
    plain = read.to_dict()
    assert list(plain)[:3] == ["format", "sentences", "findings"]
    assert json.loads(json.dumps(plain)) == json.loads(to_json(read))


def test_findings_are_a_tuple_that_prints(read: dropkit.probe.Explanation) -> None:
    found = read.findings
    assert isinstance(found, tuple) and len(found) == 1 and found != ()
    assert str(found) == f"{found[0]}\n\n1 finding on 1 dropout."
    assert found.sentences[:2] == (
        "DK115 2: rate of 0.6 or more.",
        "Measured: p = 0.8: 20 % are kept, and scaled by 5.",
    )
    assert found.findings is found


def test_no_findings_equal_the_empty_tuple() -> None:
    model = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 3))
    found = dropkit.doctor(model, torch.ones(4, 6))
    assert found == () and not found
    assert str(found) == "0 findings on 1 dropout."


def test_notebooks_show_sentences_with_nothing_left_unescaped(read: dropkit.probe.Explanation) -> None:
    html = read._repr_html_()
    assert "<p>dropout 2 changes the output of a later layer: 3 (Linear).</p>" in html and "<code>dropkit.torch" in html
    assert "<b>DK115 2: rate of 0.6 or more</b>" in read.findings[0]._repr_html_()
    assert "1 finding on 1 dropout." in read.findings._repr_html_()
    layers = (dropkit.probe.Layer(name="", parent=None, kind="<script>"),)
    site = dropkit.probe.Site(name="<script>", kind="Dropout", layer="", p=0.9, train=True)
    odd = dropkit.probe.Explanation(model="<b>", framework="torch", inputs=((1, 3),), layers=layers, sites=(site,))
    assert "<script>" not in odd._repr_html_()


def test_explanations_and_findings_save_the_page(read: dropkit.probe.Explanation, tmp_path: Path) -> None:
    read.save(tmp_path / "one.html")
    read.findings.save(str(tmp_path / "two.html"))
    text = (tmp_path / "one.html").read_text()
    assert text.startswith("<!doctype html>") and "DK115" in text
    assert (tmp_path / "two.html").read_text() == text


def test_a_page_that_cannot_be_saved_says_why(read: dropkit.probe.Explanation, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write .*nowhere/x\.html: No such file"):
        read.save(tmp_path / "nowhere" / "x.html")
    with pytest.raises(DropkitRuntimeError, match=r"these findings know no model; save those of `dropkit\.doctor"):
        Findings().save(tmp_path / "x.html")


def test_findings_pickle_with_what_they_are_about(read: dropkit.probe.Explanation) -> None:
    again = pickle.loads(pickle.dumps(read.findings))
    assert again == read.findings and str(again) == str(read.findings)
