"""Screenshots for the docs, taken where DROPKIT_SCREENSHOTS is set: tests otherwise write no tracked file."""

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dropkit.probe.fold import fold
from dropkit.probe.page.network import render_network

from .test_network_browser import settled

SHOTS = Path(__file__).parents[2] / "docs" / "img"


pytestmark = pytest.mark.skipif("DROPKIT_SCREENSHOTS" not in os.environ, reason="DROPKIT_SCREENSHOTS is not set")


def dropkit(folder: Path, *words: str) -> None:
    command = [str(Path(sys.executable).with_name("dropkit")), *words]
    subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)


def test_screenshots_of_the_report(browser: Any, tmp_path: Path) -> None:
    """Of what `make demo` runs, and of six rates of one kind; of the latter from the differences on, in the dark."""
    dropkit(tmp_path, "compare", "mlp", "--out", "demo")
    rates = ",".join(["none", *(f"fixed:0.{n}" for n in range(1, 7))])
    dropkit(tmp_path, "compare", "mlp", "--strategies", rates, "--epochs", "15", "--out", "rates")
    take_report(browser, tmp_path / "demo" / "report.html", "report", "light", "header", 1500)
    take_report(browser, tmp_path / "rates" / "report.html", "report-rates", "dark", "h2:text('Differences')", 1290)


def take_report(browser: Any, file: Path, name: str, scheme: str, first: str, height: int) -> None:
    """A part of a page from an element on, in 160 colours, which is a third of the file."""
    page = browser.new_page(color_scheme=scheme, reduced_motion="reduce", viewport={"width": 1160, "height": 900})
    page.goto(file.as_uri())
    settled(page)
    top = max(0, page.locator(first).first.bounding_box()["y"] - 24)
    clip = {"x": 0, "y": top, "width": 1160, "height": height}
    shot = Image.open(io.BytesIO(page.screenshot(full_page=True, clip=clip))).convert("RGB")
    shot.quantize(160, dither=Image.Dither.NONE).save(SHOTS / f"{name}.png", optimize=True)
    page.close()


def test_screenshots_of_networks(browser: Any, tmp_path: Path) -> None:
    """Of models that were really run: the transfer recipe by its command, and a deep encoder."""
    dropkit(tmp_path, "explain", "transfer", "--html", "transfer.html")
    (tmp_path / "encoder.html").write_text(deep_encoder(), encoding="utf-8")
    for scheme in ("light", "dark"):
        for name, height, button in (("transfer", 1500, 0), ("encoder", 1180, 34)):
            page = browser.new_page(
                color_scheme=scheme, reduced_motion="reduce", viewport={"width": 1160, "height": height}
            )
            page.goto((tmp_path / f"{name}.html").as_uri())
            page.locator(f".choice[data-site='{button}']").click()
            if name == "encoder":
                page.click("#go")
            settled(page)
            page.screenshot(path=SHOTS / f"explain-{name}-{scheme}.png")
            page.close()


def deep_encoder() -> str:
    import torch

    from dropkit.probe import explain
    from dropkit.probe.sentences import sentences

    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(64, 4, 128, 0.1, batch_first=True)
    explanation = explain(torch.nn.TransformerEncoder(layer, 24), torch.randn(8, 16, 64))
    return render_network(explanation, fold(explanation), sentences(explanation))
