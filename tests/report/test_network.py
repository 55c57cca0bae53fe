"""The page of a network as text: nothing is loaded, nothing becomes markup, every layer and dropout is there."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from dropkit.probe.explanation import Explanation, Layer, Site
from dropkit.probe.findings import Finding
from dropkit.probe.fold import Node, fold
from dropkit.probe.page import words
from dropkit.probe.page.network import connections, render_network

from . import network_examples as examples

EXAMPLES = ("mlp", "transfer", "residual", "transformer", "hostile")


class Reader(HTMLParser):
    """Collects what a page would load, its boxes, buttons, text and data, and proves that its tags close."""

    VOID = frozenset({"meta", "link", "br", "hr", "img", "input", "use", "path", "circle"})

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.boxes: list[dict[str, str | None]] = []
        self.sites: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []
        self.styles: list[str] = []
        self.scripts: list[str] = []
        self.data: Any = None
        self.open: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        assert not any(name.startswith("on") for name in attributes)
        if tag == "a":
            self.links.append(attributes["href"] or "")
        else:
            self.loads += [attributes[name] or "" for name in ("src", "href", "data", "srcset") if name in attributes]
        if "box" in (attributes.get("class") or "").split():
            self.boxes.append(attributes)
        if attributes.get("class") == "site":
            self.sites.append(attributes["data-site"] or "")
        if tag not in self.VOID:
            self.open.append((tag, attributes))

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop()[0] == tag

    def handle_data(self, data):
        tag, attributes = self.open[-1] if self.open else ("", {})
        if tag == "script" and attributes.get("type") == "application/json":
            self.data = json.loads(data)
        elif tag == "script":
            self.scripts.append(data)
        elif tag == "style":
            self.styles.append(data)
        else:
            self.text.append(data)


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


def rendered(explanation: Explanation, root: Node | None = None, findings: tuple[Finding, ...] = ()) -> Reader:
    return read(render_network(explanation, root or fold(explanation), ["First.", "Second."], findings))


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_page_loads_nothing_and_evaluates_nothing(name: str) -> None:
    reader = rendered(getattr(examples, name)())
    assert [load for load in reader.loads if not load.startswith("#")] == ["data:,"]
    assert len(reader.scripts) == 1
    code = "".join(reader.scripts)
    assert not re.search(
        r"\beval\b|Function\(|innerHTML|outerHTML|insertAdjacentHTML|document\.write|fetch|XMLHttp|import", code
    )
    assert not re.search(r"url\(|@import|https?:", "".join(reader.styles))


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_layer_and_every_dropout_is_drawn_once(name: str) -> None:
    explanation = getattr(examples, name)()
    reader = rendered(explanation)
    assert [box["data-layer"] for box in reader.boxes if "data-layer" in box] == [
        one.name for one in explanation.layers
    ]
    assert sorted(map(int, reader.sites)) == list(range(len(explanation.sites)))
    assert [box["id"] for box in reader.boxes] == [f"box-{number}" for number in range(len(reader.boxes))]
    assert len(reader.data["parents"]) == len(reader.boxes)


def boxes_by_layer(reader: Reader) -> dict[str, int]:
    return {box["data-layer"] or "": number for number, box in enumerate(reader.boxes) if "data-layer" in box}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_data_say_what_the_explanation_says(name: str) -> None:
    explanation = getattr(examples, name)()
    reader = rendered(explanation)
    numbers = boxes_by_layer(reader)
    taken: dict[int, set[int]] = {}
    for start, end, through in reader.data["edges"]:
        taken.setdefault(end, set()).update(taken[start] if through else {start})
    assert taken == {
        numbers[one.name]: {numbers[name] for name in one.inputs} for one in explanation.layers if one.inputs
    }
    for told, site in zip(reader.data["sites"], explanation.sites, strict=True):
        for key, layers in (
            ("zeroed", words.reach(explanation, site)[0]),
            ("changed", site.changes),
            ("gradients", site.gradients),
        ):
            assert told[key] == [numbers[one] for one in layers]
    for box in reader.boxes:
        parent = reader.data["parents"][int((box["id"] or "").removeprefix("box-"))]
        if box.get("data-layer") and "several" not in (reader.boxes[parent]["class"] or ""):
            assert reader.boxes[parent]["data-layer"] == explanation.layer(box["data-layer"] or "").parent


def test_a_dropout_stands_on_the_layer_it_is_or_on_the_last_it_zeroes() -> None:
    reader = rendered(examples.mlp())
    numbers = boxes_by_layer(reader)
    assert [site["box"] for site in reader.data["sites"]] == [numbers["dropout1"], numbers["relu2"]]
    assert [site["from"] for site in reader.data["sites"]] == [
        [numbers["dropout1"]],
        [numbers["hidden2"], numbers["relu2"]],
    ]
    reader = rendered(examples.transformer(1))
    weights = reader.data["sites"][1]
    assert weights["box"] == boxes_by_layer(reader)["layers.0.attention"]


def test_names_do_not_become_markup() -> None:
    explanation = examples.hostile()
    finding = Finding(*[examples.HOSTILE] * 6)
    html = render_network(explanation, fold(explanation), [examples.HOSTILE], [finding])
    assert "<script>alert" not in html and "<img" not in html
    reader = read(html)
    assert [site["name"] for site in reader.data["sites"]] == ["drop'\"&<b>"]
    assert "".join(reader.text).count(examples.HOSTILE) >= 8


def test_findings_come_first_then_sentences_then_the_drawing() -> None:
    text = " ".join(" ".join(rendered(examples.mlp(), findings=(examples.FINDING,)).text).split())
    order = ["1 finding", "DK115", "First.", "Second.", "Network", "All dropouts", "Tables"]
    assert [text.index(part) for part in order] == sorted(text.index(part) for part in order)
    for part in (
        examples.FINDING.title,
        examples.FINDING.measured,
        examples.FINDING.remedy,
        "does not come from a study",
    ):
        assert part in text


def test_a_finding_leads_to_the_box_of_its_site_or_layer() -> None:
    explanation = examples.mlp()
    numbers = boxes_by_layer(rendered(explanation))
    names = {"dropout1": "dropout1", ":dropout": "relu2", "head": "head", "": ""}
    for name, layer in names.items():
        finding = replace(examples.FINDING, place=name, link="javascript:alert(1)")
        assert rendered(explanation, findings=(finding,)).links == [f"#box-{numbers[layer]}"]
    stranger = replace(examples.FINDING, place="unheard of", link="https://example.org/")
    assert rendered(explanation, findings=(stranger,)).links == ["https://example.org/"]


def test_calls_in_a_remedy_are_set_as_code_and_stay_text() -> None:
    explanation = examples.mlp()
    finding = replace(examples.FINDING, remedy="Call `net.eval()` & wait, <b>then</b> `a < b`.")
    html = render_network(explanation, fold(explanation), (), (finding,))
    assert "Call <code>net.eval()</code> &amp; wait, &lt;b&gt;then&lt;/b&gt; <code>a &lt; b</code>." in html


def test_what_is_folded_starts_closed_and_blocks_in_it_too() -> None:
    html = render_network(examples.transformer(), fold(examples.transformer()), [])
    closed = re.findall(r'aria-expanded="(\w+)" aria-controls="in-(\d+)"', html)
    boxes = read(html).boxes
    several = [number for _, number in closed if "several" in (boxes[int(number)]["class"] or "")]
    assert len(several) == 1
    told = {number: expanded for expanded, number in closed}
    assert told[several[0]] == "false"
    parents = read(html).data["parents"]
    blocks = [number for number in told if parents[int(number)] == int(several[0])]
    assert len(blocks) == 24 and {told[number] for number in blocks} == {"false"}
    assert sum(expanded == "true" for expanded in told.values()) == 1 + 2 * 24


def test_a_model_without_dropout_says_so() -> None:
    layers = (
        Layer(name="", parent=None, kind="Net", output_shape=(2, 1)),
        Layer(name="head", parent="", kind="Linear"),
    )
    text = " ".join(rendered(Explanation(model="Net", framework="torch", inputs=(), layers=layers, sites=())).text)
    assert "No dropout was found in this model." in text and "did not run" in text


def drop(**more: Any) -> Site:
    return Site(**{"name": "drop", "kind": "Dropout", "layer": "drop", "p": 0.5, "train": True, "eval": False} | more)


def test_facts_of_a_dropout_leave_out_what_is_unknown() -> None:
    facts = dict(words.site_facts(drop(), 8, 3))
    assert facts["When"] == "on in training, off in evaluation" and facts["Output changed"] == "3 layers"
    assert not {"Now", "After", "Same mask as", "Same in backward", "Fast path", "Note", "Source"} & set(facts)
    facts = dict(
        words.site_facts(drop(now=False, twins=("a",), gradient_check="ok", fast_path=True, idle="one layer"), 8, 3)
    )
    assert (facts["Now"], facts["Same mask as"], facts["When"]) == ("does not drop", "a", "never: one layer")
    assert facts["Same in backward"] == "ok" and "skips it" in facts["Fast path"]


def test_facts_of_a_layer() -> None:
    partly = Layer(
        name="a", parent="", kind="Linear", output_shape=(2, 3), parameters=5, trainable=2, calls=2, random=True
    )
    assert words.layer_facts(replace(partly, parameters=1005)) == [
        "2 × 3", "1,005 parameters", "2 trainable", "in train mode", "runs 2 times", "random without dropout",
    ]  # fmt: skip
    frozen = replace(partly, trainable=0, output_shape=None, calls=0, random=False, training=False)
    assert words.layer_facts(frozen) == [
        "did not run", "5 parameters", "frozen", "in eval mode",
    ]  # fmt: skip


def test_the_answer_of_the_transfer_tutorial_in_a_sentence() -> None:
    explanation = examples.transfer()
    assert words.reach(explanation, explanation.sites[0]) == (
        ("dense_1024",),
        "dropout (Dropout, p 0.2) zeroes a part of the output of dense_1024: each of 1024 units, per sample. "
        "dropout changes the output of a later layer: head. "
        "dropout changes the gradient of every trainable layer: dense_512, dense_1024 and head.",
    )
    assert words.overview_sentence(explanation) == (
        "1 dropout zeroes a part of the output of 1 layer, and changes that of 1 later layer and the gradients of 3. "
        "230 layers are untouched."
    )


def test_a_single_site_reaches_what_it_reaches_among_others() -> None:
    explanation = examples.mlp()
    reached = [words.reach(explanation, site) for site in explanation.sites]
    assert [zeroed for zeroed, _ in reached] == [("hidden1", "relu1"), ("hidden2", "relu2")]
    assert "dropout1" not in reached[1][1]


def test_a_residual_stream_is_one_line() -> None:
    explanation = examples.transformer()
    assert sum(len(one.inputs) for one in explanation.layers) > 1200
    assert len(list(connections(explanation))) < 350
