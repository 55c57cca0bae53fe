"""Before or after the activation? (a quarter of an hour)

The same dense networks on digits, 100 units a layer, one hidden layer and two, with sigmoid, tanh and ReLU: without
dropout, with the mask behind the activation, and with the mask in front of it. Batches of 64, p = 0.5, 60 epochs. Each
activation has first weights and a learning rate at which the network without dropout trains well: Glorot's law and SGD
at 0.5 for sigmoid and tanh, at 0.1 for ReLU.
"""

import sys
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

from study import marked

from dropkit.lab import Comparison, compare
from dropkit.lab.recipes.mlp import DIGITS
from dropkit.lab.recipes.recipe import Recipe, Settings
from dropkit.lab.recipes.strategies import chosen
from dropkit.lab.telling.table import between, plain

RATES = {"sigmoid": 0.5, "tanh": 0.5, "relu": 0.1}
DEPTHS = (1, 2)
SEEDS = 10


def run(out: Path, seeds: int | None, data_dir: str | None) -> None:
    """Train what is not trained yet, and print a table."""
    head = ["activation", "hidden layers", "none", "behind", "in front", "behind - none", "in front - none"]
    head.append("in front - behind")
    print("| " + " | ".join(head) + " |\n| --- |" + " ---: |" * (len(head) - 1))
    for activation in RATES:
        for depth in DEPTHS:
            behind, front = (_compared(activation, depth, place, out, seeds or SEEDS) for place in ("behind", "front"))
            none, after, before = behind.lines[0], behind.lines[1], front.lines[0]
            told = [plain(line.compared) for line in (none, after, before)]
            told += [marked(between(*pair)) for pair in ((after, none), (before, none), (before, after))]
            print("| " + " | ".join([activation, str(depth), *told]) + " |", flush=True)


def _compared(activation: str, depth: int, place: str, out: Path, seeds: int) -> Comparison:
    settings = replace(
        DIGITS, learning_rate=RATES[activation], hidden=(100,) * depth, weight_std=None, first_weights="glorot"
    )
    sites = [f"dropout{number}" for number in range(1, depth + 1)]
    feeds = dict(zip(sites, [f"hidden{number}" for number in range(2, depth + 1)] + ["output"], strict=True))
    recipe = Recipe(
        name=f"{activation}-{depth}-{place}",
        summary="a dense network",
        settings=lambda size, data: settings,
        strategies=chosen(dict.fromkeys(sites, 0.5), "none", "fixed"),
        feeds=feeds,
        build=Build(activation, place == "front"),
    )
    return compare(
        recipe,
        strategies=["none", "fixed"] if place == "behind" else ["fixed"],  # without dropout both are one network
        seeds=seeds,
        device="cpu",
        out=out / recipe.name,
        resume=True,
        on_epoch=lambda plan, row: _say(plan, row, settings.epochs),
    )


class Build:
    """A dense network with the masks in front of its activations, or behind them."""

    def __init__(self, activation: str, front: bool) -> None:
        self.activation, self.front = activation, front

    def __call__(self, settings: Settings, shape: tuple[int, ...], classes: int, seed: int) -> Any:
        """The network, its first weights a function of (seed, parameter name) alone."""
        from torch import nn

        from dropkit.lab.recipes.weights import set_first_weights
        from dropkit.torch import Dropout

        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        inputs = shape[-1] * shape[-2]
        for number, width in enumerate(settings.hidden, start=1):
            layers[f"hidden{number}"] = nn.Linear(inputs, width)
            pair = [
                (f"activation{number}", {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU}[self.activation]()),
                (f"dropout{number}", Dropout(0.0)),
            ]
            layers.update(reversed(pair) if self.front else pair)
            inputs = width
        layers["output"] = nn.Linear(inputs, classes)
        return set_first_weights(nn.Sequential(layers), seed, settings.weight_std, settings.first_weights)


def _say(plan: Any, row: dict[str, float], epochs: int) -> None:
    if row["epoch"] == epochs:
        print(
            f"{plan.choices.recipe.name} {plan.strategy} seed {plan.seed}: {row['test_accuracy']:.4f}", file=sys.stderr
        )
