"""A page as plain values: what the lab hands over, and what is drawn."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Scale:
    """What an axis counts in: its unit, which stands at the values, and how many decimals these have.

    >>> Scale("%", 2).text(98.4), Scale(digits=4).signed(0.0123)
    ('98.40 %', '+0.0123')
    """

    unit: str = ""
    digits: int = 4

    def text(self, value: float) -> str:
        """A value with its unit."""
        return f"{value:.{self.digits}f} {self.unit}".strip()

    def signed(self, value: float) -> str:
        """A difference with its sign and without its unit."""
        return f"{value:+.{self.digits}f}"


@dataclass(frozen=True, slots=True)
class Curve:
    """A line over epochs: its name, a band where low and high are given; what is behind is drawn in grey.

    >>> curve = Curve("validation", x=[1, 2], y=[0.7, 0.8])
    >>> curve.shape, curve.behind
    ('linear', False)
    """

    name: str
    x: Sequence[int]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    dotted: bool = False
    behind: bool = False
    shape: Literal["linear", "hv"] = "linear"


@dataclass(frozen=True, slots=True)
class Panel:
    """The curves of a group, side by side with those of the others on the same scale.

    >>> Panel("fixed", curves=[]).group
    'fixed'
    """

    group: str
    curves: Sequence[Curve]


@dataclass(frozen=True, slots=True)
class Figure:
    """Panels with a title and a caption; with focus, the scale is that of the later epochs.

    >>> Figure("Test accuracy", "Mean over the seeds.", panels=[]).focus
    False
    """

    title: str
    caption: str
    panels: Sequence[Panel]
    scale: Scale = Scale()
    focus: bool = False


@dataclass(frozen=True, slots=True)
class Whisker:
    """A group's mean difference, its interval where there is one, each seed's value, and all of it in words.

    >>> Whisker("fixed", mean=0.5, low=None, high=None, values=[0.5]).mean
    0.5
    """

    group: str
    mean: float
    low: float | None
    high: float | None
    values: Sequence[float]
    words: str = ""


@dataclass(frozen=True, slots=True)
class Differences:
    """Paired differences in a figure, drawn around zero, one below the other.

    >>> Differences("To no dropout", [Whisker("fixed", 0.5, None, None, [0.5])], axis="accuracy").caption
    ''
    """

    title: str
    whiskers: Sequence[Whisker]
    axis: str
    caption: str = ""
    scale: Scale = Scale()


@dataclass(frozen=True, slots=True)
class Dot:
    """A point with an interval where there is one.

    >>> Dot(0.5, 98.0, None, None).y
    98.0
    """

    x: float
    y: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Rated:
    """Points over rates, a line for each kind, and the value of a group without a rate as a level.

    >>> Rated("Rate", "", "p", series=[("fixed", [Dot(0.5, 98.0, None, None)])], level=("none", 97.0)).level
    ('none', 97.0)
    """

    title: str
    caption: str
    axis: str
    series: Sequence[tuple[str, Sequence[Dot]]]
    level: tuple[str, float] | None = None
    scale: Scale = Scale()


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a matrix: its value, half of its interval, and whether that leaves out zero.

    >>> Cell("+0.50", "± 0.40", apart=True).apart
    True
    """

    text: str
    half: str
    apart: bool


@dataclass(frozen=True, slots=True)
class Matrix:
    """Every pair's difference: a row for each group but the last, a column for each but the first.

    >>> Matrix("Pairs", "", ["a", "b"], [[Cell("+0.50", "", False)]]).groups
    ['a', 'b']
    """

    title: str
    caption: str
    groups: Sequence[str]
    rows: Sequence[Sequence[Cell | None]]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under headings, the first column naming the group, with a title and notes.

    >>> Table("Cost", ["group", "seconds"], [["fixed", "1.0"]]).notes
    ()
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG file, a caption, and words for who does not see it.

    >>> Picture("A digit", "a seven, drawn thinly", b"PNG").address
    'data:image/png;base64,UE5H'
    """

    caption: str
    words: str
    content: bytes

    @property
    def address(self) -> str:
        """A data URI, which loads nothing."""
        return "data:image/png;base64," + base64.b64encode(self.content).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Everything a page shows: the answer, details of it, a table, and below that what there is.

    Args:
        title, subtitle: of the page.
        answer: in a sentence.
        details: more sentences.
        table: the groups and their figures.
        differences: from the reference.
        pairs: every pair's difference.
        rated: figures over the rates that were tried.
        figures: curves over epochs.
        tables: smaller ones.
        settings: names and values.
        reference: the group against which others are drawn.
        pictures: rows of them, with what was left out in words.

    >>> Page(title="Runs", subtitle="on digits", answer="No difference.", table=Table("", ["group"], [])).pictures
    ()
    """

    title: str
    subtitle: str
    answer: str
    table: Table
    details: Sequence[str] = ()
    differences: Differences | None = None
    pairs: Matrix | None = None
    rated: Rated | None = None
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    settings: Sequence[tuple[str, str]] = ()
    reference: str | None = "none"
    pictures: Sequence[Sequence[Picture]] = ()
