"""Training by hand with `dropkit.numpy`, an epoch at a time. NumPy alone, for scripts without any framework too."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ...numpy import Sequential, SoftmaxCrossEntropy
from ..order import CHUNK


def train_epoch(
    network: Sequential,
    x: NDArray,
    y: NDArray[np.int64],
    order: NDArray[np.int64],
    *,
    batch_size: int,
    learning_rate: float,
    before_step: Callable[[int], None] = lambda number: None,
) -> dict[str, float]:
    """One epoch of gradient descent on the batch mean of the cross-entropy.

    Args:
        network: gives logits, batch x classes.
        x, y: samples x features and their class numbers.
        order: which samples, in order.
        batch_size: the last batch may be smaller.
        learning_rate: of plain gradient descent.
        before_step: called with the number of each step in the epoch, from 0; it may move rates.

    Returns:
        "loss" and "accuracy", running averages over the epoch, dropout on.

    >>> from dropkit.numpy import Dense
    >>> x, y = np.eye(2, dtype=np.float32), np.array([0, 1])
    >>> net = Sequential(Dense(2, 2, std=0.0))
    >>> first, second = (train_epoch(net, x, y, np.arange(2), batch_size=2, learning_rate=1.0) for _ in range(2))
    >>> round(first["loss"], 4), second["loss"] < first["loss"]
    (0.6931, True)
    """
    loss, total, right = SoftmaxCrossEntropy(), 0.0, 0
    for number, start in enumerate(range(0, len(order), batch_size)):
        before_step(number)
        batch = order[start : start + batch_size]
        logits = network.forward(x[batch], training=True)
        total += loss.forward(logits, y[batch]) * len(batch)
        right += int((logits.argmax(1) == y[batch]).sum())
        network.backward(loss.backward())
        network.sgd(learning_rate)
    return {"loss": total / len(order), "accuracy": right / len(order)}


def score(network: Sequential, x: NDArray, y: NDArray[np.int64], index: NDArray[np.int64]) -> dict[str, float]:
    """Mean cross-entropy and accuracy of some samples, dropout off: "loss" and "accuracy"."""
    loss, total, right = SoftmaxCrossEntropy(), 0.0, 0
    for start in range(0, len(index), CHUNK):
        chunk = index[start : start + CHUNK]
        logits = network.forward(x[chunk], training=False)
        total += loss.forward(logits, y[chunk]) * len(chunk)
        right += int((logits.argmax(1) == y[chunk]).sum())
    return {"loss": total / len(index), "accuracy": right / len(index)}
