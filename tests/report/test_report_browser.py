"""The report of a comparison in a real browser: small, offline, with hovers, a legend that switches, and themes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dropkit.report import Curve, Differences, Figure, Page, Whisker, render

EPOCHS = tuple(range(1, 11))


def curve(group: str, part: str, start: float, dotted: bool = False) -> Curve:
    y = tuple(start + 0.05 * (1 - 0.7**epoch) for epoch in EPOCHS)
    return Curve(group, part, EPOCHS, y, tuple(v - 0.01 for v in y), tuple(v + 0.01 for v in y), dotted)


def page() -> Page:
    curves = [curve(g, part, 0.9 + 0.01 * n, part == "train") for n, g in enumerate(("none", "fixed"))
              for part in ("test", "train")]  # fmt: skip
    steps = Curve("fixed", "drop", EPOCHS, tuple(0.5 if epoch < 5 else 0.3 for epoch in EPOCHS), (), (), False, "hv")
    whiskers = (Whisker("fixed", 0.012, 0.002, 0.022, (0.010, 0.013, 0.013)),)
    return Page(
        "mlp on digits", "2 strategies, 3 paired seeds", ("Fixed is better.", "By 0.012."), ("strategy", "accuracy"),
        (("none", "0.90 ± 0.01"), ("fixed", "0.91 ± 0.01")), ("A note.",),
        (Figure("Test accuracy", "lines: means", curves), Figure("Rate", "by epoch", (steps,))),
        Differences("Differences", whiskers), (("epochs", "10"),),
    )  # fmt: skip


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Opens the page offline; there must be no error, and no load but that of the page itself."""
    wrong: list[str] = []
    contexts = []

    def opened(**options: Any) -> Any:
        context = browser.new_context(offline=True, **({"viewport": {"width": 1280, "height": 900}} | options))
        contexts.append(context)
        opened_page = context.new_page()
        opened_page.on("console", lambda message: wrong.append(message.text))
        opened_page.on("pageerror", lambda error: wrong.append(str(error)))
        file = tmp_path / "report.html"
        file.write_text(render(page()), encoding="utf-8")
        opened_page.on(
            "request", lambda asked: wrong.append(asked.url) if asked.url not in (file.as_uri(), "data:,") else None
        )
        opened_page.goto(file.as_uri())
        return opened_page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def tip(opened: Any, figure: int) -> str:
    return str(opened.locator("figure .tip").nth(figure).inner_text())


def hover(opened: Any, figure: int, across: float, down: float) -> None:
    plot = opened.locator("figure .plot").nth(figure)
    plot.scroll_into_view_if_needed()
    frame = plot.bounding_box()
    opened.mouse.move(frame["x"] + across * frame["width"], frame["y"] + down * frame["height"])


def test_curves_show_their_values_where_the_pointer_is(show: Any) -> None:
    opened = show()
    assert opened.locator("figure .plot svg").count() == 3
    hover(opened, 1, 0.999, 0.5)
    shown = tip(opened, 1)
    assert shown.splitlines()[0] == "epoch 10"
    assert "fixed, test: 0.9586" in shown and "none, train: 0.9486" in shown
    hover(opened, 0, 0.5, 0.5)
    assert not opened.locator("figure .tip").nth(1).is_visible()


def test_dots_show_their_value_and_name(show: Any) -> None:
    opened = show()
    dot = opened.locator("figure").nth(0).locator("circle").last
    frame = dot.bounding_box()
    opened.mouse.move(frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2)
    assert tip(opened, 0) == "fixed, mean: +0.0120"


def test_keys_move_among_the_values(show: Any) -> None:
    opened = show()
    opened.locator("figure .plot").nth(2).focus()
    opened.keyboard.press("ArrowRight")
    assert tip(opened, 2).splitlines() == ["epoch 1", "fixed, drop: 0.5000"]
    opened.keyboard.press("ArrowRight")
    assert tip(opened, 2).startswith("epoch 2")
    opened.keyboard.press("Escape")
    assert not opened.locator("figure .tip").nth(2).is_visible()


def test_the_legend_switches_strategies_off_and_on(show: Any) -> None:
    opened = show()
    lines = opened.locator("figure").nth(1).locator("path.line")
    assert lines.count() == 4
    button = opened.get_by_role("button", name="none")
    button.click()
    assert (lines.count(), button.get_attribute("aria-pressed")) == (2, "false")
    hover(opened, 1, 0.5, 0.5)
    assert "none" not in tip(opened, 1) and "fixed" in tip(opened, 1)
    button.click()
    assert lines.count() == 4


@pytest.mark.parametrize("width", [375, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_is_accessible(show: Any, width: int, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    opened = show(viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    for svg in opened.locator("figure .plot svg").all():
        assert svg.bounding_box()["width"] <= width
    assert Axe().run(opened).violations_count == 0


def test_plots_follow_the_width(show: Any) -> None:
    opened = show()
    svg = opened.locator("figure .plot svg").nth(1)
    before = svg.bounding_box()["width"]
    opened.set_viewport_size({"width": 500, "height": 800})
    opened.wait_for_function(
        "document.querySelectorAll('figure .plot svg')[1].getBoundingClientRect().width < " + str(before)
    )


def test_a_page_of_many_long_runs_stays_small() -> None:
    many = tuple(range(1, 2001))
    values = tuple(0.123456789 + 1e-5 * epoch for epoch in many)
    curves = [Curve(f"s{n}", part, many, values, values, values, False) for n in range(7) for part in ("test", "train")]
    long = Page(
        "t", "s", ("v",), ("a",), tuple((f"s{n}",) for n in range(7)), (), (Figure("Loss", "", curves),) * 4, None, ()
    )
    assert len(render(long).encode()) <= 400_000
    assert len(render(page()).encode()) < 60_000
