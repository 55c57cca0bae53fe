"""Catalogues: each has every template of the source, with the same places; a further one is one file."""

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from dropkit.errors import DataError, UnknownNameError
from dropkit.lab import recipes
from dropkit.lab.recipes.recipe import sized
from dropkit.language import AND, LIST, Catalogue, Said, catalogue, counted, joined, languages, say, swapped, told
from dropkit.probe.explanation import Explanation, Layer, Site

from ..report import network_examples
from .templates import CATALOGUES, faults, messages, templates

KNOWN = templates()


@pytest.mark.parametrize("language", [name for name in languages() if name != "en"])
def test_a_catalogue_has_every_template_and_no_other(language: str) -> None:
    assert faults(messages(language), KNOWN) == []


def test_what_a_catalogue_lacks_is_told() -> None:
    known = {"{who} zeroes {what}": "a.py", "no gradient": "a.py", "{n} layers": "b.py"}
    held: dict[str, str | list[str]] = {
        "{who} zeroes {what}": "{what} 被 {wer} 置零",
        "of old": "",
        "{n} layers": ["{n} 层", "{n}"],
    }
    assert faults(held, known) == [
        "missing (a.py): no gradient",
        "of no use: of old",
        "other places: {who} zeroes {what} -> {what} 被 {wer} 置零",
    ]
    assert faults({"{ratio:.2f} times": "{ratio} 倍"}, {"{ratio:.2f} times": "c.py"}) == [
        "other places: {ratio:.2f} times -> {ratio} 倍"
    ]


def test_templates_are_found_in_modules_and_in_pages() -> None:
    assert KNOWN["{who} zero all of {what}"] == "probe/sentences.py"  # of `counted`, the words for many
    assert "{who} zeroes all of {what}" not in KNOWN
    assert KNOWN["Find a layer"].endswith(".html.j2")
    assert KNOWN["{n:,} outputs"].endswith(".html.j2")


def test_no_message_stands_in_two_parts() -> None:
    for path in CATALOGUES.glob("*.json"):
        parts = json.loads(path.read_text(encoding="utf-8"))["messages"].values()
        every = [words for part in parts for words in part]
        assert len(every) == len(set(every))


def test_settings_of_all_recipes_have_words() -> None:
    for recipe in recipes.RECIPES.values():
        settings = sized(recipe, "tiny", recipe.data, None)
        for name in settings.__dataclass_fields__:
            assert name.replace("_", " ") in KNOWN, name


# ----------------------------------------------------------------------------------------------------------------------
# A language is a file


def pseudo(folder: Path) -> Path:
    """A language that puts every template in brackets, and has three forms where a number decides."""
    words: dict[str, Any] = {one: f"[{one}]" for one in KNOWN}
    words["{n:,} findings"] = ["[{n:,} one]", "[{n:,} few]", "[{n:,} many]"]
    path = folder / "xx.json"
    slavic = "n == 1 ? 0 : n >= 2 && n <= 4 ? 1 : 2"
    path.write_text(json.dumps({"name": "pseudo", "html": "xx", "plural": slavic, "messages": {"all": words}}))
    return path


def test_a_third_language_is_one_file(tmp_path: Path) -> None:
    path = str(pseudo(tmp_path))
    assert faults(json.loads(Path(path).read_text())["messages"]["all"], KNOWN) == []
    net = network_examples.mlp()
    text = net.text(path)
    assert text.startswith("[") and "zeroes a part" not in text.replace("zero a part", "")
    net.save(tmp_path / "page.html", lang=path)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert '<html lang="xx">' in page and "[Find a layer]" in page and "[What dropout does in" in page
    forms = [told(counted(n, "{n} finding", "{n:,} findings"), path) for n in (1, 3, 1200)]
    assert forms == ["[1 one]", "[3 few]", "[1,200 many]"]


def test_the_pages_script_knows_the_forms_of_numbers(tmp_path: Path) -> None:
    from dropkit.probe.page.words import script_words

    assert script_words("en")["form"][:4] == [1, 0, 1, 1]
    assert script_words("en")["here"] == ["{n} drops", "{n} drop"]
    assert script_words(str(pseudo(tmp_path)))["form"][:6] == [2, 0, 1, 1, 1, 2]
    assert set(script_words("zh")["form"]) == {0}


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"name": 1, "html": "", "plural": "import os", "messages": {}}'])
def test_a_file_that_is_no_catalogue_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "yy.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"yy\.json is no catalogue"):
        told(say("a"), str(path))
    with pytest.raises(DataError, match=r"cannot read the catalogue .*none\.json: No such file"):
        catalogue(str(tmp_path / "none.json"))


def test_an_unknown_language_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown language 'de'; .*Known: en, zh"):
        told("a", "de")
    layers = (Layer(name="", parent=None, kind="Net"),)
    with pytest.raises(UnknownNameError, match="Known: en, zh"):
        Explanation(model="Net", framework="torch", inputs=(), layers=layers, sites=()).text("fr")


@pytest.mark.parametrize("name", ["zh", "zh-CN", "zh_CN.UTF-8", "ZH"])
def test_a_country_behind_the_language_is_left_out(name: str) -> None:
    found = catalogue(name)
    assert found is not None and found.html == "zh-CN"
    assert catalogue("en_GB.UTF-8") is None


# ----------------------------------------------------------------------------------------------------------------------
# Sentences


ZH = Catalogue(
    "", "zh-CN", "0", True,
    {"{who} zeroes {what}": "{who} 把 {what} 置零", "all of it": "全部", "{before}, {name}": "{before}、{name}",
     "{before} and {item}": "{before} 和 {item}", "({text})": "（{text}）", "{n} units": "{n} 个"},
)  # fmt: skip


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("fc1", "drop 把 fc1 置零"),
        (say("all of it"), "drop 把全部置零"),
        ("卷积层", "drop 把卷积层置零"),
        ("`f(x)`", "drop 把 `f(x)` 置零"),
        (joined(["a", "b", "c"], LIST, AND), "drop 把 a、b 和 c 置零"),
        (say("({text})", text="x"), "drop 把（x）置零"),
        (counted(3, "", "{n} units"), "drop 把 3 个置零"),
        ("", "drop 把置零"),
    ],
)
def test_spaces_stand_between_scripts_alone(what: str, sentence: str) -> None:
    assert told(say("{who} zeroes {what}", who="drop", what=what), ZH) == sentence


def test_a_name_is_never_changed() -> None:
    # What is put in may hold braces, and what looks like a template, and characters of either script.
    name = "层 a{who}%s  b"
    assert told(say("{who} zeroes {what}", who=name, what="all of it"), ZH) == f"{name} 把 all of it 置零"


def test_a_sentence_is_the_same_str_in_english() -> None:
    said = say("{who} zeroes {what}", who="drop", what=say("all of it"))
    plain = "drop zeroes all of it"
    assert said == plain and hash(said) == hash(plain) and json.dumps([said]) == json.dumps([plain])
    assert told(said) == plain and told(said, "en") == plain
    for again in (copy.deepcopy(said), pickle.loads(pickle.dumps(said))):
        assert again == plain and told(again, ZH) == "drop 把全部置零"


def test_what_a_catalogue_lacks_stays_english() -> None:
    assert told(say("none of {what}", what=say("all of it")), ZH) == "none of all of it"


def test_values_are_told_inside_of_lists_and_mappings() -> None:
    found = told({"facts": [("name", say("all of it"))], "n": 3, "x": None}, ZH)
    assert found == {"facts": [("name", "全部")], "n": 3, "x": None}


def test_signs_are_exchanged_inside_too() -> None:
    said = swapped(say("each of {n} units", n=joined(["8", "8"], "{before} x {item}")), " x ", " × ")
    assert said == "each of 8 × 8 units" and isinstance(said, Said)
    assert said.arguments["n"] == "8 × 8"


def test_json_stays_english_and_plain() -> None:
    net = network_examples.mlp()
    read = json.dumps(net.to_dict(), default=str)
    assert "zeroes a part of the output of" in read


def test_a_copy_of_a_site_keeps_what_can_be_told() -> None:
    site = Site(
        name="drop", kind="Dropout", layer="drop", p=0.5, share=say("exactly {k} of {n} units, per sample", k=1, n=2)
    )
    assert told(copy.deepcopy(site).share, "zh") == "每个样本的 2 个单元中恰好保留 1 个"
