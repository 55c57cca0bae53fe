"""A page's HTML. The words come first, then the table, the curves, the settings."""

from ..visible import visible
from .plots import colours, differences_figure, embed, line_figure, own_text, points
from .values import Page


def render(page: Page) -> str:
    """The page as self-contained HTML: no address is loaded, so it opens without a network.

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
    )
    groups = [row[0] for row in page.rows]
    drawn = [
        (figure.title, figure.caption, line_figure(figure, groups, points(page.figures))) for figure in page.figures
    ]
    if page.differences is not None:
        caption = "dot and bar: mean and 95 % interval; small dots: seeds"
        drawn.insert(0, (page.differences.title, caption, differences_figure(page.differences, groups)))
    html = environment.get_template("page.html.j2").render(
        page=page,
        colours=colours(groups),
        figures=[(title, caption, embed(figure)) for title, caption, figure in drawn],
        script=own_text(environment, "plots.js"),
    )
    return visible(html)  # in a script's strings an escape means the same
