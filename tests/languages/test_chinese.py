"""Everything that is told, in Chinese: no English is left but names and code, and lines keep their width."""

import io
import re
import unicodedata
import warnings
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

import dropkit
from dropkit.axes.noise import Gaussian
from dropkit.axes.share import Exactly
from dropkit.cli.console import epoch_line, show
from dropkit.lab.engines.loop import Row
from dropkit.lab.recipes import get
from dropkit.lab.runs.run import Run
from dropkit.lab.telling.page import page
from dropkit.lab.telling.table import lines, markdown
from dropkit.lab.telling.verdict import verdict
from dropkit.language import say, told
from dropkit.probe.explanation import Explanation, Site
from dropkit.probe.findings import RULES, findings
from dropkit.probe.findings.about import about
from dropkit.probe.findings.modes import TOLD
from dropkit.probe.fold import fold
from dropkit.probe.tree import tree
from dropkit.report import render

from ..probe import test_findings as judged
from ..report import network_examples
from .english import english, english_of_page
from .templates import templates

EXAMPLES = {
    made.__name__: made
    for made in (
        network_examples.mlp,
        network_examples.residual,
        network_examples.hostile,
    )
}
KNOWN = templates()


def names(net: Explanation) -> set[str]:
    """What is called as the model calls it."""
    parts = {one.name for one in net.layers} | {one.kind for one in net.layers} | {one.law for one in net.sites}
    parts |= {one.name for one in net.sites} | {one.kind for one in net.sites} | {one.source for one in net.sites}
    return {*parts, *(part for name in parts for part in re.split("[./]", name)), net.model, net.framework}


class Calls(nn.Module):
    """A dropout called twice, one behind whole channels, a sigmoid behind a mask, and random numbers by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.channels = nn.Conv2d(3, 8, 3, padding=1), nn.Dropout2d(0.2)
        self.norm, self.fc1, self.drop = nn.BatchNorm1d(128), nn.Linear(128, 32), nn.Dropout(0.5)
        self.fc2, self.head, self.idle = nn.Linear(32, 32), nn.Linear(32, 2), nn.Linear(2, 2)
        self.whole, self.recurrent = nn.Dropout(1.0), nn.GRU(2, 2, dropout=0.3, batch_first=True)
        self.steps = nn.Dropout(0.1)
        self.head.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.channels(self.conv(x).relu()).flatten(1))
        x = torch.sigmoid(self.drop(self.fc2(self.drop(self.fc1(x).relu()))))
        if self.training:
            x = x * (torch.rand_like(x) > 0.25) + 0.1 * torch.randn_like(x)
        x = nn.functional.dropout(self.head(x), 0.1)
        return self.recurrent(self.steps(torch.stack([x, x, x], 1)))[0] + self.whole(x)[:, None]


def encoder() -> tuple[nn.Module, torch.Tensor]:
    return nn.TransformerEncoderLayer(8, 2, 16, 0.1, batch_first=True), torch.ones(3, 4, 8)


MODELS: dict[str, Any] = {
    "calls": lambda: (Calls(), torch.randn(4, 3, 4, 4)),
    "encoder": encoder,
    "none": lambda: (nn.Linear(3, 2), torch.ones(2, 3)),
    "at rest": lambda: (nn.Sequential(nn.Linear(3, 8), nn.AlphaDropout(0.2), nn.Linear(8, 1)).eval(), torch.ones(2, 3)),
    "laws": lambda: (
        nn.Sequential(
            nn.Linear(3, 8),
            dropkit.torch.Dropout(0.2, noise=Gaussian(), when="always"),
            dropkit.torch.Dropout(0.5, share=Exactly((-1,))),
            dropkit.torch.Dropout(0.5, when="never"),
            nn.Linear(8, 1),
        ),
        torch.ones(2, 3),
    ),
}


@pytest.fixture(scope="module")
def explained() -> dict[str, Explanation]:
    torch.manual_seed(0)
    found = {}
    for name, made in MODELS.items():
        with warnings.catch_warnings(action="ignore"):  # of torch, on the rate of a recurrent network of one layer
            model, x = made()
        found[name] = dropkit.explain(model, x)
    return {**found, **{name: made() for name, made in EXAMPLES.items()}}


@pytest.mark.parametrize("name", [*MODELS, *EXAMPLES])
def test_explain_and_its_page_are_chinese(name: str, explained: dict[str, Explanation], tmp_path: Path) -> None:
    net = explained[name]
    text = net.text("zh")
    assert english(text, names(net)) == [], text
    assert re.search("[\u4e00-\u9fff]", text) and ". " not in text
    net.save(tmp_path / "page.html", lang="zh")
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert '<html lang="zh-CN">' in html
    assert english_of_page(html, names(net)) == []
    assert "\ufffd" not in html


@pytest.mark.parametrize("name", [*MODELS, *EXAMPLES])
def test_a_tree_is_chinese_and_lines_up(name: str, explained: dict[str, Explanation]) -> None:
    net, width = explained[name], 70
    stream = io.StringIO()
    console = Console(file=stream, width=width, markup=False, highlight=False)
    console.print(tree(fold(net), net, lang="zh"))
    text = stream.getvalue()
    assert english(text, names(net)) == [], text
    for line in text.splitlines():
        wide = sum(unicodedata.east_asian_width(one) in "WF" for one in line)
        assert len(line) + wide <= width, line


# ----------------------------------------------------------------------------------------------------------------------
# Findings


def as_said(site: Site, change: dict[str, Any]) -> Site:
    """A case of the tests of findings, with the notes of a run in place of plain text."""
    found = {name: say(value) if value in KNOWN else value for name, value in change.items()}
    if str(found.get("gradient_check", "")).startswith("FAILED"):
        found["gradient_check"] = say("FAILED: {why}", why=say("forward and backward draw other masks"))
    return replace(site, **found)


def every_finding() -> Iterator[Explanation]:
    for code, site, change, _, _ in judged.CASES:
        for framework in ("torch", "keras") if code not in ("DK106", "DK107", "DK112", "DK114") else ("torch",):
            yield judged.explanation(as_said(site, change), framework=framework)
    part = judged.BODY, judged.NORM, judged.HOME
    held, rest = judged.frozen(*part), judged.resting(*part)
    yield judged.explanation(judged.DROP, layers=(judged.ROOT, *held, judged.HEAD))
    yield judged.explanation(judged.DROP, layers=(judged.ROOT, *held, judged.HEAD), framework="keras")
    yield judged.explanation(replace(judged.DROP, now=False), layers=(judged.ROOT, *rest, judged.HEAD))
    yield from by_hand()
    shifted = replace(judged.NORM, zeroed_by=("body.drop",), input_variance_ratio=1.5, input_variance_error=0.01)
    open_ = replace(shifted, input_variance_ratio=1.2, input_variance_error=0.1)
    for norm in (shifted, open_):
        yield judged.explanation(judged.DROP, layers=(judged.ROOT, judged.BODY, judged.HOME, norm, judged.HEAD))


def by_hand() -> Iterator[Explanation]:
    """What the rules ask of random operations by hand, of evaluation and of what takes a mask."""
    hand = replace(judged.CALL, by_hand=True, effect="drops", p=None, zero_share=0.25, mean_error=0.01)
    yield judged.explanation(replace(hand, mean_ratio=0.75))
    yield judged.explanation(replace(hand, mean_ratio=-0.5, zero_share=None))
    twice = {"mean_ratio": 4 / 3, "train_mean": 1.0, "eval_mean": 0.75}
    yield judged.explanation(replace(judged.DROP, mean_error=0.0, **twice))
    yield judged.explanation(replace(hand, **twice))
    for shift in (None, 0.1):
        yield judged.explanation(replace(judged.DROP, into="sigmoid", shift=shift))
    for site in (judged.DROP, judged.CALL):
        yield judged.explanation(replace(site, note=TOLD), framework="keras")


def test_every_finding_is_chinese() -> None:
    seen = set()
    for net in every_finding():
        found = findings(net)
        seen |= {finding.code for finding in found}
        text = found.text("zh")
        assert english(text, names(net)) == [], text
        for sentence in told(found.sentences, "zh"):
            assert english(sentence, names(net)) == [], sentence
    assert seen == {code for code, _, _ in RULES}


def test_a_real_run_of_the_doctor_is_chinese(explained: dict[str, Explanation]) -> None:
    found = [finding for net in explained.values() for finding in net.findings]
    assert len({finding.code for finding in found}) >= 5
    for net in explained.values():
        assert english(net.findings.text("zh"), names(net)) == []


def test_the_page_on_each_finding_is_chinese_and_has_the_sections_of_the_english_one() -> None:
    for code, _, _ in RULES:
        text = about(code, "zh")
        assert text != about(code) and len(re.findall("[\u4e00-\u9fff]", text)) > 60, code
        assert english(re.sub(r"\]\([^)]*\)|\|.*\|", "", text), NAMES) == [], code
        assert text.count("```") == about(code).count("```")


def test_the_chinese_page_has_the_titles_of_the_catalogue() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == (Path(dropkit.__file__).parent / "probe" / "findings" / "doctor.zh.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(DK\d+)\]\(#dk\d+\) \| (.*) \|$", text, re.MULTILINE)
    assert rows == [(code, told(title, "zh")) for code, title, _ in RULES]
    for code, title, _ in RULES:
        section = about(code, "zh")
        assert section.startswith(f"**{told(title, 'zh')}。**"), code
        assert [len(re.findall(r"\n\n", one)) for one in (section, about(code))].count(section.count("\n\n")) == 2, code
        threads = [re.findall(r"\w+(?:#| PR )\d+", " ".join(one.split())) for one in (section, about(code))]
        assert threads[0] == threads[1], code


PAGE = Path(__file__).parents[2] / "docs" / "zh" / "doctor.md"
NAMES = ("Monte Carlo", "Keras", "torch", "Hugging Face", "SELU", "BatchNorm", "Dropout")


# ----------------------------------------------------------------------------------------------------------------------
# The lab


def run(accuracy: float, loss: float = 0.5, kind: str = "mlp", remarks: tuple[str, ...] = ()) -> Run:
    figures = get(kind).figures
    row: Row = dict.fromkeys(figures.rows, accuracy) | {"seconds": 2.0, "epoch": 1, figures.loss: loss}
    config = {"rates": {"dropout1": "fixed"}, "seed": 0}
    row |= {"rate_dropout1": 0.5}
    return Run(config, (row, row), 2, remarks, figures)


COMPARED: dict[str, tuple[str, dict[str, list[float]]]] = {
    "one seed alone": ("mlp", {"fixed": [0.8]}),
    "seeds alone": ("mlp", {"fixed": [0.8, 0.81]}),
    "one seed": ("mlp", {"none": [0.7], "fixed": [0.8]}),
    "apart": ("mlp", {"none": [0.7, 0.71, 0.7], "fixed": [0.8, 0.81, 0.8], "step": [0.6, 0.61, 0.6]}),
    "close": ("mlp", {"none": [0.7, 0.8, 0.9], "fixed": [0.71, 0.79, 0.91]}),
    "equal": ("mlp", {"none": [0.7, 0.8], "fixed": [0.7, 0.8]}),
    "shifted alike": ("mlp", {"none": [0.75, 0.75], "fixed": [0.5, 0.5], "step": [0.5, 0.5]}),
    "adaptive": (
        "mlp",
        {"none": [0.7, 0.71, 0.7], "fixed": [0.7, 0.72, 0.69], "gap": [0.8, 0.81, 0.8], "concrete": [0.6, 0.61, 0.6]},
    ),
    "adaptive in vain": ("mlp", {"none": [0.7, 0.71], "fixed": [0.9, 0.91], "gap": [0.6, 0.75]}),
    "lower is better": ("gan", {"none": [30.0, 31.0, 32.0], "fixed": [20.0, 21.1, 22.0], "step": [40.0, 41.1, 42.0]}),
}
STRATEGIES = ("none", "fixed", "step", "gap", "concrete", "toys", "mlp", "gan", "dropout")


@pytest.mark.parametrize("name", COMPARED)
def test_verdict_table_and_report_are_chinese(name: str) -> None:
    kind, values = COMPARED[name]
    runs = {strategy: [run(value, kind=kind) for value in seeds] for strategy, seeds in values.items()}
    found, seeds = lines(runs), len(next(iter(values.values())))
    words = verdict(found, "toys")
    for sentence in told(words, "zh"):
        assert english(sentence, STRATEGIES) == [], sentence
    assert english(markdown(found, 2, "zh"), STRATEGIES) == []
    config = {"recipe": kind, "data": "toys", "size": "tiny", "epochs": 2, "seeds": seeds, "validation": 0.0}
    config |= {"settings": {"learning_rate": 0.1, "test_samples": None}, "rates": {"fixed": {"dropout1": "Fixed(0.5)"}}}
    html = render(page(config, runs, found, words, {"torch": "2"}), "zh")
    assert '<html lang="zh-CN">' in html
    assert english_of_page(html, STRATEGIES) == []
    shown = [one for one in re.findall(r'"(?:text|name)":"([^"]*)"', html) if english(one, STRATEGIES)]
    assert shown == []


@pytest.mark.parametrize("name", COMPARED)
@pytest.mark.parametrize(("margin", "looked"), [(None, False), (0.05, False), (0.05, True)])
def test_verdicts_of_many_seeds_are_chinese(name: str, margin: float | None, looked: bool) -> None:
    kind, values = COMPARED[name]
    rng = np.random.default_rng(0)
    for spread in (0.0, 0.001, 0.1):
        runs = {
            strategy: [run(seeds[0] + spread * float(rng.standard_normal()), kind=kind) for _ in range(6)]
            for strategy, seeds in values.items()
        }
        found = lines(runs, looked)
        scored = [replace(line, scores=(lambda: rng.standard_normal(9),) * 6) for line in found]
        for several in (found, scored):
            for sentence in told(verdict(several, "toys", margin, looks=[3]), "zh"):
                assert english(sentence, (*STRATEGIES, "fixed")) == [], sentence
        assert english(markdown(found, 2, "zh"), STRATEGIES) == []


def test_runs_that_diverged_are_told_in_chinese() -> None:
    runs = {"none": [run(0.7), run(0.71)], "fixed": [run(0.8, float("nan")), run(0.81)]}
    (told_of,) = [one for one in told(verdict(lines(runs), "toys"), "zh") if "发散" in one]
    assert told_of == "dropout（fixed）在 2 个随机种子中有 1 个发散（损失不是有限值）。"


def test_a_table_in_the_terminal_lines_up() -> None:
    runs = {name: [run(value) for value in (0.7, 0.8)] for name in ("none", "fixed:0.5:0.25") for value in (0.7,)}
    stream = io.StringIO()
    found = lines(runs)
    show(Console(file=stream, width=160, markup=False, highlight=False), ["结论。"], found, 2, "zh")
    text = stream.getvalue().splitlines()
    (head,) = [line for line in text if "策略" in line]
    rows = [line for line in text if "fixed:" in line or line.strip().startswith("none ")]
    assert len(rows) == 2
    columns = [_columns(line.rstrip()) for line in (head, *rows)]
    assert len(set(columns)) == 1, columns  # right-aligned: all lines end at one column
    assert english("\n".join(text), STRATEGIES) == []


def _columns(line: str) -> int:
    return sum(2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in line)


def test_a_line_of_an_epoch_is_chinese() -> None:
    line = told(epoch_line(get("mlp").figures, {"epoch": 1, "train_loss": 1.1165, "train_accuracy": 0.562}, 5), "zh")
    assert line == "轮次 1/5，损失 1.1165，训练准确率 0.5620"


def test_remarks_of_engines_and_recipes_are_templates() -> None:
    for recipe in ("mlp", "gan"):
        figures = get(recipe).figures
        every = [figures.title, *figures.notes, *(one.heading for one in figures.columns)]
        every += [words for chart in figures.charts for words in (chart.title, chart.caption)]
        for words in every:
            formula = re.fullmatch(r"[DG(zx) -]+", words)  # D(x) - D(G(z))
            assert told(words, "zh") != words or words.isupper() or formula, words


def test_control_characters_reach_no_page_and_no_text() -> None:
    net = network_examples.hostile()
    from dropkit.probe.page import render_network

    html = render_network(net, fold(net), net.sentences, net.findings, "zh")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", html)


def test_fields_of_a_finding_are_all_told() -> None:
    (finding,) = findings(judged.explanation(replace(judged.DROP, p=0.8)))
    assert {field.name for field in fields(finding)} == {"code", "title", "place", "measured", "remedy", "link"}
    assert finding.text("zh").splitlines() == [
        "DK115 body.drop：丢弃概率达到 0.6 或更高",
        "  测得：p = 0.8：保留 20%，并放大到 5 倍",
        '  处理：如果 0.8 本意是保留概率，请传入 0.2：`dropkit.torch.set_rate(model, "body.drop", 0.2)`。',
        "  docs/doctor.md#dk115",
    ]
