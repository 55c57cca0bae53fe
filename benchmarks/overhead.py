"""What the lab's loop costs beside a bare loop of torch: the same model, data, order and optimizer, seconds per step.

    python benchmarks/overhead.py
    python benchmarks/overhead.py --rounds 20 --steps 200

Both train the same bound model, so that the masks are the same; what differs is the loop: rates that may move,
running loss and accuracy, and what Fabric does around a step. Rounds of one and the other take turns, and the fastest
round of each counts: what else a machine does makes rounds slower, never faster.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from dropkit.lab import Data
from dropkit.lab.engines.torch import Trainer
from dropkit.lab.order import epoch_order
from dropkit.lab.plan import Choices, Plan
from dropkit.lab.tasks.task import Options, Task, recipe_of
from dropkit.torch import bind, swap

BATCH = 128


def mlp() -> nn.Module:
    """784-256-256-10."""
    layers = (nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Dropout(0.2), nn.Linear(256, 256), nn.ReLU())
    return nn.Sequential(*layers, nn.Dropout(0.5), nn.Linear(256, 10))


def cnn() -> nn.Module:
    """Two convolutions and two dense layers."""
    layers = (nn.Unflatten(1, (1, 28)), nn.Conv2d(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3))
    head = (nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.25), nn.Linear(800, 64), nn.Dropout(0.5))
    return nn.Sequential(*layers, *head, nn.Linear(64, 10))


MODELS: dict[str, Callable[[], nn.Module]] = {"mlp": mlp, "cnn": cnn}


def data(steps: int) -> Data:
    """Noise with labels; one test sample, so that scoring does not count."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(steps * BATCH, 28, 28)).astype(np.float32)
    y = generator.integers(10, size=len(x))
    return Data.of((x, y), (x[:1], y[:1]), "classification")


def ours(make: Callable[[], nn.Module], given: Data) -> Callable[[int], None]:
    """An epoch of the lab's loop."""
    recipe = recipe_of(Task.of(make, Options(batch_size=BATCH)), given)
    settings: Any = recipe.settings
    recipe = replace(recipe, settings=lambda size, name: replace(settings(size, name), evaluated=1))
    trainer = Trainer(Plan.make(Choices.make(recipe, data=given, device="cpu"), "as-is", 0))
    return lambda number: void(trainer.epoch(number, 0))


def void(_: Any) -> None:
    """Nothing."""


def bare(make: Callable[[], nn.Module], given: Data) -> Callable[[int], None]:
    """An epoch of a loop as tutorials have it, without any figure."""
    torch.manual_seed(0)
    model = make()
    swap(model)
    bind(model, seed=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    x, y = torch.from_numpy(given.train_x), torch.from_numpy(given.train_y)

    def epoch(number: int) -> None:
        model.train()
        for index in torch.from_numpy(epoch_order(len(x), 0, number)).split(BATCH):
            optimizer.zero_grad()
            functional.cross_entropy(model(x[index]), y[index]).backward()
            optimizer.step()

    return epoch


def clocked(run: Callable[[int], None], number: int) -> tuple[float, float]:
    """Seconds by the clock and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    run(number)
    return time.perf_counter() - clock, time.process_time() - processor


def main() -> None:
    """Print a line for each model."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--rounds", type=int, default=11)
    words.add_argument("--steps", type=int, default=100)
    words.add_argument("--threads", type=int, default=1)
    asked = words.parse_args()
    torch.set_num_threads(asked.threads)
    given = data(asked.steps)
    for name, make in MODELS.items():
        runs = {"bare": bare(make, given), "ours": ours(make, given)}
        found: dict[str, list[tuple[float, float]]] = {"bare": [], "ours": []}
        for number in range(1, asked.rounds + 2):
            for each, run in runs.items():
                seconds = clocked(run, number)
                if number > 1:  # the first round warms up
                    found[each].append(seconds)
        least = {each: [min(times) for times in zip(*seconds, strict=True)] for each, seconds in found.items()}
        ratios = [own / other for own, other in zip(least["ours"], least["bare"], strict=True)]
        step = least["bare"][0] / asked.steps
        print(
            f"{name}: bare loop {1e3 * step:.3f} ms a step; the lab's {100 * (ratios[0] - 1):+.1f} % by the clock, "
            f"{100 * (ratios[1] - 1):+.1f} % of the processor"
        )


if __name__ == "__main__":
    main()
