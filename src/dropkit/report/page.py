"""A page's HTML: the answer first, then the table, differences, curves, and at the end the settings."""

import re
from typing import Any

from markupsafe import Markup, escape

from ..language import ENGLISH, Catalogue, catalogue, say, told
from ..visible import visible
from .plots import (
    DARK,
    GREY,
    LIGHT,
    captioned,
    colours,
    differences_figure,
    embed,
    line_figure,
    own_text,
    points,
    rated_figure,
)
from .values import Page


def render(page: Page, lang: str | Catalogue = ENGLISH) -> str:
    """The page as self-contained HTML: no address is loaded, so it opens without a network.

    Args:
        page: what it shows.
        lang: the language in which it is told.

    >>> from dropkit.report import Table
    >>> html = render(Page(title="t", subtitle="s", answer="Nothing seen.", table=Table("", ["strategy"], [["none"]])))
    >>> html.startswith("<!doctype html>"), "Nothing seen." in html
    (True, True)
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("dropkit.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: told(value, lang),  # whatever the page shows
    )
    environment.globals["say"] = say
    environment.filters["breaking"] = _breaking
    environment.filters["whole"] = lambda sentence: _whole(told(sentence, lang))
    environment.filters["figure"] = lambda figure: embed(told(figure, lang))
    found = catalogue(lang)
    html = environment.get_template("page.html.j2").render(
        page=page,
        language="en" if found is None else found.html,
        inks=tuple(enumerate(zip((GREY[0], *LIGHT), (GREY[1], *DARK), strict=True))),
        css=own_text(environment, "page.css"),
        script=own_text(environment, "plots.js"),
        **_drawn(page),
    )
    return visible(html)  # in a script's strings an escape means the same


def _breaking(name: str, narrow: bool = False) -> Markup:
    """A name that may break before its place and within it, in narrow columns also behind its kind."""
    text = str(escape(name)).replace("@", "<wbr>@")
    text = text.replace(":", ":<wbr>") if narrow else text
    return Markup(re.sub(r"(?<=[^\W\d])\.(?=[^\W\d])", ".<wbr>", text))


def _whole(sentence: str) -> Markup:
    """A sentence that does not break within an option, which browsers break behind each hyphen."""
    return Markup(re.sub(r"(?<!\S)--\S+", r'<span class="whole">\g<0></span>', str(escape(sentence))))


def _drawn(page: Page) -> dict[str, Any]:
    """What the script draws, by the name that the template knows it by."""
    palette, most = colours([row[0] for row in page.table.rows], page.reference), points(page.figures)
    return {
        "colours": palette,
        "differences": page.differences and differences_figure(page.differences, palette),
        "rated": page.rated and rated_figure(page.rated),
        "figures": [
            (figure.title, captioned(figure, most), line_figure(figure, palette, most)) for figure in page.figures
        ],
    }
