"""A page's HTML. The words come first, then the table, the curves, the settings."""

from ..language import ENGLISH, Catalogue, catalogue, say, told
from ..visible import visible
from .plots import colours, differences_figure, embed, line_figure, own_text, points
from .values import Page


def render(page: Page, lang: str | Catalogue = ENGLISH) -> str:
    """The page as self-contained HTML: no address is loaded, so it opens without a network.

    Args:
        page: what it shows.
        lang: the language in which it is told.

    >>> html = render(Page("t", "s", ("Nothing seen.",), ("strategy",), (("none",),), (), (), None, ()))
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
    found = catalogue(lang)
    groups = [row[0] for row in page.rows]
    drawn = [
        (figure.title, figure.caption, line_figure(figure, groups, points(page.figures))) for figure in page.figures
    ]
    if page.differences is not None:
        caption = say("dot and bar: mean and 95 % interval; small dots: seeds")
        drawn.insert(0, (page.differences.title, caption, differences_figure(page.differences, groups)))
    html = environment.get_template("page.html.j2").render(
        page=page,
        language="en" if found is None else found.html,
        colours=colours(groups),
        figures=[(title, caption, embed(told(figure, lang))) for title, caption, figure in drawn],
        script=own_text(environment, "plots.js"),
    )
    return visible(html)  # in a script's strings an escape means the same
