"""Rates that move during fit."""

import fnmatch
from collections.abc import Mapping
from typing import Any

import keras

from ..axes.rate import Rate, as_rate, controllers, probability
from ..errors import DropkitTypeError, DropkitValueError
from .base import Keyed
from .binding import sites


class RateSchedule(keras.callbacks.Callback):
    """A Keras callback that moves dropout rates by schedules: before training step n, `layer.rate = rate.at(n)`.

    Steps are those of the optimizer (`optimizer.iterations`), so that a resumed fit goes on where it was. Nothing is
    compiled again; a rate is written only when it has changed.

    Args:
        rates: for each pattern of layer paths (`fnmatch`, such as "encoder/*"), a number or a value with `.at(step)`
            such as those of `dropkit.axes.rate`. Where several patterns match, the last one holds.

    Raises:
        DropkitTypeError, DropkitValueError: not a mapping, an empty one, a rate outside [0, 1]; at the start of fit, a
            pattern that matches no dropkit layer with a rate.

    >>> from dropkit.axes.rate import Step
    >>> callback = RateSchedule({"*": Step(start=0.5, drop=0.1, every=100, floor=0.1)})
    """

    def __init__(self, rates: Mapping[str, Rate | float]):
        super().__init__()
        if not isinstance(rates, Mapping):
            raise DropkitTypeError(f"rates must map patterns to rates, such as {{'*': 0.2}}, got {rates!r}")
        if not rates:
            raise DropkitValueError("rates is empty; give a pattern such as '*' and its rate")
        self.rates: dict[str, Rate] = {pattern: as_rate(rate) for pattern, rate in rates.items()}
        for pattern, rate in self.rates.items():
            if controllers(rate):
                raise DropkitValueError(
                    f"the rate of {pattern!r} is a controller, which moves by metrics that are measured without "
                    "dropout; a RateSchedule has none of these: give a schedule of dropkit.axes.rate"
                )
        self._layers: list[tuple[Any, Rate]] = []
        self._now: list[float] = []
        self._step = 0
        self._last_batch = -1

    def on_train_begin(self, logs: Any = None) -> None:
        """Find the layers."""
        model = self.model
        named = {site: layer for site, layer in sites(model).items() if hasattr(type(layer), "rate")}
        for pattern in self.rates:
            if not fnmatch.filter(named, pattern):
                raise DropkitValueError(
                    f"the pattern {pattern!r} matches no dropkit layer with a rate; the model has: "
                    f"{', '.join(named) or 'none'}"
                )
        matched: dict[str, tuple[Keyed, Rate]] = {}
        for pattern, rate in self.rates.items():
            for site in fnmatch.filter(named, pattern):
                matched[site] = named[site], rate
        self._layers = list(matched.values())
        self._now = [float(layer.rate) for layer, _ in self._layers]
        self._step = int(keras.ops.convert_to_numpy(model.optimizer.iterations.value))
        self._last_batch = -1

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Batches count from 0 in each epoch."""
        self._last_batch = -1

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Move the rates that change at this step."""
        name = f"the rate at step {self._step}"
        rates = [probability(name, rate.at(self._step)) for _, rate in self._layers]
        if rates != self._now:
            _ = self.model  # JAX keeps the state of a running epoch elsewhere; asking for the model brings it back
            for (layer, _), before, after in zip(self._layers, self._now, rates, strict=True):
                if after != before:
                    layer.rate = after
            self._now = rates

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Count the steps; several may run in one execution."""
        self._step += batch - self._last_batch
        self._last_batch = batch
