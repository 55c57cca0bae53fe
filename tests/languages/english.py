"""English that is left in a text of another language: words in a row that are no name, no code and no path."""

import html
import re
from collections.abc import Iterable

_CODE = re.compile(r"“[^”\u4e00-\u9fff]*”|`[^`]*`|--[a-z-]+|\S*[./\\_:=()#]\S*|\b[A-Z]\w*[A-Z0-9]\w*")
_WORDS = re.compile(r"[A-Za-z][a-z'’]+(?:,? [A-Za-z][\w'’]*){2,}")
_HIDDEN = re.compile(r"<(style|script|noscript><style)\b.*?</(?:style|script)>", re.DOTALL)
_SPOKEN = re.compile(r'(?:aria-label|title|alt|placeholder)="([^"]*)"')


def english(text: str, names: Iterable[str] = ()) -> list[str]:
    """Three words of English or more in a row; names are of the model or the data.

    >>> english("drop 把 fc1 的输出随机置零一部分"), english("把 the output of fc1 置零")
    ([], ['the output of fc1'])
    """
    every = "|".join(re.escape(name) for name in sorted(filter(None, names), key=len, reverse=True))
    if every:
        text = re.sub(rf"(?<!\w)(?:{every})(?!\w)", "§", text)
    return _WORDS.findall(_CODE.sub("§", text))


def english_of_page(page: str, names: Iterable[str] = ()) -> list[str]:
    """The same of what a page shows and what its attributes say aloud."""
    spoken = [html.unescape(words) for words in _SPOKEN.findall(page)]
    shown = re.sub(r"<code>.*?</code>|<kbd>.*?</kbd>", "§", _HIDDEN.sub("", page), flags=re.DOTALL)
    texts = [html.unescape(part).strip() for part in re.split(r"<[^>]*>", shown)]
    return english("\n".join(dict.fromkeys([*spoken, *texts])), names)
