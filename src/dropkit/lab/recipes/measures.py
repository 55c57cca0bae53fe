"""Which figures a recipe's runs have, which of them strategies are compared by, and how they are shown."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ...language import say

SHARES = "accuracy", "exact_match"  # how figures end that are shares of the samples


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table: its heading, its figure, whether with a sign, and whether on a narrow terminal too."""

    heading: str
    figure: str
    signed: bool = False
    narrow: bool = False


@dataclass(frozen=True, slots=True)
class Count:
    """How many runs end with a figure below a bound: the heading of its column, which is what such a run did, the
    figure, the bound, the same in words that go on after "that is,", and whether on a narrow terminal too.

    >>> counted = Count("collapsed", "spread", 0.1, "made images with less than a tenth of the real ones' spread")
    >>> counted.of(0.05), counted.of(0.1), counted.of(float("nan"))
    (True, False, None)
    """

    heading: str
    figure: str
    below: float
    words: str
    narrow: bool = False

    def of(self, value: float) -> bool | None:
        """Whether a run that ends with this value counts; None where the value is not a number."""
        return None if math.isnan(value) else value < self.below


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a chart: a figure of each epoch, the part that it tells of, dotted or solid."""

    figure: str
    part: str
    dotted: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over epochs under a title; the caption says what is solid and what is dotted."""

    title: str
    caption: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The figures of a kind of recipe.

    Args:
        compared: the figure by which strategies are compared.
        title: its name in words.
        lower_is_better: of that figure.
        proportion: whether it is a share of the samples, told in percent points.
        loss: the figure that is not finite where a run diverged.
        rows: the figures of an epoch's row that the table is made of.
        printed: (words, figure) of what `train` prints after each epoch, of those figures that the row has.
        gaps: name -> (figure, figure that is subtracted from it), figures made of others.
        gap_words: such a figure in words, where the verdict tells under which strategies it is widest and narrowest.
        counts: of runs, by their last epoch; columns of the table before the others.
        columns: of the table, between the paired difference and the seconds.
        charts: of the report, before the rates.
        notes: what the columns mean, in sentences.
        pictures: whether a run draws what it makes, after each epoch.
        validated: whether there is a validation loss, to choose checkpoints and rates by.
        told: what a seed's figure is, in words, where it is not the mean over the last epochs.
        overlap: test samples by training samples, where seeds are folds of one data set, which share training samples.
        folds: whether they are, so that sentences call them that.
        shares: the figures that are shares of the samples, where the names of figures do not tell.
    """

    compared: str
    title: str
    lower_is_better: bool = False
    proportion: bool = False
    loss: str
    rows: tuple[str, ...]
    printed: tuple[tuple[str, str], ...] = ()
    gaps: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    gap_words: Mapping[str, str] = field(default_factory=dict)
    counts: tuple[Count, ...] = ()
    columns: tuple[Column, ...]
    charts: tuple[Chart, ...]
    notes: tuple[str, ...]
    pictures: bool = False
    validated: bool = True
    told: str = ""
    overlap: float = 0.0
    folds: bool = False
    shares: frozenset[str] | None = None

    def in_percent(self, figure: str) -> bool:
        """Whether a figure is a share of the samples, which people are told in percent.

        >>> CLASSIFICATION.in_percent("test_accuracy"), CLASSIFICATION.in_percent("gap")
        (True, True)
        >>> CLASSIFICATION.in_percent("test_loss")
        False
        """
        if figure in self.gaps:
            return all(map(self.in_percent, self.gaps[figure]))
        if figure == self.compared:
            return self.proportion
        return figure.endswith(SHARES) if self.shares is None else figure in self.shares

    def better(self, difference: float) -> bool:
        """Whether such a difference in the compared figure is an improvement."""
        return difference < 0 if self.lower_is_better else difference > 0


CLASSIFICATION = Figures(
    compared="test_accuracy",
    title=say("test accuracy"),
    proportion=True,
    loss="test_loss",
    rows=("test_accuracy", "test_loss", "train_eval_accuracy", "train_eval_loss", "train_accuracy", "train_loss"),
    printed=(
        (say("loss"), "train_loss"),
        (say("loss with L2"), "train_objective"),
        (say("train accuracy"), "train_accuracy"),
        (say("validation loss"), "validation_loss"),
        (say("test accuracy"), "test_accuracy"),
    ),
    gaps={"gap": ("train_eval_accuracy", "test_accuracy")},
    gap_words={"gap": say("The train-test gap")},
    columns=(
        Column(say("train accuracy"), "train_eval_accuracy"),
        Column(say("gap, train - test"), "gap", signed=True, narrow=True),
        Column(say("train accuracy, dropout on"), "train_accuracy"),
        Column(say("test loss"), "test_loss"),
    ),
    charts=tuple(
        Chart(
            title,
            say("solid: test, dotted: train with dropout off"),
            (Line(f"test_{figure}", say("test")), Line(f"train_eval_{figure}", say("train"), dotted=True)),
        )
        for title, figure in ((say("Accuracy"), "accuracy"), (say("Loss"), "loss"))
    ),
    notes=(
        say(
            "Train accuracy is taken with dropout off, like test accuracy; the gap is between these two. "
            "“Dropout on” is the running average over the epoch, which books usually print."
        ),
    ),
)
