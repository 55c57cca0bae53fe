"""The engine over `keras.Model.fit`: a Keras model trained an epoch at a time, with the data in the lab's own order.

Rates of recipes follow schedules (`dropkit.keras.RateSchedule`); learned ones need the torch engine. A run's state is
one file of tensors: the model's variables, the counters of its masks among them, and the optimizer's.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from ...axes.rate import Rate, controllers
from ...errors import DataError, DropkitValueError, UnknownNameError
from ..files.arrays import load_arrays, save_arrays
from ..keras_backend import batches, require
from ..order import CHUNK, epoch_order
from ..plan import Plan
from ..recipes.keras_weights import path_in
from ..recipes.objective import CLASSES
from ..recipes.recipe import LearnedRate, Rates, Settings
from .calibration import Calibration, figures
from .checkpoint import Progress
from .keras_losses import logits
from .scoring import TEST


class KerasTrainer:
    """A Keras model and its data, trained an epoch at a time; as `dropkit.lab.engines.torch.Trainer` is for torch."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.keras = plan, require()
        self.parts = plan.choices.parts()
        with self._device():
            self._prepare()

    def _prepare(self) -> None:
        from ...keras import bind

        choices, settings = self.plan.choices, self.plan.choices.settings
        self.rates = schedules(self.plan.rates)
        self.model = choices.recipe.build(settings, choices.data.shape, choices.data.classes, self.plan.seed)
        bind(self.model, self.plan.seed)
        self.binary = self.model.output_shape[-1] == 1
        kind = "BinaryAccuracy" if self.binary else "SparseCategoricalAccuracy"
        self.model.compile(
            optimizer=_optimizer(self.keras, settings),
            loss="binary_crossentropy" if self.binary else "sparse_categorical_crossentropy",
            metrics=[getattr(self.keras.metrics, kind)(name="accuracy")],
        )
        self.model.optimizer.build(self.model.trainable_variables)

    def epoch(self, number: int, step: int) -> dict[str, Any]:
        """Train one epoch, counted from 1, that begins at an optimizer step counted from 0; then score all parts."""
        start = time.perf_counter()
        with self._device():
            figures, steps = self._fit(number, step)
            step += steps
            row = {"epoch": number, "step": step, **figures}
            for name, (_, _, index) in self.parts.items():
                if name != "train":
                    row |= self._evaluate(name, index)
        row |= self._rates(step)
        return row | {"seconds": round(time.perf_counter() - start, 4)}

    def _fit(self, number: int, step: int) -> tuple[dict[str, Any], int]:
        """Train; the figures of training, and how many steps it took."""
        from ...keras import RateSchedule

        kept = self.parts["train"][2]
        order = kept[epoch_order(len(kept), self.plan.seed, number)]
        batches = self._batches("train", order, self.plan.choices.settings.batch_size)
        history = self.model.fit(
            batches,
            initial_epoch=number - 1,
            epochs=number,
            shuffle=False,  # the order is the lab's
            callbacks=[RateSchedule(self.rates)],
            verbose=0,
        ).history
        return {"train_loss": history["loss"][0], "train_accuracy": history["accuracy"][0]}, len(batches)

    def _rates(self, step: int) -> dict[str, float]:
        return {f"rate_{site}": float(rate.at(step - 1)) for site, rate in self.rates.items()}

    def _header(self) -> dict[str, Any]:
        """What a state holds beside tensors and progress."""
        return {}

    def _take(self, header: Mapping[str, Any]) -> None:
        """Put that back."""

    def _evaluate(self, name: str, index: NDArray[np.int64]) -> dict[str, Any]:
        found = self.model.evaluate(self._batches(name, index, CHUNK), verbose=0, return_dict=True)
        row = {f"{name}_loss": float(found["loss"]), f"{name}_accuracy": float(found["accuracy"])}
        return row | (self._calibration(index) if name == TEST else {})

    def _calibration(self, index: NDArray[np.int64]) -> dict[str, float]:
        x, y, _ = self.parts[TEST]
        found = Calibration()
        for part in np.split(index, range(CHUNK, len(index), CHUNK)):
            given = self.model.predict_on_batch(x[part])
            whole = np.concatenate([1 - given, given], 1) if self.binary else given
            found.add(*(torch.from_numpy(array) for array in (logits(whole, CLASSES, True), y[part])))
        return figures(found)

    def _batches(self, part: str, order: NDArray[np.int64], size: int) -> Any:
        """Samples of a part in this order, as a dataset that Keras takes on any backend."""
        return batches(*self._arrays(part), order, size)

    def _arrays(self, part: str) -> tuple[NDArray, NDArray]:
        x, y, _ = self.parts[part]
        return x, y[:, None].astype(np.float32) if self.binary else y.astype(np.int32)

    def _path(self, weight: Any) -> str:
        return path_in(self.model, weight)

    @contextmanager
    def _device(self) -> Iterator[None]:
        # To torch "cpu:0" is another device than "cpu", and a parameter moved there becomes an ordinary tensor.
        cpu = "cpu" if self.keras.config.backend() == "torch" else "cpu:0"
        with self.keras.device("gpu:0" if self.plan.choices.device == "cuda" else cpu):
            yield

    def save_weights(self, path: Path, about: Mapping[str, Any]) -> None:
        """The model's weights by their paths, such as "hidden1/kernel"; `about` goes into the header as JSON."""
        _save(path, {self._path(weight): weight for weight in self.model.weights}, about)

    def save(self, path: Path, progress: Progress) -> None:
        """Write everything that the next epoch depends on."""
        _save(path, self._variables(), self._header() | asdict(progress))

    def load(self, path: Path) -> Progress:
        """Go on from a saved state.

        Raises:
            DataError: the file is missing, damaged or belongs to another model.
        """
        variables = self._variables()
        try:
            arrays, header = load_arrays(path, set(variables))
            self._take(header)
            for name, variable in variables.items():
                variable.assign(arrays[name])  # refuses another shape
            return Progress.of(header)
        except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"cannot resume from {path}: {error}; delete its folder and run again") from error

    def _variables(self) -> dict[str, Any]:
        """Weights, what the masks count, and the optimizer's; by number, since Keras counts names up in a process."""
        model, metrics = self.model, {id(variable) for variable in self.model.metrics_variables}
        owned = [variable for variable in model.variables if id(variable) not in metrics]
        found = {f"model/{number}/{variable.name}": variable for number, variable in enumerate(owned)}
        for number, variable in enumerate(model.optimizer.variables):
            found[f"optimizer/{number}/{variable.name}"] = variable
        return found


def schedules(rates: Rates) -> dict[str, Rate]:
    """The rates of a strategy, all of which follow the step.

    Raises:
        DropkitValueError: one is learned or controlled.
    """
    for site, rate in rates.items():
        if isinstance(rate, LearnedRate) or controllers(rate):
            raise DropkitValueError(
                f"the rate of {site} adapts, {rate!r}, and recipes on Keras take schedules alone: use none, fixed, step"
            )
    return {site: rate for site, rate in rates.items() if not isinstance(rate, LearnedRate)}


def _optimizer(keras: Any, settings: Settings) -> Any:
    families = {"sgd": "SGD", "adam": "Adam", "rmsprop": "RMSprop"}
    if settings.optimizer not in families:
        raise UnknownNameError("optimizer", settings.optimizer, families)
    for name in ("weight_decay", "l2"):
        if value := getattr(settings, name):
            raise DropkitValueError(f"recipes on Keras take no {name}, got {value}; leave it at 0")
    return getattr(keras.optimizers, families[settings.optimizer])(settings.learning_rate)


def _save(path: Path, variables: Mapping[str, Any], header: Mapping[str, Any]) -> None:
    save_arrays(path, {name: variable.numpy() for name, variable in variables.items()}, header)
