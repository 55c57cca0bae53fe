"""The dropout chapter's network by hand: forward, backward and masks with nothing but NumPy.

    python examples/numpy_mlp.py                                         # scikit-learn's digits
    python examples/numpy_mlp.py --data fashion-mnist --epochs 10        # as the recipe `mlp` trains it

It is the network of `dropkit train mlp`, and for the same seed it starts from the same weights, visits the samples in
the same order and draws the same masks: they depend on (seed, site, step) and on nothing else. So both reach the same
losses up to the rounding of float32 sums; `tests/test_examples.py` compares them epoch by epoch.
"""

import argparse

import numpy as np

from dropkit.lab import load_data
from dropkit.lab.order import epoch_order, first_weights
from dropkit.lab.recipes.mlp import MLP
from dropkit.numpy import Dense, Dropout, Sequential, SoftmaxCrossEntropy

SITES = ("dropout1", "dropout2")  # as the recipe names them


def network(
    inputs: int, classes: int, hidden: tuple[int, ...], std: float, rates: tuple[float, ...], seed: int
) -> Sequential:
    """Dense layers with ReLU and dropout after each hidden one, its first weights those of the recipe."""
    sizes = (inputs, *hidden)
    layers = [
        Dense(sizes[i], width, "relu", drop=Dropout(rate, seed=seed, site=site))
        for i, (width, rate, site) in enumerate(zip(hidden, rates, SITES, strict=True))
    ]
    layers.append(Dense(sizes[-1], classes))
    names = [*(f"hidden{number}" for number in range(1, len(sizes))), "output"]
    for layer, name in zip(layers, names, strict=True):
        layer.weight = first_weights(layer.weight.shape, seed, f"{name}.weight", std)
    return Sequential(*layers)


def accuracy(net: Sequential, x: np.ndarray, y: np.ndarray) -> float:
    """Share of right answers with dropout off."""
    return float((net.forward(x, training=False).argmax(1) == y).mean())


def train(
    data: str, data_dir: str | None, epochs: int | None, rates: tuple[float, ...], seed: int
) -> list[dict[str, float]]:
    """Train, and return one row of figures for each epoch."""
    split = load_data(data, data_dir)
    settings = MLP.settings("small", data)
    x = split.train_x.reshape(len(split.train_x), -1)
    test_x = split.test_x.reshape(len(split.test_x), -1)
    net = network(x.shape[1], split.classes, settings.hidden, settings.weight_std, rates, seed)
    loss = SoftmaxCrossEntropy()
    rows = []
    for epoch in range(1, (epochs or settings.epochs) + 1):
        order = epoch_order(len(x), seed, epoch)
        total = right = 0.0
        for start in range(0, len(x), settings.batch_size):
            batch = order[start : start + settings.batch_size]
            labels = split.train_y[batch]
            logits = net.forward(x[batch], training=True)
            total += loss.forward(logits, labels) * len(batch)
            right += (logits.argmax(1) == labels).sum()
            net.backward(loss.backward())
            net.sgd(settings.learning_rate)
        rows.append(
            {
                "epoch": epoch,
                "train_loss": total / len(x),
                "train_accuracy": right / len(x),
                "test_accuracy": accuracy(net, test_x, split.test_y),
            }
        )
        print(
            f"epoch {epoch:3d}  train loss {total / len(x):.4f}  train {right / len(x):.4f}"
            f"  test {rows[-1]['test_accuracy']:.4f}"
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
