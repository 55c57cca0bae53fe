"""The report of a comparison in a real browser: small, offline, for pointer and keys, with themes and on paper."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

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
    Scale,
    Table,
    Whisker,
    render,
)

EPOCHS = tuple(range(1, 11))
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489"
    "0000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082"
)


def curve(name: str, start: float, **more: Any) -> Curve:
    y = tuple(start + 5 * (1 - 0.7**epoch) for epoch in EPOCHS)
    return Curve(name, EPOCHS, y, tuple(v - 1 for v in y), tuple(v + 1 for v in y), **more)


def panels(groups: tuple[str, ...]) -> tuple[Panel, ...]:
    behind = curve("none", 90, behind=True)
    return tuple(
        Panel(
            group, (curve("test", 90 + number / 2), curve("train", 92, dotted=True), *(() if not number else (behind,)))
        )
        for number, group in enumerate(groups)
    )


def page(strategies: int = 2) -> Page:
    groups = ("none", "fixed:0.2", *(f"fixed:0.{n}@encoder.layers.*" for n in range(3, 13)))[:strategies]
    rows = tuple((group, "90.00 ± 1.00", "+0.0120 ± 0.0100 *", *["0.9000 ± 0.0100"] * 5, "2.3") for group in groups)
    table = Table("", ("strategy", *["difference from none"] * 8), rows, ("A note.",))
    steps = Curve("drop", EPOCHS, tuple(0.5 if epoch < 5 else 0.3 for epoch in EPOCHS), shape="hv")
    whiskers = [
        Whisker(group, 1.2, 0.2, 2.2, (1.0, 1.3, 1.3), "+1.20 (+0.20 … +2.20)") for group in reversed(groups[1:])
    ]
    cells = [
        [Cell("+1.20", "+0.20 … +2.20", row == column) if column >= row else None for column in range(strategies - 1)]
        for row in range(strategies - 1)
    ]
    dots = tuple(Dot(rate, 91 + rate, 90 + rate, 92 + rate) for rate in (0.1, 0.2, 0.3))
    return Page(
        title="mlp on digits",
        subtitle="2 strategies, 3 paired seeds",
        answer="Fixed is better.",
        details=("By 1.2.",),
        table=table,
        differences=Differences("Differences", whiskers, "difference, percent points", "the best first"),
        pairs=Matrix("Every pair", "mean and interval", groups, cells),
        rated=Rated("By rate", "", "drop probability p", (("fixed", dots), ("channel", dots)), ("none", 90.5)),
        figures=(
            Figure("Accuracy", "lines: means", panels(groups), Scale("%", 2), focus=True),
            Figure("Drop probabilities", "by epoch", (Panel(groups[-1], (steps,)),), Scale("", 3)),
        ),
        tables=(Table("Cost", ("strategy", "seconds"), [(group, "1.00") for group in groups], ("A note.",)),),
        settings=(("epochs", "10"), ("environment", "x" * 90)),
        pictures=((Picture("fixed, epoch 1", "a pixel", PIXEL),),),
    )


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Opens the page offline; there must be no error, and no load but that of the page itself."""
    wrong: list[str] = []
    contexts = []

    def opened(shown: Page | None = None, **options: Any) -> Any:
        context = browser.new_context(offline=True, **({"viewport": {"width": 1280, "height": 900}} | options))
        contexts.append(context)
        opened_page = context.new_page()
        opened_page.on("console", lambda message: wrong.append(message.text))
        opened_page.on("pageerror", lambda error: wrong.append(str(error)))
        file = tmp_path / "report.html"
        file.write_text(render(shown or page()), encoding="utf-8")
        opened_page.on("request", lambda asked: wrong.append(asked.url) if not allowed(asked.url, file) else None)
        opened_page.goto(file.as_uri())
        return opened_page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def allowed(url: str, file: Path) -> bool:
    return url == file.as_uri() or url.startswith("data:")


def chart(opened: Any, title: str) -> Any:
    return opened.locator("figure.chart").filter(has=opened.get_by_role("heading", name=title, level=3))


def read(figure: Any) -> list[str]:
    return [str(text) for text in figure.locator(".read").all_inner_texts()]


def hover(opened: Any, plot: Any, across: float, down: float) -> None:
    plot.scroll_into_view_if_needed()
    frame = plot.bounding_box()
    opened.mouse.move(frame["x"] + across * frame["width"], frame["y"] + down * frame["height"])


def test_all_panels_tell_their_values_where_the_pointer_is(show: Any) -> None:
    opened = show()
    accuracy = chart(opened, "Accuracy")
    last = ["epoch 10: test 94.86 · train 96.86 %", "epoch 10: test 95.36 · train 96.86 · none 94.86 %"]
    assert read(accuracy) == last
    hover(opened, accuracy.locator(".plot").nth(1), 0.3, 0.5)
    first, second = read(accuracy)
    epoch = first.split(":")[0]
    assert epoch in {f"epoch {number}" for number in EPOCHS[:-1]} and second.startswith(epoch)
    opened.mouse.move(0, 0)
    assert read(accuracy) == last


def test_each_line_has_its_name_at_its_end_and_none_covers_another(show: Any) -> None:
    opened = show()
    for plot in chart(opened, "Accuracy").locator(".plot").all():
        names = [text for text in plot.locator("text").all() if text.inner_html() in ("test", "train", "none")]
        frames = sorted((text.bounding_box() for text in names), key=lambda frame: frame["y"])
        assert len(frames) >= 2
        for above, below in pairwise(frames):
            assert below["y"] - above["y"] >= 12


def test_no_two_bands_lie_upon_each_other(show: Any) -> None:
    opened = show(page(12))
    for plot in chart(opened, "Accuracy").locator(".plot").all():
        colours = {band.get_attribute("style") for band in plot.locator("path.band").all()}
        assert len(colours) <= 2  # of one strategy, and of what is behind it


def test_rows_and_points_tell_their_values(show: Any) -> None:
    opened = show()
    differences = chart(opened, "Differences")
    hover(opened, differences.locator(".plot"), 0.5, 0.3)
    assert read(differences) == ["fixed:0.2: +1.20 (+0.20 … +2.20) · +1.0000, +1.3000, +1.3000"]
    rated = chart(opened, "By rate")
    hover(opened, rated.locator(".plot"), 0.0, 0.5)
    assert read(rated)[0].startswith("fixed 0.1: 91.1000 (90.1000 … 92.1000)")


def test_keys_reach_every_chart_and_move_among_its_values(show: Any) -> None:
    opened = show()
    reached = set()
    for _ in range(30):
        opened.keyboard.press("Tab")
        told = "document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent.trim()"
        reached.add(opened.evaluate(told))
    charts = {"Accuracy", "Differences", "By rate", "Drop probabilities"}
    assert {f"{title}: arrow keys tell the values" for title in charts} <= reached
    assert {"Table", "Every pair", "Cost", "Settings", "How sure this is, and what else was seen"} <= reached
    rates = chart(opened, "Drop probabilities")
    rates.locator(".panels").focus()
    opened.keyboard.press("ArrowRight")
    assert read(rates) == ["epoch 1: drop 0.500"] == [opened.locator("#told").inner_text()]
    opened.keyboard.press("ArrowRight")
    assert read(rates)[0].startswith("epoch 2")
    opened.keyboard.press("End")
    assert read(rates) == ["epoch 10: drop 0.300"]
    opened.keyboard.press("Home")
    opened.keyboard.press("Escape")
    assert read(rates) == ["epoch 10: drop 0.300"]


def test_keys_unfold_details_and_settings(show: Any) -> None:
    opened = show()
    for summary, words in (("How sure", "By 1.2."), ("Settings", "environment")):
        assert not opened.get_by_text(words, exact=True).is_visible()
        opened.locator("summary").filter(has_text=summary).focus()
        opened.keyboard.press("Enter")
        assert opened.get_by_text(words, exact=True).is_visible()


@pytest.mark.parametrize("strategies", [2, 12])
@pytest.mark.parametrize(("width", "scheme"), [(375, "dark"), (1280, "light")])
def test_it_fits_and_is_accessible(show: Any, width: int, scheme: str, strategies: int) -> None:
    from axe_playwright_python.sync_playwright import Axe

    opened = show(page(strategies), viewport={"width": width, "height": 800}, color_scheme=scheme)
    for summary in opened.locator("summary").all():
        summary.click()
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    for svg in opened.locator(".plot svg").all():
        frame = svg.bounding_box()
        assert frame["x"] >= 0 and frame["x"] + frame["width"] <= width
    results = Axe().run(opened)
    assert results.violations_count == 0, results.generate_report()


OUTSIDE = """[...document.querySelectorAll('.plot text')].filter((text) => {
  const [a, b] = [text.closest('svg').getBoundingClientRect(), text.getBoundingClientRect()];
  return b.left < a.left - 1 || b.right > a.right + 1 || b.top < a.top - 1 || b.bottom > a.bottom + 1;
}).map((text) => text.textContent)"""


def test_no_word_of_a_drawing_leaves_it(show: Any) -> None:
    for width in (375, 1280):
        opened = show(page(4), viewport={"width": width, "height": 800})
        assert opened.evaluate(OUTSIDE) == [], width


def test_figures_of_a_column_end_at_one_place(show: Any) -> None:
    opened = show()
    table = opened.locator("table").first
    for column in range(2, 9):
        ends = set()
        for cell in table.locator(f"tbody tr > :nth-child({column + 1})").all():
            ends.add(cell.evaluate("(cell) => getComputedStyle(cell).textAlign"))
        assert ends == {"right"}
    # What marks a cell hangs behind its figure, and moves nothing.
    assert table.locator(".star").first.evaluate("(star) => getComputedStyle(star).position") == "absolute"


def test_plots_follow_the_width(show: Any) -> None:
    opened = show()
    svg = opened.locator(".plot svg").first
    before = svg.bounding_box()["width"]
    opened.set_viewport_size({"width": 500, "height": 800})
    opened.wait_for_function("document.querySelector('.plot svg').getBoundingClientRect().width < " + str(before))


def test_on_paper_all_is_unfolded_black_on_white_and_within_the_margins(show: Any) -> None:
    opened = show(page(5), color_scheme="dark")
    opened.emulate_media(media="print", color_scheme="dark")
    opened.set_viewport_size({"width": 690, "height": 900})
    opened.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert opened.get_by_text("By 1.2.", exact=True).is_visible()
    assert opened.get_by_text("environment", exact=True).is_visible()
    body = "getComputedStyle(document.body)"
    assert opened.evaluate(f"[{body}.color, {body}.backgroundColor]") == ["rgb(27, 31, 36)", "rgb(255, 255, 255)"]
    for svg in opened.locator(".plot svg").all():
        frame = svg.bounding_box()
        assert frame["x"] + frame["width"] <= 691
    opened.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert not opened.get_by_text("By 1.2.", exact=True).is_visible()


def long(strategies: int, epochs: int, charts: int = 2) -> Page:
    many = tuple(range(1, epochs + 1))
    values = tuple(0.123456789 + 1e-5 * epoch for epoch in many)
    group = [
        Panel(
            f"s{n}",
            (Curve("test", many, values, values, values), Curve("train", many, values), Curve("none", many, values)),
        )
        for n in range(strategies)
    ]
    table = Table("", ("s",), tuple((f"s{n}",) for n in range(strategies)))
    return Page(title="t", subtitle="s", answer="a", table=table, figures=(Figure("Loss", "", group),) * charts)


@pytest.mark.parametrize(("strategies", "epochs", "charts"), [(12, 50, 2), (7, 2000, 4), (12, 2000, 8)])
def test_a_page_of_many_long_runs_stays_small(strategies: int, epochs: int, charts: int) -> None:
    assert len(render(long(strategies, epochs, charts)).encode()) <= 300_000
    assert len(render(page()).encode()) < 60_000
