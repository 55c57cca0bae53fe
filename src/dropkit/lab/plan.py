"""Everything that decides a run's numbers, checked before the first step and written as its config.json."""

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..counter import Key
from ..errors import DropkitTypeError, DropkitValueError, UnknownNameError
from . import pictures, recipes
from .data.sets import Data, load_data
from .order import held_out
from .recipes.engine import DEVICES, PRECISIONS
from .recipes.recipe import (
    Prepared,
    Rates,
    Recipe,
    Settings,
    Strategy,
    needs_validation,
    sized,
    strategy_rates,
    strategy_settings,
)

FORMAT = 2
Function = TypeVar("Function", bound=Callable[..., Any])


class Asked(TypedDict, total=False):
    """What a caller may say of how a recipe is trained, whatever the strategy and the seed; see `train`."""

    data: Any
    size: str
    epochs: int | None
    validation: float | None
    device: str
    precision: str
    data_dir: str | Path | None
    weights: str | Path | None


class Wanted(Asked, total=False):
    """The same, and what may be said of a model of the user's; see `train`."""

    train: Any
    test: Any
    target: str | None
    kind: str | None
    image_size: int | None
    loss: str | None
    metric: str | None
    optimizer: str | None
    learning_rate: float | None
    schedule: str | None
    batch_size: int | None
    sites: Any
    insert: Any


def spelled_out(**defaults: Any) -> Callable[[Function], Function]:
    """Show in a function's signature what its `**asked` may be; the defaults are those of `Choices.make`, or these."""

    def spell(function: Function) -> Function:
        own = inspect.signature(function)
        words = [word for word in own.parameters.values() if word.kind is not inspect.Parameter.VAR_KEYWORD]
        for name, word in inspect.signature(Choices.make).parameters.items():
            if name in Asked.__annotations__:
                words.append(word.replace(default=defaults.get(name, word.default)))
        more = [name for name in Wanted.__annotations__ if name not in Asked.__annotations__]
        words.extend(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in more)
        function.__signature__ = own.replace(parameters=words)  # type: ignore[attr-defined]
        return function

    return spell


@dataclass(frozen=True, slots=True)
class Choices:
    """What is chosen besides strategy and seed, as plain values; `make` checks them, see `train` for the meanings."""

    recipe: Recipe
    data: Data
    size: str
    settings: Settings
    validation: float
    device: str
    precision: str
    prepared: Prepared | None = None
    backend: str | None = None
    """What the engine's framework runs on, where that can be chosen."""

    @classmethod
    def make(
        cls,
        recipe: str | Recipe,
        *,
        data: str | Path | Data | None = None,
        size: str = "small",
        epochs: int | None = None,
        validation: float | None = None,
        device: str = "auto",
        precision: str = "32-true",
        data_dir: str | Path | None = None,
        weights: str | Path | None = None,
    ) -> "Choices":
        """Check the choices, load the data and prepare it where the recipe asks for that; cheap checks come first."""
        found = recipes.get(recipe)
        data = found.data_at(size) if data is None else data
        name = data.name if isinstance(data, Data) else str(data)
        settings = sized(found, size, name, epochs)
        held = _fraction(settings.validation if validation is None else validation)
        _check_precision(found, precision)
        device = _device(found, device)
        _check_figures(found, held)
        if weights is not None and found.prepare is None:
            raise DropkitValueError(
                f"recipe {found.name!r} has no frozen part, so --weights {weights} has no use; leave it out"
            )
        if settings.iterations is not None and found.engine.framework != "numpy":
            raise DropkitValueError(
                f"recipe {found.name!r} trains with {found.engine.title}, once through the data an epoch: iterations "
                f"{settings.iterations} is for recipes on NumPy; leave it at None"
            )
        backend = found.engine.backend() if found.engine.backend else None
        loaded = data if isinstance(data, Data) else load_data(data, data_dir, settings.image_size)
        if found.prepare is None:
            return cls(found, loaded, size, settings, held, device, precision, backend=backend)
        prepared = found.prepare(loaded, settings, None if weights is None else Path(weights))
        return cls(found, prepared.data, size, settings, held, device, precision, prepared, backend)

    @property
    def train_samples(self) -> int:
        """Training samples at this size, those held out included."""
        return min(self.settings.train_samples or len(self.data.train_x), len(self.data.train_x))

    @property
    def steps(self) -> int:
        """Optimizer steps an epoch."""
        if self.settings.iterations is not None:
            return self.settings.iterations
        return math.ceil((self.train_samples - self.held_out) / self.settings.batch_size)

    @property
    def held_out(self) -> int:
        """How many training samples are held out for validation."""
        return round(self.train_samples * self.validation)

    def parts(self) -> dict[str, tuple[NDArray, NDArray, NDArray[np.int64]]]:
        """Samples, labels, and which of them are in it, of each part of the data that is not empty."""
        data, samples = self.data, self.train_samples
        kept, held = held_out(samples, self.validation)
        train = data.train_x, data.train_y
        parts = {
            "train": (*train, kept),
            "train_eval": (*train, kept[: self.settings.evaluated]),
            "validation": (*train, held),
            "test": (data.test_x, data.test_y, np.arange(len(data.test_x))[: self.settings.test_samples]),
        }
        return {name: part for name, part in parts.items() if len(part[2])}

    def record(self) -> dict[str, Any]:
        """As plain values for config.json."""
        settings = self.settings.record()
        epochs, seeds = settings.pop("epochs"), settings.pop("seeds")
        del settings["validation"]  # what counts is what was chosen
        backend = {} if self.backend is None else {"backend": self.backend}
        prepared = {} if self.prepared is None else {"prepared": self.prepared.about}
        return {
            "format": FORMAT,
            "recipe": self.recipe.name,
            **self.recipe.engine.record(),
            **backend,
            **prepared,
            "data": self.data.name,
            "fingerprint": self.data.fingerprint,
            "size": self.size,
            "epochs": epochs,
            "seeds": seeds,
            "validation": self.validation,
            "device": self.device,
            "precision": self.precision,
            "settings": settings,
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """One run: the choices, a strategy with its rates, and a seed."""

    choices: Choices
    strategy: Strategy
    rates: Rates
    seed: int

    @classmethod
    def make(cls, choices: Choices, strategy: str, seed: int) -> "Plan":
        """Check strategy and seed."""
        parsed = Strategy.parse(strategy)
        rates = strategy_rates(choices.recipe, parsed, choices.settings, choices.steps)
        choices = replace(choices, settings=strategy_settings(choices.recipe, parsed, choices.settings))
        if needs_validation(rates) and not choices.held_out:
            raise DropkitValueError(
                f"strategy {strategy!r} moves the rate by validation data, and no part is held out: hold one out with "
                "--validation, such as --validation 0.1"
            )
        return cls(choices, parsed, rates, Key(seed).seed)

    def place(self, folder: Path) -> Path:
        """Where its run lies in the folder of a comparison."""
        return folder / self.strategy.folder / f"seed{self.seed}"

    def record(self) -> dict[str, Any]:
        """As plain values for config.json."""
        choices = self.choices.record()
        del choices["seeds"]
        rates = {site: repr(rate) for site, rate in self.rates.items()}
        return {**choices, "strategy": str(self.strategy), "seed": self.seed, "rates": rates}


def check_strategies(recipe: str | Recipe, names: Sequence[str], asked: Asked) -> None:
    """Refuse strategies that the recipe cannot train, before its data are loaded.

    Raises:
        UnknownNameError, DropkitTypeError, DropkitValueError: no such strategy, or not with these numbers.
    """
    found, data, size = recipes.get(recipe), asked.get("data"), asked.get("size", "small")
    settings = sized(found, size, data.name if isinstance(data, Data) else str(data or found.data_at(size)), None)
    for name in names:
        strategy_rates(found, Strategy.parse(name), settings, steps=1)


def _fraction(value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DropkitTypeError(f"validation must be a number in [0, 1), got {value!r} of type {type(value).__name__}")
    if not 0 <= value < 1:
        raise DropkitValueError(
            f"validation must lie in [0, 1), got {value}; 0.1 holds out a tenth of the training set"
        )
    return float(value)


def _check_precision(recipe: Recipe, precision: str) -> None:
    engine = recipe.engine
    if precision not in PRECISIONS:
        raise UnknownNameError("precision", str(precision), PRECISIONS)
    if precision not in engine.precisions:
        raise DropkitValueError(
            f"recipe {recipe.name!r} trains with {engine.title} in {' or '.join(engine.precisions)} only, got "
            f"precision {precision!r}"
        )


def _check_figures(recipe: Recipe, held: float) -> None:
    if recipe.figures.pictures:
        pictures.require()
    if held and not recipe.figures.validated:
        raise DropkitValueError(
            f"recipe {recipe.name!r} has no validation loss, so holding out a part (validation {held}) has no use: its "
            "rates cannot be tuned; compare some, as in --strategies none,fixed:0.05,fixed:0.3, without --validation"
        )


def _device(recipe: Recipe, name: str) -> str:
    import torch

    engine = recipe.engine
    if name not in DEVICES:
        raise UnknownNameError("device", str(name), DEVICES)
    if name not in engine.devices:
        raise DropkitValueError(
            f"recipe {recipe.name!r} trains with {engine.title}, on the CPU: leave --device {name} out"
        )
    if name == "cuda" and not torch.cuda.is_available():
        raise DropkitValueError("device 'cuda' is not available here; use --device cpu, or auto to take what there is")
    if name == "auto":
        return "cuda" if "cuda" in engine.devices and torch.cuda.is_available() else "cpu"
    return name
