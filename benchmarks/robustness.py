"""Does dropout make a network robust, and its units less dependent on each other? (the runs of `order`, and a minute)

The networks of the study `order`, which is trained first where it is not: 784-256-256-10 on Fashion-MNIST, five epochs.
Their test accuracy under Gaussian noise, with a square of each image blacked out, with pixels missing, and with hidden
units missing (those left scaled by 1 / (1 - p), as in training); and the mean absolute correlation of two units of a
layer over the test set, among units that are ever active. Noise, squares and masks are the same for every network.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from study import ORDER, marked

import dropkit
from dropkit.lab import load_data
from dropkit.lab.recipes.recipe import Strategy
from dropkit.lab.statistics.interval import mean_interval, paired_difference
from dropkit.lab.telling.table import plain

DRAWS = 5  # of missing units; their mean is a network's figure
Layers = dict[str, NDArray[np.float32]]


def run(out: Path, seeds: int | None, data_dir: str | None) -> None:
    """Train what is not trained yet, and print a table."""
    count, arms = seeds or ORDER.seeds, ORDER.arms["mlp"]
    folder = out.parent / "order"
    ORDER.compared("mlp", folder, count, data_dir)
    data = load_data(ORDER.data, data_dir)
    images, labels = data.test_x.reshape(len(data.test_x), -1), data.test_y
    inputs = {name: change(images) for name, change in CHANGES.items()}
    found: dict[str, list[dict[str, float]]] = {}
    for arm in arms:
        runs = [folder / "mlp" / Strategy.parse(arm).folder / f"seed{seed}" for seed in range(count)]
        found[arm] = [measured(load_file(place / "checkpoint.safetensors"), inputs, labels) for place in runs]
    print("| " + " | ".join(["test accuracy, or correlation", *arms, *(f"{arm} - none" for arm in arms[1:])]) + " |")
    print("| --- |" + " ---: |" * (2 * len(arms) - 1))
    for name in found[arms[0]][0]:
        values = {arm: [one[name] for one in found[arm]] for arm in arms}
        told = [paired_difference(values[arm], values[arms[0]]) for arm in arms[1:]]
        cells = [plain(mean_interval(values[arm])) for arm in arms]
        cells += [marked(one) for one in told]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def noisy(sd: float) -> Callable[[NDArray], NDArray]:
    """Adds normal numbers of a standard deviation to each pixel."""
    return lambda x: x + np.float32(sd) * dropkit.normal(x.shape, key("noise")).astype(np.float32)


def occluded(side: int) -> Callable[[NDArray], NDArray]:
    """Sets a square of each image to 0, anywhere within it."""

    def change(x: NDArray) -> NDArray:
        extent = int(x.shape[1] ** 0.5)
        corner = (dropkit.uniform((2, len(x)), key("square")) * (extent - side + 1)).astype(int)[:, :, None]
        rows, columns = ((at <= np.arange(extent)) & (np.arange(extent) < at + side) for at in corner)
        return np.where(rows[:, :, None] & columns[:, None, :], 0, x.reshape(-1, extent, extent)).reshape(x.shape)

    return change


def missing(p: float) -> Callable[[NDArray], NDArray]:
    """Sets pixels to 0, each with probability p."""
    return lambda x: x * dropkit.keep(x.shape, p, key("pixels"))


CHANGES: dict[str, Callable[[NDArray], NDArray]] = {
    "as it is": lambda x: x,
    **{f"Gaussian noise, sd {sd}": noisy(sd) for sd in (0.1, 0.3, 0.5)},
    **{f"a square of {side} x {side} black": occluded(side) for side in (7, 14)},
    **{f"{p:.0%} of the pixels missing": missing(p) for p in (0.25, 0.5, 0.75)},
}


def measured(weights: Layers, inputs: dict[str, NDArray], labels: NDArray) -> dict[str, float]:
    """A network's figures, by what they are."""
    found = {name: accuracy(weights, x, labels) for name, x in inputs.items()}
    x = inputs["as it is"]
    for layer in ("hidden1", "hidden2"):
        for p in (0.25, 0.5, 0.75):
            draws = [accuracy(weights, x, labels, {layer: kept(weights, layer, p, draw)}) for draw in range(DRAWS)]
            found[f"{p:.0%} of the units of {layer} missing"] = float(np.mean(draws))
    for layer, units in activations(weights, x).items():
        found[f"correlation of two units of {layer}"] = correlation(units)
    return found


def activations(weights: Layers, x: NDArray, scales: dict[str, NDArray] | None = None) -> dict[str, NDArray]:
    """What each hidden layer gives, after ReLU and, where there are some, the factors of its units."""
    found = {}
    for layer in ("hidden1", "hidden2"):
        x = np.maximum(x @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"], 0)
        x = x * (scales or {}).get(layer, np.float32(1))
        found[layer] = x
    return found


def accuracy(weights: Layers, x: NDArray, labels: NDArray, scales: dict[str, NDArray] | None = None) -> float:
    """The share of images that the network gets right."""
    hidden = activations(weights, x, scales)["hidden2"]
    return float(np.mean((hidden @ weights["output.weight"].T + weights["output.bias"]).argmax(1) == labels))


def kept(weights: Layers, layer: str, p: float, draw: int) -> NDArray:
    """0 or 1 / (1 - p) for each unit of a layer, the same for all samples."""
    mask = dropkit.keep((len(weights[f"{layer}.bias"]),), p, key(f"units/{layer}/{p}", draw))
    return mask.astype(np.float32) / np.float32(1 - p)


def correlation(units: NDArray) -> float:
    """The mean of |correlation| over pairs of units, of those that are ever active."""
    units = units[:, units.std(0) > 0]
    pairs = np.abs(np.corrcoef(units, rowvar=False))
    return float(pairs[np.triu_indices(len(pairs), 1)].mean())


def key(site: str, step: int = 0) -> Any:
    """Of everything random in here."""
    return dropkit.Key(seed=0, site=f"robustness/{site}", step=step)
