"""The page of a network in a real browser: every dropout's reach, folding, keyboard, themes, accessibility, a phone.

It needs Playwright and a Chromium on PATH; `make browser` brings one. Without them the tests skip, but fail where CI is
set.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dropkit.probe.explanation import Explanation
from dropkit.probe.findings import Finding
from dropkit.probe.fold import fold
from dropkit.probe.page.network import connections, render_network
from dropkit.probe.page.words import reach

from . import network_examples as examples

SENTENCES = ("What dropout does here, in a sentence.", "And in a second one, which says more.")
Open = Callable[..., Any]


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Opens pages offline; at the end there must have been no error and no load but that of the page itself."""
    wrong: list[str] = []
    contexts = []

    def opened(
        explanation: Explanation,
        findings: tuple[Finding, ...] = (),
        sentences: Sequence[str] = SENTENCES,
        **options: Any,
    ) -> Any:
        options = {"viewport": {"width": 1240, "height": 900}, "reduced_motion": "reduce"} | options
        context = browser.new_context(offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
        file = tmp_path / f"{len(contexts)}.html"
        page.on(
            "request", lambda asked: wrong.append(asked.url) if asked.url not in (file.as_uri(), "data:,") else None
        )
        file.write_text(render_network(explanation, fold(explanation), sentences, findings), encoding="utf-8")
        page.goto(file.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def marked(page: Any, mark: str) -> set[str]:
    """Layers whose boxes have a mark, hidden ones too; each shown mark has its word on the box."""
    return set(
        page.evaluate(
            """(mark) => [...document.querySelectorAll(`[data-layer][data-marks~="${mark}"]`)].map((box) => {
                if (!box.querySelector(`:scope > .head [data-mark="${mark}"]`)) throw Error(`no badge on ${box.id}`);
                return box.dataset.layer;
            })""",
            mark,
        )
    )


def dimmed(page: Any) -> set[str]:
    return set(
        page.evaluate("[...document.querySelectorAll('[data-layer][data-dim]')].map((box) => box.dataset.layer)")
    )


def settled(page: Any) -> None:
    """Two frames: lines are drawn in the one after a change."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def lines(page: Any) -> list[dict[str, Any]]:
    """Connections as drawn: the boxes at their ends, whether lit, and whether they begin and end beside those boxes."""
    settled(page)
    return page.evaluate(
        """[...document.querySelectorAll("#lines .edge")].map((path) => {
            const frame = document.getElementById("lines").getBoundingClientRect();
            const beside = (number, point) => {
                const box = document.getElementById(`box-${number}`).getBoundingClientRect();
                return box.height > 0 && frame.top + point.y > box.top - 12 && frame.top + point.y < box.bottom + 1;
            };
            const { from, to } = path.dataset;
            const [first, last] = [path.getPointAtLength(0), path.getPointAtLength(path.getTotalLength())];
            const ends = beside(from, first) && beside(to, last);
            return { from: Number(from), to: Number(to), lit: path.classList.contains("lit"), ends };
        })"""
    )


def number_of(page: Any, layer: str) -> int:
    boxes = page.evaluate("[...document.querySelectorAll('.box')].map((box) => box.dataset.layer ?? null)")
    return int(boxes.index(layer))


@pytest.mark.parametrize("name", ["mlp", "transfer", "residual", "transformer", "hostile"])
def test_a_click_on_each_dropout_shows_its_reach(show: Open, name: str) -> None:
    explanation = examples.transformer(3) if name == "transformer" else getattr(examples, name)()
    page = show(explanation)
    page.click("#open")
    before = {mark: marked(page, mark) for mark in ("here", "zeroed", "changed", "gradient-changed")}
    assert before["changed"] == {one.name for one in explanation.layers if one.changed_by}
    for index, site in enumerate(explanation.sites):
        button = page.locator(f".site[data-site='{index}']")
        button.click()
        assert button.get_attribute("aria-pressed") == "true"
        assert page.locator(".site[aria-pressed=true]").count() == 1
        zeroed = set(reach(explanation, site)[0])
        assert zeroed >= set(site.zeroes) and marked(page, "zeroed") == zeroed
        assert marked(page, "changed") == set(site.changes)
        assert marked(page, "gradient-changed") == set(site.gradients)
        (here,) = marked(page, "here")
        assert dimmed(page) == {one.name for one in explanation.layers} - {
            here, *zeroed, *site.changes, *site.gradients,
        }  # fmt: skip
        panel = page.locator("#reach").inner_text()
        for fact in (site.name, site.kind, f"{site.p:g}", "per sample", f"{len(site.gradients)} layer"):
            assert fact in panel
    button.click()
    assert page.locator("[aria-pressed=true]").count() == 0
    assert {mark: marked(page, mark) for mark in before} == before
    assert dimmed(page) == set()


def test_lit_lines_are_those_that_carry_what_is_dropped(show: Open) -> None:
    explanation = examples.residual()
    page = show(explanation)
    page.click("#open")
    page.locator(".site[data-site='1']").click()
    names = page.evaluate("[...document.querySelectorAll('.box')].map((box) => box.dataset.layer)")
    drawn = lines(page)
    assert all(line["ends"] for line in drawn)
    assert {(names[line["from"]], names[line["to"]]) for line in drawn} == {
        (start, one.name) for one in explanation.layers for start in one.inputs
    }
    lit = {(names[line["from"]], names[line["to"]]) for line in drawn if line["lit"]}
    assert ("blocks.1.drop", "blocks.1.conv2") in lit and ("blocks.1.add", "blocks.2.add") in lit
    # The skip past the dropout carries nothing of it, nor does what feeds the dropout.
    assert not lit & {("blocks.0.add", "blocks.1.add"), ("blocks.1.norm", "blocks.1.drop")}


def test_folds_open_and_close_and_lines_follow(show: Open) -> None:
    explanation = examples.transformer()
    page = show(explanation)
    several = page.locator(".several > .head .fold")
    assert several.count() == 1 and several.get_attribute("aria-expanded") == "false"
    number = page.evaluate("Number(document.querySelector('.several').id.slice(4))")
    first = number_of(page, "layers.0.norm1")
    assert not page.locator(f"#box-{first}").is_visible()
    closed = lines(page)
    assert all(line["ends"] for line in closed)
    assert {(line["from"], line["to"]) for line in closed} == {
        (number_of(page, "embed"), number_of(page, "drop")), (number_of(page, "drop"), number),
        (number, number_of(page, "norm")), (number_of(page, "norm"), number_of(page, "head")),
    }  # fmt: skip
    several.click()
    assert several.get_attribute("aria-expanded") == "true"
    block = number_of(page, "layers.0")
    assert page.locator(f"#box-{block}").is_visible() and not page.locator(f"#box-{first}").is_visible()
    opened = lines(page)
    assert len(opened) == 24 + 3 and all(line["ends"] for line in opened)
    page.locator(f"#box-{block} > .head .fold").click()
    assert page.locator(f"#box-{first}").is_visible()
    inner = lines(page)
    assert (number_of(page, "drop"), first) in {(line["from"], line["to"]) for line in inner}
    assert all(line["ends"] for line in inner)
    several.click()
    assert lines(page) == closed
    page.click("#open")
    assert page.locator("ol[hidden]").count() == 0
    opened = lines(page)
    assert len(opened) == len(list(connections(explanation))) and all(line["ends"] for line in opened)
    page.click("#close")
    assert page.locator(".fold[aria-expanded=true]").count() == 0


def test_closed_boxes_say_how_much_inside_is_reached(show: Open) -> None:
    explanation = examples.transformer()
    page = show(explanation)
    told = page.locator(".several > .head .inside")
    inside = [one for one in explanation.layers if one.name.startswith("layers.")]
    assert told.inner_text() == (
        f"288 layers inside: {len(explanation.sites) - 1} drop, "
        f"{sum(bool(one.zeroed_by) for one in inside)} outputs zeroed, "
        f"{sum(bool(one.changed_by) for one in inside)} outputs changed"
    )
    index = next(index for index, site in enumerate(explanation.sites) if site.name == "layers.20.drop1")
    page.locator(f".choice[data-site='{index}']").click()
    site = explanation.sites[index]
    changed = sum(name.startswith("layers.") for name in site.changes)
    assert told.inner_text() == (
        f"288 layers inside: 1 drops, 1 output zeroed, {changed} outputs changed, 144 gradients changed"
    )
    assert not page.locator(f".site[data-site='{index}']").is_visible()
    page.click("#go")
    assert page.locator(f".site[data-site='{index}']").is_visible()
    assert page.evaluate("document.activeElement.dataset.site") == str(index)


def test_untouched_trunk_stays_folded_and_unreached(show: Open) -> None:
    page = show(examples.transfer())
    assert page.locator(".several > .head").inner_text().endswith("229 layers inside: untouched")
    page.locator(".site").click()
    assert page.locator(".several > .head").inner_text().endswith("229 layers inside: none reached")


def press_until(page: Any, key: str, condition: str) -> None:
    for _ in range(60):
        page.keyboard.press(key)
        if page.evaluate(condition):
            return
    raise AssertionError(f"{condition} was never true")


def test_the_keyboard_alone_does_all_that(show: Open) -> None:
    explanation = examples.transformer()
    page = show(explanation)
    active = "document.activeElement"
    press_until(page, "Tab", f"{active}.matches('.site[data-site=\"0\"]')")
    assert page.evaluate(f"getComputedStyle({active}).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert marked(page, "zeroed") == {"embed"}
    page.keyboard.press("Escape")
    assert page.locator("[aria-pressed=true]").count() == 0
    page.keyboard.press("Space")
    assert page.locator("#panel-title").inner_text() == "drop"
    press_until(page, "ArrowDown", f"{active}.closest('.several') !== null")
    page.keyboard.press("ArrowRight")
    assert page.locator(".several > .head .fold").get_attribute("aria-expanded") == "true"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.locator("[data-layer='layers.0'] > .head .fold").get_attribute("aria-expanded") == "true"
    press_until(page, "ArrowDown", f"{active}.matches('.site') && {active}.textContent.includes('layers.0.drop1')")
    page.keyboard.press("Enter")
    assert marked(page, "zeroed") == {"layers.0.attention.out"}
    press_until(page, "Tab", f"{active}.id === 'clear'")
    page.keyboard.press("Enter")
    assert page.locator("[aria-pressed=true]").count() == 0
    assert page.evaluate(f"{active}.matches('.choice')")
    press_until(page, "Shift+Tab", f"{active}.matches('.fold')")
    page.keyboard.press("Home")
    press_until(page, "ArrowDown", f"{active}.closest('.several') !== null")
    page.keyboard.press("ArrowLeft")
    assert page.locator(".several > .head .fold").get_attribute("aria-expanded") == "false"


def test_a_layer_is_found_by_its_name_and_opened(show: Open) -> None:
    page = show(examples.transformer())
    page.fill("#find", "17.mlp")
    assert page.locator("#found").inner_text() == "4 found"
    page.keyboard.press("Enter")
    assert page.locator("#found").inner_text() == "1 of 4"
    assert page.locator(".match").get_attribute("data-layer") == "layers.17.mlp"
    assert page.locator(".match").is_visible()
    page.keyboard.press("Shift+Enter")
    assert page.locator(".match").get_attribute("data-layer") == "layers.17.mlp.2"


def test_a_finding_leads_to_its_box(show: Open) -> None:
    explanation = examples.transformer()
    finding = Finding("DK115", "rate of 0.6 or more", "layers.9.drop1", "p = 0.8", "Pass 0.2.", "docs/doctor.md")
    page = show(explanation, findings=(finding,))
    page.get_by_role("link", name="layers.9.drop1").click()
    assert page.evaluate("document.activeElement.dataset.layer") == "layers.9.drop1"
    assert page.locator("[data-layer='layers.9.drop1']").is_visible()


def ground(page: Any) -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


def test_dark_and_light_follow_the_system_and_the_button(show: Open) -> None:
    light, dark = "rgb(255, 255, 255)", "rgb(20, 23, 27)"
    for scheme, own, other in (("light", light, dark), ("dark", dark, light)):
        page = show(examples.mlp(), color_scheme=scheme)
        assert ground(page) == own
        page.click("#theme")
        assert ground(page) == other
        assert page.locator("#theme").inner_text() == f"{scheme.capitalize()} theme"


def test_motion_is_for_those_who_want_it(show: Open) -> None:
    duration = "getComputedStyle(document.querySelector('.box')).transitionDuration"
    assert show(examples.mlp()).evaluate(duration) == "0s"
    assert show(examples.mlp(), reduced_motion="no-preference").evaluate(duration) != "0s"


def violations(page: Any) -> list[str]:
    from axe_playwright_python.sync_playwright import Axe

    page.evaluate("Promise.all(document.getAnimations().map((animation) => animation.finished))")
    results = Axe().run(page, options={"resultTypes": ["violations", "incomplete"]}).response
    # What it could not judge counts too, but for characters that are no text, such as arrows on keys, and for cells of
    # tables that are scrolled out of sight in part.
    found = [
        f"{rule['id']}: {node['target']} {node.get('failureSummary') or node['any']}"
        for rule in (*results["violations"], *results["incomplete"])
        for node in rule["nodes"]
    ]
    scrolled = re.compile(r"\bt[hd]\b.*partially obscured", re.DOTALL)
    return [line for line in found if "only non-text characters" not in line and not scrolled.search(line)]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(show: Open, scheme: str) -> None:
    finding = replace(examples.FINDING, place="layers.0.drop1")
    page = show(examples.transformer(1), findings=(finding,), color_scheme=scheme)
    assert violations(page) == []
    page.click("#open")
    page.fill("#find", "drop")
    page.keyboard.press("Enter")
    page.locator(".site").last.click()
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    assert violations(page) == []


def test_the_accessibility_check_can_fail(show: Open) -> None:
    page = show(examples.mlp())
    page.evaluate("document.querySelector('.mask').style.color = '#ccc'")
    page.evaluate("document.getElementById('theme').textContent = ''")
    assert {line.partition(":")[0] for line in violations(page)} == {"color-contrast", "button-name"}


@pytest.mark.parametrize("name", ["residual", "transformer", "hostile"])
def test_a_phone_needs_no_sideways_scrolling(show: Open, name: str) -> None:
    page = show(getattr(examples, name)(), viewport={"width": 375, "height": 720}, has_touch=True)
    page.click("#open")
    page.locator(".site").first.tap()
    settled(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    panel = page.locator("#panel").bounding_box()
    button = page.locator(".site").first.bounding_box()
    assert panel["y"] + panel["height"] <= 720 + 1 and panel["height"] <= 0.45 * 720
    assert button["y"] >= 0 and button["y"] + button["height"] <= panel["y"] + 1
    wide = page.evaluate(
        "Math.max(...[...document.querySelectorAll('.box, .badge')].map((e) => e.getBoundingClientRect().right))"
    )
    assert wide <= 375


def test_a_class_name_in_the_title_is_not_broken_on_a_phone(show: Open) -> None:
    page = show(replace(examples.mlp(), model="TransformerEncoder"), viewport={"width": 375, "height": 720})
    lines = page.evaluate(
        """() => {
            const text = document.querySelector("h1").firstChild;
            const range = document.createRange();
            const start = text.data.indexOf("TransformerEncoder");
            range.setStart(text, start);
            range.setEnd(text, start + "TransformerEncoder".length);
            return range.getClientRects().length;
        }"""
    )
    assert lines == 1


def test_nothing_overlaps(show: Open) -> None:
    """Names, badges and buttons of a box stand apart, at every width."""
    page = show(examples.residual())
    page.locator(".site").first.click()
    for width in (375, 700, 1000, 1600):
        page.set_viewport_size({"width": width, "height": 900})
        overlaps = page.evaluate(
            """[...document.querySelectorAll(".head")].flatMap((head) => {
                const parts = [...head.querySelectorAll(".name, .kind, .badge, .facts, .site")];
                const frames = parts.map((part) => part.getBoundingClientRect());
                const apart = (a, b) => a.right <= b.left + 1 || b.right <= a.left + 1
                    || a.bottom <= b.top + 1 || b.bottom <= a.top + 1;
                const hit = (a, i) => frames.slice(i + 1).filter((b) => !apart(a, b)).map(() => head.innerText);
                return frames.flatMap(hit);
            })"""
        )
        assert overlaps == []
