"""What `train`, `compare` and `tune` can be told: each option once, as the field of a value that the command gets."""

import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import typer

from ..lab import recipes
from ..lab.imported import is_named
from ..lab.tasks.asked import source_name
from ..lab.tasks.strategies import OWN
from ..language import ENGLISH, catalogue, say, template, told

VARIABLE = "DROPKIT_LANG"
Lang = Annotated[
    str | None, typer.Option("--lang", metavar="NAME", help=f"Language of what is told: en or zh; or set {VARIABLE}.")
]
"""The option for the language of sentences, tables and pages."""


def spoken(lang: str | None) -> str:
    """The language that is asked for: by the option, else by DROPKIT_LANG, else English.

    Raises:
        UnknownNameError: there is none of that name.
        DataError: it names a file that is no catalogue.
    """
    found = lang or os.environ.get(VARIABLE) or ENGLISH
    catalogue(found)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """The options of every command that trains; see `dropkit.lab.train` for the meanings."""

    recipe: Annotated[
        str,
        typer.Argument(
            metavar="TARGET", help="module:factory, a function that makes your model; or one of `dropkit recipes`."
        ),
    ]
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="SOURCE",
            help="A file, a folder, module:factory, or digits, fashion-mnist, mnist, cifar10, flowers2; a recipe has "
            "its own.",
        ),
    ] = None
    epochs: Annotated[int | None, typer.Option("--epochs", metavar="N", help="In place of the size's own.")] = None
    size: Annotated[
        str,
        typer.Option(
            "--size",
            help="tiny (seconds), small (minutes), full (the published network) or tutorial (its "
            "tutorial's settings, its own data).",
        ),
    ] = "small"
    validation: Annotated[
        float | None,
        typer.Option("--validation", metavar="FRACTION", help="Hold out a part of the training set; the recipe's own."),
    ] = None
    out: Annotated[Path | None, typer.Option("--out", help="Default: runs/RECIPE-DATA-SIZE.")] = None
    resume: Annotated[bool, typer.Option("--resume", help="Continue what the output folder holds.")] = False
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto"
    precision: Annotated[str, typer.Option("--precision", help="32-true, 64-true, bf16-mixed or bf16-true.")] = (
        "32-true"
    )
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="Folder of fashion_mnist/, mnist/, ...; or set DROPKIT_DATA.")
    ] = None
    weights: Annotated[
        Path | None, typer.Option("--weights", metavar="FILE", help="Pretrained weights of the frozen part (transfer).")
    ] = None
    target: Annotated[str | None, typer.Option("--target", metavar="COLUMN", help="Of a table: what is predicted.")] = (
        None
    )
    test: Annotated[
        str | None, typer.Option("--test", metavar="FRACTION|FILE", help="Of data without a test part of their own.")
    ] = None
    kind: Annotated[
        str | None,
        typer.Option("--kind", help="classification, binary, multi-label, regression or next-token; by the data."),
    ] = None
    image_size: Annotated[
        int | None, typer.Option("--image-size", metavar="N", help="Side to which images of files are resized.")
    ] = None
    loss: Annotated[str | None, typer.Option("--loss", metavar="NAME", help="Of the kind; or module:name.")] = None
    metric: Annotated[
        str | None, typer.Option("--metric", metavar="NAME", help="That strategies are compared by; or module:name.")
    ] = None
    optimizer: Annotated[
        str | None, typer.Option("--optimizer", metavar="NAME", help="sgd, adam, adamw, rmsprop; or module:name.")
    ] = None
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", metavar="R", help="Of it.")] = None
    schedule: Annotated[
        str | None,
        typer.Option("--schedule", metavar="NAME", help="Of it: constant, cosine, one-cycle, step; or module:name."),
    ] = None
    batch_size: Annotated[int | None, typer.Option("--batch-size", metavar="N", help="Samples of a step.")] = None
    sites: Annotated[
        list[str] | None,
        typer.Option(
            "--sites",
            metavar="PATTERN=SPEC",
            help="What the model's own dropouts are, such as '*=0.2' or 'conv*=channel:0.1'; again for each further.",
        ),
    ] = None
    insert: Annotated[
        list[str] | None,
        typer.Option(
            "--insert",
            metavar="PATTERN=SPEC",
            help="Put a dropout behind what matches; again for each further.",
        ),
    ] = None
    lang: Lang = None

    def folder(self, *more: str) -> Path:
        """Where the results go: as asked, or a folder of `runs/` named after what is trained."""
        recipe = None if self.own else recipes.get(self.recipe)
        data = recipe.data_at(self.size) if recipe is not None and self.data is None else self.data
        name = self.recipe.replace(":", "-").replace("/", "-")
        return self.out or Path("runs") / "-".join([name, source_name(data), self.size, *more])

    @property
    def own(self) -> bool:
        """Whether a model of the user's is trained, and no recipe."""
        return is_named(self.recipe)

    of_loops: ClassVar[tuple[str, ...]] = ()
    """Options that are for loops of one's own alone."""

    @property
    def usual(self) -> str:
        """The strategy of a run that names none."""
        return OWN if self.own else recipes.get(self.recipe).usual

    @property
    def language(self) -> str:
        """The language of what is told."""
        return spoken(self.lang)

    def preparing(self) -> str:
        """What is done before the first epoch, for the bar."""
        words = template("preparing {recipe}: the data {data}, the model")
        if self.own:
            return str(told(say(words, recipe=self.recipe, data=self.data), self.language))
        recipe = recipes.get(self.recipe)
        data = recipe.data_at(self.size) if self.data is None else self.data
        if recipe.prepare is not None:
            words = template("preparing {recipe}: the data {data}, what is computed once from them, the model")
        return str(told(say(words, recipe=recipe.name, data=data), self.language))

    def words(self, **others: Any) -> dict[str, Any]:
        """As the lab's function of the command's name takes them, some replaced by others."""
        given = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in self.of_loops}
        return given | {"lang": self.language} | others


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched(Trained):
    """Those of commands whose runs can be watched."""

    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write event files, into each run's folder.")
    ] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparing(Watched):
    """The options of `compare`."""

    strategies: Annotated[
        str | None,
        typer.Option("--strategies", metavar="NAMES", help="Comma-separated, such as none,fixed:0.2:0.5,gap; or all."),
    ] = None
    seeds: Annotated[int | None, typer.Option("--seeds", metavar="N", help="Paired seeds 0 to N - 1.")] = None
    margin: Annotated[
        float | None,
        typer.Option("--margin", metavar="D", help="A difference that would not matter, such as 0.005 of accuracy."),
    ] = None
    until_settled: Annotated[
        bool,
        typer.Option("--until-settled", help="Add seeds until every strategy is better, worse or within the margin."),
    ] = False
    max_seeds: Annotated[
        int | None, typer.Option("--max-seeds", metavar="N", help="With --until-settled, at most; 50 by default.")
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Once(Watched):
    """The options of `train`."""

    of_loops = ("seeds",)

    strategy: Annotated[
        str | None,
        typer.Option("--strategy", metavar="NAME", help="Such as none or fixed:0.3; the rates that the model has."),
    ] = None
    seed: Annotated[int, typer.Option("--seed", metavar="K", help="First weights, data order, masks.")] = 0
    seeds: Annotated[
        int | None, typer.Option("--seeds", metavar="N", help="Of a loop of your own: K to K + N - 1; 1 by default.")
    ] = None
    out: Annotated[Path | None, typer.Option("--out", help="Default: runs/RECIPE-DATA-SIZE-STRATEGY-seedK.")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Searching(Trained):
    """The options of `tune`."""

    of_loops = ("strategies",)

    strategies: Annotated[
        str | None,
        typer.Option("--strategies", metavar="NAMES", help="Of a loop of your own: kinds, such as fixed,channel."),
    ] = None
    trials: Annotated[int, typer.Option("--trials", metavar="N", help="How many rates to try.")] = 20
    low: Annotated[float, typer.Option("--low", metavar="P", help="Lowest rate.")] = 0.0
    high: Annotated[float, typer.Option("--high", metavar="P", help="Highest rate.")] = 0.8
    shared: Annotated[bool, typer.Option("--shared", help="One rate for all sites.")] = False
    seeds: Annotated[int | None, typer.Option("--seeds", metavar="N", help="Runs of each trial.")] = None
    seed: Annotated[int, typer.Option("--seed", metavar="K", help="Of the search.")] = 0
    validation: Annotated[float | None, typer.Option("--validation", metavar="FRACTION", help="Part to choose by.")] = (
        0.1
    )
    out: Annotated[Path | None, typer.Option("--out", help="Default: runs/RECIPE-DATA-SIZE-tune.")] = None


Kind = TypeVar("Kind")


def taking(kind: type[Kind], after: str = "") -> Callable[[Callable[[Kind], None]], Callable[..., None]]:
    """Make a command of a function of one value, whose fields become the command's options.

    Args:
        kind: a dataclass; its fields are annotated as typer's parameters are.
        after: the field behind which those stand that its base has not; behind all by default.
    """
    known = inspect.signature(kind).parameters
    old = [name for name in known if name in inspect.signature(kind.__mro__[1]).parameters]
    place = old.index(after) + 1 if after else len(old)
    order = [*old[:place], *(name for name in known if name not in old), *old[place:]]

    def command(function: Callable[[Kind], None]) -> Callable[..., None]:
        @functools.wraps(function)
        def called(**words: Any) -> None:
            function(kind(**words))

        called.__signature__ = inspect.Signature([known[name] for name in order])  # type: ignore[attr-defined]
        return called

    return command
