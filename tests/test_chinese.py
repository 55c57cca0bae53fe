"""The Chinese pages say what the English ones say: the same code, commands, figures and links."""

import re
from itertools import zip_longest
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHINESE = {
    "README.zh.md": "README.md",
    **{f"docs/zh/{page.name}": f"docs/{page.name}" for page in sorted((ROOT / "docs" / "zh").glob("*.md"))},
}
# What a reader needs from the README to the answer of each document's question.
NEEDED = (
    "faq",
    "inverted-dropout",
    "noise-shape",
    "placement",
    "studies",
    "transfer",
    "tutorial-dense",
    "tutorial-gan",
    "tutorial-mlp",
    "tutorial-mlp-functional",
    "tutorial-numpy-layer",
    "tutorial-numpy-mlp",
    "vgg-adaptive",
)
HAN = re.compile(r"[\u4e00-\u9fff]")
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def code(text: str) -> list[str]:
    """Fenced blocks and indented commands, comments left out: these may be Chinese."""
    blocks = FENCED.findall(text) + re.findall(r"^    \S.*$", FENCED.sub("", text), re.MULTILINE)
    lines = [re.sub(r"\s*#.*$", "", line).rstrip() for block in blocks for line in block.splitlines()]
    lines = [re.sub(r'\.text\("zh"\)| --lang zh', "", line) for line in lines]  # what asks for Chinese
    return [line for line in lines if line]


def figures(text: str) -> list[str]:
    """The numbers of each table's rows, in order."""
    rows = [line for line in FENCED.sub("", text).splitlines() if line.startswith("|")]
    return [" ".join(sorted(re.findall(r"[-+−]?\d+(?:[.,]\d+)*", re.sub(r"[，、。]", " ", row)))) for row in rows]


@pytest.mark.parametrize("page", [f"docs/zh/{name}.md" for name in NEEDED])
def test_each_page_that_answers_a_question_is_there_in_chinese(page: str) -> None:
    assert page in CHINESE


@pytest.mark.parametrize("chinese", CHINESE)
def test_a_chinese_page_has_the_code_and_the_figures_of_its_english_one(chinese: str) -> None:
    page, english = (ROOT / chinese).read_text(), (ROOT / CHINESE[chinese]).read_text()
    for kind in (code, figures):
        for here, there in zip_longest(kind(page), kind(english)):
            assert here == there, chinese
    headings = [re.findall(r"^(#+) ", FENCED.sub("", text), re.MULTILINE) for text in (page, english)]
    assert headings[0] == headings[1]


@pytest.mark.parametrize("chinese", CHINESE)
def test_a_chinese_page_is_in_chinese(chinese: str) -> None:
    prose = FENCED.sub("", (ROOT / chinese).read_text())
    prose = re.sub(r"^    .*$|`[^`]*`|\]\([^)]*\)|https?://\S+", "", prose, flags=re.MULTILINE)
    for paragraph in re.split(r"\n\s*\n", prose):
        words = re.findall(r"[A-Za-z]{2,}", paragraph)
        assert HAN.search(paragraph) or len(words) < 8, paragraph


@pytest.mark.parametrize("chinese", CHINESE)
def test_a_chinese_page_leads_to_chinese_pages(chinese: str) -> None:
    text = FENCED.sub("", (ROOT / chinese).read_text())
    for link in re.findall(r"\]\(([^)#]+\.md)[^)]*\)", text):
        target = ((ROOT / chinese).parent / link).resolve().relative_to(ROOT).as_posix()
        twins = [here for here, there in CHINESE.items() if there == target and here != chinese]
        switch = target == CHINESE[chinese]  # the line that leads to the English page
        assert switch or not twins, f"{chinese} leads to {target}; {twins[0]} is its Chinese page"


@pytest.mark.parametrize("chinese", CHINESE)
def test_the_two_pages_lead_to_each_other(chinese: str) -> None:
    english = CHINESE[chinese]
    for page, other in ((chinese, english), (english, chinese)):
        links = re.findall(r"\]\(([^)#]+\.md)[^)]*\)", (ROOT / page).read_text())
        assert any(((ROOT / page).parent / link).resolve() == ROOT / other for link in links), page
