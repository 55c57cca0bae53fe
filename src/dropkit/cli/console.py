"""What the command line shows: progress while training, the table and the verdict at the end."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from ..lab.engines.loop import Row
from ..lab.plan import Plan
from ..lab.recipes.measures import Figures
from ..lab.searching import Tuning
from ..lab.telling.table import Line, cells, headings, notes, plain
from ..language import ENGLISH, joined, say, template, told

WIDE = 140
QUIET = 30  # seconds without a line, where there is no bar


class Bar:
    """A progress bar over all epochs of all runs, with a line for each epoch; where output is no terminal, lines alone,
    for epochs or runs.

    Args:
        progress: rich's.
        preparing: what is done before the first epoch.
        epochs: a line for each epoch, with the losses that tutorials print; else one for each run, where there is no
            bar.
        lang: the language of these lines.
    """

    def __init__(self, progress: Progress, preparing: str, epochs: bool = False, lang: str = ENGLISH) -> None:
        self.progress, self.epochs, self.lang = progress, epochs, lang
        self.task = progress.add_task(preparing, total=None)
        self.done, self.total, self.told = 0, 0, time.monotonic()

    def __call__(self, plan: Plan, row: Row) -> None:
        epochs = plan.choices.settings.epochs
        figure = plan.choices.recipe.figures.compared
        text = say(
            "{strategy} seed {seed} epoch {epoch}/{epochs} {figure} {value:.4f}",
            strategy=str(plan.strategy),
            seed=plan.seed,
            epoch=row["epoch"],
            epochs=epochs,
            figure=figure.removesuffix("_accuracy"),
            value=row[figure],
        )
        self.progress.update(self.task, advance=1, description=told(text, self.lang))
        self.done += 1
        if self.epochs:
            self._tell(epoch_line(plan.choices.recipe.figures, row, epochs, plan.choices.settings.iterations))
        # Long runs say something in between too.
        elif self.progress.disable and (row["epoch"] == epochs or time.monotonic() - self.told > QUIET):
            words = template("{text}, {done}/{total} epochs in all")
            self._tell(say(words, text=text, done=self.done, total=self.total))

    def begin(self, done: int, total: int) -> None:
        """Set the number of epochs, and how many of them an earlier run has done."""
        self.done, self.total = done, total
        self.progress.update(self.task, total=total, completed=done)

    def _tell(self, text: str) -> None:
        self.progress.console.print(Text(told(text, self.lang)), soft_wrap=True)
        self.progress.console.file.flush()
        self.told = time.monotonic()


def epoch_line(figures: Figures, row: Row, epochs: int, iterations: int | None = None) -> str:
    """What is printed of an epoch, as most tutorials print it: a figure for each of the recipe's `printed` that it has.

    >>> from dropkit.lab.recipes.measures import CLASSIFICATION
    >>> epoch_line(CLASSIFICATION, {"epoch": 1, "train_loss": 1.1165, "train_accuracy": 0.562}, 5)
    'epoch 1/5, loss 1.1165, train accuracy 0.5620'
    """
    words = template("{heading} {value:.4f}")
    known = [say(words, heading=heading, value=row[figure]) for heading, figure in figures.printed if figure in row]
    number = say("epoch {epoch}/{epochs}", epoch=row["epoch"], epochs=epochs)
    if iterations is not None:
        number = say("iteration {step}/{steps}", step=row["step"], steps=epochs * iterations)
    return joined([number, *known])


class _Known(ProgressColumn):
    """Another column once it is known how much there is to do, and nothing before."""

    def __init__(self, column: ProgressColumn) -> None:
        super().__init__(column.get_table_column())
        self.column = column

    def render(self, task: Task) -> RenderableType:
        return Text("") if task.total is None else self.column(task)


@contextmanager
def progress_bar(
    console: Console, preparing: str = "preparing", epochs: bool = False, lang: str = ENGLISH
) -> Iterator[Bar]:
    """A bar that is gone afterwards, and lines that stay: see `Bar`."""
    bars = (_Known(BarColumn()), _Known(MofNCompleteColumn()))
    times = (TimeElapsedColumn(), _Known(TextColumn(told(say("left"), lang))), _Known(TimeRemainingColumn()))
    columns = (TextColumn("{task.description}", markup=False), *bars, *times)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Bar(progress, preparing, epochs, lang)


def show(console: Console, verdict: Sequence[str], lines: Sequence[Line], epochs: int, lang: str = ENGLISH) -> None:
    """Print the verdict, the table and its notes."""
    console.print()
    for number, sentence in enumerate(told(list(verdict), lang)):
        console.print(Text(sentence, style="bold" if number == 0 else ""))
    console.print()
    console.print(_table(lines, console.width, lang))
    for note in told(notes(epochs, lines[0].seeds, lines[0].figures, lines[0].looked), lang):
        console.print(Padding(Text(note, style="dim"), (0, 0, 0, 1)))


def _table(lines: Sequence[Line], width: int, lang: str) -> Table:
    # Not all columns fit a narrow terminal; the others stand in the report and in table.md.
    kind = lines[0].figures
    titles = told(headings(kind), lang)
    own = (*(count.narrow for count in kind.counts), *(column.narrow for column in kind.columns))
    narrow = [True, True, True, *own, True]
    shown = [number for number, fits in enumerate(narrow) if fits or width >= WIDE]
    table = Table(box=None, padding=(0, 2, 0, 1), header_style="bold")
    for number in shown:
        table.add_column(titles[number], justify="right" if number else "left")
    for line in lines:
        found = cells(line)
        table.add_row(*(found[number] for number in shown))
    return table


def show_trials(console: Console, tuning: Tuning, lang: str = ENGLISH) -> None:
    """Print what a search tried, a line each, and what it chose."""
    sites, best = tuning.config["sites"], tuning.trials[tuning.best]
    table = Table(box=None, padding=(0, 2, 0, 1), header_style="bold")
    for heading in told((say("trial"), *sites, say("validation loss")), lang):
        table.add_column(heading, justify="right")
    for number, trial in enumerate(tuning.trials):
        loss = told(say("diverged"), lang) if trial.interval is None else plain(trial.interval)
        rates = (f"{p:.4f}" for p in trial.rates(sites).values())
        table.add_row(str(number), *rates, loss, style="bold" if number == tuning.best else "")
    console.print()
    console.print(table)
    console.print()
    words = template("Lowest validation loss: trial {number}, {strategy}. On the test set, with other seeds:")
    chosen = say(words, number=tuning.best, strategy=str(best.strategy))
    console.print(Text(told(chosen, lang), style="bold"))


def show_own_trials(console: Console, tuning: Tuning, lang: str = ENGLISH) -> None:
    """Print what a search of a loop's rate tried, a line each, what it chose, and by what."""
    table = Table(box=None, padding=(0, 2, 0, 1), header_style="bold")
    for heading in told((say("trial"), say("strategy"), tuning.figure), lang):
        table.add_column(heading, justify="right")
    for number, trial in enumerate(tuning.trials):
        figure = "-" if trial.interval is None else plain(trial.interval)
        table.add_row(str(number), str(trial.strategy), figure, style="bold" if number == tuning.best else "")
    console.print()
    console.print(table)
    console.print()
    words = template("Best by {figure}: trial {number}, {strategy}. With other seeds:")
    best = tuning.trials[tuning.best].strategy
    chosen = say(words, figure=tuning.figure, number=tuning.best, strategy=str(best))
    console.print(Text(told(chosen, lang), style="bold"))


def say_where(console: Console, report: Path, lang: str = ENGLISH) -> None:
    """Print the absolute path of a report, unbroken so that it can be copied."""
    console.print()
    console.print(Text(told(say("Report: {path}", path=str(report.resolve())), lang)), soft_wrap=True)
