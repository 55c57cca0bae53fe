"""What a recipe is: settings for each size, strategies as rates for each site, and a model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..axes.rate import Rate, probability
from ..errors import DropkitTypeError, DropkitValueError, UnknownNameError

if TYPE_CHECKING:
    from torch import nn

SIZES = ("tiny", "small", "full")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The numbers of a recipe at one size and on one data set; None: the whole set, torch's own threads."""

    epochs: int
    seeds: int
    batch_size: int
    learning_rate: float
    weight_std: float
    hidden: tuple[int, ...]
    step_epochs: int
    train_samples: int | None = None
    test_samples: int | None = None
    threads: int | None = None


Rates = dict[str, Rate]
StrategyRates = Callable[[Settings, int, tuple[float, ...]], Rates]
"""(settings, optimizer steps an epoch, rates written after the strategy's name) -> the rate of each site."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A model, its settings and the strategies it can be trained under.

    Args:
        name: as on the command line.
        summary: one line.
        settings: (size, data set name) -> Settings.
        strategies: name -> the rates of each site.
        build: (settings, image shape, classes, seed) -> a torch module with its first weights.
    """

    name: str
    summary: str
    settings: Callable[[str, str], Settings]
    strategies: Mapping[str, StrategyRates]
    build: "Callable[[Settings, tuple[int, ...], int, int], nn.Module]"


@dataclass(frozen=True, slots=True)
class Strategy:
    """A strategy as written on the command line: a name and, after colons, rates.

    >>> Strategy.parse("fixed:.2:0.5")
    Strategy(name='fixed', values=(0.2, 0.5))
    >>> str(Strategy.parse("fixed:.2:0.5")), Strategy.parse("fixed:.2:0.5").folder
    ('fixed:0.2:0.5', 'fixed-0.2-0.5')
    """

    name: str
    values: tuple[float, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Strategy":
        """Read "name" or "name:p:p".

        Raises:
            DropkitTypeError: the text is not a string, or a rate is not a number.
            DropkitValueError: a rate is NaN or outside [0, 1].
        """
        if not isinstance(text, str):
            raise DropkitTypeError(f"a strategy is a name such as 'fixed' or 'fixed:0.2:0.5', got {text!r}")
        name, *rates = text.split(":")
        return cls(name, tuple(_rate(rate, text) for rate in rates))

    def __str__(self) -> str:
        return ":".join([self.name, *map(repr, self.values)])

    @property
    def folder(self) -> str:
        """The name of the strategy's folder."""
        return str(self).replace(":", "-")


def _rate(text: str, strategy: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise DropkitTypeError(
            f"strategy {strategy!r}: p must be a number in [0, 1], got {text!r}; write for example fixed:0.2:0.5"
        ) from None
    try:
        return probability("p", value)
    except DropkitValueError as error:
        raise DropkitValueError(f"strategy {strategy!r}: {error}; write for example fixed:0.2:0.5") from None


def strategy_rates(recipe: Recipe, strategy: Strategy, settings: Settings, steps: int) -> Rates:
    """The rate of each site under a strategy, where an epoch has `steps` optimizer steps.

    Raises:
        UnknownNameError: the recipe has no such strategy.
        DropkitValueError: the strategy does not take that many rates.
    """
    if strategy.name not in recipe.strategies:
        raise UnknownNameError("strategy", strategy.name, recipe.strategies)
    return recipe.strategies[strategy.name](settings, steps, strategy.values)


def sized(recipe: Recipe, size: str, data: str, epochs: int | None) -> Settings:
    """A recipe's settings at a size, with another number of epochs where one is given.

    Raises:
        UnknownNameError: no such size.
        DropkitValueError: fewer than one epoch.
    """
    if size not in SIZES:
        raise UnknownNameError("size", str(size), SIZES)
    settings = recipe.settings(size, data)
    return settings if epochs is None else replace(settings, epochs=at_least_one("epochs", epochs))


def at_least_one(name: str, value: int) -> int:
    """The value, a whole number of 1 or more, or an error that names it."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise DropkitTypeError(f"{name} must be a whole number, got {value!r} of type {type(value).__name__}")
    if value < 1:
        raise DropkitValueError(f"{name} must be at least 1, got {value}")
    return value
