"""Everything that decides a run's numbers, checked before the first step and written as its config.json."""

import math
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..counter import Key
from ..errors import DropkitTypeError, DropkitValueError, OutputError, UnknownNameError
from . import pictures, recipes
from .data.sets import Data, load_data
from .files import claim, read_sealed_json, write_sealed
from .keras_backend import require
from .order import held_out
from .recipes.recipe import Prepared, Rates, Recipe, Settings, Strategy, needs_validation, sized, strategy_rates

DEVICES = ("auto", "cpu", "cuda")
# 16-mixed is left out: its loss scale is a state that a resumed run would have to carry too.
PRECISIONS = ("32-true", "64-true", "bf16-mixed", "bf16-true")
FORMAT = 2


@dataclass(frozen=True, slots=True)
class Choices:
    """What the caller chooses besides strategy and seed; checked on construction, see `train` for the meanings."""

    recipe: Recipe
    data: Data
    size: str
    settings: Settings
    validation: float
    device: str
    precision: str
    prepared: Prepared | None = None

    @classmethod
    def make(
        cls,
        recipe: str | Recipe,
        data: str | Path | Data | None,
        size: str,
        epochs: int | None,
        validation: float | None,
        device: str,
        precision: str,
        data_dir: str | Path | None,
        weights: str | Path | None = None,
    ) -> "Choices":
        """Check the choices, load the data and prepare it where the recipe asks for that; cheap checks come first."""
        found = recipes.get(recipe)
        data = found.data if data is None else data
        name = data.name if isinstance(data, Data) else str(data)
        settings = sized(found, size, name, epochs)
        held = _fraction(settings.validation if validation is None else validation)
        if precision not in PRECISIONS:
            raise UnknownNameError("precision", str(precision), PRECISIONS)
        device = _device(device, found)
        _check_engine(found, precision, weights)
        _check_figures(found, held)
        loaded = data if isinstance(data, Data) else load_data(data, data_dir, settings.image_size)
        if found.prepare is None:
            return cls(found, loaded, size, settings, held, device, precision)
        prepared = found.prepare(loaded, settings, None if weights is None else Path(weights))
        return cls(found, prepared.data, size, settings, held, device, precision, prepared)

    @property
    def train_samples(self) -> int:
        """Training samples at this size, those held out included."""
        return min(self.settings.train_samples or len(self.data.train_x), len(self.data.train_x))

    @property
    def steps(self) -> int:
        """Optimizer steps an epoch."""
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
        settings = asdict(self.settings)
        if self.settings.image_size is None:
            del settings["image_size"]
        settings = {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
        epochs, seeds = settings.pop("epochs"), settings.pop("seeds")
        del settings["validation"]  # what counts is what was chosen
        engine = {} if self.recipe.engine == "torch" else {"engine": self.recipe.engine}
        if self.recipe.engine == "keras":
            engine["backend"] = require().config.backend()
        prepared = {} if self.prepared is None else {"prepared": self.prepared.about}
        return {
            "format": FORMAT,
            "recipe": self.recipe.name,
            **engine,
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
        if needs_validation(rates) and not choices.held_out:
            raise DropkitValueError(
                f"strategy {strategy!r} moves the rate by validation data, and no part is held out: hold one out with "
                "--validation, such as --validation 0.1"
            )
        return cls(choices, parsed, rates, Key(seed).seed)

    def record(self) -> dict[str, Any]:
        """As plain values for config.json."""
        choices = self.choices.record()
        del choices["seeds"]
        rates = {site: repr(rate) for site, rate in self.rates.items()}
        return {**choices, "strategy": str(self.strategy), "seed": self.seed, "rates": rates}


def _fraction(value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DropkitTypeError(f"validation must be a number in [0, 1), got {value!r} of type {type(value).__name__}")
    if not 0 <= value < 1:
        raise DropkitValueError(
            f"validation must lie in [0, 1), got {value}; 0.1 holds out a tenth of the training set"
        )
    return float(value)


def _check_engine(recipe: Recipe, precision: str, weights: str | Path | None) -> None:
    if weights is not None and recipe.prepare is None:
        raise DropkitValueError(
            f"recipe {recipe.name!r} has no frozen part, so --weights {weights} has no use; leave it out"
        )
    names = {"keras": "Keras", "numpy": "NumPy"}
    if recipe.engine in names and precision != "32-true":
        raise DropkitValueError(
            f"recipe {recipe.name!r} trains with {names[recipe.engine]} in 32-true only, got precision {precision!r}"
        )
    if recipe.engine == "keras":
        require()


def _check_figures(recipe: Recipe, held: float) -> None:
    if recipe.figures.pictures:
        pictures.require()
    if held and not recipe.figures.validated:
        raise DropkitValueError(
            f"recipe {recipe.name!r} has no validation loss, so holding out a part (validation {held}) has no use: its "
            "rates cannot be tuned; compare some, as in --strategies none,fixed:0.05,fixed:0.3, without --validation"
        )


def _device(name: str, recipe: Recipe) -> str:
    import torch

    if name not in DEVICES:
        raise UnknownNameError("device", str(name), DEVICES)
    if recipe.engine == "numpy":
        if name == "cuda":
            raise DropkitValueError(f"recipe {recipe.name!r} trains with NumPy, on the CPU: leave --device cuda out")
        return "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise DropkitValueError("device 'cuda' is not available here; use --device cpu, or auto to take what there is")
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


def open_folder(
    folder: Path,
    config: Mapping[str, Any],
    *,
    resume: bool,
    may_grow: tuple[str, ...],
    ignore: tuple[str, ...] = (),
) -> bool:
    """Claim a folder and write its config.json; or, on resume, check that it holds the same run.

    Args:
        folder: of the run.
        config: plain values.
        resume: continue what the folder holds; an empty one is started.
        may_grow: names whose values may be larger than before: numbers, or lists of names.
        ignore: names that are not compared.

    Returns:
        Whether the folder held a run.

    Raises:
        OutputError: it cannot be written, is taken, or holds a run with other settings.
    """
    started = claim(folder, resume=resume)
    if started:
        compared = {name: value for name, value in config.items() if name not in ignore}
        check_same(folder, compared, may_grow)
    write_sealed(folder / "config.json", {**config, "environment": environment()})
    return started


def check_same(folder: Path, now: Mapping[str, Any], may_grow: tuple[str, ...]) -> None:
    """Check that a folder holds a run of these settings.

    Raises:
        DataError: its config.json is damaged.
        OutputError: it holds a run with other settings.
    """
    before = read_sealed_json(folder / "config.json")
    for name in now:
        old, new = before.get(name), now[name]
        if old == new or (name in may_grow and _grows(old, new)):
            continue
        if name == "settings" and isinstance(old, dict):
            name = next(part for part in new if old.get(part) != new[part])
            old, new = old.get(name), new[name]
        more = "; it may grow on --resume, not shrink" if name in may_grow else ""
        raise OutputError(
            f"{folder} holds a run with {name} {old!r}, this one has {new!r}{more}: "
            "repeat the first settings or choose another --out"
        )


def _grows(old: Any, new: Any) -> bool:
    if isinstance(new, list):
        return isinstance(old, list) and set(old) <= set(new)
    return isinstance(old, int) and old <= new


def environment() -> dict[str, Any]:
    """What a run's numbers also depend on: versions and threads. Recorded, not compared."""
    import numpy
    import torch

    from .. import __version__

    keras = sys.modules.get("keras")
    return {
        "dropkit": __version__,
        **({} if keras is None else {"keras": keras.__version__}),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }
