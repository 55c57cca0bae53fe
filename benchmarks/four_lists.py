"""What the four lists of a loop by hand cost: a training iteration against a full pass over training and test set.

    python benchmarks/four_lists.py

The layers of the recipe numpy-layer at its tutorial's size, on digits. Processor time, the median over 200 iterations;
the ratio over five seeds.
"""

import time
from statistics import median
from typing import Any

import numpy as np

from dropkit.lab import Data, load_data
from dropkit.lab.engines.by_hand import score, train_epoch
from dropkit.lab.order import drawn_with_replacement
from dropkit.lab.recipes.numpy_layer import NUMPY_LAYER
from dropkit.lab.statistics.interval import mean_interval
from dropkit.numpy import Sequential

ROUNDS, SEEDS = 200, 5


def seconds(call: Any, *given: Any, **more: Any) -> float:
    """Processor time of a call."""
    start = time.process_time()
    call(*given, **more)
    return time.process_time() - start


def medians(data: Data, seed: int) -> tuple[float, float]:
    """Of an iteration, and of a pass over both sets with dropout off."""
    settings = NUMPY_LAYER.settings("tutorial", data.name)
    x, test_x = (images.reshape(len(images), -1) for images in (data.train_x, data.test_x))
    layers = NUMPY_LAYER.build(settings, data.shape, data.classes, seed)
    layers["hidden1"].drop.p = 0.5
    net, whole, test = Sequential(*layers.values()), np.arange(len(x)), np.arange(len(test_x))
    size = {"batch_size": settings.batch_size, "learning_rate": settings.learning_rate}
    iterations, passes = [], []
    for step in range(ROUNDS):
        batch = drawn_with_replacement(len(x), settings.batch_size, seed, step)
        iterations.append(seconds(train_epoch, net, x, data.train_y, batch, **size))
        passes.append(seconds(score, net, x, data.train_y, whole) + seconds(score, net, test_x, data.test_y, test))
    return median(iterations), median(passes)


def main() -> None:
    """Print both times of each seed, and their ratio over seeds."""
    data, ratios = load_data("digits"), []
    for seed in range(SEEDS):
        iteration, lists = medians(data, seed)
        ratios.append(lists / iteration)
        print(f"seed {seed}: an iteration {1e3 * iteration:.2f} ms, the four lists {1e3 * lists:.2f} ms")
    ratio = mean_interval(ratios)
    print(f"the lists take {ratio.mean:.1f} ± {ratio.half:.1f} times as long as the iteration")


if __name__ == "__main__":
    main()
