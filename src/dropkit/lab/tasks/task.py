"""What is to be trained, by a user's own model: a task; and the recipe that it comes to on some data.

    recipe = recipe_of(Task("my_models:cnn", make_cnn), data)

The model is made once and looked at, by the part that knows its framework: where it drops, how its inputs enter, and
whether its outputs fit. Then plans, runs, tables and searches treat the recipe as any other.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any, Protocol

from ...errors import DropkitTypeError, DropkitValueError, UnknownNameError
from ...frontends import is_keras, is_nnx, is_torch
from ...visible import a_type
from ..data.sets import Data
from ..imported import generators_kept, made
from ..recipes.engine import Engine
from ..recipes.learning_rate import CONSTANT, USUAL, check_schedule, checked_rate
from ..recipes.objective import BINARY, CLASSES, Objective
from ..recipes.recipe import Recipe, at_least_one
from .chosen import told_of
from .examined import Examined as Examined
from .examined import Place as Place
from .settings import TaskSettings as TaskSettings
from .spec import Rule
from .strategies import NONE, OWN, Elsewhere, strategies

FACTORY = "a function without arguments (or of seed) that returns the model"
EPOCHS, SEEDS, BATCH = 20, 5, 64
TINY = {"epochs": 2, "seeds": 2, "train_samples": 512, "test_samples": 512}
LEARNING_RATES = {"sgd": 0.1}
KNOWN = (("keras", is_keras), ("torch", is_torch), ("nnx", is_nnx))
INTERVALS = 5  # in which strategies that fall in steps do so


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a user may say of how a model is trained; None is a default, which is told.

    Args:
        loss, metric: by name or as `module:name`, see `Objective`.
        optimizer: "sgd", "adam", "adamw", "rmsprop", or `module:name` of a class.
        learning_rate: of it.
        schedule: of the learning rate: "constant", "cosine", "one-cycle", "step", or `module:name` of a function
            (step, steps) that gives a factor.
        batch_size, epochs: as they say.
        sites: what the model's own dropouts are in `as-is`: "PATTERN=SPEC".
        insert: where dropouts are put in, and which: "PATTERN=SPEC".
    """

    loss: str | None = None
    metric: str | None = None
    optimizer: str | None = None
    learning_rate: float | None = None
    schedule: str | None = None
    batch_size: int | None = None
    epochs: int | None = None
    sites: tuple[Rule, ...] = ()
    insert: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """A model of the user's, and how it is to be trained.

    Args:
        name: as it is called, such as "my_models:cnn".
        make: a function without arguments, or of `seed`, that returns the model; all generators are seeded before.
        framework: "torch", "keras" or "nnx"; None for what the model is of.
        options: see `Options`.

    >>> Task.of(dict).name
    'builtins:dict'
    """

    name: str
    make: Callable[..., Any]
    framework: str | None = None
    options: Options = field(default_factory=Options)

    @classmethod
    def of(cls, make: Callable[..., Any], options: Options | None = None) -> "Task":
        """The task of a function, named after it."""
        name = getattr(make, "__qualname__", None) or type(make).__name__
        return cls(f"{getattr(make, '__module__', None) or 'python'}:{name}", make, None, options or Options())

    def made(self, seed: int) -> Any:
        """The model with the first weights of a seed; of (model, inputs) the model."""
        if any(is_one(self.make) for _, is_one in KNOWN):
            raise DropkitTypeError(
                f"{self.name} is a model, and each run needs one with first weights of its own: give {FACTORY}"
            )
        found = made(self.name, self.make, seed, FACTORY)
        return found[0] if isinstance(found, tuple) and found else found


class Framework(Protocol):
    """What knows the models of a framework."""

    engine: Engine
    learned: tuple[str, ...]
    """Strategies by gradient that its engine trains."""

    def examine(self, task: Task, model: Any, data: Data, objective: Objective) -> Examined:
        """Look at a model, which may be used up: its sites, how samples enter, and whether its outputs fit.

        Raises:
            DropkitError: it does not run on the data, or its outputs do not fit the targets.
        """

    def check_optimizer(self, name: str) -> None:
        """Refuse an optimizer that there is not."""

    def check(self, settings: TaskSettings, examined: Examined) -> None:
        """Refuse a kind that does not fit where a strategy puts it."""

    def build(self, model: Any, settings: TaskSettings, examined: Examined) -> Any:
        """The model with a dropout of dropkit's at each site, as settings say."""


FRAMEWORKS = {
    "torch": "dropkit.lab.tasks.torch_models:TorchModels",
    "keras": "dropkit.lab.tasks.keras_models:KerasModels",
    "nnx": "dropkit.lab.tasks.nnx_models:NnxModels",
}


def framework_of(task: Task, model: Any) -> str:
    """The framework of a model.

    Raises:
        DropkitTypeError: it is none of a known framework.
    """
    if task.framework is not None:
        if task.framework not in FRAMEWORKS:
            raise UnknownNameError("framework", task.framework, FRAMEWORKS)
        return task.framework
    for name, is_one in KNOWN:
        if is_one(model):
            return name
    what = "None" if model is None else f"the class {model.__name__}" if isinstance(model, type) else a_type(model)
    raise DropkitTypeError(
        f"{task.name} makes {what}, and models of torch, Keras and flax.nnx are trained: give {FACTORY}"
    )


def models(framework: str) -> Framework:
    """What knows the models of a framework, by its name."""
    module, _, name = FRAMEWORKS[framework].partition(":")
    found: Framework = getattr(import_module(module), name)()
    return found


@dataclass(frozen=True, slots=True)
class Build:
    """A recipe's `build` for a task."""

    task: Task
    framework: str
    examined: Examined

    def __call__(self, settings: TaskSettings, shape: tuple[int, ...], classes: int, seed: int) -> Any:
        """The model with the first weights of a seed, its dropouts those of a strategy."""
        return models(self.framework).build(self.task.made(seed), settings, self.examined)

    def check(self, settings: TaskSettings) -> None:
        """Refuse what a strategy would put where it does not fit."""
        models(self.framework).check(settings, self.examined)


@dataclass(frozen=True, slots=True)
class Sized:
    """A recipe's `settings` for a task: the same on all data, fewer samples and epochs at the size tiny."""

    base: TaskSettings

    def __call__(self, size: str, data: str) -> TaskSettings:
        """The settings at a size."""
        return replace(self.base, **TINY) if size == "tiny" else self.base  # type: ignore[arg-type]


def recipe_of(task: Task, data: Data) -> Recipe:
    """The recipe that a task comes to on some data. The model is made once and looked at.

    Raises:
        DropkitError: no model, one that does not fit the data, a model without dropouts into which none is inserted,
            an option that does not fit; see the message.
    """
    with generators_kept():
        model = task.made(0)
        framework = framework_of(task, model)
        known = models(framework)
        objective = _objective(data, task.options)
        _check_names(task.options, known)
        examined = known.examine(task, model, data, objective)
    settings = _settings(task, data, framework, examined)
    about = told_of(task.name, data, settings, examined)
    own = {site: place.p for site, place in examined.places.items()}
    return Recipe(
        name=task.name,
        summary=about[0],
        about=about,
        settings=Sized(settings),
        strategies=strategies(own, known.learned),
        feeds={site: place.feeds for site, place in examined.places.items()},
        build=Build(task, framework, examined),  # type: ignore[arg-type]  # of its own settings
        compared=(NONE, OWN),
        engine=known.engine,
        data=data.name,
        figures=examined.objective.figures,
        objective=examined.objective,
        elsewhere=Elsewhere(own, frozenset(site for site, place in examined.places.items() if place.inserted)),
        own_draws=True,
    )


def _objective(data: Data, options: Options) -> Objective:
    """What is trained for, before the outputs are seen; names that two classes have with one output alone are that."""
    try:
        return Objective.of(data.kind, options.loss, options.metric)
    except DropkitValueError:
        if (data.kind, data.classes) != (CLASSES, 2):
            raise
        try:
            return Objective.of(BINARY, options.loss, options.metric)
        except DropkitValueError:
            pass
        raise


def _check_names(options: Options, known: Framework) -> None:
    """Refuse names that there are not, before anything runs."""
    if options.optimizer is not None:
        known.check_optimizer(options.optimizer)
    check_schedule(options.schedule or CONSTANT)
    if options.learning_rate is not None:
        checked_rate(options.learning_rate)


def _settings(task: Task, data: Data, framework: str, examined: Examined) -> TaskSettings:
    options = task.options
    optimizer = options.optimizer or "adam"
    rate = options.learning_rate
    epochs = EPOCHS if options.epochs is None else at_least_one("epochs", options.epochs)
    batch = min(BATCH, 1 << max(3, (len(data.train_x) // 16).bit_length() - 1))
    return TaskSettings(
        epochs=epochs,
        seeds=SEEDS,
        batch_size=batch if options.batch_size is None else at_least_one("batch size", options.batch_size),
        learning_rate=LEARNING_RATES.get(optimizer, USUAL) if rate is None else float(rate),
        step_epochs=max(1, epochs // INTERVALS),
        optimizer=optimizer,
        kind=examined.objective.kind,
        loss=examined.objective.loss,
        metric=examined.objective.metric,
        framework=framework,
        schedule=options.schedule or CONSTANT,
        sites=tuple(map(str, options.sites)),
        insert=tuple(map(str, options.insert)),
        model=examined.sum,
    )
