"""Sentences that can be told in other languages: each knows the template that it was made of.

A sentence is a `str`, its text in English. Beside that it holds its template and what was put in, sentences among them;
so whoever shows it can have it told in another language, by a catalogue, which is a file: docs/languages.md. Nothing
here is set: the language is an argument.
"""

import gettext
import json
import re
import string
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from .errors import DataError, UnknownNameError

ENGLISH = "en"
_FORMATTER = string.Formatter()
_AS_IS = "{text}"  # a template that is the same in all languages


class Said(str):
    """English text that knows what it was made of.

    Args:
        text: in English.
        template: the words, with places such as {name} for what is put in; the key of a catalogue.
        arguments: what is put in.
        number: which decides the form of the words, as between "1 layer" and "2 layers".

    >>> said = say("{who} changes {what}.", who="drop", what=say("no gradient"))
    >>> said, said.template, said.arguments["what"].template
    ('drop changes no gradient.', '{who} changes {what}.', 'no gradient')
    """

    template: str
    arguments: Mapping[str, Any]
    number: int

    def __new__(
        cls, text: str, template: str = _AS_IS, arguments: Mapping[str, Any] | None = None, number: int = 1
    ) -> "Said":
        """The text; what it was made of becomes attributes."""
        made = super().__new__(cls, text)
        made.template, made.number = template, number
        made.arguments = {"text": text} if arguments is None else arguments
        return made


def template(words: str) -> str:
    """Mark words that `say` gets later; a catalogue has to have them.

    >>> TARGET = template("the state of {layer}")
    >>> say(TARGET, layer="gru")
    'the state of gru'
    """
    return words


def say(words: str, /, **arguments: Any) -> Said:
    """Words with something put in, as `str.format` does.

    >>> say("{count:,} parameters, all frozen", count=1200)
    '1,200 parameters, all frozen'
    """
    return Said(words.format(**arguments), words, arguments)


def counted(n: int, one: str, many: str, /, **arguments: Any) -> Said:
    """Words whose form a number decides; as {n} it is put in. The catalogue's key is the form for many.

    >>> counted(1, "{n} layer", "{n:,} layers"), counted(1200, "{n} layer", "{n:,} layers")
    ('1 layer', '1,200 layers')
    """
    arguments = {"n": n, **arguments}
    return Said((one if n == 1 else many).format(**arguments), many, arguments, n)


COMMA, SEMICOLON = template("{before}, {item}"), template("{before}; {item}")
SPACE = template("{before} {item}")
LIST = template("{before}, {name}")  # names side by side; COMMA is between clauses
AND, OR = template("{before} and {item}"), template("{before} or {item}")


def joined(parts: Iterable[str], between: str = COMMA, last: str | None = None) -> str:
    """Parts in a row, empty ones left out; the last one may be joined by other words.

    >>> joined(["a", "", "b", "c"]), joined(["a", "b", "c"], last=AND), joined([])
    ('a, b, c', 'a, b and c', '')
    """
    every = [part for part in parts if part]
    found = every[0] if every else ""
    for number, item in enumerate(every[1:], start=2):
        words = last if last is not None and number == len(every) else between
        found = say(words, before=found, item=item, name=item)
    return found


def swapped(text: str, old: str, new: str) -> str:
    """The text with words replaced in English; other languages get it as an argument was.

    >>> swapped(say("each of {shape} units", shape="8 x 8"), " x ", " × ")
    'each of 8 × 8 units'
    """
    english = text.replace(old, new)
    if not isinstance(text, Said):
        return english
    arguments = {n: swapped(v, old, new) if isinstance(v, str) else v for n, v in text.arguments.items()}
    return Said(english, text.template, arguments, text.number)


def capital(text: str) -> str:
    """The text as it begins a title; other languages keep theirs.

    >>> capital(say("test accuracy"))
    'Test accuracy'
    """
    return _other_case(text, text[:1].upper() + text[1:])


def small(text: str) -> str:
    """The text in lower case; other languages keep theirs.

    >>> small(say("Test accuracy"))
    'test accuracy'
    """
    return _other_case(text, text.lower())


def _other_case(text: str, english: str) -> str:
    return Said(english, text.template, text.arguments, text.number) if isinstance(text, Said) else english


@dataclass(frozen=True, slots=True)
class Catalogue:
    """A language: what a file of `languages/` holds.

    Args:
        name: of the language, in that language.
        html: its tag in HTML, such as "zh-CN".
        plural: which form of a message a number n takes, as gettext writes it: "n != 1".
        wide: whether it is written without spaces, in characters two columns wide.
        messages: template in English -> template in this language, or a list of them, a form each.

    >>> zh = Catalogue("", "zh-CN", "0", True, {"{who} zeroes {what}": "{who} 把 {what} 置零", "all of it": "全部"})
    >>> zh.tell(say("{who} zeroes {what}", who="drop", what=say("all of it")))
    'drop 把全部置零'
    """

    name: str
    html: str
    plural: str
    wide: bool
    messages: Mapping[str, str | Sequence[str]]

    def form(self, n: int) -> int:
        """Which form of a message a number takes."""
        return int(gettext.c2py(self.plural)(n))

    def forms(self, words: str) -> list[str]:
        """A template in this language, a form each; the English one where the catalogue lacks it."""
        found = self.messages.get(words, words)
        return [found] if isinstance(found, str) else list(found)

    def tell(self, text: str) -> str:
        """The text in this language; what is no sentence stays as it is."""
        if not isinstance(text, Said):
            return text
        if text.template not in self.messages and text.template != _AS_IS:
            return str(text)
        forms = self.forms(text.template)
        words = forms[min(self.form(text.number), len(forms) - 1)]
        parts = []
        for literal, field, spec, _ in _FORMATTER.parse(words):
            parts.append(literal)
            if field is not None:
                value = text.arguments[field]
                parts.append(self.tell(value) if isinstance(value, str) else format(value, spec or ""))
        return _set(parts) if self.wide else "".join(parts)


def _set(parts: Sequence[str]) -> str:
    """Parts of a text in wide characters: a space between these and others, and none where it is not needed."""
    found = ""
    for part in filter(None, parts):
        left, right = found.rstrip(" "), part.lstrip(" ")
        before, after = _kind(left[-1:]), _kind(right[:1])
        if not left or not right or before == after == "narrow":
            found += part
        elif "mark" in (before, after) or before == after or right[0] in ",.;:!?)" or left[-1] == "(":
            found = left + right
        else:
            found = f"{left} {right}"
    return found


def _kind(character: str) -> str:
    """A "wide" letter, a wide "mark", or a "narrow" character."""
    if not character or unicodedata.east_asian_width(character) not in "WF":
        return "mark" if character and character in "“”‘’…" else "narrow"
    return "wide" if unicodedata.category(character)[0] == "L" else "mark"


def told(value: Any, lang: str | Catalogue = ENGLISH) -> Any:
    """A value with every sentence in it told in a language: a text, or lists, tuples and mappings of them.

    Args:
        value: English, as `str` has it, where it is no sentence.
        lang: one of `languages()`, a catalogue, or a path of one that ends in ".json".

    Raises:
        UnknownNameError: a language that there is not.
        DataError: a file that is no catalogue.

    >>> told(say("every layer")), told([say("every layer"), "conv1"], "zh")
    ('every layer', ['每一层', 'conv1'])
    """
    found = catalogue(lang)
    return value if found is None else _within(value, found)


def _within(value: Any, language: Catalogue) -> Any:
    if isinstance(value, str):
        return language.tell(value)
    if isinstance(value, Mapping):
        return {name: _within(part, language) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([_within(part, language) for part in value]) if type(value) in (list, tuple) else value
    return value


def languages() -> tuple[str, ...]:
    """The languages that there are, English first.

    >>> languages()
    ('en', 'zh')
    """
    folder = files(__package__) / "languages"
    found = sorted(entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json"))
    return ENGLISH, *found


def catalogue(lang: str | Catalogue) -> Catalogue | None:
    """The catalogue of a language; None for English. A country behind the language, as in "zh-CN", is left out.

    >>> catalogue("en"), catalogue("zh_CN").html
    (None, 'zh-CN')
    """
    if isinstance(lang, Catalogue):
        return lang
    if lang.endswith(".json"):
        try:
            return _read(Path(lang).read_bytes(), lang)
        except OSError as error:
            raise DataError(f"cannot read the catalogue {lang}: {error.strerror or error}") from error
    name, known = re.split("[-_.]", lang)[0].lower(), languages()
    if name not in known:
        raise UnknownNameError("language", lang, known)
    return None if name == ENGLISH else _own(name)


@cache
def _own(name: str) -> Catalogue:
    return _read((files(__package__) / "languages" / f"{name}.json").read_bytes(), name)


def _read(content: bytes, where: str) -> Catalogue:
    try:
        held = json.loads(content)
        messages = {words: found for part in held["messages"].values() for words, found in part.items()}
        found = Catalogue(held["name"], held["html"], held["plural"], bool(held.get("wide")), messages)
        found.form(1)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{where} is no catalogue: {error!r}; see docs/languages.md") from error
    return found
