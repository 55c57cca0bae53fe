import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from dropkit.lab import Comparison, compare, train
from dropkit.lab.recipes import get
from dropkit.lab.runs.run import Run
from dropkit.lab.telling.page import page as page_of
from dropkit.lab.telling.table import lines
from dropkit.report import (
    Cell,
    Curve,
    Differences,
    Dot,
    Figure,
    Matrix,
    Page,
    Panel,
    Picture,
    Rated,
    Table,
    Whisker,
    render,
)
from dropkit.report.plots import DARK, GREY, LIGHT, colours, embed, line_figure


class Reader(HTMLParser):
    """Collects what a page would load, its text outside scripts, its JSON blocks, and tags left open."""

    VOID = frozenset({"meta", "link", "br", "hr", "img", "input", "wbr"})

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


def words_of(reader: Reader) -> str:
    return " ".join(" ".join(reader.text).split())


def test_the_answer_stands_first_then_table_differences_curves_and_settings(
    reader: Reader, finished: Comparison
) -> None:
    text = words_of(reader)
    places = [finished.verdict[0], "Table", "Differences", "Curves", "Cost", "Settings"]
    assert sorted(places, key=text.index) == places
    for sentence in finished.verdict:
        assert sentence in text
    for strategy in ("none", "fixed", "step"):
        assert strategy in text
    for setting in ("batch size", "learning rate", "fingerprint", "nothing is ever chosen on the test set", "torch"):
        assert setting in text
    assert "Step(start=0.5, drop=0.1, every=16, floor=0.1)" in text


def test_what_is_not_the_answer_is_folded(finished: Comparison) -> None:
    html = (finished.folder / "report.html").read_text()
    details, settings = re.findall(r"<details.*?</details>", html, re.DOTALL)
    assert finished.verdict[0] not in details and finished.verdict[1] in details.replace("&#34;", '"')
    assert "learning rate" in settings


def test_every_strategy_has_a_panel_with_one_band_and_the_baseline_behind(reader: Reader, finished: Comparison) -> None:
    _, accuracy, loss, rates = (json.loads(block) for block in reader.blocks)
    for figure, name, factor in ((accuracy, "test_accuracy", 100), (loss, "test_loss", 1)):
        assert [panel["name"] for panel in figure["panels"]] == ["none", "fixed", "step"]
        for panel in figure["panels"]:
            runs = finished.runs[panel["name"]]
            test, train_, *behind = panel["lines"]
            expected = [factor * sum(run.rows[epoch][name] for run in runs) / len(runs) for epoch in range(3)]
            assert test["name"] == "test" and test["y"] == pytest.approx(expected, abs=0.006)
            assert "low" in test and "low" not in train_
            assert [line["name"] for line in behind] == ([] if panel["name"] == "none" else ["none"])
            assert all(line["colour"] == 0 and "low" not in line for line in behind)
    assert (accuracy["unit"], loss["unit"]) == ("%", "")
    # Of rates only those that move are drawn, and sites that move alike as one line.
    (panel,) = rates["panels"]
    assert panel["name"] == "step" and [line["name"] for line in panel["lines"]] == ["all sites"]
    assert panel["lines"][0]["y"] == [0.5, 0.4, 0.3] and "low" not in panel["lines"][0]


def test_differences_are_sorted_in_percentage_points_with_each_seed(reader: Reader, finished: Comparison) -> None:
    rows = json.loads(reader.blocks[0])["rows"]
    assert {row["name"] for row in rows} == {"fixed", "step"}
    assert [row["mean"] for row in rows] == sorted((row["mean"] for row in rows), reverse=True)
    known = {line.strategy: line.differences for line in finished.lines}
    for row in rows:
        assert row["seeds"] == pytest.approx([100 * value for value in known[row["name"]] or ()])
        assert row["words"].startswith(f"{row['mean']:+.2f} (")


def test_a_single_run_has_no_bands_no_differences_and_no_cost(tmp_path: Path) -> None:
    train("mlp", size="tiny", epochs=2, device="cpu", out=tmp_path)
    reader = read((tmp_path / "report.html").read_text())
    figures = [json.loads(block) for block in reader.blocks]
    assert [len(figure["panels"]) for figure in figures] == [1, 1]
    assert not any("low" in line for figure in figures for line in figure["panels"][0]["lines"])
    text = words_of(reader)
    assert "One strategy alone says nothing about which is better." in text
    assert "Differences" not in text and "Cost" not in text


def test_learned_rates_are_means_with_bands(tmp_path: Path) -> None:
    found = compare("mlp", size="tiny", epochs=2, strategies=["concrete"], device="cpu", out=tmp_path)
    *_, rates = (json.loads(block) for block in read((tmp_path / "report.html").read_text()).blocks)
    (panel,) = rates["panels"]
    line = panel["lines"][1]
    means = [sum(run.rows[epoch]["rate_dropout2"] for run in found.runs["concrete"]) / 2 for epoch in range(2)]
    assert line["name"] == "dropout2" and line["y"] == pytest.approx(means, abs=6e-4)
    assert max(line["high"]) > max(means)


# ----------------------------------------------------------------------------------------------------------------------
# Pages of runs that nobody trained


def run_of(accuracy: float, rate: float = 0.0, **row: float) -> Run:
    figures = get("mlp").figures
    known = dict.fromkeys(figures.rows, accuracy) | {"seconds": 2.0 + rate, "rate_dropout1": rate} | row
    rows = tuple({**known, "epoch": epoch} for epoch in (1, 2))
    return Run({"rates": {"dropout1": "fixed"}, "seed": 0}, rows, 2, (), figures)


def made(runs: dict[str, list[Run]]) -> Page:
    config: dict[str, Any] = {"recipe": "mlp", "data": "toys", "size": "tiny", "epochs": 2, "validation": 0.0}
    return page_of({**config, "settings": {}, "rates": {}}, runs, lines(runs), ("It depends.",), {})


def test_rates_of_one_kind_are_points_on_a_line_over_the_level_of_none() -> None:
    named = {
        "none": 0.0,
        "fixed:0.2": 0.2,
        "fixed:0.1": 0.1,
        "channel:0.1": 0.1,
        "channel:0.3": 0.3,
        "gaussian:0.2": 0.2,
    }
    runs = {name: [run_of(0.9 + rate / 10, rate), run_of(0.91 + rate / 10, rate)] for name, rate in named.items()}
    # Numbers that are no rate, or none of one kind alone, or moved.
    runs |= {
        "step:1": [run_of(0.9, 0.5)] * 2,
        "weight-decay:0.001": [run_of(0.9)] * 2,
        "fixed:0.1:0.3": [run_of(0.9, 0.1)] * 2,
    }
    rated = made(runs).rated
    assert rated is not None and rated.level == ("none", pytest.approx(90.5))
    assert {name: [dot.x for dot in dots] for name, dots in rated.series} == {
        "fixed": [0.1, 0.2],
        "channel": [0.1, 0.3],
    }
    first = rated.series[0][1][0]
    assert first.y == pytest.approx(91.5) and first.low is not None and first.low < first.y
    assert '"kind":"points"' in render(made(runs))


def test_one_rate_of_each_kind_makes_no_line() -> None:
    runs = {"none": [run_of(0.9)], "fixed:0.2": [run_of(0.9, 0.2)], "fixed:0.2@conv*": [run_of(0.9, 0.2)]}
    assert made(runs).rated is None


def test_every_pair_stands_in_the_matrix_once_the_best_first() -> None:
    runs = {
        name: [run_of(mean + step / 1000) for step in (0, 1, 2)]
        for name, mean in (("none", 0.90), ("a", 0.95), ("b", 0.92), ("c", 0.99))
    }
    runs["b"][1] = run_of(0.99)
    pairs = made(runs).pairs
    assert pairs is not None and list(pairs.groups) == ["c", "a", "b", "none"]
    assert [sum(cell is not None for cell in row) for row in pairs.rows] == [3, 2, 1]
    first, last = pairs.rows[0][0], pairs.rows[2][2]
    assert first is not None and first.text == "+4.00" and first.apart
    assert last is not None and not last.apart
    two = made({name: runs[name] for name in ("none", "a")})
    assert two.pairs is None and two.differences is not None


def test_without_none_others_are_drawn_against_the_first() -> None:
    page = made({"as-is": [run_of(0.9), run_of(0.92)], "step": [run_of(0.95), run_of(0.94)]})
    assert page.reference == "as-is" and page.differences is not None
    assert [whisker.group for whisker in page.differences.whiskers] == ["step"]
    assert "grey in each: as-is" in page.figures[0].caption


def test_runs_that_diverged_leave_gaps_and_no_page_undrawn() -> None:
    nan = float("nan")
    runs = {"none": [run_of(0.9), run_of(0.91)], "fixed:0.1": [run_of(nan, 0.1), run_of(0.9, 0.1)]}
    runs |= {"fixed:0.5": [run_of(0.9, 0.5), run_of(0.8, 0.5)]}
    page = made(runs)
    assert page.differences is not None and [one.group for one in page.differences.whiskers] == ["fixed:0.5"]
    assert page.rated is not None and math.isnan(page.rated.series[0][1][0].y)
    blocks = [json.loads(block, parse_constant=pytest.fail) for block in read(render(page)).blocks]
    assert blocks[1]["series"][0]["y"][0] is None


def test_calibration_stands_where_it_was_measured() -> None:
    runs = {
        "none": [run_of(0.9, test_loss=0.5, test_ece=0.08), run_of(0.9, test_loss=0.5, test_ece=0.1)],
        "fixed": [run_of(0.9, test_loss=0.4, test_ece=0.02), run_of(0.9, test_loss=0.4, test_ece=0.04)],
    }
    table, cost = made(runs).tables
    assert [row[1:3] for row in table.rows] == [
        ["0.5000 ± 0.0000", "9.00 ± 12.71"],
        ["0.4000 ± 0.0000", "3.00 ± 12.71"],
    ]
    assert [row[3] for row in table.rows] == ["-", "-6.00 ± 0.00 *"]
    assert cost.title == "Cost"
    assert [table.title for table in made({"none": [run_of(0.9)], "fixed": [run_of(0.9)]}).tables] == ["Cost"]


def test_cost_is_told_in_times_of_the_baseline() -> None:
    (cost,) = made({"none": [run_of(0.9)], "fixed": [run_of(0.9, 0.5)]}).tables
    assert [row[1:] for row in cost.rows] == [("4.00", "2.00", "1.00"), ("5.00", "2.50", "1.25")]


def test_pictures_are_fewer_where_they_are_large(tmp_path: Path) -> None:
    def drawn(size: int) -> tuple[Path, ...]:
        paths = tuple(tmp_path / f"{size}-{number}.png" for number in range(1, 21))
        for path in paths:
            path.write_bytes(bytes(size))
        return paths

    def shown(size: int, strategies: int) -> list[list[str]]:
        config = {"rates": {}, "seed": 0}
        one = run_of(0.9)
        run = Run(config, one.rows, 2, (), one.figures, drawn(size))
        page = made({f"s{number}": [run] for number in range(strategies)})
        return [[picture.caption.split(" ")[-1] for picture in row] for row in page.pictures]

    assert shown(1000, 2) == [["1", "2", "3", "6", "11", "20"]] * 2
    assert shown(26_000, 2) == [["1", "4", "20"]] * 2
    assert shown(60_000, 3) == [["20"]] * 2


# ----------------------------------------------------------------------------------------------------------------------
# What is drawn


def test_nothing_in_a_name_becomes_markup() -> None:
    name = "</script><script>alert(1)</script>&<b>"
    panel = Panel(name, (Curve(name, (1,), (0.5,)),))
    table = Table(name, (name,), ((name,),), (name,))
    html = render(
        Page(
            title=name, subtitle=name, answer=name, details=(name,), table=table, tables=(table,),
            figures=(Figure(name, name, (panel,)),), settings=((name, name),), pictures=((Picture(name, name, b""),),),
            differences=Differences(name, (Whisker(name, 0.1, None, None, (0.1,), name),), name, name),
            pairs=Matrix(name, name, (name, name), ((Cell(name, name, True),),)),
            rated=Rated(name, name, name, ((name, (Dot(0.1, 0.1, None, None),)),), (name, 0.1)),
        )
    )  # fmt: skip
    assert "<script>alert" not in html
    blocks = [json.loads(block) for block in read(html).blocks]
    assert [block["kind"] for block in blocks] == ["rows", "points", "lines"]
    assert blocks[0]["rows"][0]["name"] == blocks[1]["series"][0]["name"] == blocks[2]["panels"][0]["name"] == name


def test_a_long_name_breaks_before_its_place_and_in_narrow_columns_behind_its_kind() -> None:
    name = "channel:0.1@encoder.layers.*"
    table = Table("", ("strategy",), (("none",), (name,)))
    matrix = Matrix("", "", ("none", name), ((Cell("+0.1", "± 0.2", False),),))
    html = render(Page(title="t", subtitle="s", answer="a", table=table, pairs=matrix))
    assert "<span>channel:0.1<wbr>@encoder.<wbr>layers.*</span>" in html
    assert '<th scope="col">channel:<wbr>0.1<wbr>@encoder.<wbr>layers.*</th>' in html


def test_an_option_in_a_sentence_is_not_broken() -> None:
    table, said = Table("", ("strategy",), (("none",),)), "Seeds <5; --until-settled with --resume."
    html = render(Page(title="t", subtitle="s", answer=said, table=table, details=(said,)))
    whole = 'Seeds &lt;5; <span class="whole">--until-settled</span> with <span class="whole">--resume.</span>'
    assert html.count(f"<p>{whole}</p>") == 2


def test_not_a_number_becomes_a_gap() -> None:
    curve = Curve("test", (1, 2), (0.5, float("nan")))
    figure = line_figure(Figure("Loss", "", (Panel("none", (curve,)),), focus=True), {"none": 0})
    assert figure["panels"][0]["lines"][0]["y"] == [0.5, None]
    assert "NaN" not in embed(figure)


def test_long_curves_are_thinned_and_the_caption_says_so() -> None:
    epochs = tuple(range(1, 1001))
    figure = Figure("Loss", "solid: test", (Panel("none", (Curve("test", epochs, epochs),)),))
    spec = line_figure(figure, {"none": 0}, most=200)
    assert len(spec["x"]) <= 201 and spec["x"][-1] == 1000
    html = render(Page(title="t", subtitle="s", answer="a", table=Table("", ("s",), (("none",),)), figures=(figure,)))
    assert "solid: test; one epoch in 5 is drawn" in html


def test_strategies_have_different_colours_and_the_reference_is_grey() -> None:
    assert colours(["fixed", "none", "step", "a", "b"]) == {"fixed": 1, "none": 0, "step": 2, "a": 3, "b": 4}
    assert colours(["as-is", "step"], "as-is") == {"as-is": 0, "step": 1}


@pytest.mark.parametrize(("inks", "ground"), [((GREY[0], *LIGHT), "#ffffff"), ((GREY[1], *DARK), "#14171b")])
def test_lines_stand_out_from_the_page(inks: tuple[str, ...], ground: str) -> None:
    """WCAG 2.2, 1.4.11: what has to be seen to understand a drawing has a contrast of at least 3 to 1."""
    assert len(set(inks)) == 7
    for ink in inks:
        light, dark = sorted((luminance(ink), luminance(ground)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 3, ink


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
