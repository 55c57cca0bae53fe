"""The dropout chapter's network by hand: forward, backward and masks with nothing but NumPy.

    python examples/numpy_mlp.py                                         # scikit-learn's digits
    python examples/numpy_mlp.py --data fashion-mnist --epochs 10        # as the recipe `mlp` trains it

It trains the layers of the recipe `numpy-mlp` in a loop of a few lines. For the same seed they start from the weights
of `dropkit train mlp`, visit the samples in the same order and draw the same masks: all of them depend on (seed, name,
step) and on nothing else. So both reach the same losses up to the rounding of float32 sums; `tests/test_examples.py`
compares them epoch by epoch. `dropkit compare numpy-mlp` adds strategies, seeds, intervals and a report.
"""

import argparse

import numpy as np

from dropkit.lab import load_data
from dropkit.lab.by_hand import score, train_epoch
from dropkit.lab.order import epoch_order
from dropkit.lab.recipes.numpy_mlp import NUMPY_MLP
from dropkit.numpy import Sequential

SITES = ("dropout1", "dropout2")  # as the recipe names them


def train(
    data: str, data_dir: str | None, epochs: int | None, rates: tuple[float, ...], seed: int
) -> list[dict[str, float]]:
    """Train, and return one row of figures for each epoch."""
    split = load_data(data, data_dir)
    settings = NUMPY_MLP.settings("small", data)
    x, test_x = (images.reshape(len(images), -1) for images in (split.train_x, split.test_x))
    layers = NUMPY_MLP.build(settings, split.shape, split.classes, seed)
    for number, rate in enumerate(rates, start=1):
        layers[f"hidden{number}"].drop.p = rate
    net = Sequential(*layers.values())
    rows = []
    for epoch in range(1, (epochs or settings.epochs) + 1):
        order = epoch_order(len(x), seed, epoch)
        found = train_epoch(
            net, x, split.train_y, order, batch_size=settings.batch_size, learning_rate=settings.learning_rate
        )
        test = score(net, test_x, split.test_y, np.arange(len(test_x)))
        rows.append(
            {
                "epoch": epoch,
                "train_loss": found["loss"],
                "train_accuracy": found["accuracy"],
                "test_accuracy": test["accuracy"],
            }
        )
        print(
            f"epoch {epoch:3d}  train loss {found['loss']:.4f}  train {found['accuracy']:.4f}"
            f"  test {test['accuracy']:.4f}"
        )
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="digits, fashion-mnist, mnist, or a folder of IDX files")
    parser.add_argument(
        "--data-dir", help="folder that holds fashion_mnist/ or mnist/ (default: DROPKIT_DATA, or download)"
    )
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--rates", type=float, nargs=len(SITES), default=(0.2, 0.5), help="drop probability of each hidden layer"
    )
    options = parser.parse_args()
    train(options.data, options.data_dir, options.epochs, tuple(options.rates), options.seed)
