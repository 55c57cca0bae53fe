"""What a seed decides besides the masks: the first weights and the order of the data. NumPy alone, so that a script
without any framework can train the very same network.

A seed means the same weights and the same order under every strategy: that is what pairs the runs of a comparison.
"""

import numpy as np
from numpy.typing import NDArray

from ..counter import Key
from ..mask import normal, uniform

CHUNK = 512  # samples scored at once: few enough for their activations to stay in cache


def first_weights(shape: tuple[int, ...], seed: int, name: str, std: float) -> NDArray[np.float32]:
    """Normal first weights: `std * z`, with z standard normal of `Key(seed, "init/" + name, 0)`.

    Args:
        shape: of the parameter, in the framework's own layout; torch's `Linear` is (outputs, inputs).
        seed: the experiment.
        name: the parameter's path in the model, such as "hidden1.weight".
        std: standard deviation.

    Returns:
        float32 array of that shape.

    >>> first_weights((2, 2), seed=0, name="hidden1.weight", std=0.01).shape
    (2, 2)
    """
    return np.float32(std) * normal(shape, Key(seed, f"init/{name}", 0))


def epoch_order(samples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """An epoch's order of the training set: the stable argsort of the uniforms of `Key(seed, "lab/order", epoch)`.

    Args:
        samples: size of the training set.
        seed: the experiment.
        epoch: counted from 1.

    Returns:
        A permutation of 0 .. samples - 1, int64.

    >>> sorted(epoch_order(5, seed=0, epoch=1).tolist())
    [0, 1, 2, 3, 4]
    """
    return np.argsort(uniform((samples,), Key(seed, "lab/order", epoch)), kind="stable")


def drawn_with_replacement(samples: int, size: int, seed: int, step: int) -> NDArray[np.int64]:
    """The batch of a step, each of its samples drawn from all: floor(u n), u of `Key(seed, "lab/batch", step)`.

    Args:
        samples: n, size of the training set.
        size: of the batch.
        seed: the experiment.
        step: counted from 0.

    >>> bool(drawn_with_replacement(3, 5, seed=0, step=0).max() < 3)
    True
    """
    found = np.floor(uniform((size,), Key(seed, "lab/batch", step)).astype(np.float64) * samples)
    return found.astype(np.int64)


def held_out(samples: int, fraction: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A fixed split of the training set, the same for every seed: (kept for training, held out for validation).

    >>> kept, held = held_out(10, 0.2)
    >>> len(kept), len(held), sorted([*kept.tolist(), *held.tolist()]) == list(range(10))
    (8, 2, True)
    """
    order = np.argsort(uniform((samples,), Key(0, "lab/validation", 0)), kind="stable")
    count = round(samples * fraction)
    return np.sort(order[count:]), np.sort(order[:count])
