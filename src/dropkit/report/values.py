"""A page as plain values: what the lab hands over, and what is drawn."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Curve:
    """A line over epochs: its group (one colour), its part, and a band where low and high are given.

    >>> Curve("fixed", "test", x=[1, 2], y=[0.5, 0.6], low=[], high=[], dotted=False).shape
    'linear'
    """

    group: str
    part: str
    x: Sequence[int]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    dotted: bool
    shape: Literal["linear", "hv"] = "linear"


@dataclass(frozen=True, slots=True)
class Figure:
    """Curves with a title and a caption; with focus, the scale is that of the later epochs.

    >>> Figure("Loss", "Mean over seeds.", curves=()).focus
    False
    """

    title: str
    caption: str
    curves: Sequence[Curve]
    focus: bool = False


@dataclass(frozen=True, slots=True)
class Whisker:
    """A group's mean difference, its interval where there is one, and each seed's value.

    >>> Whisker("fixed", mean=0.5, low=None, high=None, values=[0.25, 0.75]).group
    'fixed'
    """

    group: str
    mean: float
    low: float | None
    high: float | None
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Differences:
    """Paired differences in a figure, drawn around zero.

    >>> Differences("Against none", whiskers=[Whisker("fixed", 0.5, None, None, [0.5])]).figure
    'test accuracy'
    """

    title: str
    whiskers: Sequence[Whisker]
    figure: str = "test accuracy"


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG file, a caption, and words for who does not see it.

    >>> Picture("epoch 1", "sixteen digits", b"PNG").address
    'data:image/png;base64,UE5H'
    """

    caption: str
    words: str
    content: bytes

    @property
    def address(self) -> str:
        """A data URI, which loads nothing."""
        return "data:image/png;base64," + base64.b64encode(self.content).decode()


@dataclass(frozen=True, slots=True)
class Page:
    """Everything a page shows; rows of text under headings, the first column naming the group; rows of pictures.

    >>> Page("Dropout", "digits", ["Nothing seen."], ["strategy"], [["none"]], (), (), None, ()).pictures
    ()
    """

    title: str
    subtitle: str
    verdict: Sequence[str]
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]
    figures: Sequence[Figure]
    differences: Differences | None
    settings: Sequence[tuple[str, str]]
    pictures: Sequence[Sequence[Picture]] = ()
