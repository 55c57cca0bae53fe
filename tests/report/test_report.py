import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dropkit.lab import Comparison, compare, train
from dropkit.report import Curve, Differences, Figure, Page, Whisker, render
from dropkit.report.plots import colours, embed, line_figure


class Reader(HTMLParser):
    """Collects what a page would load, its text outside scripts, its JSON blocks, and tags left open."""

    VOID = frozenset({"meta", "link", "br", "hr", "img", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.text: list[str] = []
        self.blocks: list[str] = []
        self.open: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.loads += [attributes[name] or "" for name in ("src", "href", "data", "srcset") if name in attributes]
        if tag not in self.VOID:
            self.open.append((tag, attributes))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        tag, attributes = self.open[-1] if self.open else ("", {})
        if tag == "script" and attributes.get("type") == "application/json":
            self.blocks.append(data)
        elif tag == "style":
            assert "url(" not in data and "@import" not in data
        elif tag != "script":
            self.text.append(data)


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    return compare("mlp", size="tiny", device="cpu", out=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def reader(finished: Comparison) -> Reader:
    return read((finished.folder / "report.html").read_text())


def test_the_page_loads_nothing(reader: Reader) -> None:
    assert reader.loads == ["data:,"]


def test_the_check_for_loads_can_fail() -> None:
    assert read('<script src="https://example.org/x.js"></script>').loads == ["https://example.org/x.js"]


def test_words_table_and_settings_are_in_the_page(reader: Reader, finished: Comparison) -> None:
    text = " ".join(" ".join(reader.text).split())
    assert text.index(finished.verdict[0]) < text.index("Table") < text.index("Curves") < text.index("Settings")
    for sentence in finished.verdict:
        assert sentence in text
    for strategy in ("none", "fixed", "step"):
        assert strategy in text
    for setting in ("batch size", "learning rate", "fingerprint", "nothing is ever chosen on the test set", "torch"):
        assert setting in text
    assert "Step(start=0.5, drop=0.1, every=16, floor=0.1)" in text


def test_every_strategy_has_curves_with_bands(reader: Reader, finished: Comparison) -> None:
    differences, accuracy, loss, *rates = (json.loads(block) for block in reader.blocks)
    for figure, name in ((accuracy, "test_accuracy"), (loss, "test_loss")):
        for strategy, runs in finished.runs.items():
            (curve,) = (trace for trace in figure["data"] if trace.get("name") == f"{strategy}, test")
            expected = [sum(run.rows[epoch][name] for run in runs) / len(runs) for epoch in range(3)]
            assert curve["y"] == pytest.approx(expected)
        # Test and training curve of each strategy, each with a band.
        assert sum(trace.get("fill") == "toself" for trace in figure["data"]) == 6
    # One figure a site, in it one line a strategy; seeds do not move these rates, so they have no bands.
    assert [[trace["name"] for trace in rate["data"]] for rate in rates] == [
        [f"{strategy}, {site}" for strategy in ("none", "fixed", "step")] for site in ("dropout1", "dropout2")
    ]
    assert rates[1]["data"][2]["y"] == pytest.approx([0.5, 0.4, 0.3])
    assert differences["layout"]["yaxis"]["ticktext"] == ["fixed", "step"]
    assert [trace["x"] for trace in differences["data"][::2]] == [
        [pytest.approx(value) for value in line.differences] for line in finished.lines[1:]
    ]


def test_a_single_run_has_no_bands_and_no_differences(tmp_path: Path) -> None:
    train("mlp", size="tiny", epochs=2, device="cpu", out=tmp_path)
    reader = read((tmp_path / "report.html").read_text())
    figures = [json.loads(block) for block in reader.blocks]
    assert len(figures) == 4
    assert not any(trace.get("fill") for figure in figures for trace in figure["data"])
    assert "One strategy alone says nothing about which is better." in " ".join(reader.text)


def test_learned_rates_are_means_with_bands(tmp_path: Path) -> None:
    found = compare("mlp", size="tiny", epochs=2, strategies=["concrete"], device="cpu", out=tmp_path)
    *_, rate = (json.loads(block) for block in read((tmp_path / "report.html").read_text()).blocks)
    band, line = rate["data"]
    means = [sum(run.rows[epoch]["rate_dropout2"] for run in found.runs["concrete"]) / 2 for epoch in range(2)]
    assert line["name"] == "concrete, dropout2" and line["y"] == pytest.approx(means)
    assert band["fill"] == "toself" and max(band["y"]) > max(means)


def test_nothing_in_a_name_becomes_markup() -> None:
    name = "</script><script>alert(1)</script>&<b>"
    curve = Curve(name, "test", (1,), (0.5,), (), (), False)
    whisker = Whisker(name, 0.1, None, None, (0.1,))
    html = render(
        Page(name, name, (name,), (name,), ((name,),), (name,), (Figure(name, name, (curve,)),),
             Differences(name, (whisker,)), ((name, name),))
    )  # fmt: skip
    assert "<script>alert" not in html
    reader = read(html)
    assert [json.loads(block)["data"][0]["name"] for block in reader.blocks] == [f"{name}, a seed", f"{name}, test"]


def test_not_a_number_becomes_a_gap() -> None:
    curve = Curve("none", "test", (1, 2), (0.5, float("nan")), (), (), False)
    figure = line_figure(Figure("Loss", "", (curve,), focus=True), ["none"])
    assert figure["data"][0]["y"] == [0.5, None]
    assert "NaN" not in embed(figure)


def test_strategies_have_different_colours_and_none_is_grey() -> None:
    found = colours(["fixed", "none", "step", "a", "b"])
    assert len(set(found.values())) == 5
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in found.values())
    red, green, blue = (int(found["none"][at : at + 2], 16) for at in (1, 3, 5))
    assert max(red, green, blue) - min(red, green, blue) < 20
