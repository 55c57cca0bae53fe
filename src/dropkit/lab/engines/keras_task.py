"""The engine over `keras.Model.fit` for models of the user's: any kind of targets, whatever the model ends in."""

import math
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..imported import seed_all
from ..order import CHUNK, epoch_order
from ..recipes.learning_rate import CONSTANT, factor
from .keras import KerasTrainer
from .keras_losses import logits, loss_of, trained_figure
from .keras_optimizing import learning_rate, optimizer
from .loop import Row
from .moves import CONTROLLERS, Moves, not_learned
from .scoring import TEST, evaluated

COPIED = 2**30  # bytes of samples that are copied for an epoch


class KerasTaskTrainer(KerasTrainer):
    """A Keras model of the user's and its data, trained an epoch at a time."""

    def _prepare(self) -> None:
        from ...keras import bind, sites

        choices = self.plan.choices
        settings: Any = choices.settings
        self.objective = choices.recipe.objective
        self.last_scores: NDArray[np.float32] | None = None
        self.held: NDArray[Any] | None = None
        built = choices.recipe.build(settings, choices.data.shape, choices.data.classes, self.plan.seed)
        self.built = built
        if sites(built.model):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # what Keras draws is told in another way
                bind(built.model, self.plan.seed)
        self.names = names_of(built.model)
        self.moves = Moves(built.places(self.plan.rates), not_learned(self.plan.rates))
        self.moves.set(0)
        self.own = loss_of(self.objective, built.probabilities).own
        self.model = built.whole(self.objective, settings.l2)
        moved = None if settings.schedule == CONSTANT else factor(settings.schedule)
        rate = learning_rate(settings.learning_rate, moved, choices.steps * settings.epochs)
        self.model.compile(optimizer=optimizer(settings, rate))
        self.model.optimizer.build(self.model.trainable_variables)

    def epoch(self, number: int, step: int) -> Row:
        """Train one epoch; what others' code draws in it follows from the seed and the epoch, so that it can go on."""
        seed_all(int(np.random.SeedSequence((self.plan.seed, number)).generate_state(1, np.uint64)[0]))
        row = super().epoch(number, step)
        self.moves.feed_back(row)
        return row

    def _fit(self, number: int, step: int) -> tuple[Row, int]:
        kept = self.parts["train"][2]
        order = kept[epoch_order(len(kept), self.plan.seed, number)]
        size = self.plan.choices.settings.batch_size
        off = self.plan.choices.settings.literal == "off" and self.built.left  # type: ignore[attr-defined]
        with self.built.disabled() if off else nullcontext():
            found = self.model.fit(
                **self._ordered(order, size),
                initial_epoch=number - 1,
                epochs=number,
                shuffle=False,  # the order is the lab's
                callbacks=self._movers(step, math.ceil(len(order) / size)),
                verbose=0,
            ).history
        figures = {f"train_{name}": float(found[f"own_{name}"][0]) for name in self._trained()}
        return figures | dict.fromkeys(self._unknown(), math.nan), math.ceil(len(order) / size)

    def _ordered(self, order: NDArray[np.int64], size: int) -> dict[str, Any]:
        """The samples in their order, for `fit`: arrays, which are quicker; by batches where a copy is large."""
        x, y, _ = self.parts["train"]
        one = x[:1]
        entered = self.built.entering(one)
        if entered.nbytes * len(order) > COPIED:
            return {"x": self._batches("train", order, size)}
        if self.held is None:  # memory that is new to the process costs more than the copy
            self.held = np.empty((len(order), *entered.shape[1:]), entered.dtype)
        if entered is one:
            np.take(x, order, 0, out=self.held, mode="clip")  # "raise" would make another copy
        else:
            for first in range(0, len(order), CHUNK):
                index = order[first : first + CHUNK]
                self.held[first : first + len(index)] = self.built.entering(x[index])
        return {"x": self.held, "y": y[order], "batch_size": size}

    def _trained(self) -> list[str]:
        """The figures that are taken of batches as they are trained."""
        known = trained_figure(self.objective, self.built.probabilities) is not None
        return ["loss", *([self.objective.measured.key] if known else [])]

    def _unknown(self) -> list[str]:
        """Those that a row has and that are not taken: a user's metric of each sample."""
        rows = [name for name in self.objective.figures.rows if name.startswith("train_") and "eval" not in name]
        return [name for name in rows if name.removeprefix("train_") not in self._trained()]

    def _movers(self, first: int, steps: int) -> list[Any]:
        """A callback that moves the rates before each step of an epoch; none where they stay."""
        self._move(first)
        at = [tuple(rate.at(step) for rate in self.moves.moved.values()) for step in range(first, first + steps)]
        if len(set(at)) == 1:
            return []
        callback: Any = self.keras.callbacks.Callback
        trainer = self

        class Mover(callback):
            def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
                if batch and at[batch] != at[batch - 1]:
                    _ = self.model  # JAX keeps the state of a running epoch elsewhere; asking for it brings it back
                    trainer._move(first + batch)

        return [Mover()]

    def _move(self, step: int) -> None:
        """Move the rates to a step; where one is a part of the program, Keras makes that anew."""
        before = {site: place.p for site, place in self.moves.places.items() if place.compiled}
        self.moves.set(step)
        changed = any(self.moves.places[site].p != p for site, p in before.items())
        if changed and self.model.train_function is not None:
            self.model.make_train_function(force=True)

    def _evaluate(self, name: str, index: NDArray[np.int64]) -> Row:
        x, y, _ = self.parts[name]
        outputs = (
            (self.model.predict_on_batch(self.built.entering(x[part])), y[part])
            for part in np.split(index, range(CHUNK, len(index), CHUNK))
        )
        probabilities = self.built.probabilities
        row, scores = evaluated(
            name, self.objective, outputs, lambda given: logits(given, self.objective.kind, probabilities), self.own
        )
        if name == TEST:
            self.last_scores = scores
        return row

    def sample_scores(self) -> NDArray[np.float32] | None:
        """The compared figure of each test sample after the last epoch; None where it is no mean over samples."""
        return self.last_scores

    def _rates(self, step: int) -> Row:
        return self.moves.row(step)

    def _header(self) -> dict[str, Any]:
        return self.moves.header()

    def _take(self, header: Mapping[str, Any]) -> None:
        self.moves.load(header.get(CONTROLLERS, []))

    def _arrays(self, part: str) -> tuple[NDArray, NDArray]:
        x, y, _ = self.parts[part]
        return self.built.entering(x), y

    def _variables(self) -> dict[str, Any]:
        """By number: in their names Keras counts models up."""
        return {name.rpartition("/")[0]: variable for name, variable in super()._variables().items()}

    def _path(self, weight: Any) -> str:
        return self.names[id(weight)]


def names_of(model: Any) -> dict[int, str]:
    """The paths of the weights by identity; those that Keras makes up count in the process, and these in the model."""
    from ...keras.paths import walk

    found: dict[int, str] = {}
    for path, layer in reversed(list(walk(model))):  # the innermost layer that has a weight names it
        for weight in layer.weights:
            name = f"{path}/{weight.name}"
            number = sum(known == name or known.startswith(f"{name}#") for known in found.values())
            found.setdefault(id(weight), f"{name}#{number}" if number else name)
    return found
