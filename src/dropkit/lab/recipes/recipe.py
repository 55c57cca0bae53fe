"""What a recipe is: settings for each size, strategies as what moves the rate of each site, and a model."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ...axes.rate import Rate, controllers
from ...errors import DropkitTypeError, DropkitValueError, UnknownNameError
from ...patterns import listed, matches, unmatched
from .engine import TORCH, Engine, engine_of
from .measures import CLASSIFICATION, Figures
from .objective import Objective
from .strategy import Strategy as Strategy

if TYPE_CHECKING:
    from ..data.sets import Data

TUTORIAL = "tutorial"
SIZES = ("tiny", "small", "full", TUTORIAL)

LATER = {"later": True}  # of settings that records of older runs do not have

LEARNING = ("concrete", "disarm", "hypergradient")
METHODS = (*LEARNING, "pathwise", "literal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The numbers of a recipe at one size and on one data set; None: the whole set, torch's own threads.

    Args:
        epochs, seeds, batch_size, learning_rate, weight_decay: as they say; weight_decay is L2 in the gradient.
        optimizer: of the weights, "sgd" or "adam", and on Keras "rmsprop".
        weight_std: of the first weights; None for He's sqrt(2 / fan-in).
        hidden, channels: widths of the dense layers, and of the convolutions where there are any.
        step_epochs: strategy `step` falls every so many epochs, where its name gives no interval.
        validation: fraction held out where the caller does not say.
        evaluated: how many training samples are scored with dropout off after each epoch, the first ones.
        rate_learning_rate: of Adam, for learned rates.
        hypergradient_every: steps from one hypergradient to the next.
        gap_target, gap_gain: of strategy `gap`, validation loss minus training loss, see `Gap`.
        image_size: side to which the images of a folder or an archive are resized; None for the loader's own.
        first_weights: the law of the first weights, "normal" (see weight_std), "glorot" or "torch"; see
            `first_weight`.
        iterations: how many steps an epoch has, each on a batch that is drawn with replacement, of recipes on NumPy;
            None for an epoch that goes once through the data.
        l2: times the sum of the squared weights, biases left out, is added to the loss: a gradient of 2 x l2 x weight.

    >>> from dropkit.lab.recipes import get
    >>> get("mlp").settings("tiny", "digits").hidden
    (256, 256)
    """

    epochs: int
    seeds: int
    batch_size: int
    learning_rate: float
    hidden: tuple[int, ...]
    step_epochs: int
    weight_std: float | None = None
    channels: tuple[int, ...] = ()
    optimizer: str = "sgd"
    weight_decay: float = 0.0
    validation: float = 0.0
    train_samples: int | None = None
    test_samples: int | None = None
    evaluated: int = 10_000
    threads: int | None = None
    rate_learning_rate: float = 0.01
    hypergradient_every: int = 4
    gap_target: float = 0.05
    gap_gain: float = 2.0
    image_size: int | None = field(default=None, metadata=LATER)
    first_weights: str = field(default="normal", metadata=LATER)
    l2: float = field(default=0.0, metadata=LATER)
    iterations: int | None = field(default=None, metadata=LATER)

    def record(self) -> dict[str, Any]:
        """As plain values for config.json; what older runs did not have is left out where it is at its default.

        >>> from dropkit.lab.recipes import get
        >>> record = get("mlp").settings("tiny", "digits").record()
        >>> record["hidden"], "l2" in record
        ([256, 256], False)
        """
        old = {field.name for field in fields(self) if field.metadata.get("later")}
        kept = {field.name: field.default for field in fields(self) if field.name in old}
        found = {name: value for name, value in asdict(self).items() if name not in kept or value != kept[name]}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedRate:
    """A rate that is a parameter with a gradient, moved by an Adam of its own.

    Args:
        method: "concrete" (through a relaxed mask), "disarm" (hard masks, from two coupled passes), "hypergradient"
            (through a relaxed mask, from the validation loss after a step of training), or two that show what does not
            work: "pathwise" (through the scale alone) and "literal" (the same, and the new value taken for the step).
        start: the first rate.
        bounds: between which it is held.
        learning_rate: of its Adam.
        every: steps from one update of a hypergradient to the next.
    """

    method: str
    start: float
    bounds: tuple[float, float] = (0.0, 1.0)
    learning_rate: float = 0.01
    every: int = 1

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UnknownNameError("method", self.method, METHODS)


Rates = dict[str, Rate | LearnedRate]
StrategyRates = Callable[[Settings, int, tuple[float, ...]], Rates]
"""(settings, optimizer steps an epoch, numbers after the strategy's name) -> what moves the rate of each site."""


@runtime_checkable
class ChangesSettings(Protocol):
    """A strategy that trains at other settings than the recipe's."""

    def changed(self, settings: Settings, values: tuple[float, ...]) -> Settings:
        """The settings that it trains at, by the numbers written after its name."""


@runtime_checkable
class Limited(Protocol):
    """Settings that hold to which sites a strategy is limited, because the model is made by it."""

    def limited(self, places: str) -> Any:
        """The settings with that pattern."""


@runtime_checkable
class Checks(Protocol):
    """What builds a model, and knows beforehand whether it can at some settings."""

    def check(self, settings: Any) -> None:
        """Refuse settings that it cannot build a model at."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Data as the model takes it, where that is worth computing once, before the first epoch.

    Args:
        data: what the model sees, under the name and the fingerprint of what it comes from.
        about: what was done, for config.json; a resumed run must say the same.
        remarks: what a reader of the results has to know, in sentences.
        seconds: that it takes for one sample, as measured when it was computed.
    """

    data: "Data"
    about: str
    remarks: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Recipe:
    """A model, its settings and the strategies it can be trained under.

    Args:
        name: as on the command line.
        summary: one line.
        settings: (size, data set name) -> Settings.
        strategies: name -> what moves the rate of each site.
        feeds: site -> the path of the layer that it feeds, whose weights a learned rate's penalty is about.
        build: (settings, image shape, classes, seed) -> a torch module, or for the engine "keras" a built Keras model
            that ends in probabilities, with its first weights and a Dropout of dropkit's at each site, or at a torch
            module's a number that its forward hands to a function; for "numpy" the layers of `dropkit.numpy` by name.
        compared: the strategies of a comparison that names none; all by default.
        engine: what trains it, an Engine or its name: "torch", "keras" for `keras.Model.fit`, "numpy" for layers with
            their own backward pass, or "adversarial" for two torch networks, one against the other.
        data: the data set of a run that names none.
        tutorial_data: the same at size "tutorial", whose settings are those of the recipe's tutorial; None for a recipe
            that follows none.
        prepare: (data, settings, file of weights or None) -> Prepared; None where the model takes the data as it is.
        whole: settings -> the model together with the network that prepares its data, which is what `explain` runs.
        figures: what its runs measure, and by which of these figures strategies are compared.
        objective: what its model is trained for: the kind of the targets, the loss and the metric.
        elsewhere: the rates of sites that a strategy's @PATTERN leaves out; those of "fixed" by default.
        own_draws: whether its model may draw from generators of others, which are then seeded at each epoch's start.
        about: what was chosen, in sentences that are told before it is trained.
        needs: packages beside those of every recipe, as (what is imported, what is installed).

    >>> from dropkit.lab.recipes import get
    >>> get("mlp").engine.name, list(get("mlp").feeds)
    ('torch', ['dropout1', 'dropout2'])
    """

    name: str
    summary: str
    settings: Callable[[str, str], Settings]
    strategies: Mapping[str, StrategyRates]
    feeds: Mapping[str, str]
    build: Callable[[Settings, tuple[int, ...], int, int], Any]
    compared: tuple[str, ...] = ()
    engine: Engine = TORCH
    data: str = "digits"
    tutorial_data: str | None = None
    prepare: "Callable[[Data, Settings, Path | None], Prepared] | None" = None
    whole: Callable[[Settings], Any] | None = None
    figures: Figures = CLASSIFICATION
    objective: Objective = field(default_factory=Objective)
    elsewhere: StrategyRates | None = None
    own_draws: bool = False
    about: tuple[str, ...] = ()
    needs: tuple[tuple[str, str], ...] = ()

    @property
    def usual(self) -> str:
        """The strategy of a run that names none: the rates that its model has."""
        return "as-is" if "as-is" in self.strategies else "fixed"

    @property
    def sizes(self) -> tuple[str, ...]:
        """The sizes that it has.

        >>> from dropkit.lab.recipes import get
        >>> get("mlp").sizes
        ('tiny', 'small', 'full', 'tutorial')
        """
        return tuple(size for size in SIZES if size != TUTORIAL or self.tutorial_data is not None)

    def data_at(self, size: str) -> str:
        """The data set of a run of this size that names none.

        >>> from dropkit.lab.recipes import get
        >>> get("mlp").data_at("small"), get("mlp").data_at("tutorial")
        ('digits', 'fashion-mnist')
        """
        return self.tutorial_data if size == TUTORIAL and self.tutorial_data is not None else self.data

    def needed(self) -> str:
        """What it needs beside the lab, and whether that is installed.

        >>> from dropkit.lab.recipes import get
        >>> get("mlp").needed()
        'needs nothing else'
        """
        if not self.needs:
            return "needs nothing else"
        missing = [package for module, package in self.needs if find_spec(module) is None]
        words = " and ".join({"PIL": "pillow", "keras": "Keras"}.get(module, module) for module, _ in self.needs)
        how = f"not installed: pip install {' '.join(missing)}" if missing else "installed"
        return f"needs {words}, {how}"

    def __post_init__(self) -> None:
        object.__setattr__(self, "engine", engine_of(self.engine))


def learned_method(rates: Rates) -> str | None:
    """How a strategy's learned rates get their gradient; None where it has none.

    Raises:
        DropkitValueError: two methods in one strategy.

    >>> learned_method({"drop1": LearnedRate(method="disarm", start=0.5)})
    'disarm'
    """
    found = {rate.method for rate in rates.values() if isinstance(rate, LearnedRate)}
    if len(found) > 1:
        raise DropkitValueError(f"one strategy learns its rates by one method, got {', '.join(sorted(found))}")
    return found.pop() if found else None


def needs_validation(rates: Rates) -> bool:
    """Whether a strategy is steered by data held out from training."""
    controlled = any(controllers(rate) for rate in rates.values() if not isinstance(rate, LearnedRate))
    return controlled or learned_method(rates) == "hypergradient"


def strategy_rates(recipe: Recipe, strategy: Strategy, settings: Settings, steps: int) -> Rates:
    """The rate of each site under a strategy, where an epoch has `steps` optimizer steps.

    Raises:
        UnknownNameError: the recipe has no such strategy.
        DropkitValueError: the strategy does not take these numbers.
    """
    if strategy.name not in recipe.strategies:
        raise _missing(recipe, strategy.name)
    found = recipe.strategies[strategy.name](settings, steps, strategy.values)
    found = _limited(recipe, strategy, found, settings, steps) if strategy.places else found
    for site, rate in found.items():
        if isinstance(rate, LearnedRate) and not recipe.feeds.get(site, site):
            raise DropkitValueError(
                f"strategy {str(strategy)!r} would learn the rate of {site}, which is a number that a module hands "
                f"over, or has no layer with weights behind it: limit it to other sites, as in {strategy.name}@PATTERN"
            )
    return found


def _missing(recipe: Recipe, name: str) -> DropkitValueError:
    """The error for a strategy that a recipe does not have."""
    if name not in LEARNING or recipe.engine.framework == TORCH.framework:
        return UnknownNameError("strategy", name, recipe.strategies)
    others = [other for other in ("gap", "step", "fixed") if other in recipe.strategies]
    return DropkitValueError(
        f"strategy {name!r} learns its rates by gradient, which the lab does for models of torch alone, and "
        f"{recipe.name} is trained with {recipe.engine.title}: take {' or '.join(others) or recipe.usual}, or a model "
        "of torch"
    )


def _limited(recipe: Recipe, strategy: Strategy, found: Rates, settings: Settings, steps: int) -> Rates:
    """A strategy's rates where its pattern matches, those of the model as it is elsewhere."""
    if not any(matches([site], strategy.places) for site in found):
        raise unmatched(f"strategy {str(strategy)!r}", "no site", recipe.name, listed(found))
    elsewhere = recipe.elsewhere or recipe.strategies.get("fixed")
    if elsewhere is None:
        raise DropkitValueError(f"recipe {recipe.name!r} has no rates of its own: leave @{strategy.places} out")
    others = elsewhere(settings, steps, ())
    return {site: rate if matches([site], strategy.places) else others[site] for site, rate in found.items()}


def strategy_settings(recipe: Recipe, strategy: Strategy, settings: Settings) -> Settings:
    """The settings that a strategy trains at: the recipe's, but for a strategy that changes them."""
    found = recipe.strategies.get(strategy.name)
    if isinstance(found, ChangesSettings):
        settings = found.changed(settings, strategy.values)
    if isinstance(settings, Limited) and strategy.places:
        settings = settings.limited(strategy.places)
    if isinstance(recipe.build, Checks):
        recipe.build.check(settings)
    return settings


def sized(recipe: Recipe, size: str, data: str, epochs: int | None) -> Settings:
    """A recipe's settings at a size, with another number of epochs where one is given.

    Raises:
        UnknownNameError: no such size.
        DropkitValueError: fewer than one epoch.
    """
    if size not in recipe.sizes:
        raise UnknownNameError("size", str(size), recipe.sizes)
    settings = recipe.settings(size, data)
    return settings if epochs is None else replace(settings, epochs=at_least_one("epochs", epochs))


def at_least_one(name: str, value: int) -> int:
    """The value, a whole number of 1 or more, or an error that names it."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise DropkitTypeError(f"{name} must be a whole number, got {value!r} of type {type(value).__name__}")
    if value < 1:
        raise DropkitValueError(f"{name} must be at least 1, got {value}")
    return value
