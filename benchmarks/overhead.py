"""What the lab's loop costs beside a bare one: the same model, data and optimizer, seconds per step and per epoch.

    python benchmarks/overhead.py                          # two models of torch
    python benchmarks/overhead.py mlp nnx keras            # of every framework
    KERAS_BACKEND=jax python benchmarks/overhead.py keras
    python benchmarks/overhead.py --rounds 20 --steps 200

Both train the same bound model, so that the masks are the same; what differs is the loop: rates that may move, running
loss and accuracy, the order of the data, and what Fabric does around a step. Bare is, for torch, the loop of tutorials;
for nnx, one compiled step that is handed batch after batch; for Keras, `fit` on the arrays with an accuracy. Each of
them shuffles. Epochs of two lengths are run: what the longer one takes more is of its steps, and what is left of the
shorter one is of the epoch. Rounds of one and the other take turns, and the fastest round of each counts: what else a
machine does makes rounds slower, never faster.
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
from dropkit.lab.order import epoch_order
from dropkit.lab.plan import Choices, Plan
from dropkit.lab.tasks.task import Options, Task, recipe_of
from dropkit.torch import bind, swap

BATCH = 128
Epoch = Callable[[int], None]
Made = Callable[[Data], tuple[Epoch, Epoch]]
"""Data -> an epoch of a bare loop, and one of the lab's."""


def mlp() -> nn.Module:
    """784-256-256-10."""
    layers = (nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Dropout(0.2), nn.Linear(256, 256), nn.ReLU())
    return nn.Sequential(*layers, nn.Dropout(0.5), nn.Linear(256, 10))


def cnn() -> nn.Module:
    """Two convolutions and two dense layers."""
    layers = (nn.Unflatten(1, (1, 28)), nn.Conv2d(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3))
    head = (nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.25), nn.Linear(800, 64), nn.Dropout(0.5))
    return nn.Sequential(*layers, *head, nn.Linear(64, 10))


def data(steps: int) -> Data:
    """Noise with labels; one test sample, so that scoring does not count."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(steps * BATCH, 28, 28)).astype(np.float32)
    y = generator.integers(10, size=len(x))
    return Data.of((x, y), (x[:1], y[:1]), "classification")


def ours(make: Callable[..., Any], given: Data) -> Epoch:
    """An epoch of the lab's loop."""
    recipe = recipe_of(Task.of(make, Options(batch_size=BATCH)), given)
    settings: Any = recipe.settings
    recipe = replace(recipe, settings=lambda size, name: replace(settings(size, name), evaluated=1))
    plan = Plan.make(Choices.make(recipe, data=given, device="cpu"), "as-is", 0)
    trainer = recipe.engine.start(plan)

    def epoch(number: int) -> None:
        trainer.epoch(number, (number - 1) * plan.choices.steps)

    return epoch


def of_torch(make: Callable[[], nn.Module]) -> Made:
    """A model of torch, whose bare loop is as tutorials have it, without any figure."""

    def made(given: Data) -> tuple[Epoch, Epoch]:
        torch.manual_seed(0)
        model = make()
        swap(model)
        bind(model, seed=0)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
        x, y = torch.from_numpy(given.train_x), torch.from_numpy(given.train_y)

        def bare(number: int) -> None:
            model.train()
            for index in torch.from_numpy(epoch_order(len(x), 0, number)).split(BATCH):
                optimizer.zero_grad()
                functional.cross_entropy(model(x[index]), y[index]).backward()
                optimizer.step()

        return bare, ours(make, given)

    return made


def of_nnx(given: Data) -> tuple[Epoch, Epoch]:
    """The MLP in flax.nnx; the bare loop is a step that is compiled once, and waits for nothing within an epoch."""
    import jax
    import optax
    from flax import nnx

    import dropkit.jax

    class Net(nnx.Module):
        def __init__(self, seed: int = 0) -> None:
            rngs = nnx.Rngs(seed)
            self.first, self.second = nnx.Linear(784, 256, rngs=rngs), nnx.Linear(256, 256, rngs=rngs)
            self.drop1, self.drop2 = nnx.Dropout(0.2, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)
            self.output = nnx.Linear(256, 10, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            x = self.drop1(nnx.relu(self.first(x.reshape(len(x), -1))))
            return self.output(self.drop2(nnx.relu(self.second(x))))

    model = Net()
    dropkit.jax.swap(model)
    dropkit.jax.bind(model, 0)
    model.train()
    optimizer = optax.adam(0.001)
    graph, weights, rest = nnx.split(model, nnx.Param, ...)
    state = [weights, rest, optimizer.init(weights)]

    def step(weights: Any, rest: Any, moments: Any, x: Any, y: Any) -> Any:
        def loss(weights: Any) -> Any:
            model = nnx.merge(graph, weights, rest, copy=True)
            found = optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()
            return found, nnx.split(model, nnx.Param, ...)[2]

        gradients, kept = jax.grad(loss, has_aux=True)(weights)
        updates, moments = optimizer.update(gradients, moments, weights)
        return optax.apply_updates(weights, updates), kept, moments

    compiled = jax.jit(step, donate_argnums=(0, 1, 2))

    def bare(number: int) -> None:
        order = epoch_order(len(given.train_x), 0, number)
        for first in range(0, len(order), BATCH):
            index = order[first : first + BATCH]
            state[:] = compiled(*state, given.train_x[index], given.train_y[index])
        jax.block_until_ready(state[0])

    return bare, ours(Net, given)


def of_keras(given: Data) -> tuple[Epoch, Epoch]:
    """The MLP in Keras; the bare loop is `fit` on the arrays as it is called by default, with an accuracy."""
    import dropkit.lab.runs.run  # first: TensorFlow before Triton ends the process
    from dropkit.lab.keras_backend import require

    keras: Any = require()
    import dropkit.keras

    def make() -> Any:
        layers = keras.layers
        first, second = layers.Dense(256, activation="relu"), layers.Dense(256, activation="relu")
        drops = layers.Dropout(0.2), layers.Dropout(0.5)
        inputs = keras.Input((28, 28)), layers.Flatten()
        return keras.Sequential([*inputs, first, drops[0], second, drops[1], layers.Dense(10)])

    model = make()
    dropkit.keras.swap(model)
    dropkit.keras.bind(model, 0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.001), loss, metrics=["accuracy"])

    def bare(number: int) -> None:
        model.fit(given.train_x, given.train_y, BATCH, verbose=0)

    return bare, ours(make, given)


MODELS: dict[str, Made] = {"mlp": of_torch(mlp), "cnn": of_torch(cnn), "nnx": of_nnx, "keras": of_keras}


def clocked(run: Epoch, number: int) -> tuple[float, float]:
    """Seconds by the clock and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    run(number)
    return time.perf_counter() - clock, time.process_time() - processor


def measured(name: str, lengths: tuple[int, int], rounds: int) -> np.ndarray:
    """Least seconds (2 lengths, bare and ours, by the clock and of the processor)."""
    runs = [MODELS[name](data(steps)) for steps in lengths]
    found = [[[clocked(run, number) for run in pair] for pair in runs] for number in range(1, rounds + 2)]
    return np.array(found[1:]).min(0)  # the first round warms up


def main() -> None:
    """Print a line for each model."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("models", nargs="*", help=f"some of {', '.join(MODELS)}; those of torch by default")
    words.add_argument("--rounds", type=int, default=11)
    words.add_argument("--steps", type=int, default=120, help="of the longer epoch; the shorter one has a sixth")
    words.add_argument("--threads", type=int, default=1)
    asked = words.parse_args()
    unknown = [name for name in asked.models if name not in MODELS]
    if unknown:
        words.error(f"unknown model {unknown[0]!r}; there are {', '.join(MODELS)}")
    if asked.steps < 12:
        words.error(f"--steps must be at least 12, for epochs of two lengths, got {asked.steps}")
    torch.set_num_threads(asked.threads)
    short, long = asked.steps // 6, asked.steps
    for name in asked.models or ("mlp", "cnn"):
        found = measured(name, (short, long), asked.rounds)
        (bare, ours), whole = (found[1] - found[0]) / (long - short), found[1]
        clock, processor = 100 * (ours / bare - 1)
        epoch = 1e3 * ((found[0] - short * np.stack([bare, ours]))[:, 0])
        print(
            f"{name}: bare loop {1e3 * bare[0]:.3f} ms a step and {epoch[0]:.0f} ms an epoch; the lab's "
            f"{clock:+.1f} % a step by the clock, {processor:+.1f} % of the processor, and {epoch[1]:.0f} ms an "
            f"epoch; over a whole epoch of {long} steps {100 * (whole[1, 0] / whole[0, 0] - 1):+.1f} %"
        )


if __name__ == "__main__":
    main()
