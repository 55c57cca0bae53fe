"""Estimators of scikit-learn's kind, here networks of skorch, compared over the folds of a cross-validation.

Run: python examples/own_sklearn.py runs/own-sklearn
"""

import sys

from skorch import NeuralNetClassifier
from torch import nn, optim

from dropkit.lab import compare


class Net(nn.Sequential):
    """Two layers with a dropout between them."""

    def __init__(self, p=0.0):
        super().__init__(nn.Linear(13, 64), nn.ReLU(), nn.Dropout(p), nn.Linear(64, 3))


def net(p):
    """The network as an estimator."""
    return NeuralNetClassifier(
        Net,
        module__p=p,
        criterion=nn.CrossEntropyLoss,
        optimizer=optim.Adam,
        max_epochs=20,
        train_split=None,
        verbose=0,
    )


def main(out):
    """Compare; what was finished before is kept."""
    return compare(estimators={"none": net(0.0), "p=0.3": net(0.3)}, data="sklearn:wine", cv=5, out=out, resume=True)


if __name__ == "__main__":
    print(*main(sys.argv[1]).verdict, sep="\n")
