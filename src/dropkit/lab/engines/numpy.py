"""The engine without a framework: layers of `dropkit.numpy` with their own backward pass, plain gradient descent."""

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from ...errors import DataError, DropkitValueError
from ...numpy import Dense, Dropout, Sequential
from ..files.arrays import load_arrays, save_arrays
from ..order import CHUNK, drawn_with_replacement, epoch_order
from ..plan import Plan
from ..recipes.recipe import Settings
from .by_hand import right, score, train_epoch
from .calibration import Calibration, figures
from .checkpoint import Progress
from .moves import Moves, not_learned


class NumpyTrainer:
    """Layers and their data, trained an epoch at a time; as `dropkit.lab.engines.torch.Trainer` is for torch."""

    def __init__(self, plan: Plan) -> None:
        choices = plan.choices
        _check(choices.settings)
        self.plan, self.seed, self.settings = plan, plan.seed, choices.settings
        layers = choices.recipe.build(choices.settings, choices.data.shape, choices.data.classes, plan.seed)
        self.layers: dict[str, Dense] = layers
        self.network = Sequential(*self.layers.values())
        self.drops: dict[str, Dropout] = {
            str(layer.drop.key.site): layer.drop for layer in self.layers.values() if layer.drop is not None
        }
        self.sites = Moves(self.drops, not_learned(plan.rates))
        # Layers take batch x features; a view, which the two sets' parts share.
        self.parts = {name: (x.reshape(len(x), -1), y, index) for name, (x, y, index) in choices.parts().items()}

    def epoch(self, number: int, step: int) -> dict[str, Any]:
        """Train one epoch, counted from 1, that begins at an optimizer step counted from 0; then score all parts."""
        start = time.perf_counter()
        x, y, kept = self.parts["train"]
        found = train_epoch(
            self.network,
            x,
            y,
            kept[self._order(len(kept), number, step)],
            batch_size=self.settings.batch_size,
            learning_rate=self.settings.learning_rate,
            l2=self.settings.l2,
            before_step=lambda within: self.sites.set(step + within),
        )
        step += self.plan.choices.steps
        row: dict[str, Any] = {"epoch": number, "step": step, **_named("train", found)}
        for name, part in self.parts.items():
            if name != "train":
                row |= _named(name, score(self.network, *part))
        row |= self._calibration()
        row |= self.sites.row(step)
        self.sites.feed_back(row)
        return row | {"seconds": round(time.perf_counter() - start, 4)}

    def _calibration(self) -> dict[str, float]:
        x, y, index = self.parts["test"]
        found = Calibration()
        for part in np.split(index, range(CHUNK, len(index), CHUNK)):
            logits = self.network.forward(x[part], training=False)
            found.add(torch.from_numpy(logits), torch.from_numpy(y[part]))
        return figures(found)

    def sample_scores(self) -> NDArray[np.float32]:
        """Of each test sample whether its class is right, after the last epoch."""
        return right(self.network, *self.parts["test"])

    def _order(self, samples: int, number: int, step: int) -> NDArray[np.int64]:
        """Which samples an epoch trains on, in order: each once, or batches drawn with replacement."""
        settings = self.settings
        if settings.iterations is None:
            return epoch_order(samples, self.seed, number)
        steps = range(step, step + settings.iterations)
        return np.concatenate([drawn_with_replacement(samples, settings.batch_size, self.seed, s) for s in steps])

    def save_weights(self, path: Path, about: Mapping[str, Any]) -> None:
        """The weights by their names, such as "hidden1.weight"; `about` goes into the header as JSON."""
        save_arrays(path, self._weights(), about)

    def save(self, path: Path, progress: Progress) -> None:
        """Write everything that the next epoch depends on."""
        save_arrays(path, self._state(), {"controllers": self.sites.state(), **asdict(progress)})

    def load(self, path: Path) -> Progress:
        """Go on from a saved state.

        Raises:
            DataError: the file is missing, damaged or belongs to another network or strategy.
        """
        state = self._state()
        try:
            arrays, header = load_arrays(path, set(state))
            for name, array in self._weights().items():
                if arrays[name].shape != array.shape:
                    raise DropkitValueError(f"its {name} is of shape {arrays[name].shape}, not {array.shape}")
                array[...] = arrays[name]
            for site, drop in self.drops.items():
                drop.step = int(arrays[f"{site}.step"])
            self.sites.load(header["controllers"])
            return Progress.of(header)
        except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"cannot resume from {path}: {error}; delete its folder and run again") from error

    def _weights(self) -> dict[str, NDArray]:
        return {
            f"{name}.{part}": getattr(layer, part) for name, layer in self.layers.items() for part in ("weight", "bias")
        }

    def _state(self) -> dict[str, NDArray]:
        """Weights, and how many masks each dropout has drawn."""
        steps = {f"{site}.step": np.array(drop.step, np.int64) for site, drop in self.drops.items()}
        return self._weights() | steps


def _named(part: str, figures: Mapping[str, float]) -> dict[str, float]:
    return {f"{part}_{name}": value for name, value in figures.items()}


def _check(settings: Settings) -> None:
    if settings.optimizer != "sgd" or settings.weight_decay:
        raise DropkitValueError(
            f"recipes on NumPy train by plain gradient descent, got optimizer {settings.optimizer!r} with weight_decay "
            f"{settings.weight_decay}; use 'sgd' and 0"
        )
