"""What the usual mistakes of a network by hand cost: the layers of the recipe numpy-mlp, trained and scored wrongly.

    python benchmarks/mistakes.py --data fashion-mnist --data-dir DIR

In training: a backward pass without the forward's mask, or with a mask of its own. In scoring: dropout left on, or
activations multiplied by 1 - p once more although training has divided by it. Weights, order and masks of a seed are
the same in all of them.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dropkit.lab import Data, load_data
from dropkit.lab.engines.by_hand import score, train_epoch
from dropkit.lab.order import epoch_order
from dropkit.lab.recipes.numpy_mlp import NUMPY_MLP
from dropkit.numpy import Dense, Dropout, Sequential


class Unmasked(Dropout):
    """Its backward pass lets every gradient through, also those of units that were dropped."""

    def backward(self, grad: NDArray) -> NDArray:
        """The gradient as it came."""
        return grad


class Redrawn(Dropout):
    """Its backward pass draws another mask."""

    def backward(self, grad: NDArray) -> NDArray:
        """The gradient through a mask of the same rate that no forward had."""
        other = Dropout(self.p, seed=self.key.seed, site=f"{self.key.site}/backward")
        other.step = self.step
        return other.forward(grad, training=True)


@dataclass
class Scaled:
    """What evaluation must not do after inverted dropout: multiply by 1 - p."""

    p: float
    drop: Dropout = field(repr=False)

    def forward(self, x: NDArray, *, training: bool) -> NDArray:
        """x (1 - p)."""
        return x * np.float32(1 - self.p)


def network(kind: type[Dropout], data: Data, rates: tuple[float, ...], seed: int) -> dict[str, Dense]:
    """The recipe's layers, with dropouts of a kind."""
    layers = NUMPY_MLP.build(NUMPY_MLP.settings("small", data.name), data.shape, data.classes, seed)
    for number, p in enumerate(rates, start=1):
        layers[f"hidden{number}"].drop = kind(p, seed=seed, site=f"dropout{number}")
    return layers


def trained(kind: type[Dropout], data: Data, rates: tuple[float, ...], seed: int, epochs: int) -> dict[str, Dense]:
    """Trained as the recipe trains."""
    settings, layers = NUMPY_MLP.settings("small", data.name), network(kind, data, rates, seed)
    x = data.train_x.reshape(len(data.train_x), -1)
    for epoch in range(1, epochs + 1):
        order = epoch_order(len(x), seed, epoch)
        train_epoch(
            Sequential(*layers.values()),
            x,
            data.train_y,
            order,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
        )
    return layers


def scored(layers: dict[str, Dense], data: Data, change: Callable[[Dropout], object]) -> dict[str, float]:
    """The test set's loss and accuracy, with each dropout changed for this once."""
    drops = {layer: layer.drop for layer in layers.values() if layer.drop is not None}
    for layer, drop in drops.items():
        layer.drop = change(drop)  # type: ignore[assignment]
    x = data.test_x.reshape(len(data.test_x), -1)
    found = score(Sequential(*layers.values()), x, data.test_y, np.arange(len(x)))
    for layer, drop in drops.items():
        layer.drop = drop
    return found


def left_on(drop: Dropout) -> Dropout:
    """The same dropout, on whatever the mode."""
    return Dropout(drop.p, seed=drop.key.seed, site=f"{drop.key.site}/evaluation", when="always")


def main() -> None:
    """Train and score, seed after seed, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--data-dir")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs=2, default=(0.2, 0.5))
    options = parser.parse_args()
    data, rates = load_data(options.data, options.data_dir), tuple(options.rates)
    epochs = options.epochs or NUMPY_MLP.settings("small", data.name).epochs
    for seed in range(options.seeds):
        right = trained(Dropout, data, rates, seed, epochs)
        figures = {
            "as it should be": scored(right, data, lambda drop: drop),
            "scored with activations times 1 - p": scored(right, data, lambda drop: Scaled(drop.p, drop)),
            "scored with dropout left on": scored(right, data, left_on),
        }
        for name, kind in (("backward without the mask", Unmasked), ("backward with another mask", Redrawn)):
            figures[name] = scored(trained(kind, data, rates, seed, epochs), data, lambda drop: drop)
        for name, found in figures.items():
            print(f"seed {seed}  {name:36}  loss {found['loss']:.4f}  accuracy {found['accuracy']:.4f}", flush=True)


if __name__ == "__main__":
    main()
