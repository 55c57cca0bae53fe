"""Training by hand with `dropkit.numpy`, an epoch at a time. NumPy alone, for scripts without any framework too."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ...numpy import Dense, Sequential, SoftmaxCrossEntropy
from ..order import CHUNK


def train_epoch(
    network: Sequential,
    x: NDArray,
    y: NDArray[np.int64],
    order: NDArray[np.int64],
    *,
    batch_size: int,
    learning_rate: float,
    l2: float = 0.0,
    before_step: Callable[[int], None] = lambda number: None,
) -> dict[str, float]:
    """One epoch of gradient descent on the batch mean of the cross-entropy.

    Args:
        network: gives logits, batch x classes.
        x, y: samples x features and their class numbers.
        order: which samples, in order.
        batch_size: the last batch may be smaller.
        learning_rate: of plain gradient descent.
        l2: times the sum of the squared weights, biases left out, is added to the loss.
        before_step: called with the number of each step in the epoch, from 0; it may move rates.

    Returns:
        "loss" and "accuracy", running averages over the epoch, dropout on; with l2 also "objective", the loss with it.

    >>> from dropkit.numpy import Dense
    >>> x, y = np.eye(2, dtype=np.float32), np.array([0, 1])
    >>> net = Sequential(Dense(2, 2, std=0.0))
    >>> first, second = (train_epoch(net, x, y, np.arange(2), batch_size=2, learning_rate=1.0) for _ in range(2))
    >>> round(first["loss"], 4), second["loss"] < first["loss"]
    (0.6931, True)
    """
    loss, total, right, squares = SoftmaxCrossEntropy(), 0.0, 0, 0.0
    weighted = [layer for layer in network.layers if isinstance(layer, Dense)] if l2 else []
    for number, start in enumerate(range(0, len(order), batch_size)):
        before_step(number)
        batch = order[start : start + batch_size]
        logits = network.forward(x[batch], training=True)
        total += loss.forward(logits, y[batch]) * len(batch)
        right += int((logits.argmax(1) == y[batch]).sum())
        network.backward(loss.backward())
        for layer in weighted:
            squares += float(np.square(layer.weight).sum()) * len(batch)
            layer.weight_grad += np.float32(2 * l2) * layer.weight
        network.sgd(learning_rate)
    found = {"loss": total / len(order), "accuracy": right / len(order)}
    return found | ({"objective": (total + l2 * squares) / len(order)} if l2 else {})


def right(network: Sequential, x: NDArray, y: NDArray[np.int64], index: NDArray[np.int64]) -> NDArray[np.float32]:
    """Of some samples, 1 where the class is right and 0 elsewhere, dropout off.

    >>> right(Sequential(Dense(2, 2, std=0.0)), np.eye(2, dtype=np.float32), np.array([0, 1]), np.arange(2)).tolist()
    [1.0, 0.0]
    """
    chunks = [index[start : start + CHUNK] for start in range(0, len(index), CHUNK)]
    found = [network.forward(x[chunk], training=False).argmax(1) == y[chunk] for chunk in chunks]
    return np.concatenate(found).astype(np.float32)


def score(network: Sequential, x: NDArray, y: NDArray[np.int64], index: NDArray[np.int64]) -> dict[str, float]:
    """Mean cross-entropy and accuracy of some samples, dropout off: "loss" and "accuracy"."""
    loss, total, right = SoftmaxCrossEntropy(), 0.0, 0
    for start in range(0, len(index), CHUNK):
        chunk = index[start : start + CHUNK]
        logits = network.forward(x[chunk], training=False)
        total += loss.forward(logits, y[chunk]) * len(chunk)
        right += int((logits.argmax(1) == y[chunk]).sum())
    return {"loss": total / len(index), "accuracy": right / len(index)}
