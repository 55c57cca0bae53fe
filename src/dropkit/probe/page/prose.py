"""The explanation of a finding as HTML, from the page of the documentation that the package carries."""

import re

from markupsafe import Markup, escape

from ...language import ENGLISH, Catalogue
from ..findings.about import about

_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_BOLD = re.compile(r"\*\*(.+?)\*\*", re.DOTALL)
_ITALIC = re.compile(r"\*(.+?)\*", re.DOTALL)


def about_html(code: str, lang: str | Catalogue = ENGLISH) -> Markup:
    """What the documentation says of a code; nothing is loaded and nothing in it becomes markup of its own."""
    return Markup("").join(map(_paragraph, re.split(r"\n\s*\n", about(code, lang).strip())))


def _paragraph(text: str) -> Markup:
    if text.startswith("|"):
        return Markup("<pre>{}</pre>").format(text)
    parts = _LINK.sub(r"\1", text).split("`")
    marked = [f"<code>{escape(part)}</code>" if n % 2 else _emphasis(str(escape(part))) for n, part in enumerate(parts)]
    return Markup(f"<p>{''.join(marked)}</p>")


def _emphasis(text: str) -> str:
    return _ITALIC.sub(r"<em>\1</em>", _BOLD.sub(r"<strong>\1</strong>", text))
