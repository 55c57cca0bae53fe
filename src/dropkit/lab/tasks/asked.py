"""What a caller of `train`, `compare` and `tune` means: a recipe, or a model of the user's on some data."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...errors import DropkitTypeError, DropkitValueError
from .. import recipes
from ..data.sets import Data
from ..data.sources import load
from ..imported import imported, is_named
from ..plan import Asked
from ..recipes.learning_rate import checked_rate
from ..recipes.recipe import Recipe, Settings, at_least_one
from .spec import rules
from .task import Options, Task, recipe_of

OF_DATA = ("train", "test", "target", "kind", "image_size")
OF_TASK = ("loss", "metric", "optimizer", "learning_rate", "schedule", "batch_size", "sites", "insert")
OF_BOTH = ("optimizer", "learning_rate", "batch_size")
Trained = str | Recipe | Task | Callable[..., Any]
"""What is trained: a recipe or its name, `module:factory`, a function that makes a model, or a Task."""


def resolved(trained: Trained, asked: Mapping[str, Any]) -> tuple[Recipe, Asked]:
    """The recipe, and what else was asked of it.

    Raises:
        DropkitError: no recipe and no model, or what was asked does not fit; see the message.
    """
    given = {name: value for name, value in asked.items() if value is not None}
    rest: Any = {name: value for name, value in given.items() if name not in (*OF_DATA, *OF_TASK)}
    task = _task(trained, given)
    if task is None:
        return _with_settings(recipes.get(trained), given), rest  # type: ignore[arg-type]
    data = data_of(given)
    rest["data"] = data
    return recipe_of(task, data), rest


def is_task(trained: Trained) -> bool:
    """Whether it is a model of the user's, and no recipe."""
    return not isinstance(trained, Recipe) and (callable(trained) or isinstance(trained, Task) or is_named(trained))


def _task(trained: Trained, given: Mapping[str, Any]) -> Task | None:
    if not is_task(trained):
        return None
    options = Options(
        **{name: given[name] for name in OF_TASK if name in given and name not in ("sites", "insert")},
        epochs=given.get("epochs"),
        sites=rules(given.get("sites"), "--sites"),
        insert=rules(given.get("insert"), "--insert"),
    )
    if isinstance(trained, Task):
        return replace(trained, options=options) if trained.options == Options() else trained
    if isinstance(trained, str):
        return Task(trained, imported(trained), None, options)
    return Task.of(trained, options)  # type: ignore[arg-type]  # a Recipe is no task


def data_of(given: Mapping[str, Any]) -> Data:
    """The data of a task.

    Raises:
        DropkitValueError: there are none, or too many.
        DataError: they cannot be read, or do not fit.
    """
    train, test, source = given.get("train"), given.get("test"), given.get("data")
    if train is not None and source is not None:
        raise DropkitValueError("data and train both say what is trained on: leave one out")
    if train is not None and test is None:
        raise DropkitTypeError("train=(X, y) needs test=(X, y), the samples that strategies are compared on")
    if train is None and source is None:
        raise DropkitValueError(
            "a model of your own needs data: --data FILE, FOLDER or NAME, such as --data tab.npz or --data digits; "
            "from Python also train=(X, y), test=(X, y); a loop of your own needs none, and takes (strategy, seed)"
        )
    words = {name: given.get(name) for name in ("target", "test", "kind", "data_dir", "image_size")}
    if train is None:
        return load(source, **words)
    if isinstance(test, int | float | str | Path):  # the part of these that becomes the test part
        return load(train, **words)
    return load({"train": train, "test": test}, **{**words, "test": None})


def _with_settings(recipe: Recipe, given: Mapping[str, Any]) -> Recipe:
    """A recipe at other settings than its own."""
    foreign = [name for name in (*OF_DATA, *OF_TASK) if name in given and name not in OF_BOTH]
    if foreign:
        option, value = "--" + foreign[0].replace("_", "-"), given[foreign[0]]
        text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        raise DropkitValueError(
            f"{option} {text!r} is for a model of your own, and {recipe.name!r} is a recipe, which says "
            f"that itself: leave it out, or give module:factory"
        )
    changes = {name: given[name] for name in OF_BOTH if name in given}
    if "batch_size" in changes:
        at_least_one("batch size", changes["batch_size"])
    if "learning_rate" in changes:
        checked_rate(changes["learning_rate"])
    if "optimizer" in changes:
        recipe.engine.check_optimizer(changes["optimizer"])
    return replace(recipe, settings=_Changed(recipe.settings, changes)) if changes else recipe


class _Changed:
    """A recipe's settings, some of them others."""

    def __init__(self, settings: Callable[[str, str], Settings], changes: Mapping[str, Any]) -> None:
        self.settings, self.changes = settings, changes

    def __call__(self, size: str, data: str) -> Settings:
        """The settings at a size."""
        return replace(self.settings(size, data), **self.changes)


def source_name(source: str | Path | None) -> str:
    """What data are called in the name of a folder.

    >>> source_name("some/tab.npz"), source_name(None)
    ('tab.npz', 'data')
    """
    return Path(str(source)).name.replace(":", "-") or "data" if source is not None else "data"
