"""What two mistakes of a functional dropout cost when a network is scored: the finished runs of mlp-functional.

    dropkit compare mlp-functional --size tutorial --strategies fixed --out RUNS
    python benchmarks/functional_mistakes.py RUNS/fixed [--data-dir DIR]

The mistakes: dropout left on, since `F.dropout` drops unless it is told otherwise; and activations multiplied by 1 - p
although training has divided by it. Prints test loss and accuracy of each seed, then means with 95 % intervals.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from dropkit.lab import load_data
from dropkit.lab.recipes import get
from dropkit.lab.statistics.interval import mean_interval

Drop = Callable[[Tensor, float], Tensor]
SCORED: dict[str, Drop] = {
    "as it should be": lambda x, p: x,
    "dropout left on": lambda x, p: F.dropout(x, p),
    "times 1 - p": lambda x, p: x * (1 - p),
}


@torch.no_grad()
def score(model: nn.Module, x: Tensor, y: Tensor, drop: Drop) -> tuple[float, float]:
    """Loss and accuracy of the recipe's network, with another function in the place of its dropout."""
    h = drop(F.relu(model.hidden1(x.flatten(1))), model.dropout1)
    h = drop(F.relu(model.hidden2(h)), model.dropout2)
    logits = model.output(h)
    return F.cross_entropy(logits, y).item(), (logits.argmax(1) == y).double().mean().item()


def main() -> None:
    """Score each seed's last weights in each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--data-dir")
    asked = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in SCORED}
    for folder in sorted(asked.runs.glob("seed*")):
        config = json.loads((folder / "config.json").read_text())
        data, recipe = load_data(config["data"], asked.data_dir), get("mlp-functional")
        model = recipe.build(recipe.settings(config["size"], data.name), data.shape, data.classes, config["seed"])
        model.load_state_dict(load_file(folder / "checkpoint.safetensors"))
        x, y = torch.from_numpy(np.ascontiguousarray(data.test_x)), torch.from_numpy(data.test_y)
        for name, drop in SCORED.items():
            torch.manual_seed(config["seed"])
            found[name].append(score(model, x, y, drop))
            print(f"seed {config['seed']}  {name:16}  loss {found[name][-1][0]:.4f}  accuracy {found[name][-1][1]:.4f}")
    for name, each in found.items():
        told = [mean_interval(values) for values in zip(*each, strict=True)]
        words = (
            f"{figure} {one.mean:.4f} ± {one.half or 0:.4f}"
            for figure, one in zip(("loss", "accuracy"), told, strict=True)
        )
        print(f"{name:16}  {'  '.join(words)}")


if __name__ == "__main__":
    main()
