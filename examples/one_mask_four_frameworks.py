"""One network, one seed, four frameworks: NumPy, PyTorch, JAX and Keras train it, and their losses agree step by step.

    python examples/one_mask_four_frameworks.py                       # prints the losses, one epoch of digits
    python examples/one_mask_four_frameworks.py --plot losses.png     # and draws them (needs matplotlib)

All four start from the same weights, see the same batches and draw the masks of the same (seed, site, step), so what is
left between them is the rounding of float32 sums. With four different masks the losses part at the first step: `--own`
lets each framework draw its own, by its own dropout. Keras runs on the backend that KERAS_BACKEND names.
"""

import argparse
import os
from collections.abc import Callable, Iterator

os.environ.setdefault("KERAS_BACKEND", "torch")

import jax
import jax.numpy as jnp
import keras
import numpy as np
import torch
from torch import nn

import dropkit.jax
import dropkit.keras
import dropkit.numpy
import dropkit.torch
from dropkit.lab import load_data
from dropkit.lab.order import epoch_order, first_weights

SEED, P, BATCH, LEARNING_RATE = 0, 0.5, 64, 0.1
SIZES, NAMES, SITES = (64, 128, 64, 10), ("hidden1", "hidden2", "output"), ("drop1", "drop2")

Batch = tuple[np.ndarray, np.ndarray]
Train = Callable[[list[Batch], bool], list[float]]


def weights() -> list[np.ndarray]:
    """The first weights, outputs x inputs; biases are zero."""
    shapes = zip(SIZES[1:], SIZES[:-1], strict=True)
    return [first_weights(shape, SEED, f"{name}.weight", 0.1) for name, shape in zip(NAMES, shapes, strict=True)]


def batches() -> Iterator[Batch]:
    """One epoch of digits in one order."""
    data = load_data("digits")
    x = data.train_x.reshape(len(data.train_x), -1).astype(np.float32)
    for rows in np.array_split(epoch_order(len(x), SEED, 1), range(BATCH, len(x), BATCH)):
        yield x[rows], data.train_y[rows].astype(np.int64)


def with_numpy(epoch: list[Batch], own: bool) -> list[float]:
    """Forward and backward by hand."""
    seed = 1 if own else SEED
    drops = [dropkit.numpy.Dropout(P, seed=seed, site=site) for site in SITES]
    layers = [
        dropkit.numpy.Dense(inputs, outputs, "relu" if drop else None, drop=drop)
        for inputs, outputs, drop in zip(SIZES[:-1], SIZES[1:], [*drops, None], strict=True)
    ]
    for layer, weight in zip(layers, weights(), strict=True):
        layer.weight = weight
    net, loss, losses = dropkit.numpy.Sequential(*layers), dropkit.numpy.SoftmaxCrossEntropy(), []
    for x, y in epoch:
        losses.append(loss.forward(net.forward(x, training=True), y))
        net.backward(loss.backward())
        net.sgd(LEARNING_RATE)
    return losses


def with_torch(epoch: list[Batch], own: bool) -> list[float]:
    """A module of torch's layers; `bind` gives it seed and step."""
    kind: type[nn.Module] = nn.Dropout if own else dropkit.torch.Dropout
    model = nn.Sequential()
    for i, name in enumerate(NAMES):
        model.add_module(name, nn.Linear(SIZES[i], SIZES[i + 1]))
        if i < len(SITES):
            model.add_module(f"relu{i + 1}", nn.ReLU())
            model.add_module(SITES[i], kind(P))
    with torch.no_grad():
        for name, weight in zip(NAMES, weights(), strict=True):
            model.get_submodule(name).weight.copy_(torch.from_numpy(weight))
            model.get_submodule(name).bias.zero_()
    if own:
        torch.manual_seed(SEED)
    else:
        dropkit.torch.bind(model, seed=SEED)
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE), []
    for x, y in epoch:
        loss = nn.functional.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(y))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def with_jax(epoch: list[Batch], own: bool) -> list[float]:
    """A pure function under `jit`, the step traced: one compilation for each batch size."""

    def drop(x: jax.Array, site: str, step: jax.Array) -> jax.Array:
        if own:
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(SEED), step), SITES.index(site))
            return jnp.where(jax.random.bernoulli(key, 1 - P, x.shape), x / (1 - P), 0)
        return dropkit.jax.dropout(x, P, training=True, key=dropkit.jax.key(SEED, site, step))

    def loss(parameters: list, x: jax.Array, y: jax.Array, step: jax.Array) -> jax.Array:
        for (weight, bias), site in zip(parameters[:-1], SITES, strict=True):
            x = drop(jax.nn.relu(x @ weight.T + bias), site, step)
        weight, bias = parameters[-1]
        logits = jax.nn.log_softmax(x @ weight.T + bias)
        return -jnp.take_along_axis(logits, y[:, None], axis=1).mean()

    @jax.jit
    def train(parameters: list, x: jax.Array, y: jax.Array, step: jax.Array) -> tuple:
        value, grads = jax.value_and_grad(loss)(parameters, x, y, step)
        return value, jax.tree.map(lambda p, g: p - LEARNING_RATE * g, parameters, grads)

    parameters = [(jnp.array(weight), jnp.zeros(len(weight))) for weight in weights()]
    losses = []
    for step, (x, y) in enumerate(epoch):
        value, parameters = train(parameters, jnp.array(x), jnp.array(y), jnp.uint32(step))
        losses.append(float(value))
    return losses


def with_keras(epoch: list[Batch], own: bool) -> list[float]:
    """A Sequential model and its own training step; `bind` gives it seed and step."""
    layers: list = [keras.Input((SIZES[0],))]
    for i, name in enumerate(NAMES):
        layers.append(keras.layers.Dense(SIZES[i + 1], "relu" if i < len(SITES) else None, name=name))
        if i < len(SITES):
            kind = keras.layers.Dropout if own else dropkit.keras.Dropout
            layers.append(kind(P, name=SITES[i], seed=SEED + i if own else None))
    model = keras.Sequential(layers)
    for name, weight in zip(NAMES, weights(), strict=True):
        model.get_layer(name).set_weights([weight.T, np.zeros(len(weight), np.float32)])
    if not own:
        dropkit.keras.bind(model, seed=SEED)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(LEARNING_RATE), loss, jit_compile=False)
    return [float(model.train_on_batch(x, y, return_dict=True)["loss"]) for x, y in fresh(model, epoch)]


def fresh(model: keras.Model, epoch: list[Batch]) -> Iterator[Batch]:
    """The batches; Keras reports a running mean of losses, which starts over before each."""
    for batch in epoch:
        model.reset_metrics()
        yield batch


FRAMEWORKS: dict[str, Train] = {"NumPy": with_numpy, "PyTorch": with_torch, "JAX": with_jax, "Keras": with_keras}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--own", action="store_true", help="each framework's own dropout in place of dropkit's")
    parser.add_argument("--plot", help="draw the losses, one mask and four, into this file")
    given = parser.parse_args()
    epoch = list(batches())
    losses = {name: train(epoch, given.own) for name, train in FRAMEWORKS.items()}
    table = np.array(list(losses.values()))
    print("step  " + "".join(f"{name:>10}" for name in losses) + "    widest gap")
    for step, row in enumerate(table.T):
        print(f"{step:4}  " + "".join(f"{value:10.6f}" for value in row) + f"    {np.ptp(row):.1e}")
    print(f"largest difference between any two: {np.ptp(table, axis=0).max():.1e}")
    if given.plot:
        plot(given.plot, epoch)


def plot(path: str, epoch: list[Batch]) -> None:
    """Two panels: each framework's own masks, and one mask for all."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True, layout="constrained")
    titles = ("each framework's own dropout", "dropkit: one mask")
    for panel, title, own in zip(panels, titles, (True, False), strict=True):
        for width, (name, train) in zip((6, 4, 2.4, 1), FRAMEWORKS.items(), strict=True):
            panel.plot(train(epoch, own), label=name, linewidth=width if not own else 1.6)
        panel.set_title(title)
        panel.set_xlabel("step")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("loss")
    panels[1].legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
