"""The engine over flax.nnx and optax: one compiled step, to which rates and the learning rate are data.

A model is split once into its graph and its state; steps take the state and give it back, in the same memory. What a
run's next epoch depends on is arrays: weights, what the masks count, moments.
"""

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError

from ...errors import DataError, DropkitValueError
from ...jax import bind, sites
from ..files.arrays import load_arrays, save_arrays
from ..order import CHUNK, epoch_order
from ..plan import Plan
from ..recipes.learning_rate import factor
from .checkpoint import Progress
from .loop import Row
from .moves import CONTROLLERS, Moves, not_learned
from .nnx_program import program
from .scoring import TEST, evaluated


class NnxTrainer:
    """An nnx model and its data, trained an epoch at a time; as `dropkit.lab.engines.torch.Trainer` is for torch."""

    def __init__(self, plan: Plan) -> None:
        choices = plan.choices
        settings: Any = choices.settings
        self.plan, self.settings, self.objective = plan, settings, choices.recipe.objective
        self.parts = choices.parts()
        self.last_scores: NDArray[np.float32] | None = None
        with self._device():
            self.built = choices.recipe.build(settings, choices.data.shape, choices.data.classes, plan.seed)
            if sites(self.built.model):
                bind(self.built.model, plan.seed)
            self.moves = Moves(self.built.places(plan.rates), not_learned(plan.rates))
            self.moves.set(0)
            made = settings.optimizer, settings.learning_rate, settings.weight_decay
            self.program = program(self.objective, made, settings.l2, tuple(self.built.layers))
            self.factor = factor(settings.schedule)
            self.graphs = self.built.graphs()
            self.weights, self.rest = self.built.state()
            self.moments = self.program.optimizer.init(self.weights)

    def epoch(self, number: int, step: int) -> Row:
        """Train one epoch, counted from 1, that begins at an optimizer step counted from 0; then score all parts."""
        start = time.perf_counter()
        with self._device():
            row: Row = self._train(number, step)
            step += self.plan.choices.steps
            row = {"epoch": number, "step": step, **row}
            for name, (x, y, index) in self.parts.items():
                if name != "train":
                    row |= self._evaluate(name, x, y, index)
        row |= self.moves.row(step)
        self.moves.feed_back(row)
        return row | {"seconds": round(time.perf_counter() - start, 4)}

    def _train(self, number: int, step: int) -> Row:
        x, y, kept = self.parts["train"]
        order, size = kept[epoch_order(len(kept), self.plan.seed, number)], self.settings.batch_size
        steps = self.plan.choices.steps * self.settings.epochs
        found = []
        for first in range(0, len(order), size):
            index = order[first : first + size]
            self.moves.set(step)
            if self.built.changed():
                self.graphs = self.built.graphs()
            rates = self.built.rates()
            speed = np.float32(self.factor(step, steps))
            batch = self.built.entering(x[index]), y[index]
            self.weights, self.rest, self.moments, figures = self.program.step(
                self.graphs[0], self.weights, self.rest, self.moments, rates, speed, *batch
            )
            found.append(figures)
            step += 1
        return self._figures(np.asarray(jnp.stack(found), np.float64).sum(0) / len(order))

    def _figures(self, means: NDArray[np.float64]) -> Row:
        row = {"train_loss": float(means[0])}
        key = f"train_{self.objective.measured.key}"
        if key != "train_loss" and key in self.objective.figures.rows:  # nan of a user's metric of each sample
            row[key] = float(means[1])
        return row

    def _evaluate(self, name: str, x: NDArray, y: NDArray, index: NDArray[np.int64]) -> Row:
        outputs = (
            (
                np.asarray(self.program.forward(self.graphs[1], self.weights, self.rest, self.built.entering(x[part]))),
                y[part],
            )
            for part in np.split(index, range(CHUNK, len(index), CHUNK))
        )
        row, scores = evaluated(name, self.objective, outputs, lambda given: given, self.program.own)
        if name == TEST:
            self.last_scores = scores
        return row

    def sample_scores(self) -> NDArray[np.float32] | None:
        """The compared figure of each test sample after the last epoch; None where it is no mean over samples."""
        return self.last_scores

    def _device(self) -> AbstractContextManager[Any]:
        return jax.default_device(jax.devices("gpu" if self.plan.choices.device == "cuda" else "cpu")[0])

    def save_weights(self, path: Path, about: Mapping[str, Any]) -> None:
        """The weights by their paths, such as "hidden.kernel"; `about` goes into the header as JSON."""
        save_arrays(path, {name.partition("/")[2]: plain(leaf) for name, leaf in named(weights=self.weights)}, about)

    def save(self, path: Path, progress: Progress) -> None:
        """Write everything that the next epoch depends on."""
        save_arrays(path, {name: plain(leaf) for name, leaf in self._state()}, self.moves.header() | asdict(progress))

    def load(self, path: Path) -> Progress:
        """Go on from a saved state.

        Raises:
            DataError: the file is missing, damaged or belongs to another model.
        """
        state = self._state()
        try:
            arrays, header = load_arrays(path, {name for name, _ in state})
            with self._device():
                leaves = [like(leaf, name, arrays[name]) for name, leaf in state]
            tree = (self.weights, self.rest, self.moments)
            self.moves.load(header.get(CONTROLLERS, []))
            self.weights, self.rest, self.moments = jax.tree.unflatten(jax.tree.structure(tree), leaves)
            return Progress.of(header)
        except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"cannot resume from {path}: {error}; delete its folder and run again") from error

    def _state(self) -> list[tuple[str, Any]]:
        return named(weights=self.weights, rest=self.rest, moments=self.moments)


def named(**trees: Any) -> list[tuple[str, Any]]:
    """The arrays of trees by name, "weights/hidden.kernel"."""
    return [
        (f"{name}/{jax.tree_util.keystr(path, simple=True, separator='.')}", leaf)
        for name, tree in trees.items()
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    ]


def plain(leaf: Any) -> NDArray[Any]:
    """An array as a file has it: keys as their words, bfloat16 as its bits."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    array = np.asarray(leaf)
    return array.view(np.uint16) if array.dtype.name == "bfloat16" else array


def like(leaf: Any, name: str, array: NDArray[Any]) -> Any:
    """An array of a file as the leaf that it was.

    Raises:
        DropkitValueError: it has another shape or type.
    """
    known = plain(leaf)
    if (known.shape, known.dtype) != (array.shape, array.dtype):
        raise DropkitValueError(
            f"its {name} is of shape {array.shape} and type {array.dtype}, not {known.shape} and {known.dtype}"
        )
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(leaf))
    return jnp.asarray(array.view(leaf.dtype) if leaf.dtype.name == "bfloat16" else array)
